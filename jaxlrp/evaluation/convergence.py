"""Does relevance depend on where it began? Cosine similarity convergence, by depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._lrp import lrp
from jaxlrp._trace import ArgNums
from jaxlrp.attribution import _checks as checks
from jaxlrp.composites import Composite

__all__ = ["INPUT", "csc"]

INPUT = "input"
"""What the relevance of the input itself goes by."""


def csc(
    f: Callable[..., Any],
    composite: Composite | None = None,
    *,
    key: Array,
    seeds: int = 8,
    capture: str | Sequence[str] = "*",
    argnums: ArgNums = -1,
) -> Callable[..., dict[str, Array]]:
    """Cosine similarity convergence: of relevances that began differently, by depth.

        csc_l = |cos(R_l(s), R_l(t))|,    s, t ~ N(0, 1) the output's relevance

    Random relevances are given to the output, and the relevances that they become at
    each value with a name, and at the input, are compared in pairs. Near one, what is
    seen there does not depend on what was asked at the output, but for its size and
    sign: the layers above are as a matrix of rank one. Products of matrices without
    negative entries come to that, so z-plus and deep Taylor decomposition do.

    Args:
      f: as for `jaxlrp.lrp`, of one example; `jax.vmap` makes it of many.
      composite: as for `jaxlrp.lrp`. It should be linear in relevance.
      key: a key of `jax.random`, for the relevances of the output.
      seeds: how many of these; each pair is compared.
      capture: as for `jaxlrp.lrp`: the values at which relevance is looked at.
      argnums: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments that returns by name the similarities of all pairs,
      Float[Array, "pairs"], that of the input under "input". `concepts.sites` has the
      names in the order of the program, which is lost under `jax.jit`. In a loop the
      iterations are one vector, except where `capture`
      names one, as `layers.w[3]`. Where a relevance is zero the similarity is NaN.

    Raises:
      ValueError: if `seeds` is less than two, or for a name that no value has.
      TypeError: if `seeds` is no int, or `key` is no key.

    Source: Sixt, Granz and Landgraf 2020, "When explanations lie: why many modified BP
    attributions fail" (there with the cosine's sign).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import composites, evaluation
      >>> w = jnp.abs(jax.random.normal(jax.random.key(0), (3, 8, 8)))
      >>> def f(x):
      ...     for i, v in enumerate(w):
      ...         x = checkpoint_name(jax.nn.relu(x @ v), f"h{i}")
      ...     return x
      >>> key = jax.random.key(1)
      >>> found = jax.jit(evaluation.csc(f, composites.DeepTaylor(), key=key))
      >>> similar = {k: float(v.mean()) for k, v in found(jnp.ones(8)).items()}
      >>> sorted(similar, key=similar.get)
      ['h2', 'h1', 'h0', 'input']
    """
    checks.check_key(key)
    checks.natural("seeds", seeds, least=2)

    def similarities(*args: Any, **kwargs: Any) -> dict[str, Array]:
        out = jax.eval_shape(lambda: f(*args, **kwargs))
        leaves, tree = jax.tree.flatten(out)
        drawn = [
            jax.random.normal(one, (seeds, *leaf.shape), leaf.dtype)
            for one, leaf in zip(
                jax.random.split(key, len(leaves)), leaves, strict=True
            )
        ]

        def explain(seed: Any) -> Any:
            given = jax.tree.unflatten(tree, seed)
            explained = lrp(
                f,
                composite,
                argnums=argnums,
                target=lambda _: given,
                capture=capture,
            )
            return explained(*args, **kwargs)

        relevance, captured = jax.vmap(explain)(drawn)
        everything = {INPUT: relevance, **captured}
        return {name: _pairs(r, seeds) for name, r in everything.items()}

    return similarities


def _pairs(relevance: Any, count: int) -> Array:
    """The absolute cosine of each pair, over all leaves together."""
    flat = jnp.concatenate(
        [leaf.reshape(count, -1) for leaf in jax.tree.leaves(relevance)], axis=1
    )
    flat = flat.astype(jnp.promote_types(flat.dtype, jnp.float32))
    # Scaled first: squares of small numbers would vanish.
    flat = flat / jnp.abs(flat).max(1, keepdims=True)
    flat = flat / jnp.linalg.norm(flat, axis=1, keepdims=True)
    cosines = jnp.matmul(flat, flat.T, precision=jax.lax.Precision.HIGHEST)
    return jnp.abs(cosines)[np.triu_indices(count, 1)]
