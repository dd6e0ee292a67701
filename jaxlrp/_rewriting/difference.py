"""The relevance of a difference: of an input to a baseline, for the score's to its own.

It is carried by difference quotients instead of rules, see `quotients.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _targets
from jaxlrp._operations import own_settings
from jaxlrp._reading.facts import is_real
from jaxlrp._rewriting.backward import Traced
from jaxlrp._rewriting.environment import as_arrays
from jaxlrp._rewriting.quotients import Options, evaluate


@own_settings()
def difference(
    traced: Traced, baseline: Any, target: Any, checkpoints: int
) -> tuple[list[Array], list[Array], list[Array]]:
    """What each attributed input's difference to the baseline adds to the score's.

    Args:
      traced: the function; what is attributed is floating-point.
      baseline: as for `jaxlrp.lrp`.
      target: as for `jaxlrp.lrp`; a callable gives the outputs' multipliers.
      checkpoints: as for `jaxlrp.lrp`.

    Returns:
      The leaves of the output, of the auxiliary output, and of the relevance.
    """
    reading, n_out = traced.reading, traced.n_out
    attributed = [traced.inputs[i] for i in traced.attributed]
    names = [leaf_name(traced.paths[i]) for i in traced.attributed]
    starts = baselines("baseline", baseline, attributed, names, traced.restore)
    starts = [jax.lax.stop_gradient(x0) for x0 in starts]
    beside: list[Any] = [None] * len(traced.inputs)
    for i, x0 in zip(traced.attributed, starts, strict=True):
        beside[i] = x0
    results = reading.program.outputs[:n_out]
    real = [i for i, v in enumerate(results) if is_real(v.aval)]

    def forward(xs: list[Array]) -> tuple[list[Array], list[Array]]:
        inputs = list(traced.inputs)
        for i, x in zip(traced.attributed, xs, strict=True):
            inputs[i] = x
        outs, _ = evaluate(reading, inputs, beside, Options(checkpoints))
        outs = as_arrays(reading.program.outputs, outs)
        return [outs[i] for i in real], outs

    _, pull, outs = jax.vjp(forward, attributed, has_aux=True)
    out = jax.tree.unflatten(traced.out_tree, outs[:n_out])
    seeds = jax.tree.leaves(_targets.weights(target, out))
    (cs,) = pull([seeds[i].astype(outs[i].dtype) for i in real])
    relevance = [
        ((x - x0) * c).astype(x.dtype)
        for x, x0, c in zip(attributed, starts, cs, strict=True)
    ]
    return outs[:n_out], outs[n_out:], relevance


def leaf_name(path: Any) -> str:
    """What messages call a leaf of `(args, kwargs)` that is attributed."""
    return f"argument {path[1].idx}{jax.tree_util.keystr(path[2:])}"


def baselines(
    name: str,
    given: Any,
    xs: Sequence[Array],
    names: Sequence[str],
    restore: Callable[[list[Any]], Any],
) -> list[Array]:
    """A baseline as arrays like the attributed leaves.

    A number or a scalar is the baseline of every leaf; otherwise the baseline has the
    structure of the attributed argument, and its leaves broadcast to the argument's.

    Args:
      name: what messages call the baseline.
      given: the baseline.
      xs: the attributed leaves.
      names: what messages call them.
      restore: puts the attributed leaves into the form that `argnums` asks for.

    Returns:
      A baseline for each of `xs`, of its shape and dtype.
    """
    leaves = jax.tree.leaves(given)
    numbers = int | float | np.generic | np.ndarray | Array
    if not leaves or not all(isinstance(leaf, numbers) for leaf in leaves):
        raise TypeError(f"{name}: got {given!r}, expected numbers or arrays")
    if jax.tree.structure(given) == jax.tree.structure(0) and jnp.ndim(given) == 0:
        return [jnp.full_like(x, given) for x in xs]
    expected = jax.tree.structure(restore(list(xs)))
    if jax.tree.structure(given) != expected:
        raise ValueError(
            f"{name}: got the structure {jax.tree.structure(given)}, expected a number "
            f"or that of the attributed argument, {expected}"
        )
    order = jax.tree.leaves(restore(list(range(len(xs)))))
    found: list[Any] = [None] * len(xs)
    for i, leaf in zip(order, leaves, strict=True):
        x = xs[i]
        try:
            found[i] = jnp.broadcast_to(jnp.asarray(leaf, x.dtype), x.shape)
        except ValueError:
            raise ValueError(
                f"{name}: got shape {jnp.shape(leaf)} for {names[i]}, expected "
                f"one that broadcasts to its shape {x.shape}"
            ) from None
    return found
