"""Quantised layers are explained as the layers that were quantised."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType

import jaxlrp
from jaxlrp import composites
from jaxlrp._program.quantised import as_stored, in_floats

INNER = (((1,), (0,)), ((), ()))
COMPOSITES = {
    "default": composites.Default(),
    "AttnLRP": composites.AttnLRP(),
    "EpsilonPlus": composites.EpsilonPlus(),
}


def drawn(*shape):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("f4")


def _weights():
    sizes = (32, 48, 6)
    pairs = list(zip(sizes, sizes[1:], strict=False))
    # Whole multiples of a power of two: int8 holds them exactly.
    grid = [np.round(drawn(*s) / s[0] ** 0.5 * 32) for s in pairs]
    return [(g / 32, 0.3 * drawn(s[1])) for g, s in zip(grid, pairs, strict=True)]


WEIGHTS = _weights()
X = drawn(5, 32)


def small(w):
    """Weights as int8, and their scale."""
    return jnp.asarray(w * 32).astype(jnp.int8), jnp.full(w.shape[1], 1 / 32, "f4")


def product(q, w, result=jnp.int32):
    return lax.dot_general(q, w, INNER, preferred_element_type=result)


def size(x, axis: int | None = -1, keepdims=True):
    return jnp.maximum(jnp.abs(x).max(axis, keepdims=keepdims), 1e-6)


# ---- ways to write a layer of int8 ---------------------------------------------------


def dynamic(x, w, b):
    q, s = small(w)
    scale = size(x) / 127
    return product(jnp.round(x / scale).astype(jnp.int8), q) * scale * s + b


def one_scale(x, w, b):
    q, s = small(w)
    scale = size(x, None) / 127
    return product(jnp.round(x / scale).astype(jnp.int8), q) * (scale * s) + b


def scales_together(x, w, b):
    q, s = small(w)
    scale = size(x) / 127
    return product(jnp.round(x / scale).astype(jnp.int8), q) * (s * scale) + b


def by_einsum(x, w, b):
    q, s = small(w)
    scale = size(x, keepdims=False) / 127
    rounded = jnp.round(x / scale[:, None]).astype(jnp.int8)
    y = jnp.einsum("bi,io->bo", rounded, q, preferred_element_type=jnp.int32)
    return jnp.einsum("bo,b,o->bo", y.astype("f4"), scale, s) + b


def reciprocal(x, w, b):
    q, s = small(w)
    scale = 127 / size(x)
    y = product(jnp.round(x * scale).astype(jnp.int8), q)
    return y * (1 / scale) * s + b


def divided(x, w, b):
    q, s = small(w)
    scale = 127 / size(x)
    return product(jnp.round(x * scale).astype(jnp.int8), q) / (scale / s) + b


def clipped(x, w, b):
    q, s = small(w)
    scale = size(x) / 100
    rounded = jnp.clip(jnp.round(x / scale), -128, 127).astype(jnp.int8)
    return product(rounded.astype(jnp.int32), q.astype(jnp.int32)) * scale * s + b


def offset(x, w, b):
    q, s = small(w)
    low, high = x.min(-1, keepdims=True), x.max(-1, keepdims=True)
    scale = (high - low) / 255
    zero = jnp.round(-low / scale) - 128
    rounded = jnp.clip(jnp.round(x / scale) + zero, -128, 127).astype(jnp.int8)
    centred = rounded.astype(jnp.int32) - zero.astype(jnp.int32)
    return product(centred, q.astype(jnp.int32)) * scale * s + b


def offset_after(x, w, b):
    """As qwix writes it: the offset's own product is subtracted."""
    q, s = small(w)
    low, high = x.min(-1, keepdims=True), x.max(-1, keepdims=True)
    scale = (high - low) / 255
    zero = jnp.round(-128 - low / scale).astype(jnp.int8)
    rounded = jnp.round(x / scale + zero.astype("f4")).astype(jnp.int8)
    y = product(rounded, q) - product(jnp.broadcast_to(zero, x.shape), q)
    return y.astype("f4") * scale * s + b


def with_outliers(x, w, b):
    """Columns of large activations stay floats: LLM.int8."""
    q, s = small(w)
    large = jnp.abs(x).max(0) > 2
    rest = jnp.where(large, 0, x)
    scale = size(rest) / 127
    y = product(jnp.round(rest / scale).astype(jnp.int8), q)
    return y * scale * s + jnp.where(large, x, 0) @ w + b


def in_blocks(x, w, b):
    n = x.shape[1] // 8
    q, s = small(w)
    blocks = x.reshape(-1, n, 8)
    scale = size(blocks) / 127
    rounded = jnp.round(blocks / scale).astype(jnp.int8)
    kernel = q.reshape(n, 8, -1)
    y = jnp.einsum("bnk,nko->bno", rounded, kernel, preferred_element_type=jnp.int32)
    return (y * scale).sum(1) * s + b


def back_at_once(x, w, b):
    scale = size(x) / 127
    return (jnp.round(x / scale).astype(jnp.int8).astype("f4") * scale) @ w + b


def in_float8(x, w, b):
    scale = size(x) / 448
    q = (x / scale).astype(jnp.float8_e4m3fn)
    y = product(q, w.astype(jnp.float8_e4m3fn), jnp.float32)
    return y * scale + b


@jax.custom_vjp
def _straight_through(x, w, b):
    return dynamic(x, w, b)


_straight_through.defvjp(
    lambda x, w, b: (dynamic(x, w, b), (x, w)),
    lambda saved, g: (g @ saved[1].T, saved[0].T @ g, g.sum(0)),
)


def straight_through(x, w, b):
    """In training: a derivative that passes the rounding."""
    return _straight_through(x, w, b)


def as_floats(x, w, b):
    return x @ w + b


FORMS = [
    *(dynamic, one_scale, scales_together, by_einsum, reciprocal, divided, clipped),
    *(offset, offset_after, with_outliers, in_blocks, back_at_once),
    straight_through,
]


def network(layer, weights=WEIGHTS):
    def f(x):
        for w, b in weights[:-1]:
            x = jax.nn.silu(layer(x, w, b))
        return layer(x, *weights[-1])

    return f


def cosine(a, b):
    a, b = (np.asarray(v, np.float64).ravel() for v in (a, b))
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


@functools.cache
def of_floats(name):
    return np.asarray(jax.jit(jaxlrp.lrp(network(as_floats), COMPOSITES[name]))(X))


@pytest.mark.always
@pytest.mark.parametrize("name", COMPOSITES)
@pytest.mark.parametrize("layer", FORMS)
def test_a_quantised_network_has_the_relevance_of_that_in_floats(layer, name):
    f = network(layer)
    y, found = jax.jit(jaxlrp.value_and_lrp(f, COMPOSITES[name]))(X)
    np.testing.assert_allclose(y, jax.jit(f)(X), rtol=1e-5, atol=1e-5)
    # Noise of the size of the rounding moves the relevance in floats as much.
    assert cosine(found, of_floats(name)) > 0.98


@pytest.mark.parametrize("name", COMPOSITES)
def test_eight_bits_of_a_float_are_a_rounding(name):
    f = network(in_float8)
    y, found = jax.jit(jaxlrp.value_and_lrp(f, COMPOSITES[name]))(X)
    np.testing.assert_allclose(y, jax.jit(f)(X), rtol=1e-5, atol=1e-5)
    # What is left is the rounding to four bits itself.
    assert cosine(found, of_floats(name)) > 0.98


def test_a_layer_of_int8_is_a_layer():
    roles = {row.role for row in jaxlrp.plan(network(dynamic))(X).rows}
    assert "dense" in roles and not roles & {"product", "shift", "sum"}


def test_shifts_of_bits_scale():
    q, s = small(WEIGHTS[0][0])

    def shifted(x):
        y = product(jnp.round(x * 32).astype(jnp.int8), q)
        return ((y << 4) >> 2) * (s / 128)

    expected = jaxlrp.lrp(lambda x: x @ WEIGHTS[0][0])(X)
    assert cosine(jaxlrp.lrp(shifted)(X), expected) > 0.995


def test_without_rounding_nothing_is_left_of_the_scale():
    w, b = WEIGHTS[0]

    def scaled(x):
        scale = size(x)
        return ((x / scale) @ w) * scale + b

    for composite in COMPOSITES.values():
        expected = jaxlrp.lrp(lambda x: x @ w + b, composite)(X)
        np.testing.assert_allclose(
            jaxlrp.lrp(scaled, composite)(X), expected, atol=2e-5
        )


# ---- where a layer of int8 may stand ------------------------------------------------

SQUARE = np.round(drawn(32, 32) * 5) / 32, 0.3 * drawn(32)


def repeated(layer, how):
    step = functools.partial(layer, w=SQUARE[0], b=SQUARE[1])
    body = lambda x: jnp.tanh(step(x)) + x  # noqa: E731

    def f(x):
        if how == "scan":
            return lax.scan(lambda x, _: (body(x), None), x, length=3)[0]
        if how == "fori_loop":
            return lax.fori_loop(0, 3, lambda _, x: body(x), x)
        if how == "while_loop":
            go = lambda c: c[0] < 3  # noqa: E731
            again = lambda c: (c[0] + 1, body(c[1]))  # noqa: E731
            return lax.while_loop(go, again, (0, x))[1]
        if how == "cond":
            return lax.cond(x[0, 0] < 1e9, body, lambda x: -x, x)
        if how == "checkpoint":
            return jax.checkpoint(body)(body(x))
        if how == "jit":
            once = jax.jit(body)
            return once(once(once(x)))
        if how == "shard_map":
            mesh = jax.make_mesh(
                (2,), ("batch",), (AxisType.Auto,), devices=jax.devices()[:2]
            )
            spec = jax.P("batch")
            return jax.shard_map(body, mesh=mesh, in_specs=spec, out_specs=spec)(x[:4])
        return jax.vmap(lambda row: body(row[None])[0])(x)

    return f


PLACES = (
    *("scan", "fori_loop", "while_loop", "cond", "checkpoint", "jit", "vmap"),
    "shard_map",
)


@pytest.mark.parametrize("how", PLACES)
def test_a_quantised_layer_may_stand_in_control_flow(how):
    found = jax.jit(jaxlrp.lrp(repeated(dynamic, how)))(X)
    expected = jax.jit(jaxlrp.lrp(repeated(as_floats, how)))(X)
    assert cosine(found, expected) > 0.995


def test_a_derivative_of_relevance_passes_rounding():
    explain = jaxlrp.lrp(network(dynamic), target=0)
    slope = jax.jit(jax.grad(lambda x: (explain(x) ** 2).sum()))(X)
    assert np.isfinite(slope).all() and np.abs(slope).max() > 0


# ---- integers that are attributed ----------------------------------------------------

TABLE = drawn(6, 4)
COUNTS = np.array([3, 1, 0, 2, 5, 1])

CONTRACTIONS = {
    "matmul": lambda c, w: c @ w,
    "dot": jnp.dot,
    "einsum": lambda c, w: jnp.einsum("i,io->o", c, w),
    "tensordot": lambda c, w: jnp.tensordot(c, w, 1),
    "vecmat": lambda c, w: jnp.vecmat(c, w),
    "reversed": lambda c, w: w.T @ c,
    "sum": lambda c, w: c.sum() * w[0],
    "mean": lambda c, w: c.mean() * w[0],
}


@pytest.mark.parametrize("dtype", ["int32", "uint8", "int8", "bool"])
@pytest.mark.parametrize("name", CONTRACTIONS)
def test_integers_in_a_contraction_count_as_their_floats(name, dtype):
    f = lambda c: CONTRACTIONS[name](c, jnp.asarray(TABLE))  # noqa: E731
    c = COUNTS.astype(dtype)
    found = jaxlrp.lrp(f, target="all")(c)
    expected = jaxlrp.lrp(lambda c: f(c.astype("f4")), target="all")(c)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
    assert np.abs(found).max() > 0


def test_integers_on_one_of_two_paths_lose_nothing():
    f = lambda c: c @ jnp.asarray(TABLE) + jnp.sqrt(c.astype("f4")).sum()  # noqa: E731
    g = lambda c: f(c.astype("f4"))  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(COUNTS)
    np.testing.assert_allclose(found, jaxlrp.lrp(g, target="all")(COUNTS), rtol=1e-6)


def test_a_one_hot_code_of_booleans_is_a_look_up():
    ids = np.array([2, 0, 5])
    f = lambda ids: jax.nn.one_hot(ids, 6, dtype=bool) @ jnp.asarray(TABLE)  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(ids)
    np.testing.assert_allclose(found, TABLE[ids].sum(-1), rtol=1e-6)


def test_pixels_in_a_product_of_integers():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 6) * 20
    w = np.array([[1, -2], [3, 1], [0, 2], [-1, 1], [2, 2], [1, 1]], np.int32)
    f = lambda p: (p.astype(jnp.int32) @ w).astype("f4")  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(pixels)
    np.testing.assert_allclose(found, pixels * w.sum(1), rtol=1e-5, atol=1e-3)


# ---- ids among floats ----------------------------------------------------------------

ROW = np.array([3.0, 1.0, 0.5, -0.2, 0.7], "f4")


def of_row(row):
    ids = row[:2].astype(int)
    return jnp.asarray(TABLE)[ids].sum() + row[2:] @ jnp.asarray(TABLE[:3, 0])


def test_ids_in_a_row_of_floats_get_what_they_look_up():
    for explain in (
        jaxlrp.lrp(of_row, target="all"),
        jax.jit(jaxlrp.lrp(of_row, target="all")),
    ):
        found = explain(ROW)
        np.testing.assert_allclose(found[:2], TABLE[[3, 1]].sum(-1), rtol=1e-5)
        np.testing.assert_allclose(found[2:], ROW[2:] * TABLE[:3, 0], rtol=1e-4)


def test_ids_of_a_table_that_is_attributed_are_indices():
    f = lambda row, table: table[row[:2].astype(int)].sum()  # noqa: E731
    explain = jaxlrp.lrp(f, argnums=(0, 1), target="all")
    with pytest.warns(jaxlrp.errors.IndependentArgumentWarning):
        row, table = explain(ROW, jnp.asarray(TABLE))
    assert not row.any()
    np.testing.assert_allclose(table.sum(), TABLE[[3, 1]].sum(), rtol=1e-5)


MIXED = {
    "elementwise": lambda ids: ids[0] * 2 + ids[1],
    "contraction": lambda ids: ids @ jnp.array([2, 1]),
    "sum": lambda ids: (ids * jnp.array([2, 1])).sum(),
    "running sum": lambda ids: jnp.cumsum(ids * jnp.array([2, 1]))[-1],
}


@pytest.mark.parametrize("how", MIXED)
@pytest.mark.parametrize("dtype", ["float32", "int32"])
def test_ids_that_make_one_index_share_what_it_looks_up(how, dtype):
    table = jnp.asarray(drawn(12))
    f = lambda r: table[MIXED[how](r.astype(int))]  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(jnp.array([3, 1], dtype))
    np.testing.assert_allclose(found, [table[7] / 2, table[7] / 2], rtol=1e-6)


def test_a_test_of_ids_ends_their_relevance():
    f = lambda row: (row[:2].astype(int) == 3).sum() * row[2]  # noqa: E731
    found = jaxlrp.lrp(f, target="all")(ROW)
    np.testing.assert_allclose(found, [0, 0, 0.5, 0, 0])


# ---- the program ---------------------------------------------------------------------


def text_of(f, *args):
    jaxpr = jax.make_jaxpr(f)(*args)
    return jaxpr, in_floats(jaxpr, [True] * len(args), args)


def test_a_program_without_integers_stays_the_same_object():
    for f in (
        network(as_floats),
        lambda x: x[jnp.argmax(x)],
        lambda x: (x > 0).sum() * x,
    ):
        before, after = text_of(f, X)
        assert after is before


def test_indices_and_bits_keep_their_integers():
    def f(x):
        cell = jnp.floor(x[0] * 8).astype(jnp.uint32)
        key = (cell * jnp.uint32(2654435761)) ^ (cell >> 3)
        return jnp.asarray(TABLE)[key % 6].sum() + (x @ WEIGHTS[0][0]).sum()

    np.testing.assert_allclose(
        jaxlrp.value_and_lrp(f, target="all")(X)[0], f(X), rtol=1e-6
    )


def test_what_is_too_large_is_stored_as_the_program_stores_it():
    x = jnp.array([300.0, -300.0, 3.7, -3.7])
    y = jaxlrp.value_and_lrp(lambda x: x.astype(jnp.int8) * 1.0, target="all")(x)[0]
    np.testing.assert_array_equal(y, x.astype(jnp.int8).astype("f4"))
    np.testing.assert_array_equal(as_stored(x, jnp.int8), y)


# ---- integers that are too large, and other ways to add them ------------------------


def of(x, dtype="int8", scale=30):
    return jnp.round(x * scale).astype(dtype)


WRAPS = {
    "sum of products": lambda x: of(x) @ of(WEIGHTS[0][0]),
    "to fewer bits": lambda x: (of(x, "int32") @ of(WEIGHTS[0][0], "int32")).astype(
        jnp.int8
    ),
    "sum": lambda x: of(x).sum(1, dtype=jnp.int8),
    "cumulative": lambda x: jnp.cumsum(of(x), 1),
    "square": lambda x: of(x) ** 2,
    "below zero": lambda x: of(abs(x), "uint8") - jnp.uint8(40),
    "hash": lambda x: of(abs(x), "uint32") * jnp.uint32(2654435761),
    "signed hash": lambda x: of(x, "int32") * jnp.int32(1640531527),
    "bits lost on the left": lambda x: of(x) << 3,
    "bits of the sign": lambda x: lax.shift_right_logical(of(x), jnp.int8(2)),
    "int4": lambda x: of(x, "int4", 3) @ jnp.ones((32, 3), "int4"),
}


@pytest.mark.parametrize("name", WRAPS)
def test_overflow_is_the_program_s_and_loses_no_relevance(name):
    f = lambda x: WRAPS[name](x).astype("f4")  # noqa: E731
    y, found = jaxlrp.value_and_lrp(f, target="all")(X)
    np.testing.assert_array_equal(y, f(X))
    np.testing.assert_allclose(found.sum(), y.sum(), rtol=1e-4)


def spread(write):
    return lambda x: getattr(jnp.zeros(8, int).at[:4], write)(of(x[0, 2:6], int)) * 1.0


ADDED_UP = {
    "scatter-add": spread("add"),
    "scatter-max": spread("max"),
    "segments": lambda x: (
        jax.ops.segment_sum(of(x[0]), jnp.arange(32) // 4, num_segments=8) * 1.0
    ),
    "groups": lambda x: (
        lax.ragged_dot(
            of(x),
            jnp.stack([of(WEIGHTS[0][0])] * 2),
            jnp.array([2, 3]),
            preferred_element_type=jnp.int32,
        )
        * 1.0
    ),
}


@pytest.mark.parametrize("name", ADDED_UP)
def test_other_ways_to_add_integers(name):
    y, found = jaxlrp.value_and_lrp(ADDED_UP[name], target="all")(X)
    np.testing.assert_array_equal(y, ADDED_UP[name](X))
    np.testing.assert_allclose(found.sum(), y.sum(), rtol=1e-4)


@pytest.mark.parametrize("dtype", ["int8", "int32"])
def test_a_one_hot_code_of_integers_is_a_look_up(dtype):
    table = jnp.asarray(np.round(TABLE * 9).astype(dtype))

    def f(row):
        code = jax.nn.one_hot(jnp.round(row).astype(int), 6, dtype=dtype)
        return lax.dot(code, table, preferred_element_type=jnp.int32) * 1.0

    row = np.array([2.2, 0.4, 4.9], "f4")
    found = jaxlrp.lrp(f, target="all")(row)
    np.testing.assert_allclose(found, table[np.array([2, 0, 5])].sum(-1), rtol=1e-5)


def test_rounding_has_the_derivative_of_the_identity():
    for dtype in (jnp.int8, jnp.float8_e4m3fn):
        slope = jax.grad(lambda x, dtype=dtype: as_stored(x, dtype))(3.3)
        assert slope == 1
