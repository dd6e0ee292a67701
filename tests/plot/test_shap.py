"""SHAP's explanation, with and without shap."""

import sys
import types

import numpy as np
import pytest

from jaxlrp import plot


@pytest.fixture
def shap(monkeypatch):
    """A stand-in that keeps what it is given."""
    module = types.SimpleNamespace(
        Explanation=lambda values, **given: types.SimpleNamespace(
            values=values, **given
        )
    )
    monkeypatch.setitem(sys.modules, "shap", module)


def test_an_explanation_has_values_data_names_and_base(shap):
    made = plot.to_shap(np.ones((2, 3)), np.zeros((2, 3)), ["a", "b", "c"], 0.5)
    assert made.values.shape == made.data.shape == (2, 3)
    assert made.feature_names == ["a", "b", "c"]
    np.testing.assert_array_equal(made.base_values, [0.5, 0.5])
    assert plot.to_shap(np.ones(3), base=0.5).base_values == 0.5


def test_what_does_not_fit_is_named(shap):
    with pytest.raises(
        ValueError, match=r"inputs: got shape \(3,\), expected \(2, 3\)"
    ):
        plot.to_shap(np.ones((2, 3)), np.zeros(3))
    with pytest.raises(ValueError, match="names: got"):
        plot.to_shap(np.ones(3), names=["a"])
    with pytest.raises(ValueError, match=r"base: got shape \(3,\)"):
        plot.to_shap(np.ones((2, 3)), base=np.ones(3))


def test_without_shap_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ImportError, match="pip install shap"):
        plot.to_shap(np.ones(3))


def test_shap_itself_takes_it():
    shap = pytest.importorskip("shap")
    made = plot.to_shap(np.ones((2, 3)), np.zeros((2, 3)), ["a", "b", "c"])
    assert isinstance(made[0], shap.Explanation) and made.shape == (2, 3)
