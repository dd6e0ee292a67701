"""Sets of walks: inside of sub-graphs, by parts, by their number, by formulas."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp import walks
from tests.walks import networks

EXACT = networks.gamma(0.2)
WALKS = np.array(networks.all_walks(5, 4))


@pytest.fixture(autouse=True)
def double():
    with jax.enable_x64(True):
        yield


def of_all():
    return networks.gnn_lrp(0.2).reshape(-1)


def ask(kind, *more, f=networks.gcn, **options):
    made = getattr(walks, kind)(f, EXACT, sites="h*", **options)
    return jax.jit(lambda p, x: made(p, x, *more))(networks.KERNELS, networks.X)


# ---- sub-graphs --------------------------------------------------------------------


def weighed(mask, outside):
    """Each walk times its factors."""
    return (of_all() * (mask + outside * (1 - mask))[WALKS].prod(1)).sum()


@pytest.mark.parametrize("outside", [0.0, 0.3, 1.0])
def test_a_sub_graph_is_the_sum_of_its_walks(outside):
    masks = np.array([[1, 1, 0, 1, 0], [0, 0, 0, 0, 1], [1, 1, 1, 1, 1]], bool)
    found = ask("subgraph", masks, outside=outside)
    wanted = [weighed(m, outside) for m in masks]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-9)


def test_walks_that_do_not_touch_the_set_are_left_out():
    mask = np.array([1, 0, 0, 1, 0], bool)
    found = ask("subgraph", mask, outside=0.3, touching=True)
    inside = mask[WALKS].any(1)
    factors = np.where(mask, 1, 0.3)[WALKS].prod(1)
    np.testing.assert_allclose(found, (of_all() * factors)[inside].sum(), rtol=1e-6)


def test_a_node_may_belong_to_a_set_in_part():
    mask = np.array([1, 0.5, 0, 0.25, 0])
    np.testing.assert_allclose(
        ask("subgraph", mask, outside=0.1), weighed(mask, 0.1), rtol=1e-6
    )


def test_masks_are_mapped_over_in_any_way():
    masks = np.random.default_rng(0).random((3, 4, 5)) < 0.6
    found = ask("subgraph", masks)
    assert found.shape == (3, 4)
    np.testing.assert_allclose(ask("subgraph", masks, chunk=5), found, rtol=1e-9)
    inside = walks.subgraph(networks.gcn, EXACT, sites="h*")
    mapped = jax.jit(jax.vmap(inside, (None, None, 0)))
    np.testing.assert_allclose(
        mapped(networks.KERNELS, networks.X, masks), found, rtol=1e-9
    )


@pytest.mark.parametrize("f", [networks.in_segments, networks.in_a_scan])
def test_other_spellings_have_the_same_sub_graphs(f):
    masks = np.random.default_rng(1).random((6, 5)) < 0.6
    found = ask("subgraph", masks, f=f, outside=0.2)
    np.testing.assert_allclose(found, ask("subgraph", masks, outside=0.2), rtol=1e-6)


def deep(layers):
    """What a sub-graph costs, in XLA's count of operations."""
    kernels = np.repeat(networks.KERNELS[:1], layers, 0)
    inside = walks.subgraph(networks.gcn, EXACT, sites="h*")
    compiled = jax.jit(inside).lower(kernels, networks.X, np.ones(5, bool)).compile()
    analysis: Any = compiled.cost_analysis()
    return analysis["flops"]


def test_the_cost_of_a_sub_graph_is_linear_in_the_depth():
    two, four, six = deep(2), deep(4), deep(6)
    np.testing.assert_allclose(six - four, four - two, rtol=0.1)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("masks", "error", "words"),
    [
        (
            np.ones((2, 4), bool),
            ValueError,
            r"masks: got shape \(2, 4\).*sets, 5",
        ),
        (np.ones(5, int), TypeError, "masks: got dtype int64, expected booleans"),
        (np.array(True), ValueError, r"masks: got shape \(\)"),
    ],
)
def test_masks_that_are_none(masks, error, words):
    with pytest.raises(error, match=words):
        ask("subgraph", masks)


@pytest.mark.whole
@pytest.mark.parametrize("outside", ["a", np.ones(3), True])
def test_the_factor_outside_is_a_number(outside):
    with pytest.raises(TypeError, match="outside: got"):
        walks.subgraph(networks.gcn, sites="h*", outside=outside)


# ---- dividends ---------------------------------------------------------------------


def met(walk, parts):
    """The parts that a walk passes."""
    return tuple(i for i, part in enumerate(parts) if set(walk) & set(part))


def test_a_dividend_is_that_of_the_walks_through_all_its_nodes():
    found = ask("harsanyi")
    assert len(found.sets) == 32 and found.sets[0] == ()
    for nodes, value in zip(found.sets, found.relevances, strict=True):
        wanted = of_all()[[met(w, [[n] for n in range(5)]) == nodes for w in WALKS]]
        np.testing.assert_allclose(value, wanted.sum(), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(found[3, 1], found[1, 3])


def test_parts_are_groups_of_nodes_and_what_is_in_none_is_always_there():
    parts = [[0, 2], 4]
    found = ask("harsanyi", parts=parts)
    assert found.sets == ((), (0,), (1,), (0, 1))
    for nodes, value in zip(found.sets, found.relevances, strict=True):
        wanted = of_all()[[met(w, [[0, 2], [4]]) == nodes for w in WALKS]].sum()
        np.testing.assert_allclose(value, wanted, rtol=1e-5, atol=1e-8)


def test_dividends_of_small_sets_need_no_larger_ones():
    few, whole = ask("harsanyi", order=2), ask("harsanyi")
    assert few.sets == whole.sets[: len(few.sets)] and len(few.sets) == 16
    np.testing.assert_allclose(few.relevances, whole.relevances[:16], rtol=1e-9)
    with pytest.raises(KeyError, match="of at most 2"):
        few[0, 1, 2]


def test_relevance_by_the_number_of_distinct_nodes():
    sizes = np.array([len(set(w)) for w in WALKS.tolist()])
    wanted = [of_all()[sizes == m].sum() for m in (1, 2, 3, 4)]
    np.testing.assert_allclose(ask("bodies"), wanted, rtol=1e-5)
    np.testing.assert_allclose(ask("bodies", order=2), wanted[:2], rtol=1e-5)


def test_dividends_are_compiled():
    made = walks.harsanyi(networks.gcn, EXACT, sites="h*", order=2, chunk=4)
    found = jax.jit(made)(networks.KERNELS, networks.X)
    np.testing.assert_allclose(
        found.relevances, ask("harsanyi", order=2).relevances, rtol=1e-9
    )


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"parts": [[0, 1], [1]]}, "parts: node 1 is in two of them"),
        ({"parts": [[0, 5]]}, r"parts\[0\]: got \[0, 5\], expected nodes from 0 to 4"),
        ({"parts": [[]]}, r"parts\[0\]: got \[\]"),
        ({"parts": ["a"]}, r"parts\[0\]: got 'a'"),
        ({"parts": "ab"}, "parts: got 'ab'"),
        ({"most": 10}, "most: got 10, but 5 parts have 32 sets"),
        ({"order": 0}, "order: got 0"),
    ],
)
def test_parts_that_are_none(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        ask("harsanyi", **options)


# ---- formulas ----------------------------------------------------------------------

NAMES = {"a": [0], "b": [1, 2], "c": [4], "not": [3]}


def holds(python, walk):
    values = {f"x_{n}": bool(set(walk) & set(nodes)) for n, nodes in NAMES.items()}
    return eval(python, {}, values)


@pytest.mark.parametrize(
    ("formula", "python"),
    [
        ("a", "x_a"),
        ("not a", "not x_a"),
        ("a and b", "x_a and x_b"),
        ("a & b & c", "x_a and x_b and x_c"),
        ("a or b and not c", "x_a or (x_b and not x_c)"),
        ("(a | b) & ~c", "(x_a or x_b) and not x_c"),
        ("'not' and not \"a\"", "x_not and not x_a"),
        ("NOT (a AND b)", "not (x_a and x_b)"),
        ("a or not a", "True"),
        ("a and not a", "False"),
    ],
)
def test_a_formula_is_the_sum_of_the_walks_for_which_it_holds(formula, python):
    found = ask("query", ask=formula, nodes=NAMES)
    wanted = of_all()[[holds(python, w) for w in WALKS]].sum()
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-8)


def test_names_may_share_nodes():
    found = ask("query", ask="u and not v", nodes={"u": [0, 1], "v": [1, 2]})
    inside = [bool(set(w) & {0, 1}) and not set(w) & {1, 2} for w in WALKS]
    np.testing.assert_allclose(found, of_all()[inside].sum(), rtol=1e-5)


def test_several_formulas_are_answered_at_once():
    asked = ["a", "not a", "a and not a"]
    made = walks.query(networks.gcn, EXACT, sites="h*", ask=asked, nodes=NAMES)
    found = jax.jit(made)(networks.KERNELS, networks.X)
    np.testing.assert_allclose(found[0] + found[1], of_all().sum(), rtol=1e-6)
    assert found.shape == (3,) and found[2] == 0


def test_formulas_share_the_walks_for_which_several_hold():
    asked = {"a": "x_a", "b and not a": "x_b and not x_a", "b or c": "x_b or x_c"}
    found = ask("query", ask=list(asked), nodes=NAMES, weights="shapley")
    holding = np.array([[holds(p, w) for w in WALKS] for p in asked.values()], float)
    shared = holding / np.maximum(holding.sum(0), 1)
    np.testing.assert_allclose(found, shared @ of_all(), rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(
        found.sum(), of_all()[holding.any(0)].sum(), rtol=1e-5, atol=1e-8
    )


def test_single_names_share_as_shapley_values():
    """Of the game of the relevance of sub-graphs, from its definition."""
    names = {str(n): n for n in range(5)}
    found = ask("query", ask=list(names), nodes=names, weights="shapley")
    masks = np.array(list(itertools.product([False, True], repeat=5)))
    worth = dict(
        zip(map(tuple, masks), np.asarray(ask("subgraph", masks)), strict=True)
    )
    wanted = np.zeros(5)
    for order in itertools.permutations(range(5)):
        inside = np.zeros(5, bool)
        for node in order:
            before = worth[tuple(inside)]
            inside[node] = True
            wanted[node] += (worth[tuple(inside)] - before) / 120
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-7)


def test_one_formula_shares_with_none():
    one = ask("query", ask="a or c", nodes=NAMES)
    shared = ask("query", ask="a or c", nodes=NAMES, weights="shapley")
    np.testing.assert_allclose(one, shared, rtol=1e-6)


def test_formulas_that_share_have_twelve_names_between_them():
    asked = [f"n{i} or n{i + 1}" for i in range(12)]
    nodes = dict.fromkeys([f"n{i}" for i in range(13)], 0)
    with pytest.raises(ValueError, match="ask: got 13 names in all formulas"):
        walks.query(networks.gcn, sites="h*", ask=asked, nodes=nodes, weights="shapley")
    walks.query(networks.gcn, sites="h*", ask=asked, nodes=nodes)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("formula", "words"),
    [
        ("a and", "its end is met; expected a name"),
        ("a b", "'b' is met; expected and, or or its end"),
        ("(a or b", "its end is met; expected a closing"),
        ("and", "'&' is met"),
        ("'a", '"\'a" cannot be read'),
        ("", "its end is met"),
        ("a or d", "nodes has no 'd'; near are 'not'"),
        (" or ".join(f"n{i}" for i in range(13)), "got 13 names, expected at most 12"),
    ],
)
def test_formulas_that_cannot_be_read(formula, words):
    with pytest.raises(ValueError, match=f"ask: .*{words}"):
        walks.query(networks.gcn, sites="h*", ask=formula, nodes=NAMES)


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"ask": 3, "nodes": NAMES}, "ask: got 3"),
        ({"ask": [], "nodes": NAMES}, r"ask: got \[\]"),
        ({"ask": ["a", 2], "nodes": NAMES}, "ask: got 2"),
        ({"ask": "a", "nodes": ["a"]}, "nodes: got"),
        ({"ask": "a", "nodes": NAMES, "weights": "one"}, "weights: got 'one'"),
        ({"ask": "a", "nodes": {"a": 7}}, r"nodes\['a'\]: got 7, expected nodes from"),
    ],
)
def test_questions_that_are_none(options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        ask("query", **options)


def test_inclusion_and_exclusion_is_that_of_the_paper():
    sets = {
        "all": [1, 1, 1, 1, 1],
        "no a": [0, 1, 1, 1, 1],
        "no b": [1, 0, 0, 1, 1],
        "neither": [0, 0, 0, 1, 1],
    }
    masks = np.array(list(sets.values()), bool)
    whole, no_a, no_b, neither = ask("subgraph", masks)
    found = ask("query", ask=["a", "a and b", "not a"], nodes=NAMES)
    both = (whole - no_a) + (whole - no_b) - (whole - neither)
    np.testing.assert_allclose(found, jnp.stack([whole - no_a, both, no_a]), rtol=1e-6)


def test_what_is_asked_is_found_for_all_pairs():
    names = {str(n): n for n in range(5)}
    pairs = [f"{i} and {j}" for i, j in itertools.combinations(range(5), 2)]
    found = ask("query", ask=pairs, nodes=names)
    for value, (i, j) in zip(found, itertools.combinations(range(5), 2), strict=True):
        both = [i in w and j in w for w in WALKS.tolist()]
        np.testing.assert_allclose(value, of_all()[both].sum(), rtol=1e-5, atol=1e-8)
