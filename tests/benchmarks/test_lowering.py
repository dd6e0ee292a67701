"""Relevance of every benchmark's network is lowered for TPU and CUDA, from a CPU."""

import jax
import pytest
from jax import export

import jaxlrp
from jaxlrp import composites
from tests.models.usual import DEEP, MODELS

COMPOSITES = {
    "default": None,
    "attnlrp": composites.AttnLRP(),
    "epsilon-plus-flat": composites.EpsilonPlusFlat(),
}


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("model", [*MODELS, *DEEP])
def test_relevance_is_lowered_for_tpu_and_cuda(model, composite):
    apply, params, x = (MODELS | DEEP)[model](True)
    explain = jaxlrp.value_and_lrp(apply, COMPOSITES[composite])
    shapes = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), (params, x))
    exported = export.export(jax.jit(explain), platforms=("tpu", "cuda"))(*shapes)
    assert exported.platforms == ("tpu", "cuda")
    assert exported.out_avals[-1].shape == x.shape
