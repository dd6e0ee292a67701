"""Relevance of transformers is what the papers' equations say, in float64."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

import jaxlrp
from jaxlrp import composites
from tests.models.architectures import ARCHITECTURES, equations
from tests.models.architectures.equations import Method, Node
from tests.models.architectures.transformers import Block

NETWORKS = {
    "GPT-2": equations.language,
    "Llama-3.2-1B": equations.language,
    "Gemma-3-270M": equations.language,
    "Gemma-2-2B": equations.language,
    "Qwen3-0.6B": equations.language,
    "Mistral-7B": equations.language,
    "Falcon-7B": equations.language,
    "BLOOM-560M": equations.language,
    "Mixtral-8x7B": equations.experts,
    "SigLIP-2 So400m": equations.pair,
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
GATED = (
    "Llama-3.2-1B",
    "Gemma-3-270M",
    "Gemma-2-2B",
    "Qwen3-0.6B",
    "Mistral-7B",
    "Mixtral-8x7B",
    "Flan-T5-large",
)


def of_highest(out):
    """Hands the highest score back."""
    highest = out.value == out.value.max(-1, keepdims=True)
    equations.relevances(out, out.value * highest)


@functools.cache
def derived(name, method):
    """(the highest score, the relevances of the input's leaves)."""
    model = ARCHITECTURES[name].small(jnp.float64, embedded=True)
    params, inputs = jax.tree.map(np.asarray, (model.params, model.inputs))
    nodes = jax.tree.map(Node, inputs)
    out = NETWORKS[name](ARCHITECTURES[name].reduced, method, params["params"], nodes)
    of_highest(out)
    is_node = lambda x: isinstance(x, Node)  # noqa: E731
    found = jax.tree.map(lambda node: node.relevance, nodes, is_leaf=is_node)
    return out.value, found


CASES = [
    (name, method)
    for name in NETWORKS
    for method in METHODS
    if name in GATED or "gates" not in method  # else activations are no gates
]


@pytest.mark.parametrize(("name", "method"), CASES)
def test_relevance_is_what_the_papers_equations_say(name, method):
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


def gpt2_by(run):
    """GPT-2, its blocks' weights in one array each; `run` takes `x` through them."""
    config = DEEPER.reduced
    past = np.tril(np.full((config.length, config.length), True))

    def apply(params, x):
        p = params["params"]
        each = [p["blocks"][f"block{i}"] for i in range(config.stack.layers)]
        together = jax.tree.map(lambda *xs: jnp.stack(xs), *each)
        x = run(config.stack, together, x + p["positions"][: config.length], past)
        x = nn.LayerNorm().apply({"params": p["blocks"]["final_norm"]}, x[:, -1])
        return x @ p["embed"]["table"]["embedding"].T

    return apply


def in_a_loop(stack, weights, x, past):
    @functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.dots_saveable)
    def step(x, weights):
        return Block(stack).apply({"params": weights}, x, None, past), None

    return jax.lax.scan(step, x, weights)[0]


def lifted(stack, weights, x, past):
    class Carried(nn.Module):
        @nn.compact
        def __call__(self, x, _):
            return Block(stack, name="block")(x, None, past), None

    scanned = nn.scan(
        nn.remat(Carried, prevent_cse=False),
        variable_axes={"params": 0},
        split_rngs={"params": True},
        length=stack.layers,
    )
    return scanned().apply({"params": {"block": weights}}, x, None)[0]


_GPT2 = ARCHITECTURES["GPT-2"]
DEEPER = dataclasses.replace(
    _GPT2,
    reduced=dataclasses.replace(
        _GPT2.reduced, stack=dataclasses.replace(_GPT2.reduced.stack, layers=3)
    ),
)


@pytest.mark.parametrize("run", [in_a_loop, lifted], ids=lambda f: f.__name__)
def test_relevance_of_layers_in_a_scan_that_are_evaluated_again(run):
    with jax.enable_x64(True):
        model = DEEPER.small(jnp.float64, embedded=True)
        params = jax.tree.map(np.asarray, model.params["params"])

        @jax.jit
        def both(params, x):
            return [
                jaxlrp.lrp(gpt2_by(run), METHODS[method][0], target="max")(params, x)
                for method in ("AttnLRP", "CP-LRP")
            ]

        found = both(model.params, model.inputs)
        for method, relevance in zip(("AttnLRP", "CP-LRP"), found, strict=True):
            x = Node(np.asarray(model.inputs))
            of_highest(
                equations.language(DEEPER.reduced, METHODS[method][1], params, x)
            )
            size = np.abs(x.relevance).max()
            np.testing.assert_allclose(relevance, x.relevance, atol=1e-9 * size, rtol=0)


def test_relevance_of_tokens_is_that_of_their_embeddings_though_these_are_tied():
    """It is float32, as relevance of integers always is."""
    architecture = ARCHITECTURES["GPT-2"]
    with jax.enable_x64(True):
        model = architecture.small(jnp.float64)
        explain = jax.jit(jaxlrp.lrp(model.apply, METHODS["AttnLRP"][0], target="max"))
        found = explain(model.params, model.inputs)
        params = jax.tree.map(np.asarray, model.params["params"])
        table = params["embed"]["table"]["embedding"]
        x = Node(table[np.asarray(model.inputs)])
        of_highest(equations.language(architecture.reduced, Method(), params, x))
        expected = x.relevance.sum(-1)
        size = np.abs(expected).max()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * size)
