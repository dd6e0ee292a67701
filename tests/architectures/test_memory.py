"""Relevance of long texts takes no more memory than a gradient does."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

import jaxlrp
from jaxlrp import composites
from tests.models.architectures import transformers

TOKENS = 256
SMALL = {"width": 64, "layers": 3, "heads": 4, "groups": 2, "dim": 16, "hidden": 128}
STACK = dataclasses.replace(transformers.LLAMA, **SMALL)


class Decoder(nn.Module):
    """Layers as LLaMA's, each evaluated again on the way back."""

    @nn.compact
    def __call__(self, x):
        seen = jnp.tri(x.shape[1], dtype=bool)
        for i in range(STACK.layers):
            block = nn.remat(transformers.Block)(STACK, STACK.theta, name=f"block{i}")
            x = block(x, None, seen)
        return nn.Dense(10, name="head")(nn.RMSNorm(name="norm")(x)[:, -1])


X = jax.ShapeDtypeStruct((1, TOKENS, STACK.width), jnp.float32)


@functools.cache
def params():
    return jax.eval_shape(Decoder().init, jax.random.key(0), X)


def memory(f):
    compiled = jax.jit(f).lower(params(), X).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@functools.cache
def of_the_gradient():
    score = lambda params, x: Decoder().apply(params, x).max(-1).sum()  # noqa: E731
    return memory(jax.value_and_grad(score, argnums=1))


@pytest.mark.parametrize(
    ("composite", "most"), [(composites.AttnLRP(), 1.1), (composites.CPLRP(), 1.0)]
)
def test_layers_that_are_evaluated_again_bound_the_memory(composite, most):
    relevance = memory(jaxlrp.value_and_lrp(Decoder().apply, composite))
    assert relevance < most * of_the_gradient()
