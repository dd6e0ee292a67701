"""Inputs that are evaluated in chunks of one size."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxlrp.evaluation import _chunks


@pytest.mark.parametrize("chunk", [1, 2, 3, 4, 5, 9])
def test_chunks_are_of_one_size_and_at_most_as_large(chunk, monkeypatch):
    seen = []

    def mapped(function, inputs, batch_size):
        seen.append((len(inputs), batch_size))
        return function(inputs)

    monkeypatch.setattr(_chunks.lax, "map", mapped)
    inputs = jnp.arange(5.0)
    found = _chunks.map_over(lambda x: {"twice": 2 * x}, inputs, chunk)
    np.testing.assert_array_equal(found["twice"], 2 * inputs)
    ((number, size),) = seen
    assert size <= chunk and number % size == 0
    assert 5 <= number < 5 + size
