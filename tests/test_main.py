"""The command line does what the functions do, and says what is wrong."""

import json
import re

import jax
import numpy as np
import pytest

import jaxlrp.__main__ as command
from jaxlrp import runs
from tests.runs import small


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("x.npz", x=small.images(), y=small.labels())
    return tmp_path


def explained(batch):
    found = small.labelled()((batch["x"], batch["y"]))
    return {**found, "label": batch["y"]}


explain = jax.jit(explained)
DATA = {"x": small.images(), "y": small.labels()}
ATTRIBUTE = (
    f"attribute {__name__}:explain --data x.npz --out run --batch-size 4".split()
)


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    import sys

    monkeypatch.setitem(
        sys.modules, __name__, sys.modules.get(__name__, None) or _self()
    )


def _self():
    import types

    module = types.ModuleType(__name__)
    module.__dict__.update(explain=explain, DATA=DATA)
    return module


def test_a_dataset_is_explained_in_parts_and_shown(folder, capsys):
    assert command.main([*ATTRIBUTE, "--block", "8", "--shard", "0/2"]) == 0
    assert "4 of 8 blocks done" in capsys.readouterr().out
    assert command.main([*ATTRIBUTE, "--block", "8", "--quiet"]) == 0
    assert runs.Attributions("run").complete
    capsys.readouterr()
    assert command.main(["show", "run", "--verify"]) == 0
    printed = capsys.readouterr().out
    assert "8 of 8 blocks" in printed and "relevance: float32 (61, 6, 6)" in printed
    assert "all 8 blocks are as they were written" in printed


def test_a_dataset_may_be_an_object(folder):
    assert command.main([*ATTRIBUTE[:3], f"{__name__}:DATA", *ATTRIBUTE[4:]]) == 0
    assert runs.Attributions("run").complete


def test_clusters_are_shown_on_a_page(folder, capsys):
    pytest.importorskip("sklearn")
    pytest.importorskip("PIL")
    command.main(ATTRIBUTE)
    arguments = "cluster run --by label --images x.npz:x --clusters 2 --out page.html"
    assert command.main(arguments.split()) == 0
    assert len(re.findall(r"class \d: separation", capsys.readouterr().out)) == 3
    assert (folder / "page.html").read_text().count("<h2>") == 3


def test_a_run_is_exported(folder, capsys):
    pytest.importorskip("h5py")
    np.save("pixels.npy", np.tanh(small.images()))
    command.main(ATTRIBUTE)
    arguments = (
        "export run --format virelay --images pixels.npy --labels label "
        "--predictions scores --out project"
    )
    assert command.main(arguments.split()) == 0
    assert (folder / "project" / "project.yaml").exists()


def test_texts_are_exported(folder, capsys):
    command.main(ATTRIBUTE)
    tokens = {"target": [["a"]] * small.ROWS, "source": [["b"]] * small.ROWS}
    (folder / "tokens.json").write_text(json.dumps(tokens))
    arguments = "export run --format inseq --relevance scores --tokens tokens.json"
    assert command.main([*arguments.split(), "--out", "texts.json"]) == 0
    assert capsys.readouterr().out.endswith("texts.json\n")
    written = json.loads((folder / "texts.json").read_text())["attributes"]
    assert len(written["sequence_attributions"]) == small.ROWS


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ("show nowhere", "error: path: got 'nowhere', which holds no run"),
        ("attribute explain --data x.npz --out run", "expected module:name"),
        ("attribute nowhere:f --data x.npz --out run", "No module named 'nowhere'"),
        ("attribute math:f --data x.npz --out run", "has no attribute 'f'"),
        ("attribute math:floor --data y.npz --out run", "'y.npz', which is not there"),
        ("export run --format crp --out a", "holds no run"),
    ],
)
def test_what_is_wrong_is_a_sentence(arguments, text, folder, capsys):
    assert command.main(arguments.split()) == 1
    error = capsys.readouterr().err
    assert text in error and error.startswith("error: ") and "Traceback" not in error


def test_another_run_is_refused(folder, capsys):
    command.main(ATTRIBUTE)
    assert command.main([*ATTRIBUTE, "--dtype", "float16"]) == 1
    assert "`arrays` differs" in capsys.readouterr().err


@pytest.mark.whole
@pytest.mark.parametrize("arguments", ["", "fly", "attribute", "show run --shard 1"])
def test_arguments_that_cannot_be_read_end_with_two(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main(arguments.split())
    assert caught.value.code == 2


@pytest.mark.whole
@pytest.mark.parametrize("text", ["3/2", "a/2", "1", "-1/2"])
def test_a_shard_is_two_numbers(text, capsys):
    with pytest.raises(SystemExit):
        command.main([*ATTRIBUTE, f"--shard={text}"])
    assert "expected i/n" in capsys.readouterr().err


@pytest.mark.whole
@pytest.mark.parametrize("name", ["attribute", "show", "export", "cluster"])
def test_help_has_an_example(name, capsys):
    with pytest.raises(SystemExit) as caught:
        command.main([name, "--help"])
    printed = capsys.readouterr().out
    assert caught.value.code == 0 and f"python -m jaxlrp {name}" in printed
