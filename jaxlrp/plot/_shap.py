"""Relevance for SHAP's plots."""

from __future__ import annotations

from typing import Any

import numpy as np

from jaxlrp.plot import _checks


def to_shap(
    relevance: Any, inputs: Any = None, names: Any = None, base: Any = 0.0
) -> Any:
    """Relevance as a `shap.Explanation`, for SHAP's beeswarm, waterfall, force plots.

    Its plots then show relevances, which are no Shapley values: they too add up, with
    the base, to the score.

    Args:
      relevance: (examples, features), or (features,) for one example.
      inputs: the values of the features, in the same shape.
      names: of the features.
      base: what no feature has, the score minus the sum of relevances: a number, or
        one for each example.

    Returns:
      A `shap.Explanation`.

    Raises:
      ImportError: if shap is not installed.
      TypeError: for what is not an array of real numbers.
      ValueError: for shapes or names that do not fit.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import plot
      >>> relevance, x = jnp.ones((5, 2)), jnp.zeros((5, 2))
      >>> explained = plot.to_shap(relevance, x, ["a", "b"])  # doctest: +SKIP
      >>> shap.plots.beeswarm(explained)  # doctest: +SKIP
    """
    values = _checks.array("relevance", relevance, (1, 2), "(examples, features)")
    data = None
    if inputs is not None:
        data = np.asarray(inputs)
        if data.shape != values.shape:
            raise ValueError(
                f"inputs: got shape {data.shape}, expected {values.shape}, that of "
                f"relevance"
            )
    called = None
    if names is not None:
        called = _checks.names("names", names, values.shape[-1], "feature")
    start = _checks.array("base", base, (0, 1), "one number, or one for each example")
    if start.ndim and start.shape != values.shape[:-1]:
        raise ValueError(
            f"base: got shape {start.shape}, expected one number or "
            f"{values.shape[:-1]}, one for each example"
        )
    try:
        import shap  # pyright: ignore
    except ImportError as error:
        raise ImportError("jaxlrp.plot.to_shap needs shap: pip install shap") from error
    bases = np.broadcast_to(start, values.shape[:-1])
    return shap.Explanation(
        values,
        base_values=bases.copy() if bases.ndim else float(bases),
        data=data,
        feature_names=called,
    )
