"""The relevance of parameters: what each weight and bias passed on or kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _targets
from jaxlrp._reading.facts import is_real
from jaxlrp._rewriting.backward import Traced, backward, seed
from jaxlrp._rewriting.evaluate import Run
from jaxlrp._targets import Target
from jaxlrp._trace import (
    ArgNums,
    as_positions,
    checked,
    is_array,
    numbers,
    trace,
    wraps,
)
from jaxlrp.composites import Composite

P = ParamSpec("P")


def parameter_relevance(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    params: int = 0,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """The relevance of `f`'s parameters in the explanation of its input.

    `R_p = p * c_p` for each parameter `p`, where `c_p` is its cotangent in the reverse
    pass in which the inputs get their relevance. For a layer `y_j = sum_i x_i w_ij +
    b_j` under epsilon

        R(w_ij) = x_i w_ij R_j / s(y_j),    R(b_j) = b_j R_j / s(y_j)

    so that the relevances of a kernel add up to what the layer passes on to its input,
    and those of a bias to what the bias absorbs. The inputs' explanation does not
    change: parameters take nothing away from it.

    Args:
      f: as for `lrp`.
      composite: as for `lrp`.
      params: the positional argument that holds the parameters, a pytree.
      argnums: as for `lrp`: the argument that is explained, other than `params`.
      target: as for `lrp`.
      has_aux: as for `lrp`.

    Returns:
      A function of `f`'s arguments that returns the relevances in the structure of the
      argument `params`, of its leaves' shapes and dtypes (real for complex ones): zero
      for parameters that no relevance meets, that are held constant (in a normaliser's
      statistic, inside an activation), and for leaves that are not floating-point
      arrays. With `has_aux`, `(relevances, aux)`.

    Raises:
      TypeError: as `lrp`, and for `params` that is not an int.
      ValueError: as `lrp`, and if `params` is out of range or attributed itself.

    Source: Becking et al. 2022, "ECQx: Explainability-driven quantization for low-bit
    and sparse DNNs".

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> params = {"w": jnp.array([[1.0, 1.0], [2.0, 0.5]]), "b": jnp.array([1.0, 0])}
      >>> f = lambda params, x: jax.nn.relu(x @ params["w"] + params["b"])
      >>> given = jaxlrp.parameter_relevance(f)(params, jnp.array([1.0, 2.0]))
      >>> given["w"].round(3).tolist(), given["b"].round(3).tolist()
      ([[1.0, 0.0], [4.0, 0.0]], [1.0, 0.0])
    """
    rules = checked(f, composite, argnums, target, has_aux)
    if isinstance(params, tuple | list):
        raise TypeError(f"params: got {params!r}, expected an int")
    numbers(params, "params")

    @wraps(
        f,
        "parameter_relevance",
        "the relevances of the parameters, in their structure.",
    )
    def relevances(*args: P.args, **kwargs: P.kwargs) -> Any:
        plain = _targets.is_plain(target)
        (position,) = as_positions(params, len(args), "params")
        traced = trace(f, args, kwargs, rules, argnums, has_aux, plain)
        if any(_argument(traced, i) == position for i in traced.attributed):
            raise ValueError(
                f"params: got {params!r}, which argnums={argnums!r} attributes; "
                f"expected another argument"
            )
        floats = [
            i
            for i, x in enumerate(traced.inputs)
            if _argument(traced, i) == position and is_real(x)
        ]
        # Whatever is differentiated gets `x c`; these are inactive for all else.
        both = dataclasses.replace(traced, attributed=(*traced.attributed, *floats))
        once = backward(both, Run(rules, parameters=True))
        leaves, _ = once.relevance(*seed(target, traced.out_tree, once.outs))
        result = _restored(args[position], leaves[len(traced.attributed) :])
        return (result, traced.restore_aux(once.aux)) if has_aux else result

    return relevances


def _argument(traced: Traced, index: int) -> int | None:
    """The positional argument that a traced array belongs to."""
    path = traced.paths[index]
    return path[1].idx if path[0].idx == 0 else None


def _restored(params: Any, relevances: Sequence[Array]) -> Any:
    """Relevances of the floating-point arrays, and zeros, in the form of `params`."""
    queue = iter(relevances)

    def leaf(p: Any) -> Any:
        if not is_array(p):
            return 0.0 if isinstance(p, int | float | complex | np.generic) else p
        if not is_real(p):
            return jnp.zeros_like(p)
        return jnp.real(next(queue))

    return jax.tree.map(leaf, params)
