"""Units are cells or labels; what is in none stays as it is and is counted nowhere."""

import jax.numpy as jnp
import numpy as np

from jaxlrp._units import Units, units_of

LABELS = (np.array([0, 1, -1, 0]), np.array([[1, -1]]))
LABELLED = Units(LABELS, (2,))
VALUES = [jnp.array([1.0, 2.0, 4.0, 8.0]), jnp.array([[16.0, 32.0]])]


def test_sums_are_over_the_elements_of_a_unit():
    np.testing.assert_allclose(LABELLED.pooled(VALUES), [9.0, 18.0])


def test_what_is_in_no_unit_is_kept_whatever_is_present():
    others = [jnp.zeros(4), jnp.zeros((1, 2))]
    first, second = LABELLED.kept(jnp.array([True, False]), VALUES, others)
    np.testing.assert_allclose(first, [1.0, 0.0, 4.0, 8.0])
    np.testing.assert_allclose(second, [[0.0, 32.0]])


def test_one_unit_alone():
    first, second = LABELLED.of(1, VALUES)
    np.testing.assert_allclose(first, [0.0, 2.0, 0.0, 0.0])
    np.testing.assert_allclose(second, [[16.0, 0.0]])


def test_cells_are_labels_of_a_grid():
    x = jnp.arange(24.0).reshape(4, 6)
    units = units_of((2, 3), [x], lambda leaves: leaves[0])
    expected = np.asarray(x).reshape(2, 2, 3, 2).sum((1, 3))
    np.testing.assert_allclose(units.pooled([x]), expected)
    labelled = Units(units.labels, units.grid)
    np.testing.assert_allclose(labelled.pooled([x]), expected)
