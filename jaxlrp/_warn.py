"""Warnings that point at the user's line, however deep the call that raises them is."""

from __future__ import annotations

import inspect
import os
import pathlib
import warnings

import jax

_INNER = tuple(
    f"{pathlib.Path(module).parent}{os.sep}" for module in (__file__, jax.__file__)
)
"""The folders of frames that are not the user's."""


def warn(message: str, category: type[Warning]) -> None:
    """Warns with the innermost line that is neither this package's nor JAX's."""
    frame, level = inspect.currentframe(), 1
    while frame is not None and frame.f_code.co_filename.startswith(_INNER):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)
