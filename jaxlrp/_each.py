"""Many explanations of one evaluation: relevances for each row of the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

import jax.numpy as jnp
from jax import Array, lax

from jaxlrp import _targets
from jaxlrp._operations import own_settings
from jaxlrp._rewriting.backward import backward, seed
from jaxlrp._rewriting.environment import Run
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums, checked, policy, positive, trace, wraps
from jaxlrp._traps import Warned, warn_of_program
from jaxlrp.composites import Composite

P = ParamSpec("P")


def lrp_each(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
    chunk: int = 16,
    checkpoints: int = 64,
    remat: Any = False,
) -> Callable[P, Any]:
    """The relevance of the input for each row of the output, from one evaluation.

    `R[t] = lrp(lambda *args: f(*args)[t])(*args)`, for all rows `t`. The rows may be
    the steps of a generated text, each with the scores of its token, or the questions
    that a network answers at once. `f` is evaluated once, a loop in it too, and
    relevance is sent back for `chunk` rows at a time.

    Args:
      f: as for `lrp`; its output is an array (rows, ...) or a pytree of them.
      composite: as for `lrp`.
      argnums: as for `lrp`.
      target: as for `lrp`, of all rows together: "max" is the highest score of each
        row, an array of ints the class of each.
      has_aux: as for `lrp`.
      chunk: how many rows are sent back at a time. More take more memory.
      checkpoints: as for `lrp`.
      remat: as for `lrp`.

    Returns:
      A function of `f`'s arguments that returns relevances like those of `lrp` with a
      leading axis each, of as many rows as the output has; with `has_aux`,
      `(relevances, aux)`.

    Raises:
      TypeError: if `chunk` is not an int.
      ValueError: if `chunk` is less than one, or the output has no rows, or its leaves
        differ in how many they have.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> f = lambda x: jnp.stack([x @ w, x[::-1] @ w])
      >>> jaxlrp.lrp_each(f)(jnp.array([1.0, 2.0])).round(3).tolist()
      [[1.0, 4.0], [2.0, 2.0]]
    """
    rules = checked(f, composite, argnums, target, has_aux)
    chunk = positive("chunk", chunk)
    checkpoints = positive("checkpoints", checkpoints)
    again = policy(remat)

    warned: Warned = set()

    @wraps(
        f,
        "lrp_each",
        "as `lrp`, of each row of the output: with one axis more in front.",
    )
    def explained(*args: P.args, **kwargs: P.kwargs) -> Any:
        plain = _targets.is_plain(target)
        traced = trace(f, args, kwargs, rules, argnums, has_aux, plain)
        warn_of_program(traced, target, warned)
        once = backward(traced, Run(rules, checkpoints=checkpoints, remat=again))
        count = _rows(once.outs)
        multipliers, given = seed(target, traced.out_tree, once.outs)

        def row(t: Array) -> Any:
            def only(x: Array) -> Array:
                mine = (jnp.arange(count) == t).reshape(-1, *[1] * (x.ndim - 1))
                return jnp.where(mine, x, jnp.zeros_like(x))

            there = None if given is None else list(map(only, given))
            leaves, _ = once.relevance(list(map(only, multipliers)), there)
            return traced.restore(leaves)

        with own_settings():
            relevances = lax.map(row, jnp.arange(count), batch_size=chunk)
        return (relevances, traced.restore_aux(once.aux)) if has_aux else relevances

    return explained


def _rows(outs: list[Array]) -> int:
    """How many rows the output has."""
    counts = {jnp.shape(y)[:1] for y in outs}
    if len(counts) != 1 or () in counts:
        shapes = ", ".join(str(jnp.shape(y)) for y in outs)
        raise ValueError(
            f"f: got outputs of shapes {shapes}, expected arrays of as many rows"
        )
    return outs[0].shape[0]
