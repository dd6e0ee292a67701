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
        *"equations result role rule from exactness scope line".split()
    ]
    assert set(line) == {"-", " "}
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
