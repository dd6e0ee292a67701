"""The reverse pass of a function that has been read: relevance, by `jax.vjp`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _compat, _targets
from jaxlrp._operations import own_settings, zero_beside
from jaxlrp._reading.facts import is_real
from jaxlrp._reading.steps import Reading
from jaxlrp._rewriting.environment import as_arrays
from jaxlrp._rewriting.evaluate import Run, evaluate


@dataclasses.dataclass(frozen=True)
class Traced:
    """A function, traced and read.

    Attributes:
      reading: its program, read.
      inputs: the arrays that were traced, for every argument.
      paths: where in `(args, kwargs)` each of them is.
      attributed: the positions of the attributed leaves among them.
      out_tree: the structure of the output.
      restore_aux: puts the auxiliary arrays back among what is not an array.
      n_out: how many leaves are output; the rest is auxiliary.
      restore: puts the relevances of the attributed leaves into their arguments' form.
      jaxpr: the function as JAX traced it, with what nobody reads.
      memory: what is remembered of its form, or None.
    """

    reading: Reading
    inputs: tuple[Any, ...]
    paths: tuple[Any, ...]
    attributed: tuple[int, ...]
    out_tree: Any
    restore_aux: Callable[[list[Any]], Any]
    n_out: int
    restore: Callable[[list[Array]], Any]
    jaxpr: Any = None
    memory: Any = None


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """A function evaluated once, ready to send relevance back.

    Attributes:
      outs: the leaves of the output.
      aux: the leaves of the auxiliary output.
      relevance: from multipliers of `outs`, and relevances in their shadows or None, to
        the relevances of the attributed leaves and the cotangents of the taps.
    """

    outs: list[Array]
    aux: list[Array]
    relevance: Callable[[list[Array], list[Array] | None], tuple[list[Array], Any]]


@own_settings()
def backward(
    traced: Traced, run: Run | Callable[[Any], Run], taps: Any = None
) -> Evaluated:
    """Evaluates a traced function and prepares its reverse pass.

    Args:
      traced: the function.
      run: rules and observers, or a function from `taps` to them.
      taps: zeros that observers pass to `tap`; their cotangents come back.

    Returns:
      The outputs and the reverse pass.
    """
    reading, n_out = traced.reading, traced.n_out
    attributed = [traced.inputs[i] for i in traced.attributed]
    real = [i for i in traced.attributed if is_real(traced.inputs[i])]
    xs = [traced.inputs[i] for i in real]
    wanted = reading.shadowed_inputs
    outputs = reading.program.outputs
    floats = [i for i, v in enumerate(outputs[:n_out]) if is_real(v.aval)]

    staged = _compat.is_staged()

    def forward(xs: list[Array], zeros: list[Array], taps: Any) -> Any:
        inputs = list(traced.inputs)
        shadows: list[Any] = [None] * len(inputs)
        for i, x in zip(real, xs, strict=True):
            inputs[i] = x
        for i, zero in zip(traced.attributed, zeros, strict=True):
            shadows[i] = zero if wanted[i] else None
        this = run if isinstance(run, Run) else run(taps)
        if this.staged is None:
            this = dataclasses.replace(this, staged=staged)
        with jax.named_scope("lrp"):  # a profile has it in both passes
            outs, out_shadows = evaluate(reading, this, inputs, shadows)
        outs = as_arrays(outputs, outs)
        return [(outs[i], out_shadows[i]) for i in floats], outs

    # A shadow is an input of zeros: nothing is computed with it, and its cotangent is
    # the relevance that arrived there.
    zeros = [zero_beside(x) for x in attributed]
    given, pull, outs = jax.vjp(forward, xs, zeros, taps, has_aux=True)

    @own_settings()
    def relevance(multipliers: list[Array], plain: list[Array] | None) -> Any:
        seeds = []
        for i, (_, shadow) in zip(floats, given, strict=True):
            r = None
            if shadow is not None:
                r = jnp.zeros_like(shadow) if plain is None else plain[i]
            seeds.append((multipliers[i], r))
        cs, rs, collected = pull(seeds)
        multipliers_of = dict(zip(real, cs, strict=True))
        return [
            _relevance(x, multipliers_of.get(i), r if wanted[i] else None)
            for i, x, r in zip(traced.attributed, attributed, rs, strict=True)
        ], collected

    return Evaluated(outs[:n_out], outs[n_out:], relevance)


def _relevance(x: Array, c: Array | None, r: Array | None) -> Array:
    """`x c + r`; of a complex value the real part, of an integer `r` alone."""
    if c is None:
        return zero_beside(x) if r is None else r
    relevance = x * c if r is None else x * c + r
    return jnp.real(relevance).astype(jnp.finfo(x.dtype).dtype)


@own_settings()
def seed(target: Any, out_tree: Any, outs: list[Array]) -> tuple[list, list | None]:
    """The target as (multipliers of the outputs, relevances of shadows or None)."""
    out = jax.tree.unflatten(out_tree, outs)
    multipliers, beside = _targets.seed(target, out)
    plain = None if beside is None else jax.tree.leaves(beside)
    return jax.tree.leaves(multipliers), plain
