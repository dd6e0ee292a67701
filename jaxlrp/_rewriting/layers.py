"""Layers, averages and sums: the roles whose rules share relevance by contributions."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import _compat, rules
from jaxlrp._operations import held_constant, in_place_of, sift
from jaxlrp._program.program import Equation, aval_of
from jaxlrp._reading.facts import facts_of
from jaxlrp._reading.steps import LayerForm, Link, Step
from jaxlrp._rewriting.environment import (
    Environment,
    Run,
    detached,
    take_in,
    values_of,
)
from jaxlrp._rewriting.shares import observed_share, shared
from jaxlrp.errors import RuleError
from jaxlrp.primitives import lookup
from jaxlrp.primitives.structural import Atom, Layout, is_kernels
from jaxlrp.rules import Layer, Share

_MOVING = ("structural", "across", "blocks", "held")
"""Links that no weights are made of."""


def layer(step: Step, rule: Any, env: Environment, run: Run) -> Any:
    """`y = W x + b`, or an average: shared as the rule says."""
    form = step.layer
    assert form is not None
    signal = step.signals[0]
    x, shadow = env.read(signal), env.shadow(signal)
    if isinstance(rule, rules.Detach):
        return detached(step, env)
    values = values_of(step.equations, _held(form, env), env.read)
    y = values[step.outputs[0]]
    if isinstance(rule, rules.LRP0 | rules.Taylor):
        return [y], [None]
    product = values[form.head.outputs[0]]
    unit = _unit(step, x, y, shadow, product, env)
    # Parts that one number distinguishes cannot be observed one by one.
    whole = run.parameters or run.observe is not None
    unit = dataclasses.replace(unit, of_parameters=whole)
    apart = run.parameters and rule.needs_shadow
    shares = rule.shares(_with_weights_held(unit) if apart else unit)
    _check_shares(shares, y, rule, step)
    if apart:
        shares = [*shares, *_of_weights(rule, unit)]
    if run.observe is not None:
        shares = [observed_share(s, step, run.observe) for s in shares]
    wanted = env.wants_shadow(step.outputs[0])
    y, out_shadow = shared(y, shares, wanted, step.rectified)
    if run.observe is not None and one_sided(rule):
        # Where a sum is empty its part of the relevance goes nowhere.
        lost = sum(jnp.where(s.z == 0, s.part, 0.0) for s in shares)
        y, out_shadow = run.observe("one-sided", step, y, out_shadow, lost)
    return [y], [out_shadow]


def one_sided(rule: Any) -> bool:
    """Does the rule send relevance to contributions of one sign, and keep the rest?"""
    by_sign = isinstance(rule, rules.AlphaBeta | rules.ZPlus)
    return by_sign and rule.bias != "share"


def _with_weights_held(unit: Layer) -> Layer:
    """The layer, to whose weights and bias nothing goes."""
    kernel, bias = held_constant(unit.fold())
    if kernel is None:
        return unit
    held = dataclasses.replace(unit, fold=lambda: (kernel, bias), contributed=None)
    return _recomputed(held)


def _recomputed(unit: Layer) -> Layer:
    """With `y` of this unit's own input and weights: a rule's surrogate may be `y`."""
    y = unit.plus_bias(unit.linear(unit.x, unit.kernel), lambda b: b)
    return dataclasses.replace(unit, y=y.astype(unit.y.dtype))


def _of_weights(rule: Any, unit: Layer) -> list[Share]:
    """What weights and bias receive under a rule that sends relevance to shadows.

    The surrogates of shadows are zero. With ones instead, they are what the rule shares
    relevance by, and each weight gets what passes through it.
    """
    kernel, bias = unit.fold()
    if kernel is None:
        return []

    def linear(x: Array, changed: Any) -> Array:
        return unit.linear(x, in_place_of(held_constant(changed), kernel))

    x = held_constant(unit.x)
    held = _with_weights_held(unit)
    ones = jnp.ones_like(x)
    own = {"evenly": None, "summed": None}
    alone = dataclasses.replace(held, x=x, shadow=ones, linear=linear, **own)
    shares = rule.shares(_recomputed(alone))
    if bias is None:
        return list(shares)
    own = jnp.broadcast_to(bias, unit.y.shape)
    absorbed = [
        dataclasses.replace(
            s, surrogate=in_place_of(held_constant(s.z - s.surrogate), own)
        )
        for s in shares
    ]
    return [*shares, *absorbed]


def _check_shares(shares: Any, y: Array, rule: Any, step: Step) -> None:
    """A user's rule may be wrong: says which, and where."""
    where = f"for a layer with results of shape {y.shape}, at {step.main.line}"
    if not isinstance(shares, tuple | list) or not all(
        isinstance(s, Share) for s in shares
    ):
        raise RuleError(f"rule {rule!r} returned no tuple of Shares, {where}")
    for share in shares:
        for name, part in (("surrogate", share.surrogate), ("z", share.z)):
            if jnp.shape(part) != y.shape:
                shape = jnp.shape(part)
                raise RuleError(f"rule {rule!r} returned a {name} of {shape} {where}")


def _contributions(form: LayerForm, z: Array, env: Environment) -> Array:
    """The chain after the head's product `z`, without its shifts."""
    for link in form.links:
        if link.kind == "shift":
            sign = _sign_of(link, z.dtype) if link.position == 1 else None
            z = z if sign is None else sign * z
        else:
            z = _apply(link, z, env)
    return z


def _unit(
    step: Step, x: Array, y: Array, shadow: Any, product: Array, env: Environment
) -> Layer:
    """The layer as its rule sees it; `product` is its head's result."""
    form = step.layer
    assert form is not None
    contract = _bound(form.head)
    folds = form.kernel is not None
    fold = functools.partial(_folded, form, env) if folds else no_weights

    def behind(z: Array, scales: bool = not folds) -> Array:
        for link in form.links:
            moves = link.kind in _MOVING
            if moves or (link.kind == "scale" and scales):
                z = _apply(link, z, env)
            elif link.kind == "scale" and len(link.equation.inputs) == 1:
                z = lax.convert_element_type(z, link.equation.outputs[0].aval.dtype)
        return z

    def linear(x: Array, kernel: Any) -> Array:
        operands = [x] if kernel is None else [x, kernel]
        (z,) = contract(*(operands if form.position == 0 else operands[::-1]))
        return behind(z)

    def evenly(x: Array) -> Array:
        if not folds:
            return linear(x, None)
        like = aval_of(form.head.inputs[1 - form.position])
        thin = _with_ones(form, 1 - form.position, x, like.shape)
        return (
            linear(x, jnp.ones(like.shape, like.dtype))
            if thin is None
            else (behind(thin))
        )

    def summed(kernel: Array) -> Array:
        thin = _with_ones(form, form.position, kernel, x.shape)
        return linear(jnp.ones_like(x), kernel) if thin is None else behind(thin)

    signal = form.head.inputs[form.position]
    return Layer(
        x=x,
        y=y,
        shadow=shadow,
        linear=linear,
        fold=fold,
        nonnegative=facts_of(signal, env.reading.facts).nonnegative,
        features=_features(form),
        rectified=step.rectified,
        contributed=functools.partial(_contributions, form, product, env),
        evenly=evenly,
        summed=summed,
        in_kernel=functools.partial(_in_kernel, form, x.ndim),
        without_scales=functools.partial(behind, product, scales=False),
    )


def _with_ones(
    form: LayerForm, ones: int, x: Array, other: tuple[int, ...]
) -> Array | None:
    """The head's product with an operand of ones, if its entry knows a shortcut.

    Not where the result is laid out over devices along axes that it would not have.
    """
    entry = lookup(form.head.primitive)
    (result,) = form.head.outputs
    if entry is None or entry.with_ones is None or any(result.aval.sharding.spec):
        return None
    return entry.with_ones(form.head.params, ones, x, other, result.aval.shape)


def _in_kernel(form: LayerForm, ndim: int, bound: Array) -> Array | None:
    """An array that broadcasts to the signal, along the kernel's axes that it meets."""
    entry = lookup(form.head.primitive)
    if entry is None or entry.input_axes is None:
        return None
    kernel = 1 - form.position
    ndims = [len(aval_of(v).shape) for v in form.head.inputs]
    axes = entry.input_axes(form.head.params, kernel, tuple(ndims))
    bound = bound.reshape((1,) * (ndim - bound.ndim) + bound.shape)
    varies = [i for i, n in enumerate(bound.shape) if n != 1]
    if any(i not in axes for i in varies):
        return None
    order = sorted(varies, key=lambda i: axes[i])
    shape = [1] * ndims[kernel]
    for i in varies:
        shape[axes[i]] = bound.shape[i]
    kept = bound.reshape([bound.shape[i] for i in varies])
    return lax.transpose(kept, [varies.index(i) for i in order]).reshape(shape)


def _features(form: LayerForm) -> tuple[int, ...]:
    """The axes of the result that belong to the kernel."""
    return tuple(
        i
        for i, atoms in enumerate(form.layout)
        if any(a is not None for a, _, _ in atoms)
    )


def sifted(
    step: Step,
    results: Sequence[Array],
    shadows: Sequence[Any],
    keep: Any,
    env: Environment,
    run: Run,
) -> Any:
    """A layer's result, of whose relevances only the largest pass."""
    assert step.layer is not None
    (y,), (shadow,) = results, shadows
    wanted = env.wants_shadow(step.outputs[0])
    if shadow is None:
        shadow = take_in(y) if wanted else lax.full_like(y, 0)
    if run.observe is not None:
        y, shadow = run.observe("kept", step, y, shadow)
    y, shadow = sift(_features(step.layer), y, shadow, keep)
    return [y], [shadow if wanted else None]


def no_weights() -> tuple[None, None]:
    return None, None


def _bound(equation: Equation) -> Callable[..., list[Any]]:
    return equation.bound()


def _held(form: LayerForm, env: Environment) -> dict[Any, Array]:
    """The factors that count as constants, by name."""
    return {v: _held_of(env)(v) for v in form.held}


def _held_of(env: Environment) -> Callable[[Any], Array]:
    """Reads a value as a constant."""
    return lambda v: held_constant(env.read(v))


def _apply(link: Link, z: Array, env: Environment) -> Array:
    """A chain's equation, applied to another value instead of the chain's."""
    read = _held_of(env) if link.kind == "held" else env.read
    operands = [
        z if i == link.position else read(v) for i, v in enumerate(link.equation.inputs)
    ]
    return _bound(link.equation)(*operands)[0]


def _folded(form: LayerForm, env: Environment) -> tuple[Array, Array | None]:
    """(kernel with the chain's scales folded in, the chain's shifts as one bias).

    Both are computed in the kernel's own axes, where they are small: an array with the
    kernel's rank that is constant along every axis that is not a feature axis.
    """
    kernel = env.read(form.kernel)
    scale: Any = None
    bias: Any = None
    for link in form.links:
        if link.kind in _MOVING:
            continue
        if len(link.equation.inputs) == 1:  # a sign or a cast
            one = jnp.ones((), aval_of(link.equation.inputs[0]).dtype)
            factor = _bound(link.equation)(one)[0]
            scale = factor if scale is None else scale * factor
            bias = None if bias is None else bias * factor
            continue
        constant = _in_kernel_axes(link, kernel.ndim, env)
        if link.kind == "shift":
            if link.position == 1:  # b - z flips the sign
                sign = _sign_of(link, constant.dtype)
                scale = sign if scale is None else scale * sign
            zero = jnp.zeros_like(constant) if bias is None else bias
            bias = _with_constant(link, zero, constant)
        else:
            one = jnp.ones_like(constant)
            scale = _with_constant(link, one if scale is None else scale, constant)
            bias = None if bias is None else _with_constant(link, bias, constant)
    dtype = kernel.dtype
    folded = kernel if scale is None else kernel * scale.astype(dtype)
    return folded, None if bias is None else _to_result_axes(bias, form.layout)


def _sign_of(link: Link, dtype: Any) -> Array:
    """The factor of the chain's value in a sum or difference."""
    return _bound(link.equation)(jnp.zeros((), dtype), jnp.ones((), dtype))[0]


def _with_constant(link: Link, value: Array, constant: Array) -> Array:
    """The link's arithmetic with the chain's value and constant in kernel axes."""
    value, constant = jnp.broadcast_arrays(value, constant)
    operands = [constant, value] if link.position else [value, constant]
    params = {k: v for k, v in link.equation.params.items() if "sharding" not in k}
    bind = _compat.primitive_bind(link.equation.primitive, params)
    return bind(*operands)[0]


def _in_kernel_axes(link: Link, ndim: int, env: Environment) -> Array:
    """A chain's constant, laid out along the kernel's axes."""
    constant = jnp.asarray(env.read(link.equation.inputs[1 - link.position]))
    if constant.ndim == 0:
        return constant.reshape((1,) * ndim)
    kept: list[Atom] = []
    for axis, atoms in enumerate(link.layout):
        if is_kernels(atoms) and constant.shape[axis] != 1:
            kept += atoms
        else:
            constant = lax.slice_in_dim(constant, 0, 1, axis=axis)
    constant = constant.reshape([n for _, n, _ in kept])
    # Major to minor within each of the kernel's axes, which are then merged.
    wanted = _pieces(link.layout)
    order = sorted(range(len(kept)), key=lambda i: wanted.index(kept[i]))
    constant = lax.transpose(constant, order)
    constant = constant.reshape([n if (a, n, s) in kept else 1 for a, n, s in wanted])
    varying = {axis for axis, _, _ in kept}
    constant = jnp.broadcast_to(
        constant, [n if axis in varying else 1 for axis, n, _ in wanted]
    )
    sizes = dict.fromkeys(range(ndim), 1)
    for axis, n, _ in wanted:
        sizes[axis] *= n if axis in varying else 1
    return constant.reshape(list(sizes.values()))


def _pieces(layout: Layout) -> list[Any]:
    """All atoms of the kernel's axes, by axis and major to minor."""
    own = [(a, n, s) for atoms in layout for a, n, s in atoms if a is not None]
    return sorted(own, key=lambda atom: (atom[0], -atom[2]))


def _to_result_axes(bias: Array, layout: Layout) -> Array:
    """A bias in the kernel's axes, in a shape that broadcasts to the result's."""
    pieces = _pieces(layout)
    bias = bias.reshape([n if bias.shape[axis] != 1 else 1 for axis, n, _ in pieces])
    bias = jnp.broadcast_to(bias, [n for _, n, _ in pieces])
    own = [(a, n, s) for atoms in layout for a, n, s in atoms if a is not None]
    bias = lax.transpose(bias, [pieces.index(atom) for atom in own])
    # An axis in which the kernel's atoms and others were merged is filled whole.
    apart: list[int] = []
    whole: list[int] = []
    merged: list[int] = []
    for atoms in layout:
        mixed = any(a is not None for a, _, _ in atoms)
        apart += [n if a is not None else 1 for a, n, _ in atoms]
        whole += [n if mixed else 1 for _, n, _ in atoms]
        merged.append(math.prod(n for _, n, _ in atoms) if mixed else 1)
    return jnp.broadcast_to(bias.reshape(apart), whole).reshape(merged)
