"""A function written once more with another argument, as its program says."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import jax

from jaxlrp import _trace
from jaxlrp._rewriting.backward import Traced


def leaves(traced: Traced, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The arrays of a call that were traced."""
    found = dict(jax.tree_util.tree_flatten_with_path((args, kwargs))[0])
    return [_trace.as_array(found[path]) for path in traced.paths]


def keep_signature(again: Callable[..., Any], f: Callable[..., Any]) -> None:
    """Layers go by their parameters' names, which begin with the argument's."""
    names = [p.name for p in _parameters(f)]
    if names and all(names):
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        every = [inspect.Parameter(n, kind) for n in names]
        vars(again)["__signature__"] = inspect.Signature(every)


def _parameters(f: Callable[..., Any]) -> list[inspect.Parameter]:
    try:
        found = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return []
    kinds = (
        inspect.Parameter.POSITIONAL_ONLY,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
    return [p for p in found if p.kind in kinds]
