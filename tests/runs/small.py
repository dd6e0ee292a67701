"""Small networks and datasets that the tests of runs share."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp

BATCH, BLOCK, ROWS = 4, 8, 61
"""The last block is short, and so is its last call."""


def weights(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def mlp(x):
    return jax.nn.relu(x.reshape(len(x), -1) @ weights(36, 16)) @ weights(16, 3)


def cnn(x):
    dims = ("NHWC", "HWIO", "NHWC")
    x = jax.lax.conv_general_dilated(
        x, weights(3, 3, 1, 4), (1, 1), "SAME", dimension_numbers=dims
    )
    return jax.nn.relu(x).mean((1, 2)) @ weights(4, 3)


def attention(x):
    x = x[..., 0]
    q, k, v = (x @ weights(6, 6, seed=i) for i in range(3))
    p = jax.nn.softmax(q @ k.swapaxes(1, 2) / np.sqrt(6))
    return (x + p @ v).mean(1) @ weights(6, 3)


NETWORKS = {"mlp": mlp, "cnn": cnn, "attention": attention}


@functools.cache
def images(rows=ROWS):
    return weights(rows, 6, 6, 1, seed=7)


@functools.cache
def labels(rows=ROWS):
    return np.random.default_rng(1).integers(0, 3, rows).astype(np.int32)


@functools.cache
def explainer(name="mlp"):
    """Relevances of images."""
    return jax.jit(jaxlrp.lrp(NETWORKS[name]))


@functools.cache
def labelled(name="mlp"):
    """Relevances, scores and labels of `(images, labels)`."""

    def explain(batch):
        x, label = batch
        scores, relevance = jaxlrp.value_and_lrp(NETWORKS[name])(x)
        return {"relevance": relevance[..., 0], "scores": scores, "label": label}

    return jax.jit(explain)


TEXTS = [{"ids": np.arange(1, 1 + n, dtype=np.int32)} for n in (3, 7, 2, 8, 5, 1, 4)]


@functools.cache
def reader():
    """Relevances of token ids, of which zeros are padding."""

    def scores(table, ids):
        return (table[ids] * (ids > 0)[..., None]).sum(-2)

    explain = jaxlrp.lrp(scores)
    return jax.jit(lambda batch: explain(jnp.asarray(weights(10, 4)), batch["ids"]))
