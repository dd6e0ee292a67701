"""The plan: a table of what each equation is, read without running anything."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxlrp
from jaxlrp import composites, rules

X = jax.ShapeDtypeStruct((2, 6), jnp.float32)
W = jax.ShapeDtypeStruct((6, 6), jnp.float32)

unknown_p = jax.extend.core.Primitive("mystery")
unknown_p.def_abstract_eval(lambda x: x)


def net(w, x):
    with jax.named_scope("block"):
        h = jax.nn.gelu(x @ w + 0.5)
    return jax.nn.softmax((h + x) @ w)


def test_rows_say_what_each_step_is():
    plan = jaxlrp.plan(net, composites.Epsilon(1e-3))(W, X)
    assert plan.composite == "Epsilon"
    rows = [row for row in plan.rows if row.exactness != "none"]
    expected = ["dense", "activation", "sum", "dense", "softmax"]
    assert [row.role for row in rows] == expected
    dense, activation, total, _, softmax = rows
    assert dense.primitives == ("dot_general", "add")
    assert dense.rule.startswith("Epsilon(epsilon=0.001")
    assert dense.exactness == "proportional"
    assert dense.scope == "block"
    assert "test_plan.py" in dense.line and "net" in dense.line
    assert dense.shape == "float32[2,6]"
    assert dense.depth == 0
    assert (activation.rule.split("(")[0], activation.exactness) == ("Pass", "exact")
    assert total.rule.startswith("Norm")
    assert softmax.exactness == "Taylor"
    assert {"exp", "reduce_sum", "div"} <= set(softmax.primitives)


def test_plan_prints_as_a_table():
    plan = jaxlrp.plan(net)(W, X)
    title, header, line, *rows = str(plan).splitlines()
    steps = len(plan.rows)
    assert title.startswith(f"Plan (Default): {steps} steps, coverage 100.0% (")
    assert header.split() == [
        *"equations float32 role rule from exact? layer line".split()
    ]
    assert set(line) == {"-", " "}
    rows = rows[:steps]  # and notes of what may amplify
    assert len(rows) == steps
    column = header.index("role")
    assert rows[0][column:].startswith("dense")
    assert all(row == row.rstrip() for row in rows)


def test_bodies_are_indented_rows():
    def f(w, x):
        step = lambda h, _: (jnp.tanh(h @ w), None)  # noqa: E731
        h = lax.scan(step, x, None, length=3)[0]
        return lax.cond(h.sum() > 0, lambda h: h @ w, jnp.sin, h)

    plan = jaxlrp.plan(f)(W, X)
    assert {row.depth for row in plan.rows if row.role == "dense"} == {1}
    assert [row.role for row in plan.rows].count("dense") == 2


@pytest.mark.parametrize(
    ("f", "missing", "total"),
    [
        (lambda w, x: jnp.tanh(unknown_p.bind(x) @ w), 1, 3),
        (lambda w, x: x @ unknown_p.bind(w), 0, 1),
        (lambda w, x: lax.zeta(x, x + 2) @ w, 1, 3),
        (
            lambda w, x: lax.scan(lambda c, _: (unknown_p.bind(c), None), x, None, 2)[
                0
            ],
            1,
            1,
        ),
    ],
)
def test_coverage_counts_what_has_no_rule(f, missing, total):
    plan = jaxlrp.plan(f)(W, X)
    assert plan.coverage == pytest.approx(1 - missing / total)
    assert len(plan.unexplained) == missing
    assert all(row.role == "unexplained" for row in plan.unexplained)
    assert (plan.coverage == 1.0) == (missing == 0)


def test_plan_of_what_relevance_does_not_reach_is_covered():
    with pytest.warns(jaxlrp.errors.IndependentArgumentWarning):
        plan = jaxlrp.plan(lambda x: jnp.ones(3) * lax.stop_gradient(x[0, 0]))(X)
    assert plan.coverage == 1.0


def test_arrays_and_shapes_give_the_same_plan():
    w, x = (jnp.ones(v.shape, v.dtype) for v in (W, X))
    assert jaxlrp.plan(net)(w, x) == jaxlrp.plan(net)(W, X)


def test_plan_names_the_rules_of_lines_that_apply():
    composite = (
        composites.Uniform(rules.ZPlus())
        .on("dense", rules.Flat(), first=True)
        .on("dense", rules.Gamma(0.5), scope="tail")
    )

    def f(w, x):
        x = jnp.tanh(jnp.tanh(x @ w) @ w)
        with jax.named_scope("tail"):
            return x @ w

    found = [r.rule for r in jaxlrp.plan(f, composite)(W, X).rows if r.role == "dense"]
    assert [rule.split("(")[0] for rule in found] == ["Flat", "ZPlus", "Gamma"]


def test_argnums_choose_what_is_explained():
    roles = [
        [row.role for row in jaxlrp.plan(lambda a, b: a @ b, argnums=n)(X, W).rows]
        for n in (0, 1, (0, 1))
    ]
    assert roles == [["dense"], ["dense"], ["bilinear"]]


def transformer(params, x, heads=16):
    """A decoder of pre-norm blocks, written out layer by layer."""

    def norm(x, gain):
        return x * lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6) * gain

    batch, length, width = x.shape
    mask = jnp.tril(jnp.ones((length, length), bool))
    for p in params["blocks"]:
        h = norm(x, p["norm1"])
        q, k, v = (
            (h @ p[n]).reshape(batch, length, heads, width // heads) for n in "qkv"
        )
        scores = jnp.einsum("bqhd,bkhd->bhqk", q, k) / np.sqrt(width // heads)
        weights = jax.nn.softmax(jnp.where(mask, scores, -jnp.inf))
        h = jnp.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.shape)
        x = x + h @ p["o"]
        h = norm(x, p["norm2"])
        x = x + (jax.nn.silu(h @ p["gate"]) * (h @ p["up"])) @ p["down"]
    return norm(x, params["norm"]) @ params["head"]


def test_billion_parameters_are_read_in_seconds():
    """Nothing is allocated, only shapes are read."""
    width, hidden, layers = 2048, 5632, 24
    like = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16)  # noqa: E731
    block = {n: like(width, width) for n in "qkvo"} | {
        "gate": like(width, hidden),
        "up": like(width, hidden),
        "down": like(hidden, width),
        "norm1": like(width),
        "norm2": like(width),
    }
    params = {
        "blocks": [block] * layers,
        "norm": like(width),
        "head": like(width, 32000),
    }
    assert sum(p.size for p in jax.tree.leaves(params)) > 1e9
    start = time.perf_counter()
    plan = jaxlrp.plan(transformer, composites.AttnLRP())(params, like(1, 1024, width))
    assert time.perf_counter() - start < 30
    assert plan.coverage == 1.0
    roles = [row.role for row in plan.rows]
    assert roles.count("dense") == 7 * layers + 1
    assert roles.count("normaliser") == 2 * layers + 1
    assert roles.count("bilinear") == 2 * layers
    assert roles.count("softmax") == layers
    assert roles.count("product") == layers
    assert roles.count("sum") == 2 * layers
    assert not {"gradient", "quotient"} & set(roles)


# ---- what may amplify ----------------------------------------------------------------


def amplifying(f, composite, *args):
    plan = jaxlrp.plan(f, composite)(*args)
    assert [r for r in plan.rows if r.amplifies] == list(plan.amplifying)
    return [(r.role, r.amplifies) for r in plan.amplifying]


LAYER = ("dense", "Epsilon on layers in a recurrence")
SUM = ("sum", "Norm on sums whose terms may cancel")
SATURATING = ("activation", "Pass on activations that may saturate, in a recurrence")


def test_a_recurrence_is_marked():
    def f(w, xs):
        move = lambda h, x: (jnp.tanh(h @ w + x @ w), None)  # noqa: E731
        return lax.scan(move, jnp.zeros(6), xs)[0]

    # Of the two layers one lies on the way from the state to the state.
    marks = [LAYER, SUM, SATURATING]
    assert amplifying(f, composites.Epsilon(), W, X) == marks
    text = str(jaxlrp.plan(f, composites.Epsilon())(W, X))
    assert "may amplify relevance:" in text
    notes = text.split("may amplify relevance:")[1].strip().splitlines()
    assert len(notes) == 3 and all("test_plan.py" in note for note in notes)


def test_a_recurrence_that_is_written_out_is_marked():
    def f(w, xs):
        h = jnp.tanh(xs[0] @ w["state"])
        for x in xs[1:]:
            h = jnp.tanh(h @ w["state"] + x @ w["input"])
        return h @ w["head"]

    weights = {name: W for name in ("state", "input", "head")}
    found = amplifying(f, composites.Epsilon(), weights, X)
    steps = len(X)
    # The last activation lies after all uses of the weights.
    assert found.count(LAYER) == steps
    assert found.count(SUM) == steps - 1
    assert found.count(SATURATING) == steps - 1


def test_one_layer_for_two_inputs_is_not_marked():
    f = lambda w, x: jnp.tanh(jnp.tanh(x[0] @ w) * jnp.tanh(x[1] @ w))  # noqa: E731
    assert amplifying(f, composites.Epsilon(), W, X) == []


def test_a_recurrence_that_counts_or_calls_is_marked():
    @jax.checkpoint
    def cell(w, h):
        return jnp.tanh(h @ w)

    def f(w, x):
        return lax.fori_loop(0, x.shape[0], lambda i, h: cell(w, h + x[i]), x[0])

    found = amplifying(f, composites.Epsilon(), W, X)
    assert LAYER in found and SATURATING in found


STACK = jax.ShapeDtypeStruct((3, 6, 6), jnp.float32)


@pytest.mark.parametrize(
    "f",
    [
        # Other weights in each iteration: layers one behind the other.
        lambda w, x: lax.scan(lambda h, w: (jnp.tanh(h @ w), None), x, w)[0],
        lambda w, x: lax.fori_loop(0, 3, lambda i, h: jnp.tanh(h @ w[i]), x),
        # No layer between state and state.
        lambda w, x: lax.scan(lambda h, x: (h * 0.5, jnp.tanh(x @ w[0])), x[0], x)[1],
        lambda w, x: jnp.tanh(jnp.tanh(x @ w[0]) @ w[1]),
    ],
)
def test_layers_that_are_no_recurrence_are_not_marked(f):
    assert amplifying(f, composites.Epsilon(), STACK, X) == []


def test_bounded_rules_in_a_recurrence_are_not_marked():
    def f(w, xs):
        return lax.scan(lambda h, x: (jax.nn.relu(h @ w), None), xs[0], xs)[0]

    assert amplifying(f, composites.Uniform(rules.GeneralizedGamma()), W, X) == []
    assert amplifying(f, composites.Epsilon(), W, X) == [LAYER]  # a ReLU is exact


@pytest.mark.parametrize(
    ("f", "marked"),
    [
        (lambda w, x: x + x @ w, True),
        (lambda w, x: jax.nn.relu(x @ w) + jax.nn.relu(x), False),
        (lambda w, x: jax.nn.relu(x @ w) - jax.nn.relu(x), True),
        (lambda w, x: (x - x.mean(-1, keepdims=True)) @ w, False),
    ],
)
def test_sums_are_marked_where_their_terms_may_differ_in_sign(f, marked):
    assert (SUM in amplifying(f, composites.Epsilon(), W, X)) == marked
    halves = composites.Epsilon().on("sum", rules.UniformSplit())
    assert amplifying(f, halves, W, X) == []


def test_sums_that_copy_are_marked():
    composite = composites.Epsilon().on("sum", rules.Pass())
    f = lambda w, x: x + x @ w  # noqa: E731
    assert amplifying(f, composite, W, X) == [
        ("sum", "Pass on sums, a copy to each term")
    ]


# ---- how it is printed --------------------------------------------------------------


def test_a_printed_plan_fits_100_columns():
    def f(w, x):
        with jax.named_scope(
            "a_rather_long_name_of_a_scope/with_another_one_inside/it"
        ):
            x = jax.nn.gelu(x @ w + 0.5)
        return jax.nn.softmax((x + x @ w) @ w)

    plan = jaxlrp.plan(f, composites.EpsilonPlus())(W, X)
    lines = str(plan).splitlines()
    assert max(map(len, lines)) <= 100
    assert any("…" in line for line in lines)
    table = "\n".join(lines[: len(plan.rows) + 3])
    assert "side/it " in table and "_plan.py:" in table
    assert "dot_general …" in table and " [2,6] " in table
    assert str(__file__) not in table
    assert all(str(__file__) in row.line for row in plan.rows)


def test_a_printed_row_leaves_out_what_goes_without_saying():
    """A default's origin, options with their defaults, the dtype that most have."""
    composite = (
        composites.Composite("mine")
        .on("layer", rules.Epsilon(0.5))
        .on("activation", rules.Pass())
    )

    def f(w, x):
        half = jnp.sin(jnp.cos(x.astype(jnp.bfloat16)))
        return jnp.tanh(x @ w) + half.astype(jnp.float32)

    plan = jaxlrp.plan(f, composite)(W, X)
    _, head, _, *rows = str(plan).splitlines()[: len(plan.rows) + 3]
    columns = {name: head.index(name) for name in head.split()}
    said = {row.role: line for row, line in zip(plan.rows, rows, strict=True)}

    def cell(role, column):
        return said[role][columns[column] :].split("  ")[0].strip()

    assert cell("dense", "rule") == "Epsilon(0.5)"
    assert (cell("dense", "from"), cell("activation", "from")) == ("layer", "its role")
    assert cell("sum", "from") == ""
    assert cell("sum", "float32") == "[2,6]"
    assert any("bf16[2,6]" in row for row in rows)
