"""Walks one by one: by the formula, by masks, in loops, and the largest of them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

import jaxlrp
from jaxlrp import composites, rules, walks
from tests.walks import networks

GAMMA = networks.gamma(0.5)
EXACT = networks.gamma(0.0)


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def every(f, composite=GAMMA, sites: Any = "h*", **options):
    return jax.jit(walks.every(f, composite, sites=sites, **options))


def explained(f, composite, params, x):
    return jax.jit(jaxlrp.lrp(f, composite))(params, x)


# ---- one by one --------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.5, 3.0])
def test_walks_are_those_of_the_formula(gamma):
    composite = networks.gamma(gamma)
    found = every(networks.gcn, composite)(networks.KERNELS, networks.X)
    np.testing.assert_allclose(found, networks.gnn_lrp(gamma), rtol=1e-6, atol=1e-9)


def test_all_walks_add_up_to_the_relevance():
    found = every(networks.gcn)(networks.KERNELS, networks.X)
    whole = explained(networks.gcn, GAMMA, networks.KERNELS, networks.X)
    assert found.shape == (5, 5, 5, 5)
    np.testing.assert_allclose(found.sum(), whole.sum(), rtol=1e-6)
    np.testing.assert_allclose(
        found.sum((1, 2, 3)), whole.sum(-1), rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("f", [networks.gcn, networks.in_segments])
def test_a_walk_is_relevance_under_conditions(f):
    chosen = [(0, 0, 0, 0), (1, 0, 3, 2), (4, 4, 1, 1), (3, 2, 2, 0)]
    of = jax.jit(walks.relevance(f, GAMMA, sites="h*"))
    found = of(networks.KERNELS, networks.X, jnp.array(chosen))
    names = ["h0", "h1", "h2", "h3"]
    wanted = [
        networks.by_masks(f, GAMMA, networks.KERNELS, networks.X, walk, names)
        for walk in chosen
    ]
    assert np.abs(wanted).max() > 1e-3
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-12)


def test_chosen_walks_are_entries_of_all_walks():
    table = every(networks.gcn)(networks.KERNELS, networks.X)
    chosen = np.array(networks.all_walks(5, 4)).reshape(25, 25, 4)
    of = jax.jit(walks.relevance(networks.gcn, GAMMA, sites="h*", chunk=100))
    found = of(networks.KERNELS, networks.X, chosen)
    assert found.shape == (25, 25)
    np.testing.assert_allclose(found.reshape(-1), table.reshape(-1), rtol=1e-9)


def test_an_iteration_of_a_loop_is_a_level():
    names = walks.levels(networks.in_a_scan, GAMMA, sites=["h0", "h"])
    assert names(networks.KERNELS, networks.X) == ("h0", "h[0]", "h[1]", "h[2]")
    found = every(networks.in_a_scan, sites=["h", "h0"])(networks.KERNELS, networks.X)
    np.testing.assert_allclose(found, networks.gnn_lrp(0.5), rtol=1e-6, atol=1e-9)


def test_some_iterations_of_a_loop_are_levels_by_the_number_of_the_weights():
    def f(params, x):
        layer = lambda h, k: (jax.nn.relu(networks.BONDS @ (h @ k)), None)  # noqa: E731
        return jax.lax.scan(layer, x, params["w"])[0].sum(0)

    params, sites = {"w": networks.KERNELS}, ["w[2]", "w[0]"]
    names = walks.levels(f, GAMMA, sites=sites)(params, networks.X)
    assert names == ("w[0]", "w[2]")
    table = every(f, sites=sites)(params, networks.X)
    whole = every(f, sites="w")(params, networks.X)
    np.testing.assert_allclose(table, whole.sum(1), rtol=1e-6, atol=1e-12)


def test_a_loop_from_the_end_has_its_levels_from_the_end():
    def f(kernels, x):
        layer = lambda h, k: (checkpoint_name(jnp.tanh(h @ k), "h"), None)  # noqa: E731
        return jax.lax.scan(layer, x, kernels, reverse=True)[0].sum(0)

    names = walks.levels(f, sites="h")(networks.KERNELS, networks.X)
    assert names == ("h[2]", "h[1]", "h[0]")


def test_two_values_in_a_loop_take_turns():
    def f(kernels, x):
        def layer(h, kernel):
            low = checkpoint_name(jnp.tanh(h @ kernel), "low")
            return checkpoint_name(jnp.tanh(low @ kernel), "high"), None

        return jax.lax.scan(layer, x, kernels[:2])[0].sum(0)

    names = walks.levels(f, sites=["high", "low"])(networks.KERNELS, networks.X)
    assert names == ("low[0]", "high[0]", "low[1]", "high[1]")


def test_tokens_of_a_transformer_are_nodes():
    f, weights = networks.transformer, networks.weights_of_transformer()
    composite = composites.AttnLRP()
    table = every(f, composite, sites="r*")(weights, networks.X)
    whole = explained(f, composite, weights, networks.X)
    np.testing.assert_allclose(table.sum((1, 2)), whole.sum(-1), rtol=1e-5, atol=1e-8)
    walk, names = (3, 0, 2), ["r0", "r1", "r2"]
    wanted = networks.by_masks(f, composite, weights, networks.X, walk, names)
    np.testing.assert_allclose(table[walk], wanted, rtol=1e-6)


def test_the_nodes_may_be_along_another_axis_of_each_value():
    def f(x):
        h = checkpoint_name(x, "in")
        h = checkpoint_name((networks.BONDS @ h).T, "out")
        return h.sum(1)

    table = walks.every(f, EXACT, sites=["in", "out"], axis=[0, -1], target="all")
    found = table(networks.X)
    np.testing.assert_allclose(found, networks.BONDS.T * networks.X.sum(1)[:, None])


def test_examples_are_mapped_over():
    batch = jnp.stack([networks.X, networks.X[::-1]])
    one = every(networks.gcn)
    found = jax.jit(jax.vmap(one, (None, 0)))(networks.KERNELS, batch)
    for values, x in zip(found, batch, strict=True):
        np.testing.assert_allclose(values, one(networks.KERNELS, x), rtol=1e-9)


def test_relevance_of_walks_has_a_gradient():
    of = walks.relevance(networks.gcn, GAMMA, sites="h*", target=0)
    walk = np.array([[1, 1, 3, 3], [0, 0, 0, 0]])
    total = jax.jit(lambda x: of(networks.KERNELS, x, walk).sum())
    found = jax.jit(jax.grad(total))(networks.X)
    step = 1e-6 * np.random.default_rng(0).normal(size=networks.X.shape)
    ahead, behind = (total(networks.X + s * step) for s in (1, -1))
    np.testing.assert_allclose((found * step).sum(), (ahead - behind) / 2, rtol=1e-4)


# ---- the most relevant -------------------------------------------------------------


def largest(table, count, absolute=False):
    flat = np.asarray(table).reshape(-1)
    key = np.abs(flat) if absolute else flat
    return flat[np.argsort(-key, kind="stable")[:count]]


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("k", [1, 7, 625])
def test_the_largest_walks_are_found(k, absolute):
    composite = EXACT
    f, x = networks.gcn, networks.X
    table = every(f, composite)(networks.KERNELS, x)
    assert (np.asarray(table) < -1e-3).any()
    best = walks.top(f, composite, sites="h*", k=k, absolute=absolute)
    found = best(networks.KERNELS, x)
    assert found.levels == ("h0", "h1", "h2", "h3")
    assert found.walks.shape == (k, 4)
    wanted = largest(table, k, absolute)
    np.testing.assert_allclose(
        *(np.abs(v) if absolute else v for v in (found.relevances, wanted)),
        rtol=1e-6,
        atol=1e-9,
    )
    entries = [table[tuple(walk)] for walk in found.walks]
    np.testing.assert_allclose(entries, found.relevances, rtol=1e-6, atol=1e-9)
    assert len({tuple(walk) for walk in found.walks}) == k


@pytest.mark.parametrize(
    ("f", "sites"), [(networks.in_a_scan, ["h0", "h"]), (networks.in_segments, "h*")]
)
def test_the_largest_walks_are_found_in_loops_and_segments(f, sites):
    found = walks.top(f, GAMMA, sites=sites, k=5)(networks.KERNELS, networks.X)
    wanted = walks.top(networks.gcn, GAMMA, sites="h*", k=5)
    same = wanted(networks.KERNELS, networks.X)
    np.testing.assert_allclose(found.relevances, same.relevances, rtol=1e-6)


def test_the_largest_walks_of_tokens_are_found():
    f, weights = networks.transformer, networks.weights_of_transformer()
    composite = composites.AttnLRP()
    table = every(f, composite, sites="r*")(weights, networks.X)
    found = walks.top(f, composite, sites="r*", k=9)(weights, networks.X)
    np.testing.assert_allclose(found.relevances, largest(table, 9), rtol=1e-5)


def test_neurons_are_found_without_a_detour():
    """By neurons the bound is what is reached: each level is opened once for a walk."""
    options = {"sites": "h*", "k": 6, "by": "neurons"}
    found = walks.top(networks.gcn, EXACT, **options)(networks.KERNELS, networks.X)
    assert found.opened <= 6 * networks.LAYERS

    def apart(kernels, x):  # the same network, a node for each neuron
        h = checkpoint_name(x, "h0")
        for number, kernel in enumerate(kernels, 1):
            h = (networks.BONDS @ h.reshape(5, 3) @ kernel).reshape(-1)
            h = checkpoint_name(jax.nn.relu(h), f"h{number}")
        return h.reshape(5, 3).sum(0)

    flat = networks.X.reshape(-1)
    of = jax.jit(walks.relevance(apart, EXACT, sites="h*"))
    np.testing.assert_allclose(
        of(networks.KERNELS, flat, found.walks), found.relevances, rtol=1e-6
    )
    table = every(apart, EXACT)(networks.KERNELS, flat)
    np.testing.assert_allclose(found.relevances, largest(table, 6), rtol=1e-6)


@pytest.mark.parametrize(
    "first", [rules.WSquare(), rules.Flat(), rules.ZBox(-1.0, 1.0)]
)
def test_relevance_of_zeros_is_part_of_walks(first):
    """What the first layer's rule gives where the input is zero goes by its shadow."""
    composite = GAMMA.on("dense", first, first=True)
    x = jnp.asarray(networks.X).at[2].set(0)
    table = every(networks.gcn, composite)(networks.KERNELS, x)
    whole = explained(networks.gcn, composite, networks.KERNELS, x)
    assert np.abs(table[2]).max() > 1e-4
    np.testing.assert_allclose(
        table.sum((1, 2, 3)), whole.sum(-1), rtol=1e-6, atol=1e-9
    )
    found = walks.top(networks.gcn, composite, sites="h*", k=20)(networks.KERNELS, x)
    np.testing.assert_allclose(found.relevances, largest(table, 20), rtol=1e-6)


# ---- what cannot be asked ----------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (
            np.zeros((2, 3), int),
            ValueError,
            r"walks: got shape \(2, 3\).*walks, 4",
        ),
        (np.array([[0, 1, 5, 2]]), ValueError, "walks: got node 5.*from 0 to 4"),
        (np.array([[0, -1, 0, 2]]), ValueError, "walks: got node -1"),
        (np.zeros((2, 4)), TypeError, "walks: got dtype float64, expected integers"),
        (object(), TypeError, "walks: got <object"),
    ],
)
def test_walks_that_are_none(given, error, words):
    with pytest.raises(error, match=words):
        walks.relevance(networks.gcn, sites="h*")(networks.KERNELS, networks.X, given)


def test_traced_walks_out_of_range_have_no_relevance():
    made = jax.jit(walks.relevance(networks.gcn, EXACT, sites="h*"))
    good = [4, 2, 1, 3]
    given = np.array([good, [5, 2, 1, 3], [-1, 2, 1, 3], [4, 2, -1, 3], [4, 9, 1, 3]])
    found = made(networks.KERNELS, networks.X, given)
    np.testing.assert_array_equal(np.isnan(found), [False] + [True] * 4)
    alone = made(networks.KERNELS, networks.X, given[:1])
    np.testing.assert_allclose(found[0], alone[0])


def test_walks_come_after_the_arguments():
    with pytest.raises(TypeError, match="walks: got 1 positional argument"):
        walks.relevance(networks.gcn, sites="h*")(networks.KERNELS)


def pooled(x):
    h = checkpoint_name(x, "all")
    return checkpoint_name(h.reshape(5, 3).sum(0), "pooled") * 1.0


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sites": ["all", "pooled"]}, r"'pooled', of shape \(3,\), has 3 nodes"),
        ({"sites": "all", "axis": 2}, "axis: got 2, expected an axis of 'all'"),
        ({"sites": ["all"], "axis": [0, 1]}, "axis: got 2 of them, expected one"),
        ({"sites": ["all", "al*"], "axis": [0, 1]}, "axis: got 1 for 'all', and 0"),
        ({"sites": "none"}, "sites: got 'none', which names no value"),
        ({"sites": 3}, "sites: got 3, expected names"),
        ({"sites": []}, r"sites: got \[\], expected names"),
        ({"sites": "all", "axis": "0"}, "axis: got '0', expected an axis"),
    ],
)
def test_levels_that_are_none(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        walks.every(pooled, target="all", **options)(networks.X)


def test_iterations_of_a_while_loop_have_no_number():
    def f(x):
        body = lambda _, h: checkpoint_name(jnp.tanh(h @ networks.KERNELS[0]), "h")  # noqa: E731
        return jax.lax.fori_loop(0, jnp.int32(3), body, x).sum(0)

    with pytest.raises(ValueError, match=r"sites: 'h' lies in a while loop.*lax\.scan"):
        walks.every(f, sites="h")(networks.X)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda f: walks.every(f, sites="h*", most_bytes=100),
            "most_bytes: got 100, but the 625 walks of 5 nodes on 4 levels need 2500",
        ),
        (
            lambda f: walks.top(f, sites="h*", most_bytes=100),
            "most_bytes: got 100, but the matrices between 4 levels of 5 nodes.*2700",
        ),
        (
            lambda f: walks.top(f, sites="h*", k=600, most_opened=3),
            "most_opened: got 3, and .* of 600 walks are found",
        ),
    ],
)
def test_too_much_is_refused_with_a_way_out(make, words):
    with pytest.raises(ValueError, match=words):
        make(networks.gcn)(networks.KERNELS, networks.X)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"k": 0}, "k: got 0, expected at least 1"),
        ({"by": "edges"}, "by: got 'edges'"),
        ({"absolute": 1}, "absolute: got 1"),
        ({"most_opened": 1.5}, "most_opened: got 1.5"),
    ],
)
def test_options_of_the_search(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        walks.top(networks.gcn, sites="h*", **options)


def test_the_search_is_not_traced():
    best = walks.top(networks.gcn, sites="h*")
    with pytest.raises(TypeError, match="top: got traced arguments"):
        jax.jit(lambda x: best(networks.KERNELS, x).relevances)(networks.X)
