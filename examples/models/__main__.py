"""Runs the code of *Large language models* and *ONNX and PyTorch*, where it can.

python -m examples.models

What is not installed is told of, and left out.
"""

import contextlib
import importlib.util
import pathlib
import runpy
from collections.abc import Iterator
from typing import Any

import numpy as np

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


def missing(name: str) -> list[str]:
    """What a script needs and is not installed."""
    return [p for p in PACKAGES[name] if importlib.util.find_spec(p) is None]


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
        found: dict[str, Any] = runpy.run_path(str(HERE / f"{name}.py"))
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


def main() -> None:
    for name in PACKAGES:
        if absent := missing(name):
            print(f"{name}: {', '.join(absent)} is not installed")
        else:
            check(name)
            print(f"{name}: each input has a relevance")


if __name__ == "__main__":
    main()
