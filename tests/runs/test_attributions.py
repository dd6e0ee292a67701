"""What is read of a run is what was written, and only what is done."""

import numpy as np
import pytest

from jaxlrp import errors, runs
from tests.runs import small


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return runs.attribute(
        small.labelled(),
        (small.images(), small.labels()),
        tmp_path_factory.mktemp("run"),
        batch_size=4,
        block=8,
        progress=False,
        reduce={"moments": runs.Moments("relevance")},
    )


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """Every other block."""
    out = tmp_path_factory.mktemp("half")
    options = {"batch_size": 4, "block": 8, "progress": False, "shard": (0, 2)}
    return runs.attribute(
        small.explainer(),
        small.images(),
        out,
        reduce={"moments": runs.Moments("relevance")},
        **options,
    )


@pytest.mark.parametrize(
    "rows",
    [
        5,
        -1,
        slice(3, 20),
        slice(None, None, -7),
        np.array([3, 3, 60, 1]),
        np.arange(61) % 5 == 0,
        np.array([[1, 2], [3, 4]]),
        slice(4, 4),
    ],
    ids=str,
)
def test_rows_are_those_of_numpy(found, rows):
    whole = np.asarray(found["relevance"])
    assert (found["relevance"][rows] == whole[rows]).all()
    assert found.read("relevance", rows).shape == whole[rows].shape


def test_other_axes_follow_the_rows(found):
    whole = found["relevance"][:]
    assert (found["relevance"][2:9, 1:3, 0] == whole[2:9, 1:3, 0]).all()
    assert found["relevance"][7, 2, 3] == whole[7, 2, 3]
    with pytest.raises(IndexError, match="rows first"):
        found["relevance"][..., 0]


def test_rows_that_are_not_done_are_an_error(half):
    assert not half.complete and half.done() == (0, 2, 4, 6)
    assert half["relevance"][16:24].any()
    with pytest.raises(IndexError, match="block 1, rows 8 to 15, which is not done"):
        half["relevance"][:]
    with pytest.raises(IndexError):
        half["relevance"][61]


def test_a_part_is_reduced_where_that_will_do(half):
    with pytest.raises(errors.RunError, match="4 of 8 blocks"):
        half.reduced("moments")
    found = half.reduced("moments", partial=True)
    rows = half["relevance"][[i for i in range(61) if i // 8 % 2 == 0]]
    np.testing.assert_allclose(found["mean"], rows.mean(0), rtol=1e-4, atol=1e-7)


def test_names_that_there_are_not_are_named(found):
    assert "relevance" in found and "heat" not in found
    with pytest.raises(KeyError, match="got 'heat', expected one of"):
        found["heat"]
    with pytest.raises(KeyError, match="got 'heat', expected one of"):
        found.reduced("heat")


def test_rows_are_joined_to_the_dataset(found):
    (x, label), arrays = found.join((small.images(), small.labels()), [9, 4])
    assert (x == small.images()[[9, 4]]).all()
    assert (arrays["label"] == label).all()
    with pytest.raises(ValueError, match="expected 61"):
        found.join(small.images()[:9])


def test_a_run_shows_itself(found):
    assert repr(found).endswith("8 of 8 blocks done")
    shown = found._repr_html_()
    assert "relevance: float32 (61, 6, 6)" in shown and "scores" in shown
    pytest.importorskip("PIL")
    assert shown.count("<img") == 1


def test_no_run_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no run"):
        runs.Attributions(tmp_path)
