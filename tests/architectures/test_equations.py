"""Relevance of transformers is what the papers' equations say, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites
from tests.architectures import ARCHITECTURES, equations
from tests.architectures.equations import Method, Node

NETWORKS = {
    "GPT-2": equations.language,
    "Llama-3.2-1B": equations.language,
    "Gemma-3-270M": equations.language,
    "Gemma-2-2B": equations.language,
    "Qwen3-0.6B": equations.language,
    "RoBERTa-large": equations.text,
    "ViT-B/16": equations.vision,
    "Flan-T5-large": equations.translation,
}
METHODS = {
    "AttnLRP": (composites.AttnLRP(), Method()),
    "CP-LRP": (composites.CPLRP(), Method(attention=False)),
    "CP-LRP, gates held": (
        composites.CPLRP(hold_gates=True),
        Method(attention=False, gates=False),
    ),
}
GATED = ("Llama-3.2-1B", "Gemma-3-270M", "Gemma-2-2B", "Qwen3-0.6B", "Flan-T5-large")


@functools.cache
def derived(name, method):
    """(the highest score, the relevances of the input's leaves)."""
    model = ARCHITECTURES[name].small(jnp.float64, embedded=True)
    params, inputs = jax.tree.map(np.asarray, (model.params, model.inputs))
    nodes = jax.tree.map(Node, inputs)
    out = NETWORKS[name](ARCHITECTURES[name].reduced, method, params["params"], nodes)
    highest = out.value == out.value.max(-1, keepdims=True)
    equations.relevances(out, out.value * highest)
    is_node = lambda x: isinstance(x, Node)  # noqa: E731
    found = jax.tree.map(lambda node: node.relevance, nodes, is_leaf=is_node)
    return out.value, found


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("method", METHODS)
def test_relevance_is_what_the_papers_equations_say(name, method):
    if "gates" in method and name not in GATED:
        method = "CP-LRP"  # its activations are no gates
    composite, choices = METHODS[method]
    with jax.enable_x64(True):
        model = ARCHITECTURES[name].small(jnp.float64, embedded=True)
        out, expected = derived(name, choices)
        explain = jax.jit(jaxlrp.value_and_lrp(model.apply, composite, target="max"))
        value, found = explain(model.params, model.inputs)
        np.testing.assert_allclose(value, out, rtol=1e-10)
        size = max(np.abs(x).max() for x in jax.tree.leaves(expected))
        for r, e in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(r, e, rtol=0, atol=1e-9 * size)


@pytest.mark.parametrize("method", ["AttnLRP", "CP-LRP"])
def test_padding_has_no_relevance_at_all(method):
    architecture = ARCHITECTURES["RoBERTa-large"]
    model = architecture.small(embedded=True)
    explain = jax.jit(jaxlrp.lrp(model.apply, METHODS[method][0], target="max"))
    found = np.asarray(explain(model.params, model.inputs))
    padding = architecture.reduced.padding
    assert (found[:, -padding:] == 0).all()
    assert (found[:, :-padding] != 0).all()
