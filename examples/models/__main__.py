"""Runs the code of *Large language models* and *ONNX and PyTorch*, where it can.

python -m examples.models

What is not installed is told of, and left out.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from examples import scripts

HERE = pathlib.Path(__file__).parent
PACKAGES = {
    "hugging_face": ("transformers", "torchax"),
    "bonsai_nnx": ("bonsai",),
    "tunix_nnx": ("tunix",),
    "gemma_linen": ("gemma",),
    "torch_module": ("torchax",),
    "onnx_file": ("onnx2torch", "torchax"),
}
"""By script, what it needs."""


@contextlib.contextmanager
def _readable(needs: tuple[str, ...]) -> Iterator[None]:
    """torchax 0.0.13 looks up overloads that newer PyTorchs have no longer."""
    if "torchax" not in needs:
        yield
        return
    from benchmarks.zoo.torch_models import _with_names

    with _with_names():
        yield


def check(name: str) -> None:
    """Runs a script, and checks that each input has a relevance.

    Raises:
      AssertionError: if relevances have another shape, are not finite or are all zero.
    """
    with _readable(PACKAGES[name]):
        found: dict[str, Any] = scripts.values(HERE, name)
    inputs = next(found[key] for key in ("ids", "images", "x") if key in found)
    relevance = np.asarray(found["relevance"])
    assert relevance.shape == inputs.shape
    assert np.isfinite(relevance).all() and np.abs(relevance).sum() > 0
    assert len(found["value"]) == len(inputs)
    if "boxed" in found:
        assert not np.allclose(found["boxed"], relevance)
    if "captured" in found:
        assert all(np.isfinite(v).all() for v in found["captured"].values())
        assert found["captured"]


if __name__ == "__main__":
    scripts.check_all(PACKAGES, check, "each input has a relevance")
