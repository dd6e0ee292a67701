"""The gradient and the relevance side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

import jax
from jax.extend.core import Literal

from jaxlrp import _compat
from jaxlrp._lrp import value_and_lrp
from jaxlrp._operations import own_settings
from jaxlrp._program.program import flatten
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums, arrays_of, as_array, is_array, refilled, wraps
from jaxlrp.composites import Composite

P = ParamSpec("P")


def value_grad_and_lrp(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
    checkpoints: int = 64,
) -> Callable[P, Any]:
    """The value of `f`, the gradient of its score, and the relevance.

    The gradient is that of the score `S`, the output at the target, as in
    `attribution.gradient`; the relevance is that of `lrp`. Under `jax.jit` they share
    one forward pass, so that both cost 1.5 times a gradient; a `scan` or a `while`
    loop in `f` runs forwards for each of the two.

    Args:
      f: as for `lrp`; what is attributed is floating-point.
      composite: as for `lrp`.
      argnums: as for `lrp`.
      target: as for `lrp`; the gradient is that of the sum over what it picks, or of
        the output weighted with what a callable target returns.
      has_aux: as for `lrp`.
      checkpoints: as for `lrp`.

    Returns:
      A function of `f`'s arguments that returns `(value, gradient, relevance)`, or with
      `has_aux` `((value, aux), gradient, relevance)`; the last two like the attributed
      arguments.

    Raises:
      TypeError: as `lrp`, and where an attributed array is not floating-point.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> f = lambda w, x: jax.nn.relu(x @ w)
      >>> both = jax.jit(jaxlrp.value_grad_and_lrp(f))
      >>> value, gradient, relevance = both(w, jnp.array([1.0, 2.0]))
      >>> gradient.tolist(), relevance.round(3).tolist()
      ([1.0, 2.0], [1.0, 4.0])
    """
    explain = value_and_lrp(
        f,
        composite,
        argnums=argnums,
        target=target,
        has_aux=has_aux,
        checkpoints=checkpoints,
    )

    def both(*args: Any, **kwargs: Any) -> Any:
        value, relevance = explain(*args, **kwargs)
        from jaxlrp.attribution import _call  # which imports all methods

        call = _call.bind(f, args, kwargs, argnums, has_aux)
        out, _, pull = _call.vjp(call)
        slopes = pull(_call.seed(target, out))
        gradient = call.restore(_call.as_inputs(slopes, call.xs))
        return value, gradient, relevance

    @wraps(
        f,
        "value_grad_and_lrp",
        "`(value, gradient, relevance)`, the last two like the attributed argument.",
    )
    def explained(*args: P.args, **kwargs: P.kwargs) -> Any:
        leaves, tree = jax.tree.flatten((args, kwargs))
        traced = [i for i, leaf in enumerate(leaves) if is_array(leaf)]
        results: list[Any] = []

        refill = refilled(leaves, tree, traced)

        def flat(*arrays: Any) -> list[Any]:
            args, kwargs = refill(arrays)
            found, restore = arrays_of(both(*args, **kwargs))
            results[:] = [restore]
            return found

        arrays = [as_array(leaves[i]) for i in traced]
        once = _written_once(jax.make_jaxpr(flat)(*arrays))
        return results[0](once(arrays))

    return explained


def _written_once(jaxpr: Any) -> Callable[[list[Any]], list[Any]]:
    """A jaxpr as a function that computes equal equations once.

    XLA does so too, but only after it has rewritten them, each for its own users.
    """
    program = flatten(jaxpr, keep_calls=False, apart=False)

    @own_settings()
    def run(inputs: list[Any]) -> list[Any]:
        values = dict(zip(program.inputs, inputs, strict=True))
        values |= dict(program.constants)

        def read(atom: Any) -> Any:
            return atom.val if isinstance(atom, Literal) else values[atom]

        for e in program.equations:
            with _compat.equation_context(e.source, e.context, e.scope):
                results = e.bound()(*map(read, e.inputs))
            values.update(zip(e.outputs, results, strict=True))
        return [read(v) for v in program.outputs]

    return run
