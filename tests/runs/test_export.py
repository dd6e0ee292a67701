"""Other packages open what is written for them."""

import base64
import json
import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxlrp import clusters, errors, runs
from tests.runs import small

NAMES = ["zero", "one", "two"]


def pixels():
    return np.uint8(np.round((np.tanh(small.images()) + 1) * 127.5))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    def explain(batch):
        found = small.labelled()(batch)
        channels = batch[0].sum((2, 3))
        return {**found, "channels": channels, "places": batch[0][..., 0].argmax(2)}

    return runs.attribute(
        jax.jit(explain),
        (small.images(), small.labels()),
        tmp_path_factory.mktemp("run"),
        batch_size=4,
        block=8,
        progress=False,
        reduce={"top": runs.Top("channels", 5, places="places")},
    )


@pytest.fixture(scope="module")
def project(run, tmp_path_factory):
    pytest.importorskip("h5py")
    pytest.importorskip("sklearn")
    features = clusters.prepared(run["relevance"][:])
    found = clusters.by_class(features, small.labels(), dimensions=4)
    path = runs.export_virelay(
        run,
        tmp_path_factory.mktemp("project"),
        images=np.tanh(small.images()),
        labels=small.labels(),
        predictions=run["scores"],
        names=NAMES,
        clusters=found,
    )
    return path, found


def test_files_have_the_layout_that_virelay_reads(run, project):
    import h5py

    path, found = project
    content = json.loads(path.read_text())["project"]
    assert content["dataset"]["input_width"] == 6
    with h5py.File(path.with_name("input.h5")) as file:
        assert file["data"].dtype == np.uint8
        assert (file["data"][:] == pixels().transpose(0, 3, 1, 2)).all()
        assert file["label"].dtype == np.uint16
    with h5py.File(path.with_name("attribution.h5")) as file:
        assert (file["attribution"][:, 0] == run["relevance"][:]).all()
        assert (file["prediction"][:] == run["scores"][:]).all()
        assert (file["index"][:] == np.arange(small.ROWS)).all()
    with h5py.File(path.with_name("analysis.h5")) as file:
        assert len(file) == len(found) == 3
        for c, one in found.items():
            group = file[f"{c:08d}"]
            assert (group["index"][:] == one.rows).all()
            assert (group["cluster/spray"][:] == one.labels).all()
            assert group["embedding/spectral"].attrs["eigenvalue"].shape == (4,)
    assert not list(path.parent.glob(".*"))


def test_virelay_opens_the_project(run, project):
    model = pytest.importorskip("virelay.model")
    path, found = project
    opened = model.Project(str(path))
    for row, label in enumerate(small.labels()):
        sample = opened.get_sample(row)
        assert (sample.data == pixels()[row]).all()
        attribution = opened.get_attribution(row)
        assert (attribution.data[..., 0] == run["relevance"][row]).all()
        assert (attribution.prediction == run["scores"][row]).all()
        for found_labels in (sample.labels, attribution.labels):
            assert [one.name for one in found_labels] == [NAMES[label]]
    for c, one in found.items():
        analysis = opened.get_analysis("SpRAy", f"{c:08d}", "spray", "spectral")
        assert (analysis.clustering == one.labels).all()
        assert (analysis.attribution_indices == one.rows).all()
    opened.close()


@pytest.mark.whole
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"labels": [1]}, "labels: got 1 rows, expected 61"),
        ({"names": ["a"]}, "labels: got 2, expected below 1"),
        ({"names": ["a", "b"]}, "labels: got 2, expected below 2"),
        ({"strategy": "any"}, "strategy: got 'any'"),
        ({"images": 9 * small.images()}, "images: got float32 from"),
    ],
)
def test_what_virelay_would_read_wrongly_is_refused(change, match, run, tmp_path):
    pytest.importorskip("h5py")
    options = {
        "images": np.tanh(small.images()),
        "labels": small.labels(),
        "predictions": run["scores"],
        "names": NAMES,
    }
    with pytest.raises(ValueError, match=match):
        runs.export_virelay(run, tmp_path / "out", **options | change)
    assert not list(tmp_path.glob("out/input.h5"))


def test_highest_rows_are_those_of_zennit_crp(run, tmp_path):
    files = runs.export_crp(run, tmp_path, {"conv1": "top"})
    data, rel, rf = (np.load(path) for path in files)
    assert [p.name for p in files] == [f"conv1_{n}.npy" for n in ("data", "rel", "rf")]
    assert files[0].parent.name == "RelMax_sum_unnormed"
    channels, places = run["channels"][:], run["places"][:]
    expected = np.argsort(-channels, 0, kind="stable")[:5]
    assert (data == expected).all()
    assert (rel == np.take_along_axis(channels, expected, 0)).all()
    assert (rf == np.take_along_axis(places, expected, 0)).all()


def test_a_run_that_is_not_complete_is_refused(tmp_path):
    part = runs.attribute(
        small.explainer(), small.images(), tmp_path, batch_size=4, shard=(0, 2)
    )
    with pytest.raises(errors.RunError, match="expected a complete one"):
        runs.export_virelay(
            part, tmp_path, images=[], labels=[], predictions=[], names=[]
        )


GENERATED = np.float32([[[1, 0.5, 0, 0], [2, -1, 4, 0]], [[3, 7, 7, 7], [7, 7, 7, 7]]])
TEXTS = [[("a", 1), ("b", 2), ("c", 3), "d"], [("a", 1), ("c", 3)]]


def texts(folder, relevance, **others):
    rows = {"relevance": relevance, **others}
    return runs.attribute(lambda batch: batch, rows, folder, batch_size=1)


def golden(name):
    path = pathlib.Path(__file__).parents[1] / "golden" / name
    return json.loads(path.read_text("utf-8"))["attributes"]


def test_a_text_that_explains_itself_is_what_inseq_writes(tmp_path):
    run = texts(tmp_path / "run", GENERATED[:1], logits=np.float32([[3, 4]]))
    path = runs.export_inseq(
        run, tmp_path / "out.json", target=TEXTS[:1], scores={"logit": "logits"}
    )
    found, expected = json.loads(path.read_text()), golden("inseq_decoder.json")
    assert found["attributes"] == expected


def test_a_label_explained_by_a_text_is_what_inseq_writes(tmp_path):
    run = texts(tmp_path / "run", np.float32([[1, -2, 0]]))
    path = runs.export_inseq(
        run, tmp_path / "out.json", source=[TEXTS[0][:2]], target=[[("c", 3)]]
    )
    found, expected = json.loads(path.read_text()), golden("inseq_encoder.json")
    assert found["attributes"] == expected


def test_padding_is_left_out(tmp_path):
    run = texts(tmp_path / "run", np.float32([[[5, 0, 0], [9, 9, 9]]]))
    path = runs.export_inseq(
        run, tmp_path / "out.json", source=[["x"]], target=[["y"]], info={"model": "m"}
    )
    found = json.loads(path.read_text())["attributes"]
    (one,) = found["sequence_attributions"]
    array = safetensors.numpy.load(
        base64.b64decode(one["attributes"]["source_attributions"])
    )
    assert array["attribution"].tolist() == [[5]]
    assert found["info"]["model"] == "m"


@pytest.mark.whole
@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"target": TEXTS[:1]}, "target: got 1 rows, expected 2"),
        ({"target": [TEXTS[0], ["a"] * 5]}, "target: row 1 has 5 tokens, 2 explained"),
        ({"target": [TEXTS[0], []]}, "target: row 1 has 0 tokens"),
        ({"target": [TEXTS[0], TEXTS[0]]}, "in row 1 a token has relevance for one"),
        ({"source": TEXTS, "target": [["a"] * 3] * 2}, "source: row 0 has 4 tokens, 3"),
        ({"relevance": "flat"}, "relevance: got 'flat' with 1 axes"),
        (
            {
                "scores": {"p": "flat"},
                "source": TEXTS,
                "target": [["a"] * 2] * 2,
            },
            "scores: 'p' has 1, expected 2",
        ),
    ],
)
def test_tokens_and_relevances_have_to_fit(change, match, tmp_path):
    run = texts(tmp_path / "run", GENERATED, flat=np.float32([1, 2]))
    with pytest.raises(ValueError, match=match):
        runs.export_inseq(run, tmp_path / "out.json", **({"target": TEXTS} | change))
    assert not (tmp_path / "out.json").exists()
