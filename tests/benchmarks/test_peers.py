"""What `make peers` says of differences, and of relevances that are given."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import faithfulness
from benchmarks.faithfulness import Setting
from benchmarks.peers import cases, units
from benchmarks.peers.cases import Case
from jaxlrp import composites, rules


def case(theirs, ours, **options):
    theirs = functools.partial(np.asarray, theirs)
    ours = None if ours is None else functools.partial(np.asarray, ours)
    return Case("peer", "network", "rule", theirs, ours, **options)


def test_difference_is_relative_to_the_peers_largest_relevance():
    outcome = cases.compare(case([[4.0, -8.0]], [[4.5, -8.25]]))
    assert outcome.difference == 0.5 / 8
    assert not outcome.within
    assert outcome.row == "| peer | network | `rule` | 6.2e-02 | 1e-09 | TOO LARGE |"


def test_a_limit_of_its_own_says_why():
    outcome = cases.compare(case([1.0], [1.0 + 1e-8], limit=1e-6, reason="because"))
    assert outcome.within
    assert outcome.row == "| peer | network | `rule` | 1.0e-08 | 1e-06 | because |"


@pytest.mark.parametrize("theirs, ours", [([np.nan], [1.0]), ([1.0], [np.nan])])
def test_what_is_not_a_number_is_too_large(theirs, ours):
    assert not cases.compare(case(theirs, ours)).within


def test_shapes_that_differ_are_an_error():
    with pytest.raises(AssertionError, match=r"rule: shapes \(1,\) and \(1, 1\)"):
        cases.compare(case([1.0], [[1.0]]))


def test_without_ours_there_is_a_note_and_no_difference():
    outcome = cases.compare(case([1.0, 2.0], None, note=lambda r: f"sum {r.sum():.0f}"))
    assert outcome.within
    assert outcome.row == "| peer | network | `rule` | | | sum 3 |"


def test_every_row_of_the_table_has_the_cells_of_its_head():
    shown = []
    outcomes = list(cases.run([case([1.0], [1.0]), case([1.0], None)], shown.append))
    assert [outcome.row for outcome in outcomes] == shown
    counts = {row.count("|") for row in [*cases.head().split("\n"), *shown]}
    assert counts == {len(cases.HEAD) + 1}


def linear(seed):
    """Scores of two classes of two units of two numbers; networks differ by seed."""
    random = np.random.default_rng(seed)
    return Setting(
        name="linear",
        f=lambda params, x: x @ params,
        params=jnp.asarray(random.normal(size=(4, 2)), jnp.float32),
        inputs=jnp.asarray(random.normal(size=(6, 4)), jnp.float32),
        targets=jnp.array([0, 1, 0, 1, 1, 0]),
        units=(2,),
        baseline=jnp.asarray(random.normal(size=4), jnp.float32),
        evidence=jnp.asarray([[True, False]] * 6),
    )


SETTINGS = [linear(0), linear(1)]
LRP0 = composites.Uniform(rules.LRP0())
METHODS = {
    "plain": faithfulness.lrp("", LRP0),
    "against": faithfulness.against("", LRP0),
}


def closed(at, against):
    """Weights times inputs, less the baseline, summed over each unit."""
    x = at.inputs - at.baseline if against else at.inputs
    parts = x[..., None] * at.params
    chosen = np.take_along_axis(np.asarray(parts), at.targets[:, None, None], -1)
    return chosen.reshape(len(x), 2, 2).sum(-1)


@pytest.mark.parametrize("name", METHODS)
def test_explained_are_the_networks_each_with_its_weights_and_baseline(name):
    found = units.explained(SETTINGS, METHODS[name])
    expected = [closed(at, name == "against") for at in SETTINGS]
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-5, atol=1e-6)


def test_pooled_are_sums_over_units():
    found = [np.arange(24.0).reshape(6, 4), np.ones((6, 4))]
    pooled = units.pooled(SETTINGS, found)
    assert pooled.shape == (2, 6, 2)
    np.testing.assert_array_equal(pooled[0, 0], [1.0, 5.0])
    np.testing.assert_array_equal(pooled[1], np.full((6, 2), 2.0))


def test_measures_of_given_relevances_are_those_of_their_method():
    method = METHODS["against"]
    measured = units.measures(SETTINGS)(units.explained(SETTINGS, method))
    for seed, at in enumerate(SETTINGS):
        expected, _ = faithfulness.measure(at, method)
        assert set(measured) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(measured[name][seed], values, rtol=1e-5)


def test_what_is_told_is_of_the_half_that_is_shown():
    values = {"ABPC": np.array([[9.0, 1.0, 9.0, 2.0]]), "evidence": np.eye(4)[1:2]}
    note = units.told(lambda relevance: values)
    assert note(np.zeros(())) == "ABPC 1.50, evidence 50.0 %"


def test_kept_relevances_are_read_again(tmp_path):
    name, relevance = "zennit: EpsilonPlus", np.arange(12.0).reshape(2, 3, 2)
    paths = units.keep("CNN", {name: relevance}, tmp_path)
    assert [path.name for path in paths] == ["CNN-0.npz", "CNN-1.npz"]
    for seed, path in enumerate(paths):
        with np.load(path, allow_pickle=False) as kept:
            assert list(kept) == [name]
            np.testing.assert_array_equal(kept[name], relevance[seed])


def test_relevances_of_several_numbers_of_seeds_are_not_kept(tmp_path):
    with pytest.raises(ValueError, match=r"got \[1, 2\] seeds"):
        units.keep("CNN", {"a": np.zeros((1, 3)), "b": np.zeros((2, 3))}, tmp_path)
    assert not list(tmp_path.iterdir())


def test_setting_is_in_float64(monkeypatch):
    monkeypatch.setattr(faithfulness, "setting", lambda *given: linear(given[1]))
    with jax.enable_x64(True):
        at = units.setting("linear", 1, 6, units.KEPT)
        leaves = jax.tree.leaves((at.params, at.inputs, at.baseline))
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float64)}
