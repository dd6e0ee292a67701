"""Architectures: all of a published size has a rule, and no relevance is lost.

`make zoo` does all of it for every architecture. Here the larger part of the time would
be the compiler's, so that one of a kind is run, and those published sizes are read that
other packages report on.
"""

import jax
import numpy as np
import pytest

import jaxlrp
from benchmarks.coverage import TOLERANCE, parameters
from tests.models.architectures import ARCHITECTURES

# The table of dynamicLRP, and small ones.
PUBLISHED = (
    "VGG16",
    "ResNet-50",
    "ViT-B/16",
    "EfficientNetV2-M",
    "SigLIP-2 So400m",
    "Wav2Vec2 XLS-R 300M",
    "Whisper small",
    "GPT-2",
    "RoBERTa-large",
    "Llama-3.2-1B",
    "Gemma-3-270M",
    "Qwen3-0.6B",
    "Flan-T5-large",
    "DePlot (Pix2Struct)",
    "Mamba-130m",
    "CapsNet",
    "NeRF",
    "U-Net",
)

RUN = (
    "GPT-2",
    "Gemma-2-2B",
    "SigLIP-2 So400m",
    "Wav2Vec2 XLS-R 300M",
    "DePlot (Pix2Struct)",
    "EfficientNetV2-M",
    "CapsNet",
    "Mixtral-8x7B",
    "FNet-base",
    "xLSTM",
    "Mamba-130m",
    "S5",
    "GAT",
    "MPNN",
    "VAE",
    "Real NVP",
    "NeRF",
    "Neural ODE",
    "Deep equilibrium",
)


def assert_covered(plan):
    assert plan.rows
    assert plan.unexplained == ()
    assert plan.coverage == 1.0


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_size_is_covered(name):
    architecture = ARCHITECTURES[name]
    apply, params, inputs = architecture.large()
    assert architecture.millions == pytest.approx(
        parameters(params["params"]) / 1e6, rel=0.01
    )
    assert_covered(jaxlrp.plan(apply)(params, inputs))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_reduced_size_is_covered(name):
    apply, params, inputs = ARCHITECTURES[name].small()
    assert_covered(jaxlrp.plan(apply)(params, inputs))


@pytest.mark.parametrize("name", RUN)
def test_relevance_of_reduced_size_is_accounted_for(name):
    architecture = ARCHITECTURES[name]
    apply, params, inputs = architecture.small()
    audit = jaxlrp.audit(apply, target=architecture.target)(params, inputs)
    assert audit.culprit is None
    assert np.isfinite(audit.total_in)
    assert abs(audit.total_out) > 1e-3
    assert abs(audit.residual) <= TOLERANCE * abs(audit.total_out)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_relevance_is_the_same_compiled_and_as_called(name):
    """Compiled, equal stretches are one function; called, each step is on its own."""
    apply, params, inputs = ARCHITECTURES[name].small()
    explain = jaxlrp.lrp(apply, target=ARCHITECTURES[name].target)
    expected, found = explain(params, inputs), jax.jit(explain)(params, inputs)
    for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        # In float32, in another order.
        size = float(np.abs(other).max())
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4 * size)


def test_every_architecture_says_where_relevance_goes():
    assert all(name == a.name for name, a in ARCHITECTURES.items())
    assert all(a.note.endswith(".") for a in ARCHITECTURES.values())


def test_embeddings_are_what_tokens_look_up():
    apply, params, ids = ARCHITECTURES["GPT-2"].small()
    apply = jax.jit(apply)
    table = params["params"]["embed"]["table"]["embedding"]
    np.testing.assert_allclose(
        apply(params, ids), apply(params, table[ids]), rtol=1e-5, atol=1e-6
    )
