"""The benchmark of roots: what it measures, its record, the tables it writes."""

import dataclasses
import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("optax")
pytest.importorskip("sklearn")
pytest.importorskip("flax")

from benchmarks import roots  # noqa: E402

RECORD: roots.Record = {
    "shares": {
        "digits CNN": {
            "z-plus": {"a.kernel": [1.0, 0.25, 0.2, 80], "b": [0.5, 1.0, 1.0, 40]},
            "LRP-0": {"a.kernel": [1.0, 0.0, 0.0, 80], "b": [1.0, 1.0, 1.0, 40]},
        }
    },
    "csc": {"digits CNN": {"Epsilon": [0.5, 0.4, 0.3], "DeepTaylor": [0.9, 0.99, 1.0]}},
}


def test_shares_of_layers():
    network = roots.random_mlp(True)
    assert network.inputs.shape == (1000, 3)
    few = dataclasses.replace(network, inputs=network.inputs[:40])
    last = roots.shares_of(few, "z-plus", few.layers[-1])
    assert last[:3] == [1.0, 1.0, 1.0] and last[3] >= 40
    first = roots.shares_of(few, "z-plus", few.layers[0])
    assert first[0] == 1.0 and first[1] < 0.6 and first[3] > 100


def test_similarities_rise_towards_the_input_under_rules_of_one_sign():
    network = dataclasses.replace(roots.ten_layers(), compared=2)
    positive = roots.similarities_of(network, "DeepTaylor")
    assert len(positive) == 10
    assert positive[0] < 0.6 < 0.99 < positive[4] <= positive[-1] + 1e-3
    assert roots.similarities_of(network, "Epsilon")[-1] < 0.8


def test_a_trained_network_of_eight_layers_has_its_sites(capsys):
    network = roots.digits_mlp()
    told = float(capsys.readouterr().out.split("tell ")[1].split()[0])
    assert told > 0.9
    assert len(network.layers) == 8 and len(network.sites) == 7
    some = dataclasses.replace(network, inputs=network.inputs[:4], neurons=4)
    found = roots.shares_of(some, roots.BOXED, network.layers[0])
    assert found[0] == 1.0 and found[3] == 16


def test_what_is_measured_is_kept_beside_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(roots, "RECORD", tmp_path / "out" / "roots.json")
    assert roots.kept() == {"shares": {}, "csc": {}}
    roots.keep("csc", "n", "Epsilon", [0.5])
    roots.keep("csc", "n", "Default", [0.25])
    roots.keep("csc", "n", "Epsilon", [0.125])
    assert json.loads(roots.RECORD.read_text())["csc"] == {
        "n": {"Epsilon": [0.125], "Default": [0.25]}
    }


def test_tables_have_the_region_and_the_domain():
    table = roots.table_of_shares(RECORD)
    assert "**digits CNN**, 40 to 80 roots of each layer:" in table
    assert "| rule | `a` | `b` |" in table
    assert "| z-plus | 25 % (100 %) | 100 % (50 %) |" in table
    similar = roots.table_of_similarities(RECORD)
    assert "| preset | 1 | 2 | input |" in similar
    # In the order of the presets, not of the record.
    assert similar.index("| `DeepTaylor` | .900 | .990 | 1.000 |") < similar.index(
        "| `Epsilon` | .500 | .400 | .300 |"
    )


def test_pages_keep_what_stands_around_the_block(tmp_path, monkeypatch):
    docs = tmp_path / "docs"
    docs.mkdir()
    for name in ("roots", "dependence"):
        shutil.copy(roots.ROOT / "docs" / f"{name}.md", docs)
    monkeypatch.setattr(roots, "ROOT", tmp_path)
    monkeypatch.setattr(roots, "IMAGES", docs)
    monkeypatch.setattr(roots, "RECORD", tmp_path / "roots.json")
    roots.RECORD.write_text(json.dumps(RECORD))
    before = (docs / "roots.md").read_text()
    roots.write_pages()
    after = (docs / "roots.md").read_text()
    assert before.partition(roots.BEGIN)[0] == after.partition(roots.BEGIN)[0]
    assert before.partition(roots.END)[2] == after.partition(roots.END)[2]
    assert roots.table_of_shares(RECORD) in after
    assert (docs / "roots_csc.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="page: it has no marks"):
        roots.with_block("no marks", "")


def test_values_are_found_by_the_end_of_their_name():
    found = {"net/block_1": jnp.ones(1), "net/block_11": jnp.zeros(1)}
    assert roots._by(found, "*block_1") == 1


def test_a_picture_that_the_digit_does_not_have():
    digit, held, moving = roots.chosen()
    face = np.array([[c == "#" for c in row] for row in roots.FACE.split()])
    np.testing.assert_allclose(moving, face, atol=0.05)
    assert np.abs(held - face).max() > 0.5 and digit.shape == (8, 8)
