"""What the examples' tests share."""

import jax
import pytest


@pytest.fixture(scope="module")
def compiled_well():
    """Training runs one program many times: compiled quickly it takes longer."""
    name = "jax_disable_most_optimizations"
    found = jax.config.read(name)
    jax.config.update(name, False)
    yield
    jax.config.update(name, found)
