"""Audits as pictures: what stays where, and how relevance flows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import plot


@pytest.fixture(scope="module")
def audit():
    w = jax.random.normal(jax.random.key(0), (4, 4))

    def network(x):
        with jax.named_scope("first"):
            x = jax.nn.relu(x @ w + 1.0)
        with jax.named_scope("second"):
            return x @ w - 0.5

    return jaxlrp.audit(network)(jnp.arange(4.0))


def ticks(labels):
    return [label.get_text() for label in labels]


def test_bars_are_what_layers_keep_from_score_to_inputs(audit):
    panel = plot.audit(audit).axes[0]
    assert ticks(panel.get_yticklabels()) == ["inputs", "first", "second", "score"]
    widths = {}
    for bar in panel.patches:
        row = round(bar.get_y() + bar.get_height() / 2)
        widths[row] = widths.get(row, 0.0) + bar.get_width()
    kept = audit.by_scope()
    expected = [
        audit.total_in,
        sum(kept["first"].values()),
        sum(kept["second"].values()),
        audit.total_out,
    ]
    np.testing.assert_allclose([widths[i] for i in range(4)], expected, rtol=1e-5)
    assert "bias" in ticks(panel.get_legend().get_texts())


def test_what_keeps_little_is_added_up(audit):
    panel = plot.audit(audit, most=1).axes[0]
    names = ticks(panel.get_yticklabels())
    assert names[0] == "inputs" and "others" in names and len(names) == 4


def test_flow_has_both_signs_and_the_size(audit):
    above, below = plot.flow(audit, roles=["dense"]).axes
    steps = [s for s in audit.steps if s.role == "dense"]
    sums = above.lines[0].get_ydata()
    np.testing.assert_allclose(sums, [s.passed for s in steps])
    bars = np.array([bar.get_height() for bar in above.patches]).reshape(2, -1)
    np.testing.assert_allclose(bars.sum(0), sums, rtol=1e-5)
    assert (bars[0] >= 0).all() and (bars[1] <= 0).all()
    sizes = [s.size_passed / audit.size_out for s in steps]
    np.testing.assert_allclose(below.lines[0].get_ydata(), sizes)
    assert ticks(below.get_xticklabels()) == ["first, dense", "second, dense"]


def test_what_is_no_audit_is_refused(audit):
    with pytest.raises(TypeError, match="audit: got function, expected what jaxlrp"):
        plot.audit(jaxlrp.audit(lambda x: x))
    with pytest.raises(ValueError, match="roles: got .'softmax'., expected some of"):
        plot.flow(audit, roles=["softmax"])
    with pytest.raises(TypeError, match="roles: got 'dense', expected a sequence"):
        plot.flow(audit, roles="dense")
    broken = dataclasses.replace(audit, total_in=float("nan"))
    with pytest.raises(ValueError, match="audit: got numbers that are not finite"):
        plot.audit(broken)
