"""Relevance of units over a dataset, and which of them to keep."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._arguments import function
from jaxlrp._operations import own_settings, wide
from jaxlrp._trace import is_array
from jaxlrp.composites import Composite
from jaxlrp.patching import _program
from jaxlrp.patching._circuits import check_by, order
from jaxlrp.patching._effects import checked_metric, checked_rules, with_aux
from jaxlrp.patching._sites import as_sites


def units(
    f: Callable[..., Any],
    sites: Any,
    composite: Composite | None = None,
    metric: Callable[..., Any] | None = None,
) -> Callable[..., dict[str, Array]]:
    """The relevance of each unit: a head, a neuron, a channel, an expert.

        R = sum v c

    over the unit's elements, where `c` is the multiplier of the value `v`: LRP's, or
    without rules the gradient. That estimates what would be lost if the unit were zero.

    Args:
      f: a function `f(params, x)` of one example, as for `effects`.
      sites: as for `effects`. Units are the named axes, `site("hidden", ("layer", None,
        "neuron"))`: along a None, here positions, relevance is summed.
      composite: the rules; None for the gradient, which gives gradient times value.
      metric: `metric(out, *aux)` gives a number, as the logit of a label; it is
        differentiated as it is. None where `f` returns a number.

    Returns:
      A function `(params, x, *aux)` that returns for each site an array over its units.
      It can be compiled and mapped over examples, and be part of what
      `jaxlrp.runs.attribute` explains.

    Raises:
      TypeError: for arguments of the wrong type.
      ValueError: as `effects`.

    Source: Molchanov et al. 2017, "Pruning convolutional neural networks for resource
    efficient inference" (the gradient); Yeom et al. 2021, "Pruning by explaining".

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import composites, patching
      >>> def f(w, x):
      ...     return checkpoint_name(jax.nn.relu(x @ w), "hidden") * 3.0
      >>> rules, logit = composites.Proportional(), lambda out, k: out[k]
      >>> find = patching.units(f, "hidden", rules, logit)
      >>> find(jnp.eye(2), jnp.array([1.0, 2.0]), 1)["hidden"].tolist()
      [0.0, 6.0]
    """
    function("f", f)
    chosen, rules = as_sites(sites), checked_rules(composite)
    score = checked_metric(metric)

    @own_settings()
    def found(params: Any, x: Any, *aux: Any) -> dict[str, Array]:
        program = _program.read(f, (params, x), rules)
        groups = program.groups(chosen, "sites")
        of_out = with_aux(score, aux)
        every = [*groups.values()]
        _, values, slopes = _program.multipliers(program, every, of_out)
        # Where nothing arrives an infinite value, as of a mask, has no relevance.
        return {
            n: g.scores(jnp.where(slopes[n] == 0, 0, values[n] * slopes[n]))
            for n, g in groups.items()
        }

    return found


def mean_units(
    f: Callable[..., Any],
    sites: Any,
    composite: Composite | None = None,
    metric: Callable[..., Any] | None = None,
    *,
    by: str = "signed",
) -> Callable[..., dict[str, np.ndarray]]:
    """The mean relevance of each unit over a dataset, or the difference of two.

    `mean R`, or `mean |R|` of each example, in which contributions of different
    examples cannot cancel. For datasets whose relevances are to be kept, and for
    several processes, give `units` to `jaxlrp.runs.attribute` with `runs.Moments`.

    Args:
      f: as for `units`, of one example.
      sites: as for `units`.
      composite: as for `units`.
      metric: as for `units`.
      by: `"signed"` for `mean R`, or `"size"` for `mean |R|`.

    Returns:
      A function `(params, batches, less=None)` that returns for each site a float64
      array over its units. `batches` is an iterable of `(x, *aux)`, or of `x` alone
      where there is no metric with more arguments, each with the examples in front;
      batches of one size are compiled once. `less` is another one, whose mean is
      subtracted: what is large then matters more for the first dataset.

    Raises:
      TypeError: as `units`, and for batches that are arrays or no iterable.
      ValueError: as `units`, for another `by`, no examples, arrays of a batch that
        differ in their number of examples, and sites whose shape changes.

    Source: Hatefi et al. 2025, "Attribution-guided pruning for compression, circuit
    discovery, and targeted correction in LLMs" (SparC3).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import patching
      >>> f = lambda w, x: checkpoint_name(x * w, "hidden").sum()
      >>> find = patching.mean_units(f, "hidden")
      >>> one, two = jnp.array([[1.0, 0.0], [3.0, 2.0]]), jnp.array([[1.0, 1.0]])
      >>> find(jnp.ones(2), [one])["hidden"].tolist()
      [2.0, 1.0]
      >>> find(jnp.ones(2), [one], less=[two])["hidden"].tolist()
      [1.0, 0.0]
    """
    check_by(by)
    find = units(f, sites, composite, metric)

    @jax.jit
    def total(params: Any, batch: tuple[Any, ...]) -> dict[str, Array]:
        each = jax.vmap(lambda row: find(params, *row))(batch)
        each = jax.tree.map(jnp.abs, each) if by == "size" else each
        return jax.tree.map(lambda r: wide(r).sum(0), each)

    def mean(params: Any, batches: Iterable[Any], argument: str) -> Any:
        if is_array(batches) or not isinstance(batches, Iterable):
            raise TypeError(
                f"{argument}: got {type(batches).__name__}, expected an iterable of "
                f"batches, as [(x, labels)]"
            )
        sums: dict[str, np.ndarray] = {}
        count = 0
        for number, batch in enumerate(batches):
            batch = batch if isinstance(batch, tuple) else (batch,)
            count += _rows(batch, f"{argument}, batch {number}")
            now = jax.device_get(total(params, batch))
            for name, r in now.items():
                old = sums.setdefault(name, np.zeros(r.shape))
                if old.shape != r.shape:
                    raise ValueError(
                        f"{argument}, batch {number}: {name!r} has units of shape "
                        f"{r.shape}, and {old.shape} before: expected one shape; an "
                        f"axis called None is summed"
                    )
                sums[name] = old + r
        if not count:
            raise ValueError(f"{argument}: got no batch, expected at least one")
        return {name: r / count for name, r in sums.items()}

    def found(params: Any, batches: Any, less: Any = None) -> dict[str, np.ndarray]:
        here = mean(params, batches, "batches")
        if less is None:
            return here
        there = mean(params, less, "less")
        for name, r in here.items():
            if there[name].shape != r.shape:
                raise ValueError(
                    f"less: {name!r} has units of shape {there[name].shape}, expected "
                    f"that of the first dataset, {r.shape}"
                )
        return {name: r - there[name] for name, r in here.items()}

    return found


def _rows(batch: tuple[Any, ...], where: str) -> int:
    """How many examples a batch has."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(batch)]
    counts = {shape[0] if shape else None for shape in shapes}
    if len(counts) != 1 or not (count := counts.pop()):
        raise ValueError(
            f"{where}: got arrays of shapes {shapes}, expected one number of examples, "
            f"at least one, along the first axis of all of them"
        )
    return count


def prune(
    scores: Any, share: Any, *, by: str = "signed", apart: int | None = None
) -> Any:
    """Which units stay if those with the lowest scores go.

    What it returns is the `keep` of `circuit`: `circuit(f, sites, ablate=0)(keep,
    params, x)` is the pruned network.

    Args:
      scores: a pytree of scores, as of `units`, `mean_units` or `effects`.
      share: of the units that go, between 0 and 1; their number is rounded. It may be
        traced.
      by: as for `order`: `"signed"`, the most negative ones go first, or `"size"`,
        those next to zero do.
      apart: None where the units of all sites compete with each other; else the share
        goes of each site, 0, or of each index of its first so many axes: 1 for each
        layer of a stack.

    Returns:
      Booleans in the form of the scores, true for what stays.

    Raises:
      TypeError: for an `apart` that is no int.
      ValueError: for another `by`, a share that is not between 0 and 1, no scores, or
        more axes `apart` than a site's scores have.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import patching
      >>> scores = {"a": jnp.array([1.0, -3.0]), "b": jnp.array([5.0, 4.0])}
      >>> {k: v.tolist() for k, v in patching.prune(scores, 0.5).items()}
      {'a': [False, False], 'b': [True, True]}
      >>> {k: v.tolist() for k, v in patching.prune(scores, 0.5, apart=0).items()}
      {'a': [True, False], 'b': [True, False]}
    """
    check_by(by)
    if isinstance(share, int | float | np.number) and not 0 <= share <= 1:
        raise ValueError(f"share: got {share}, expected a number between 0 and 1")
    if apart is None:
        return _highest(scores, share, by)
    if isinstance(apart, bool) or not isinstance(apart, int) or apart < 0:
        raise TypeError(f"apart: got {apart!r}, expected None or an int, 0 or more")

    def of_site(path: Any, r: Any) -> Array:
        r = jnp.asarray(r)
        if r.ndim < apart:
            raise ValueError(
                f"apart: got {apart}, but the scores{jax.tree_util.keystr(path)} have "
                f"shape {r.shape}"
            )
        rows = r.reshape(math.prod(r.shape[:apart]), -1)
        return jax.vmap(lambda row: _highest(row, share, by))(rows).reshape(r.shape)

    return jax.tree_util.tree_map_with_path(of_site, scores)


def _highest(scores: Any, share: Any, by: str) -> Any:
    count = sum(jnp.size(r) for r in jax.tree.leaves(scores))
    gone = jnp.round(jnp.asarray(share) * count).astype(int)
    return jax.tree.map(lambda place: place < count - gone, order(scores, by))
