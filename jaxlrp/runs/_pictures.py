"""Small pictures inside HTML, by Pillow."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

import numpy as np

SIZE = 64
"""Smaller pictures are enlarged to about so many pixels."""


def shaded(relevance: np.ndarray) -> np.ndarray:
    """Relevances as colours, red for and blue against, each map on a scale of its own.

    Args:
      relevance: (..., height, width).

    Returns:
      uint8 (..., height, width, 3).
    """
    relevance = np.nan_to_num(relevance)
    scale = np.abs(relevance).max((-2, -1), keepdims=True)
    x = np.clip(relevance / np.where(scale > 0, scale, 1), -1, 1)[..., None]
    red, blue = np.array([178, 24, 43]), np.array([33, 102, 172])
    end = np.where(x > 0, red, blue)
    return (255 + np.abs(x) * (end - 255)).round().astype(np.uint8)


def maps(relevance: np.ndarray, title: str) -> str | None:
    """Maps (maps, height, width) side by side as an `<img>`; None without Pillow."""
    frame = [(0, 0), (1, 1), (1, 1), (0, 0)]
    coloured = np.pad(shaded(relevance), frame, constant_values=255)
    try:
        return _image(np.concatenate(list(coloured), axis=1), title)
    except ImportError:
        return None


def photograph(pixels: Any, title: str) -> str:
    """An image (height, width) or (height, width, channels) as an `<img>`.

    Of floats the smallest and the largest become black and white.
    """
    x = np.asarray(pixels)
    if x.dtype != np.uint8:
        low, high = x.min(), x.max()
        x = (255 * (x - low) / (high - low if high > low else 1)).astype(np.uint8)
    return _image(x[..., 0] if x.ndim == 3 and x.shape[-1] == 1 else x, title)


def _image(pixels: np.ndarray, title: str) -> str:
    from PIL import Image

    zoom = max(1, SIZE // pixels.shape[0])
    buffer = io.BytesIO()
    large = np.repeat(np.repeat(pixels, zoom, 0), zoom, 1)
    Image.fromarray(large).save(buffer, "PNG")
    text = base64.b64encode(buffer.getvalue()).decode()
    return f"<img alt='{html.escape(title)}' src='data:image/png;base64,{text}'>"
