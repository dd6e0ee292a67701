"""Runs the code of *Relevance of each head*, as far as the frameworks are installed.

python -m examples.heads
"""

import pathlib
from typing import Any

import jax
import numpy as np

import jaxlrp
from examples import scripts

HERE = pathlib.Path(__file__).parent
PACKAGES = {
    "flax_nnx": ("flax",),
    "flax_linen": ("flax",),
    "equinox_nn": ("equinox",),
    "keras_3": ("keras",),
}
"""By script, what it needs."""


def check(name: str) -> None:
    """Runs a script: what the heads pass adds up to what their map passes.

    Raises:
      AssertionError: if it does not, or if there is not one relevance for each head.
    """
    found: dict[str, Any] = scripts.values(HERE, name)
    relevance = np.asarray(found["relevance"])
    assert relevance.shape == (3, 4), relevance.shape
    f, x = found["scores"], found["x"]
    state = next(found[k] for k in ("params", "weights", "attention") if k in found)
    _, captured = jaxlrp.lrp(f, capture="*attention_map*")(state, x)
    (whole,) = jax.tree.leaves(captured)
    np.testing.assert_allclose(relevance.sum(), whole.sum(), rtol=1e-4, atol=1e-6)
    assert len(np.unique(np.round(relevance, 6))) > 4


if __name__ == "__main__":
    scripts.check_all(PACKAGES, check, "one relevance for each head")
