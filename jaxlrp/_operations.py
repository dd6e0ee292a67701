"""The custom operations that carry LRP's rules through JAX's own reverse pass.

What travels backwards to a variable `x` is its multiplier `c`; its relevance is
`R = x * c`. `jax.vjp` moves multipliers; a rule only says where one goes and with
which factor. These operations are all that the rules need:

    send(y, hs, ...)     value y; surrogates h_k get functions of the multiplier of y
    route(y, hs, ...)    the same, scaled: `c_h = scale_h c_y`
    hold(f, xs, held)    value f(xs, held); nothing goes to what is held
    hold_like(f, g, ...) the same, by the derivative of another function
    secant(f, x, held)   value f(x); the multiplier goes to x, times f(x) / x
    look_up(f, xs)       value f(xs); relevance goes to shadows of integers in xs
    redistribute(...)    value f(xs); relevance goes to the shadows of xs, by a function
    sift(y, shadow, k)   value y; only its largest relevances pass
    in_place_of(v, x)    value v; what it receives goes to x
    tap(x, shadow, t)    value x; t receives the relevance that passes here

None is `lax.stop_gradient`: that would block an outer derivative as well, and the
gradient of a relevance would be wrong. Each has its own derivative (`custom_vjp`,
`custom_jvp`) made of plain arithmetic, which is what an outer derivative sees. Factors
are computed in the reverse pass, from values that the network keeps anyway.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero, zero_from_primal

from jaxlrp import _compat


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """JAX's defaults for what is computed here, which mixes dtypes and scalars.

    A user's stricter settings are for the user's own code, traced before.
    """
    with (
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.transfer_guard("allow"),
    ):
        yield


def stabilise(z: Array, epsilon: Any, form: str = "sign") -> Array:
    """`s(z)`, in at least float32; never zero (except `plain`, at `z = -epsilon`).

    `sign`: `z + epsilon sign(z)`, `sign(0) = +1`; `plain`: `z + epsilon`; `clip`:
    `sign(z) max(|z|, epsilon)`; `zeros`: `z`, and `epsilon` where `z = 0`. The sign of
    a complex number is `z / |z|`. `epsilon` is raised to the dtype's smallest normal
    number where it is smaller.
    """
    z = wide(z)
    tiny = float(jnp.finfo(z.dtype).tiny)
    if isinstance(epsilon, float | int):
        step = lax.full_like(z, max(epsilon, tiny))
    else:
        real = jnp.finfo(z.dtype).dtype  # a complex maximum has no derivative
        step = jnp.maximum(jnp.asarray(epsilon, real), tiny)
        step = lax.full_like(z, 0) + step  # with the sharding of z
    if form == "plain":
        return z + step
    if form == "zeros":
        return jnp.where(z == 0, step, z)
    if jnp.issubdtype(z.dtype, jnp.complexfloating):
        signed = step * jnp.where(z == 0, 1, jnp.sign(z))
    else:
        above = lax.ge(z, lax.full_like(z, 0))
        signed = lax.select(above, step, lax.neg(step))
    if form == "clip":
        return jnp.where(jnp.abs(z) < _real(step), signed, z)
    return lax.add(z, signed)


def denominator(
    z: Array, epsilon: Any, per: tuple[int, ...] = (), form: str = "sign"
) -> Array:
    """`s(z)`; epsilon in units of the root mean square of `z` over the axes `per`."""
    if per:
        square = jnp.abs(wide(z)) ** 2
        mean = jnp.mean(square, axis=per, keepdims=True)
        # The root has no derivative at zero, where any epsilon will do.
        epsilon = epsilon * jnp.sqrt(jnp.where(mean == 0, 1, mean))
    return stabilise(z, epsilon, form)


def wide(x: Array) -> Array:
    """`x` in at least float32: quotients of low-precision values are taken there."""
    if jnp.finfo(x.dtype).bits < 32:
        return lax.convert_element_type(x, jnp.float32)
    return x


def narrow(c: Array, dtype: Any) -> Array:
    """A multiplier in its value's dtype; float16 would overflow at 65,504.

    Relevance is real: of a multiplier of a real value the real part is all there is.
    """
    most = float(jnp.finfo(dtype).max)
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        c = _real(c)
    if most < float(jnp.finfo(c.dtype).max):
        c = _bounded(c, most)
    return lax.convert_element_type(c, dtype)


def _bounded(x: Array, most: float) -> Array:
    """At most `most` in size; of a complex number either part."""
    if jnp.issubdtype(x.dtype, jnp.complexfloating):
        return lax.complex(*(jnp.clip(p, -most, most) for p in (x.real, x.imag)))
    return jnp.clip(x, -most, most)


def route(scales: Callable[..., Sequence[Array]], y: Array, hs: Any, aux: Any) -> Array:
    """The value `y`; its multiplier goes to the surrogates: `c_h = scale_h c_y`.

    Args:
      scales: a function of `(y, aux)` to one scale for each surrogate. It is evaluated
        in the reverse pass, so that what is kept between the passes is `y` and `aux`,
        most of which the network keeps anyway, and no scales.
      y: the value.
      hs: the surrogates, each of `y`'s shape.
      aux: whatever else `scales` reads.

    Returns:
      `y`.
    """
    return send(functools.partial(_scaled, scales), y, hs, aux)


def _scaled(scales: Callable, y: Array, aux: Any, c: Array) -> list[Array]:
    return [scale * c for scale in scales(y, aux)]


def send(given: Callable[..., Sequence[Array]], y: Array, hs: Any, aux: Any) -> Array:
    """The value `y`; the surrogates get what `given(y, aux, c_y)` says, one each.

    What depends on `c_y` cannot be computed, and kept, before that arrives.
    """
    if _compat.SENDS_ZEROS and jax.tree.leaves(hs):
        # Held, or the zeros would be sent through what these depend on. Together:
        # alone, what does not depend on the input would be held for an outer
        # derivative, too.
        y, aux = held_constant((y, aux))
    return _send(given, y, hs, aux)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _send(given: Callable, y: Array, hs: Any, aux: Any) -> Array:
    return y


def _send_forward(given: Callable, y: Array, hs: Any, aux: Any) -> Any:
    return y, (y, aux)


def _send_backward(given: Callable, residuals: Any, c: Array) -> Any:
    y, aux = residuals
    cs = tuple(narrow(m, c.dtype) for m in given(y, aux, c))
    return _compat.no_cotangent(y), cs, _compat.no_cotangent(aux)


_send.defvjp(_send_forward, _send_backward)


def divided(y: Array, by: Any) -> Array:
    """The value `y`, whose multiplier is divided by a number, or by an array of them.

    Where the array is zero nothing goes: such an element has no factors.
    """
    if isinstance(by, Array):
        return route(_inverse_of, y, (y,), (by,))
    if by in (0, 1):
        return y
    return _scaled_back(1 / by, y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _scaled_back(scale: float, y: Array) -> Array:
    """The value `y`, whose multiplier is scaled. Nothing is kept between the passes."""
    return y


def _scaled_back_forward(scale: float, y: Array) -> Any:
    return y, None


def _scaled_back_backward(scale: float, _: None, c: Array) -> Any:
    return (c * jnp.asarray(scale, c.dtype),)


_scaled_back.defvjp(_scaled_back_forward, _scaled_back_backward)


def _inverse_of(y: Array, aux: Any) -> tuple[Array]:
    (by,) = aux
    by = by.astype(jnp.finfo(wide(y).dtype).dtype)  # of a complex, its parts'
    return (jnp.where(by == 0, 0, 1 / jnp.where(by == 0, 1, by)),)


def hold(f: Callable[..., Any], xs: Any, held: Any) -> Any:
    """`f(xs, held)`, whose multipliers go to `xs` alone, by JAX's derivative."""
    return hold_like(f, f, xs, held)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def hold_like(
    f: Callable[..., Any], like: Callable[..., Any], xs: Any, held: Any
) -> Any:
    """`f(xs, held)`, whose multipliers go to `xs` alone, by the derivative of `like`.

    That is `f` but where its derivative is infinite, which would make NaN of nothing.
    """
    return f(xs, held)


@functools.partial(hold_like.defjvp, symbolic_zeros=True)
def _(f, like, primals, tangents):
    xs, held = primals
    leaves, tree = jax.tree.flatten(xs)
    given = jax.tree.leaves(tangents[0])
    moved = [i for i, t in enumerate(given) if not isinstance(t, SymbolicZero)]

    def of_moved(moving: Sequence[Any]) -> Any:
        full = list(leaves)
        for i, x in zip(moved, moving, strict=True):
            full[i] = x
        return like(jax.tree.unflatten(tree, full), held)

    if not moved:
        # No array of zeros: `jax.checkpoint` would take it for a tangent that is known
        # in the forward pass, where what follows it has no derivative.
        y = f(xs, held)
        return y, jax.tree.map(_no_tangent, y)
    y, tangent = jax.jvp(
        of_moved, ([leaves[i] for i in moved],), ([given[i] for i in moved],)
    )
    return y if like is f else f(xs, held), tangent


def _no_tangent(x: Any) -> Any:
    return zero_from_primal(x, symbolic_zeros=True)


def nonzero(x: Array) -> Array:
    """A divisor, the smallest normal number where it is zero."""
    return jnp.where(x == 0, jnp.asarray(jnp.finfo(x.dtype).tiny, x.dtype), x)


def finite(x: Array) -> Array:
    """A factor, the largest number where it is infinite."""
    most = float(jnp.finfo(x.dtype).max)
    return jnp.where(jnp.isinf(x), _bounded(x, most), x)


def held_constant(x: Any) -> Any:
    """The value `x`, to which nothing goes."""
    return hold(lambda _, x: x, (), x)


@jax.custom_jvp
def in_place_of(value: Array, x: Array) -> Array:
    """`value`, whose multiplier goes to `x`, times `value / x`.

    What `value` receives, `x` receives: `x c_x = value c`. Nothing where `x = 0`.
    """
    return value


@functools.partial(in_place_of.defjvp, symbolic_zeros=True)
def _(primals, tangents):
    value, x = primals
    if isinstance(tangents[1], SymbolicZero):
        return value, _no_tangent(value)
    ratio = jnp.where(x == 0, 0, value / jnp.where(x == 0, 1, x))
    return value, ratio * tangents[1]


@dataclasses.dataclass(frozen=True)
class Keeping:
    """What `secant` keeps for the reverse pass.

    Attributes:
      origin: recomputes `x` from `sources`, which are kept instead; or None.
      result: `f(x, held)` is kept; else it is recomputed.
      chooses: there is a choice in `f`, which need not read `x`.
      by_points: `f` takes a scalar `x` as well, since all that is held are scalars.
    """

    origin: Callable[..., Array] | None = None
    result: bool = False
    by_points: bool = False
    chooses: bool = False


def secant(
    f: Callable[..., Array],
    x: Array,
    held: Any,
    epsilon: Any,
    keeping: Keeping = Keeping(),
    sources: Any = (),
) -> Array:
    """`y = f(x, held)`, elementwise; the multiplier goes to `x`, times `y / x`.

    The identity rule: relevance passes unchanged, `x c_x = y c_y`. Where `x = 0` the
    factor is its limit for `f(0) = 0`, the derivative. `epsilon`, or None, is added to
    the denominator.
    """
    if _compat.SENDS_ZEROS and keeping.origin is not None:
        sources = held_constant(sources)
    return _secant(f, keeping, x, sources, held, epsilon)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _secant(
    f: Callable, keeping: Keeping, x: Array, sources: Any, held: Any, epsilon: Any
) -> Array:
    return f(x, held)


def _secant_forward(
    f: Callable, keeping: Keeping, x: Array, sources: Any, held: Any, epsilon: Any
) -> Any:
    y = f(x, held)
    at = x if keeping.origin is None else None
    return y, (at, sources, y if keeping.result else None, held, epsilon)


def _secant_backward(f: Callable, keeping: Keeping, residuals: Any, c: Array) -> Any:
    x, sources, y, held, epsilon = residuals
    x = x if keeping.origin is None else keeping.origin(*sources)
    y = f(x, held) if y is None else y
    if keeping.by_points:
        slope = _slope_at_zero(f, x, held)
    else:
        slope = _slope(f, _halve(x), held)
    factor = _secant_slope(y, x, slope, epsilon)
    if keeping.chooses:  # the root, a quotient by zero say, is not what was chosen
        factor = jnp.where(jnp.isnan(x) & ~jnp.isnan(y), 0, factor)
    # What was not chosen receives nothing, and nothing times NaN is nothing.
    factor = jnp.where(jnp.isnan(factor) & (c == 0), 0, factor)
    nothing = _compat.no_cotangent((sources, held, epsilon))
    return narrow(factor * c, x.dtype), *nothing


_secant.defvjp(_secant_forward, _secant_backward)


def _slope(f: Callable[..., Array], x: Array, held: Any) -> Array:
    return jax.jvp(lambda x: f(x, held), (x,), (lax.full_like(x, 1),))[1]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _slope_at_zero(f: Callable[..., Array], x: Array, held: Any) -> Array:
    """The derivative at zero, one number for all elements; see `_halve`."""
    return lax.full_like(x, 0) + _slope(f, _zero_of(x), held)


@_slope_at_zero.defjvp
def _(f, primals, tangents):
    x, held = primals
    zero = _zero_of(x)
    curvature = _slope(functools.partial(_slope, f), zero, held)
    of_held = jax.jvp(lambda held: _slope(f, zero, held), (held,), (tangents[1],))[1]
    return _slope_at_zero(f, x, held), tangents[0] * curvature / 2 + of_held


def _zero_of(x: Array) -> Array:
    return _compat.varying_like(jnp.zeros((), x.dtype), x)


@jax.custom_jvp
def _halve(x: Array) -> Array:
    """The value `x`, its outer derivative halved: `(f(x) / x)' = f''(0) / 2` at 0."""
    return x


@_halve.defjvp
def _(primals, tangents):
    return primals[0], tangents[0] / 2


def _secant_slope(y: Array, x: Array, slope: Array, epsilon: Any) -> Array:
    """`y / (x + epsilon)`, and the derivative `slope` where that is `y / 0`."""
    base = wide(x) if epsilon is None else wide(x) + epsilon
    # y / x may overflow near zero, too.
    tiny = jnp.finfo(base.dtype).tiny / jnp.finfo(base.dtype).eps
    at_zero = jnp.abs(base) <= tiny
    limit = lax.select(jnp.isfinite(slope), slope, lax.full_like(slope, 0))
    quotient = wide(y) / lax.select(at_zero, lax.full_like(base, 1), base)
    # Infinite it would be NaN where no relevance arrives.
    most = float(jnp.finfo(quotient.dtype).max)
    quotient = _bounded(quotient, most)
    if jnp.issubdtype(quotient.dtype, jnp.complexfloating):
        # Infinities of complex numbers have no quotient.
        quotient = jnp.where(jnp.isinf(y), most, quotient)
    # `abs` makes a real number of a complex one, which its quotient with that is not.
    limit = lax.convert_element_type(wide(limit), quotient.dtype)
    return lax.select(at_zero, limit, quotient)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def redistribute(
    share: Callable[..., Sequence[Array]],
    f: Callable[..., Array],
    xs: Any,
    shadows: Any,
    held: Any,
    rule: Any,
) -> tuple[Array, Array]:
    """`y = f(xs, held)` and its shadow; all relevance goes to the shadows of `xs`.

    What arrives at `y` as a multiplier and at its shadow as relevance is `R`, and
    `share(rule, f, xs, held, y, R)` is what each of `xs` gets of it.
    """
    y = f(xs, held)
    return y, lax.full_like(y, 0)


def _redistribute_forward(
    share: Callable, f: Callable, xs: Any, shadows: Any, held: Any, rule: Any
) -> Any:
    y = f(xs, held)
    return (y, lax.full_like(y, 0)), (xs, held, rule, y)


def _redistribute_backward(
    share: Callable, f: Callable, residuals: Any, cs: tuple[Array, Array]
) -> Any:
    xs, held, rule, y = residuals
    relevance = _arrived(y, *cs)
    given = share(rule, f, xs, held, y, relevance)
    shadows = tuple(r.astype(x.dtype) for r, x in zip(given, xs, strict=True))
    nothing = _compat.no_cotangent((xs, held, rule))
    return nothing[0], shadows, *nothing[1:]


redistribute.defvjp(_redistribute_forward, _redistribute_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def look_up(
    share: Callable[..., Sequence[Array]],
    f: Callable[..., Sequence[Any]],
    operands: Any,
    shadows: Any,
) -> tuple[Array, Array]:
    """`y` of `[y] = f(*operands)` and its shadow; all relevance goes to `shadows`.

    They accompany integers, which have no multiple. `share(operands, R)` is what each
    gets of the relevance `R` of the result, which may be an integer as well.
    """
    (y,) = f(*operands)
    return y, zero_beside(y)


def _look_up_forward(share: Callable, f: Callable, operands: Any, shadows: Any) -> Any:
    (y,) = f(*operands)
    return (y, zero_beside(y)), (operands, y)


def _look_up_backward(
    share: Callable, f: Callable, residuals: Any, cs: tuple[Any, Array]
) -> Any:
    operands, y = residuals
    c, r = cs
    is_symbol = not jnp.issubdtype(y.dtype, jnp.inexact)
    relevance = r if is_symbol else jnp.real(_arrived(y, c, r))
    given = share(operands, relevance)
    shadows = tuple(g.astype(jnp.float32) for g in given)
    return _compat.no_cotangent(operands), shadows


look_up.defvjp(_look_up_forward, _look_up_backward)


def zero_beside(x: Any) -> Array:
    """Zeros for a shadow of `x`: floats, if `x` is an integer."""
    x = jnp.asarray(x)
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jnp.zeros(x.shape, jnp.float32)
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        x = lax.convert_element_type(x, jnp.float32)  # with the sharding of x
    return lax.full_like(x, 0)


def _arrived(y: Array, c: Array, r: Array) -> Array:
    """The relevance at a value: what came as a multiplier and what came with it."""
    # A masked score is -inf and receives nothing: that is zero, not NaN.
    return jnp.where(c == 0, 0, wide(y) * wide(c)) + wide(r)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def sift(
    axes: tuple[int, ...], y: Array, shadow: Array, keep: Any
) -> tuple[Array, Array]:
    """The value `y` and its shadow; of the relevances over `axes` the largest pass.

    A fraction `keep` of them by absolute value, at least one.
    """
    return y, shadow


def _sift_backward(axes: tuple[int, ...], residuals: Any, cs: Any) -> Any:
    y, keep = residuals
    c, r = cs
    size = _whole(jnp.abs(_arrived(y, c, r)), axes)
    apart = jnp.moveaxis(size, axes, tuple(range(-len(axes), 0)))
    flat = apart.reshape(*apart.shape[: apart.ndim - len(axes)], -1)
    n = flat.shape[-1]
    rank = jnp.clip(jnp.ceil(jnp.asarray(keep, size.dtype) * n), 1, n).astype(int) - 1
    # By position: a size that is computed twice need not equal itself under jit.
    order = jnp.argsort(jnp.argsort(-flat, axis=-1), axis=-1)
    chosen = (order <= rank).reshape(apart.shape)
    mask = _like(jnp.moveaxis(chosen, tuple(range(-len(axes), 0)), axes), c)
    passed = [jnp.where(mask, v, jnp.zeros_like(v)) for v in (c, r)]
    return *passed, _compat.no_cotangent(keep)


def _whole(x: Array, axes: tuple[int, ...]) -> Array:
    """`x`, whole along `axes` on each device, as JAX's sorts want it."""
    spec = jax.typeof(x).sharding.spec
    if not any(spec[axis] for axis in axes):
        return x
    kept = [None if i in axes else s for i, s in enumerate(spec)]
    return jax.sharding.reshard(x, jax.sharding.PartitionSpec(*kept))


def _like(x: Array, y: Array) -> Array:
    """`x` on the devices as `y` is, where that is explicit."""
    spec = jax.typeof(y).sharding.spec
    return jax.sharding.reshard(x, spec) if any(spec) else x


sift.defvjp(
    lambda axes, y, shadow, keep: ((y, shadow), (y, keep)),
    _sift_backward,
)


@jax.custom_vjp
def tap(x: Any, shadow: Any, t: Any, weight: Any = None) -> tuple[Any, Any]:
    """A value and its shadow; what passes there is the cotangent of the scalars `t`.

    Of the relevance `R = x c + r`, times `weight` if there is one, `t` gets its sum and
    that of its size, `sum(|R|)`. A third scalar gets `sum(|x|)`, of the value itself.
    """
    return x, shadow


def _tap_forward(x: Any, shadow: Any, t: Any, weight: Any) -> Any:
    return (x, shadow), (x, weight, t)


def _tap_backward(residuals: Any, cs: Any) -> Any:
    (x, weight, t), (c, r) = residuals, cs
    dtype = t[0].dtype
    real = jnp.issubdtype(getattr(x, "dtype", bool), jnp.inexact)  # or a symbol
    parts = []
    with _mesh_of(x if r is None else r):
        if real:
            # A masked score is -inf and receives nothing: that is zero, not NaN.
            product = lax.mul(wide(x), wide(c))
            nothing = lax.eq(c, lax.full_like(c, 0))
            parts.append(lax.select(nothing, lax.full_like(product, 0), product))
        if r is not None:
            parts.append(wide(r))
        parts = [lax.convert_element_type(_real(p), dtype) for p in parts]
        relevance = functools.reduce(lax.add, parts)
        if weight is not None:
            relevance = lax.mul(relevance, lax.convert_element_type(weight, dtype))
        sums = [_sum(relevance), _sum(lax.abs(relevance))]
        if len(t) > 2:
            sums.append(_sum(lax.convert_element_type(lax.abs(x), dtype)))
    return c if real else None, r, tuple(sums), _compat.no_cotangent(weight)


tap.defvjp(_tap_forward, _tap_backward)


def _real(x: Array) -> Array:
    return lax.real(x) if jnp.issubdtype(x.dtype, jnp.complexfloating) else x


def _sum(x: Array) -> Array:
    """The sum of all; by `lax`, since there is a tap at every value."""
    return lax.reduce_sum(x, tuple(range(x.ndim)))


def _mesh_of(x: Array) -> Any:
    """The context of `x`'s mesh: a tap may lie where another one begins."""
    return jax.sharding.use_abstract_mesh(jax.typeof(x).sharding.mesh)
