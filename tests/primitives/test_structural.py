"""Elements that move take their relevance along; layouts follow index arithmetic."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

import jaxlrp
from jaxlrp.primitives import structural

X = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, (2, 3, 4)), jnp.float32)

MOVES = {
    "transpose": lambda x: x.transpose(2, 0, 1),
    "reshape": lambda x: x.reshape(6, 4),
    "squeeze": lambda x: x[:, None].squeeze(1),
    "broadcast": lambda x: jnp.broadcast_to(x, (2, 2, 3, 4)),
    "slice": lambda x: x[:, 1:, ::2],
    "reversed": lambda x: x[:, ::-1],
    "concatenate": lambda x: jnp.concatenate([x[1:], x, x[:1]]),
    "pad": lambda x: lax.pad(x, 0.0, ((1, 0, 0), (0, 2, 1), (-1, 0, 0))),
    "split": lambda x: jnp.split(x, 2, axis=2)[1],
    "stack": lambda x: jnp.stack([x, x], 1),
    "tile": lambda x: jnp.tile(x, (1, 2, 1)),
    "roll": lambda x: jnp.roll(x, 1, 2),
    "repeat": lambda x: jnp.repeat(x, 3, 1),
    "unstack": lambda x: jnp.unstack(x, axis=1)[2],
    "barrier": lambda x: lax.optimization_barrier(x),
    "gather": lambda x: x[jnp.array([1, 1, 0]), jnp.array([2, 0, 2])],
    "dynamic slice": lambda x: lax.dynamic_slice(x, (1, 1, 2), (1, 2, 2)),
    "dynamic update": lambda x: lax.dynamic_update_slice(x, x[:1] * 1.0, (1, 0, 0)),
    "scatter": lambda x: x.at[0, 1].set(x[1, 2]),
    "select": lambda x: jnp.where(jnp.arange(4) % 2 == 0, x, x[::-1]),
}


@pytest.mark.parametrize("name", MOVES)
def test_relevance_of_one_element_lands_on_its_source(name):
    """Every element of the result is one of `x` (distinct numbers) or a constant."""
    move = MOVES[name]
    out, pull = jaxlrp.relprop(move, X)
    seeds = jnp.eye(out.size).reshape(out.size, *out.shape)
    landed = np.asarray(jax.vmap(pull)(seeds)).reshape(out.size, -1)
    source = np.asarray(X).ravel()
    expected = (np.asarray(out).reshape(-1, 1) == source).astype(float)
    np.testing.assert_allclose(landed, expected, rtol=1e-6)
    # The same by multipliers.
    found = jaxlrp.lrp(move, target="all")(X)
    np.testing.assert_allclose(found.ravel(), expected.sum(0) * source, rtol=1e-6)


@pytest.mark.whole
@pytest.mark.parametrize("name", MOVES)
def test_moving_is_exact_by_the_plan(name):
    rows = jaxlrp.plan(MOVES[name])(X).rows
    assert {row.role for row in rows} <= {"structural", "scale"}
    assert {row.exactness for row in rows} <= {"exact"}


# ---- layouts -------------------------------------------------------------------------

# An array of indices: where on the marked axes each element comes from. Axes that are
# marked belong to the kernel; a layout has to name, for each axis, its marked parts.


def marked(shape, kernel):
    """(layout, coordinates on the kernel's axes of every element)."""
    layout = tuple(
        ((axis if axis in kernel else None, n, 1),) for axis, n in enumerate(shape)
    )
    grid = np.indices(shape)
    return layout, {axis: grid[axis] for axis in kernel}


def coordinates(layout, shape):
    """What a layout says of every element's coordinates on the kernel's axes."""
    found = {}
    for axis, atoms in enumerate(layout):
        size = math.prod(n for _, n, _ in atoms)
        assert size == shape[axis]
        index, rest = np.indices(shape)[axis], size
        for kernel_axis, n, stride in atoms:
            rest //= n
            if kernel_axis is not None:
                part = index // rest % n * stride
                found[kernel_axis] = found.get(kernel_axis, 0) + part
    return found


def assert_layout(f, shape, kernel, layout_of, params, out_shape):
    layout, grids = marked(shape, kernel)
    after = layout_of(params, layout, out_shape)
    if after is None:
        return False
    found = coordinates(after, out_shape)
    for axis, grid in grids.items():
        if shape[axis] == 1:
            continue
        np.testing.assert_array_equal(found[axis], f(grid))
    return True


shapes = st.lists(st.integers(1, 4), min_size=1, max_size=4).map(tuple)


@given(shapes, st.data())
@settings(max_examples=40)
def test_layout_of_a_transpose(shape, data):
    order = tuple(data.draw(st.permutations(range(len(shape)))))
    kernel = data.draw(st.sets(st.sampled_from(range(len(shape)))))
    out = tuple(shape[i] for i in order)
    params = {"permutation": order}
    assert assert_layout(
        lambda a: a.transpose(order),
        shape,
        kernel,
        structural.transpose_layout,
        params,
        out,
    )


@given(shapes, st.data())
@settings(max_examples=40)
def test_layout_of_merged_axes(shape, data):
    cuts = sorted(data.draw(st.sets(st.integers(1, len(shape)))) | {len(shape)})
    kernel = data.draw(st.sets(st.sampled_from(range(len(shape)))))
    pieces = [shape[i:j] for i, j in zip([0, *cuts], cuts, strict=False)]
    out = tuple(math.prod(piece) for piece in pieces)
    assert assert_layout(
        lambda a: a.reshape(out), shape, kernel, structural.reshape_layout, {}, out
    )


@given(shapes, st.data())
@settings(max_examples=60)
def test_layout_of_any_reshape_is_right_or_none(shape, data):
    size = math.prod(shape)
    divisors = [n for n in range(1, size + 1) if size % n == 0]
    first = data.draw(st.sampled_from(divisors))
    out = (first, size // first)
    kernel = data.draw(st.sets(st.sampled_from(range(len(shape)))))
    assert_layout(
        lambda a: a.reshape(out), shape, kernel, structural.reshape_layout, {}, out
    )


def test_layout_of_axes_that_merge_and_split_again():
    layout, _ = marked((2, 3, 4), {1, 2})
    merged = structural.reshape_layout({}, layout, (6, 4))
    assert structural.reshape_layout({}, merged, (2, 3, 4)) == layout
    assert structural.reshape_layout({}, merged, (3, 2, 4)) is None


def test_layout_of_an_axis_that_splits():
    layout, _ = marked((2, 12), {1})
    apart = structural.reshape_layout({}, layout, (2, 3, 4))
    assert apart == (((None, 2, 1),), ((1, 3, 4),), ((1, 4, 1),))
    assert structural.reshape_layout({}, layout, (2, 5, 3)) is None


def test_layout_of_a_squeeze_and_a_broadcast():
    layout, _ = marked((2, 1, 3), {0, 2})
    squeezed = structural.squeeze_layout({"dimensions": (1,)}, layout, (2, 3))
    assert squeezed == (((0, 2, 1),), ((2, 3, 1),))
    params = {"broadcast_dimensions": (1, 3)}
    spread = structural.broadcast_layout(params, squeezed, (1, 2, 1, 3))
    assert spread == ((), ((0, 2, 1),), (), ((2, 3, 1),))
    assert structural.broadcast_layout(params, squeezed, (5, 2, 1, 3)) is None
