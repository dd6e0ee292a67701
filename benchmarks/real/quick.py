"""The same function, with convolutions of single channels that CPUs compute quickly.

On CPUs XLA takes most of the time of a network such as EfficientNet for convolutions
that have a kernel for each channel. A sum of shifted products is the same, in a
tenth of the time. It is put in their place after a function is traced: what an
explanation sees is the network as it was written.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend import core

from jaxlrp._compat import primitive_bind


def quick(f: Callable[..., Any]) -> Callable[..., Any]:
    """`f` of arrays, but for rounding; to be compiled, not to be differentiated."""

    @functools.wraps(f)
    def run(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(f, return_shape=True)(*args)
        found = _evaluate(closed, jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shape), found)

    return run


def _evaluate(closed: core.ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    """The outputs of a program, step by step."""
    jaxpr = closed.jaxpr
    values: dict[Any, Any] = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    values |= dict(zip(jaxpr.invars, args, strict=True))

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, core.Literal) else values[atom]

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        if eqn.primitive.name == "conv_general_dilated" and _of_channels(eqn):
            outputs = [_shifted(*inputs, **eqn.params)]
        else:
            params = {name: _inside(value) for name, value in eqn.params.items()}
            outputs = primitive_bind(eqn.primitive, params)(*inputs)
        values |= dict(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _inside(value: Any) -> Any:
    """A parameter of a step; programs in it, as that of a loop, are rewritten."""
    if isinstance(value, core.ClosedJaxpr):
        given = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in value.in_avals]
        return jax.make_jaxpr(lambda *args: _evaluate(value, args))(*given)
    if isinstance(value, tuple):
        inside = [_inside(v) for v in value]
        changed = any(a is not b for a, b in zip(inside, value, strict=True))
        return tuple(inside) if changed else value
    return value


def _of_channels(eqn: Any) -> bool:
    """Whether each channel of an image has a kernel of its own."""
    x, kernel = (atom.aval for atom in eqn.invars)
    numbers, params = eqn.params["dimension_numbers"], eqn.params
    out, inner = (kernel.shape[axis] for axis in numbers.rhs_spec[:2])
    channels = x.shape[numbers.lhs_spec[1]]
    return (
        x.ndim == 4
        and inner == 1
        and 1 < out == channels == params["feature_group_count"]
        and params["batch_group_count"] == 1
        and set(params["rhs_dilation"]) == {1}
    )


def _shifted(x: Array, kernel: Array, **params: Any) -> Array:
    """A convolution of each channel as a sum of shifted products."""
    numbers = params["dimension_numbers"]
    batch, channel, *places = numbers.lhs_spec
    x = x.transpose(batch, *places, channel)
    out, inner, *places = numbers.rhs_spec
    kernel = kernel.transpose(*places, inner, out)[:, :, 0]
    holes = [d - 1 for d in params["lhs_dilation"]]
    sides = [
        (before, after, hole)
        for (before, after), hole in zip(params["padding"], holes, strict=True)
    ]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *sides, (0, 0, 0)])
    strides = params["window_strides"]
    ends = [
        (size - taps) // stride * stride + 1
        for size, taps, stride in zip(x.shape[1:3], kernel.shape, strides, strict=False)
    ]
    parts = [
        x[:, i : i + ends[0] : strides[0], j : j + ends[1] : strides[1]] * kernel[i, j]
        for i in range(kernel.shape[0])
        for j in range(kernel.shape[1])
    ]
    y = functools.reduce(jnp.add, parts)
    batch, channel, *places = numbers.out_spec
    order = [0] * 4
    for axis, place in enumerate((batch, *places, channel)):
        order[place] = axis
    return y.transpose(order)
