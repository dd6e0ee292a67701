"""Users' own rules: `register_rule` for primitives, `custom_lrp` for functions."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.extend.core import Primitive

from jaxlrp import _compat, _operations
from jaxlrp._arguments import function
from jaxlrp.errors import RuleError
from jaxlrp.primitives import Entry, Kind, enter_primitive


def route(y: Array, surrogates: Sequence[Array], scales: Sequence[Array]) -> Array:
    """The value `y`, whose multiplier goes to surrogates: `c_h = scale_h c_y`.

    What a rule ends in. A multiplier `c` means a relevance `R = y c`. JAX's transpose
    takes `c_h` from the surrogate, which is linear in the rule's input, to that input.

    Args:
      y: the value.
      surrogates: arrays of `y`'s shape. With none, no relevance passes.
      scales: one for each surrogate, of shapes that broadcast to `y`'s.

    Returns:
      `y`.

    Raises:
      TypeError: for surrogates or scales that are no sequences of arrays.
      ValueError: for another number of scales than of surrogates, or shapes that do not
        fit.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> def halve(x):
      ...     y = 3.0 * x
      ...     return jaxlrp.route(y, [y], [jnp.full_like(y, 0.5)])
    """
    y = _array("y", y)
    hs, factors = _arrays("surrogates", surrogates), _arrays("scales", scales)
    if len(hs) != len(factors):
        raise ValueError(
            f"scales: got {len(factors)} of them, expected {len(hs)}, one for each "
            f"surrogate"
        )
    for i, h in enumerate(hs):
        if h.shape != y.shape:
            raise ValueError(
                f"surrogates[{i}]: got shape {h.shape}, expected that of y, {y.shape}"
            )
    for i, s in enumerate(factors):
        if len(s.shape) > y.ndim or not all(
            m in (1, n) for m, n in zip(s.shape[::-1], y.shape[::-1], strict=False)
        ):
            raise ValueError(
                f"scales[{i}]: got shape {s.shape}, expected one that broadcasts to "
                f"that of y, {y.shape}"
            )
    aux = tuple(jnp.broadcast_to(s, y.shape) for s in factors)
    return _operations.route(_given_scales, y, hs, aux)


def _arrays(name: str, given: Any) -> tuple[Array, ...]:
    """A sequence of arrays; one array is none."""
    if not isinstance(given, tuple | list):
        raise TypeError(
            f"{name}: got {type(given).__name__}, expected a tuple or list of arrays"
        )
    return tuple(_array(f"{name}[{i}]", one) for i, one in enumerate(given))


def _array(name: str, given: Any) -> Array:
    try:
        return jnp.asarray(given)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {given!r}, expected an array") from None


def _given_scales(y: Array, aux: Any) -> tuple[Array, ...]:
    return aux


def register_rule(primitive: Primitive) -> Callable[[Callable], Callable]:
    """Gives a primitive a rule of the user's own, for every later `lrp`.

    Args:
      primitive: the primitive, an object of `jax.extend.core.Primitive`.

    Returns:
      A decorator for `rule(apply, active, *operands, **params)`: `apply(*operands)`
      evaluates the primitive (as a constant, if JAX has no derivative for it), `active`
      says which operands can carry relevance. The rule returns the primitive's result
      (or a sequence of results), computed so that its derivative is the relevance's
      multiplier: by plain arithmetic (gradient x input), or ending in `jaxlrp.route`.
      It is traced: `jit`, `vmap`, `scan` apply.

    Raises:
      TypeError: if `primitive` is not one; by the decorator, for what is no function.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jax.extend.core import primitives
      >>> @jaxlrp.register_rule(primitives.bessel_i1e_p)
      ... def identity(apply, active, x, **params):
      ...     y = apply(x)
      ...     return jaxlrp.route(y, [x], [y / jnp.where(x == 0, 1, x)])
    """
    if not isinstance(primitive, Primitive):
        raise TypeError(
            f"primitive: got {primitive!r}, expected a jax.extend.core.Primitive"
        )

    def decorate(rule: Callable) -> Callable:
        function("rule", rule)

        def adapted(
            bind: Callable, active: Any, operands: Any, shadows: Any, params: dict
        ) -> Any:
            def apply(*xs: Any) -> Any:
                # What JAX cannot differentiate is a constant: only `route` counts.
                known = _compat.has_derivative(primitive)
                results = bind(*xs) if known else _operations.hold(_call(bind), (), xs)
                return results if primitive.multiple_results else results[0]

            results = rule(apply, active, *operands, **params)
            if not primitive.multiple_results:
                results = [results]
            return list(results), [None] * len(results)

        enter_primitive(primitive, Entry(Kind.CUSTOM, rule=adapted))
        return rule

    return decorate


def _call(bind: Callable) -> Callable[[Any, Any], Any]:
    return lambda _, xs: bind(*xs)


@dataclasses.dataclass(frozen=True)
class _Call:
    """A `custom_lrp` function on flat arrays, as a parameter of its primitive."""

    value: Callable[..., list[Array]]
    forward: Callable[..., tuple[list[Array], Any]]
    relprop: Callable[..., list[Array]]


def _evaluate(*operands: Any, call: _Call) -> list[Array]:
    return call.value(*operands)


def _batch(operands: Sequence[Any], dims: Sequence[Any], *, call: _Call) -> Any:
    """vmap of value and rule; an operand that is not mapped sums its relevances."""
    axes = tuple(dims)

    def relprop(residuals: Any, relevances: Any) -> list[Array]:
        parts = jax.vmap(call.relprop)(residuals, relevances)
        return [
            r.sum(0) if axis is None else jnp.moveaxis(r, 0, axis)
            for r, axis in zip(parts, axes, strict=True)
        ]

    batched = _Call(
        jax.vmap(call.value, in_axes=axes),
        jax.vmap(call.forward, in_axes=axes),
        relprop,
    )
    outs = custom_lrp_p.bind(*operands, call=batched)
    return outs, [0] * len(outs)


custom_lrp_p = _compat.define_call("custom_lrp", _evaluate, _batch)


def _rule(
    bind: Callable, active: Sequence[bool], operands: Any, shadows: Any, params: dict
) -> tuple[list[Array], list[Array]]:
    """Relevance in, relevance out: all of it travels with the values, in shadows."""
    call: _Call = params["call"]
    slots = [i for i, s in enumerate(shadows) if s is not None]

    @jax.custom_vjp
    def run(xs: Any, zeros: Any) -> Any:
        outs = call.value(*xs)
        return outs, [jnp.zeros_like(y) for y in outs]

    def forward(xs: Any, zeros: Any) -> Any:
        outs, residuals = call.forward(*xs)
        return (outs, [jnp.zeros_like(y) for y in outs]), (outs, residuals)

    def backward(saved: Any, cotangents: Any) -> Any:
        (outs, residuals), (cs, rs) = saved, cotangents
        relevances = [y * c + r for y, c, r in zip(outs, cs, rs, strict=True)]
        given = call.relprop(residuals, relevances)
        nothing = [
            jnp.zeros_like(x) if jnp.issubdtype(x.dtype, jnp.inexact) else None
            for x in operands
        ]
        return nothing, [given[i] for i in slots]

    run.defvjp(forward, backward)
    return run(list(operands), [shadows[i] for i in slots])


enter_primitive(custom_lrp_p, Entry(Kind.CUSTOM, rule=_rule, shadows=True))


class custom_lrp:  # noqa: N801 - a decorator, in the shape of jax.custom_vjp
    """A function with a relevance rule of the user's own, in the shape of `custom_vjp`.

    Everywhere else (evaluation, `jit`, `vmap`, `grad`) it is the plain function.

    Args:
      fun: a function of pytrees of arrays. Like those of `jax.custom_vjp`, `fun` and
        its rule must not close over traced values: pass them as arguments, by position.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> @jaxlrp.custom_lrp
      ... def pool(x):
      ...     return jnp.sqrt(jnp.sum(x**2, axis=-1))
      >>> def forward(x):
      ...     return pool(x), x
      >>> def relprop(x, R):  # in proportion to the squares
      ...     share = x**2 / jnp.sum(x**2, axis=-1, keepdims=True)
      ...     return (share * R[..., None],)
      >>> pool.deflrp(forward, relprop)
      >>> [round(float(r), 2) for r in jaxlrp.lrp(pool)(jnp.array([3.0, 4.0]))]
      [1.8, 3.2]
    """

    def __init__(self, fun: Callable[..., Any]):
        self.fun: Callable[..., Any] = function("fun", fun)
        self.rule: tuple[Callable[..., Any], Callable[..., Any]] | None = None
        functools.update_wrapper(self, fun)

    def deflrp(
        self,
        forward: Callable[..., tuple[Any, Any]],
        relprop: Callable[[Any, Any], tuple[Any, ...]],
    ) -> None:
        """Sets the rule.

        Args:
          forward: `forward(*args)` returns `(fun(*args), residuals)`.
          relprop: `relprop(residuals, R_out)` returns a tuple with the relevance of
            each argument, in its structure and shapes; None for one without any.
        """
        self.rule = (function("forward", forward), function("relprop", relprop))

    def __call__(self, *args: Any) -> Any:
        if self.rule is None:
            raise RuleError(
                f"custom_lrp function {self.__name__!r} has no rule: call "  # type: ignore[attr-defined]
                f"{self.__name__}.deflrp(forward, relprop)"  # type: ignore[attr-defined]
            )
        forward, relprop = self.rule
        leaves, tree = jax.tree.flatten(args)
        leaves = [jnp.asarray(v) for v in leaves]
        specs = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in leaves]
        out_tree = jax.tree.structure(jax.eval_shape(self.fun, *args))

        def value(*flat: Any) -> list[Array]:
            return jax.tree.leaves(self.fun(*jax.tree.unflatten(tree, flat)))

        def flat_forward(*flat: Any) -> tuple[list[Array], Any]:
            pair = forward(*jax.tree.unflatten(tree, flat))
            if not isinstance(pair, tuple) or len(pair) != 2:
                raise RuleError(
                    f"custom_lrp function {self.fun.__name__!r}: its forward returned "
                    f"{type(pair).__name__}, expected a pair (output, residuals)"
                )
            return jax.tree.leaves(pair[0]), pair[1]

        def flat_relprop(residuals: Any, relevances: Any) -> list[Array]:
            given = relprop(residuals, jax.tree.unflatten(out_tree, relevances))
            return self._checked(given, tree, specs)

        call = _Call(value, flat_forward, flat_relprop)
        return jax.tree.unflatten(out_tree, custom_lrp_p.bind(*leaves, call=call))

    def _checked(self, given: Any, tree: Any, specs: Sequence[Any]) -> list[Array]:
        """The rule's relevances as flat arrays, shapes checked."""
        name = f"custom_lrp function {self.fun.__name__!r}"
        subtrees = tree.children()
        if not isinstance(given, tuple) or len(given) != len(subtrees):
            raise RuleError(
                f"{name}: its rule returned {type(given).__name__}, expected a tuple "
                f"with the relevance of each of {len(subtrees)} arguments"
            )
        flat: list[Array] = []
        for part, subtree in zip(given, subtrees, strict=True):
            own = specs[len(flat) : len(flat) + subtree.num_leaves]
            shapes = [v.shape for v in own]
            if part is None:
                flat += [jnp.zeros(s) for s in shapes]
                continue
            got = jax.tree.leaves(part)
            if [jnp.shape(r) for r in got] != shapes:
                raise RuleError(
                    f"{name}: its rule returned relevances of shapes "
                    f"{[jnp.shape(r) for r in got]}, expected {shapes}"
                )
            flat += got
        return [
            jnp.asarray(r, _real(v.dtype)) for r, v in zip(flat, specs, strict=True)
        ]


def _real(dtype: Any) -> Any:
    """The dtype of the relevance of a value: its own, float32 for integers."""
    return dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.float32
