"""What kinds of values there are."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp


def is_real(aval: Any) -> bool:
    """Can a value of this type carry relevance: floating or complex?"""
    dtype = getattr(aval, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jnp.inexact)
