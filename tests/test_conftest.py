"""Tests do not depend on each other."""

import numpy as np

RNG = np.random.default_rng(0)
FIRST = np.random.default_rng(0).normal(size=3)


def test_a_test_draws_from_its_modules_generator():
    np.testing.assert_array_equal(RNG.normal(size=3), FIRST)


def test_the_next_one_draws_the_same_numbers():
    np.testing.assert_array_equal(RNG.normal(size=3), FIRST)
