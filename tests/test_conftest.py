"""Tests do not depend on each other."""

import numpy as np
import pytest

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("time", ["first", "second"])
def test_every_test_draws_the_same_numbers(time):
    np.testing.assert_array_equal(
        RNG.normal(size=3), np.random.default_rng(0).normal(size=3)
    )
