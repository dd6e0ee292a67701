"""Runs the code of the page *Frameworks*, as far as the frameworks are installed.

python -m examples.frameworks
"""

import pathlib
from typing import Any

import jax
import numpy as np

from examples import scripts

HERE = pathlib.Path(__file__).parent
PACKAGES = {
    "plain_jax": ("jax",),
    "flax_nnx": ("flax",),
    "flax_linen": ("flax",),
    "equinox_nn": ("equinox",),
    "dm_haiku": ("haiku",),
    "keras_3": ("keras",),
}
"""By script, what it needs."""


def check(name: str) -> None:
    """Runs a script, and checks its three answers.

    Raises:
      AssertionError: if the relevances are not those of a network in evaluation mode.
    """
    found: dict[str, Any] = scripts.values(HERE, name)
    x, scores, relevance = (found[key] for key in ("x", "scores", "relevance"))
    assert relevance.shape == found["other"].shape == x.shape
    # The same again: nothing is drawn.
    again = scripts.values(HERE, name)
    np.testing.assert_allclose(relevance, again["relevance"], rtol=1e-5, atol=1e-6)
    (of_hidden,) = jax.tree.leaves(found["captured"])
    assert of_hidden.shape == (4, 16) and np.isfinite(of_hidden).all()
    assert scores.shape == (4, 3)
    assert not np.allclose(relevance, found["other"])
    assert found["composite"].assignments[-1].scope is not None


if __name__ == "__main__":
    scripts.check_all(PACKAGES, check, "all three answers")
