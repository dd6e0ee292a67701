"""What relevance costs, by what is in the compiled program; no clock is read.

The optimised HLO holds as many matrix products and convolutions as the rules imply, and
takes about as much temporary memory as the gradient of the same output.
"""

import functools
import itertools

import jax
import pytest
from flax import linen as nn

from benchmarks import gradient_ratio, hlo, layers
from jaxlrp import composites, rules
from tests.models import usual as models

# What XLA decides about contractions and memory does not depend on these.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

IMAGES = (4, 32, 32, 3)
TOKENS = (4, 32, 32)
STAGES = ((8, 1), (16, 1))
NETWORKS = {
    "VGG": (models.VGG(((8, 8), (16,)), (16,), 5), IMAGES),
    "ResNet": (models.ResNet(STAGES, 5), IMAGES),
    "bottlenecks": (models.ResNet(STAGES, 5, block=models.Bottleneck), IMAGES),
    "ViT": (models.ViT(4, 32, 4, 2, 5), IMAGES),
    "BERT": (models.Bert(32, 4, 2, 5, 3), TOKENS),
    "LLaMA": (models.Llama(32, 4, 2, 64, 2, 5), TOKENS),
    "LLaMA by scan": (models.Llama(32, 4, 2, 64, 4, 5, scan=True), TOKENS),
    "LSTM": (models.Recurrent(nn.OptimizedLSTMCell, 16, 5), (4, 24, 16)),
    "Mamba": (models.Mamba(4, 4, 2, 5), (4, 24, 16)),
}
"""As in the benchmark, in small shapes in which activations outweigh weights."""

COMPOSITES = {
    "Default": composites.Default(),
    "Proportional": composites.Proportional(),
    "LRP0": composites.Uniform(rules.LRP0()),
    "Epsilon": composites.Epsilon(),
    "AttnLRP": composites.AttnLRP(),
    "CPLRP": composites.CPLRP(),
    "EpsilonPlusFlat": composites.EpsilonPlusFlat(),
    "EpsilonGammaBox": composites.EpsilonGammaBox(-3.0, 3.0),
    "EpsilonAlpha2Beta1": composites.EpsilonAlpha2Beta1(),
}
ONE_PASS = ("Proportional", "LRP0", "Epsilon", "AttnLRP", "CPLRP")


def compiled(function, *args):
    return jax.jit(function).lower(*args).compile(compiler_options=QUICK)


def count(program):
    return hlo.contractions(program.as_text())


def temporary(program):
    found = hlo.temporary(program)
    assert found is not None
    return found


@functools.cache
def network(name):
    module, shape = NETWORKS[name]
    return models.network(module, *shape)


@functools.cache
def gradient(name):
    apply, params, x = network(name)
    return compiled(gradient_ratio.gradient(apply), params, x)


@functools.cache
def relevance(name, composite):
    apply, params, x = network(name)
    explained = gradient_ratio.relevance(apply, COMPOSITES[composite])
    return compiled(explained, params, x)


# ---- rules of one pass -----------------------------------------------------------

# Contractions with one operand that depends on the input, and with two. The gradient
# runs the former twice, forwards and back, and the latter three times. Layers of an
# LSTM are two in a step and the head. The read-out of a state space is run back twice
# but once as a product of elements, which is no contraction.
PARTS = {
    "VGG": (5, 0),
    "ResNet": (7, 0),
    "bottlenecks": (10, 0),
    "ViT": (2 + 2 * 6, 2 * 2),
    "BERT": (2 + 2 * 6, 2 * 2),
    "LLaMA": (1 + 2 * 7, 2 * 2),
    "LLaMA by scan": (1 + 7, 2),
    "LSTM": (3, 0),
    "Mamba": (1 + 2 * (5 + 1), 0),
}
# What is not run back, in each layer. CP-LRP holds the softmax: nothing goes to the
# weights of the values, and so none back through the scores and the projections to
# queries and keys, 1 + 2 + 2. A step size, which cannot be negative, is held as a gate.
DROPPED = {
    ("ViT", "CPLRP"): 2 * 5,
    ("BERT", "CPLRP"): 2 * 5,
    ("LLaMA", "CPLRP"): 2 * 5,
    ("LLaMA by scan", "CPLRP"): 5,
    ("Mamba", "Proportional"): 2,
    ("Mamba", "CPLRP"): 2,
}
# Epsilon divides by the layers' results, which a gradient need not keep: those of
# an attention's projections, of a gate or of a step of a loop.
MEMORY = {
    ("BERT", "Proportional"): 1.25,
    ("BERT", "Default"): 1.31,  # and by both parts of its residual sums
    ("BERT", "Epsilon"): 1.30,
    ("LSTM", "Epsilon"): 1.56,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_the_gradient_runs_each_layer_forwards_and_back(name):
    one, two = PARTS[name]
    assert count(gradient(name)) == 2 * one + 3 * two


WITHOUT_A_SPLIT = ("BERT", "LLaMA", "LLaMA by scan")
"""Networks without convolutions and recurrences: the default splits nothing there."""


@pytest.mark.parametrize(
    ("name", "composite"),
    [
        *itertools.product(NETWORKS, ONE_PASS),
        *((name, "Default") for name in WITHOUT_A_SPLIT),
    ],
)
def test_a_rule_of_one_pass_has_the_contractions_of_the_gradient(name, composite):
    found = count(relevance(name, composite))
    assert found == count(gradient(name)) - DROPPED.get((name, composite), 0)
    whole = temporary(gradient(name))
    most = MEMORY.get((name, composite), 1.15)
    assert temporary(relevance(name, composite)) <= most * whole


# ---- rules that split weights ----------------------------------------------------

# Passes of one layer. Behind `x >= 0` z-plus and, in front of a ReLU, gamma run the
# changed weights forwards and back, beside the layer itself. Flat runs none, but sums
# over windows of one feature. What z-box and w-square sum of their weights is a small
# product for each axis of the image. Alpha-beta and what has both signs
# run |W| or W+ beside W, both ways. Sums of few contributions are not taken from
# differences: then alpha-beta runs each part, of both signs as two products.
FIRST = {"EpsilonPlusFlat": 1, "EpsilonGammaBox": 5, "EpsilonAlpha2Beta1": 4}
IN_FRONT_OF_RELU = {
    "EpsilonPlusFlat": 3,
    "EpsilonGammaBox": 3,
    "EpsilonAlpha2Beta1": 4,
}
IN_FRONT_OF_A_SUM = {
    "EpsilonPlusFlat": 3,
    "EpsilonGammaBox": 4,
    "EpsilonAlpha2Beta1": 4,
}
FEW = {"first": 5, "inner": 1}
"""What alpha-beta runs besides, in a first layer and in another one."""
DENSE = 2
# By network: layers in front of a ReLU and of a sum, dense ones, and among all of them
# those of few contributions, first and inner. A VGG's first layer has 27 of them, and a
# 1x1 convolution as many as features arrive.
CONVOLUTIONS = {
    "VGG": (2, 0, 2, 1, 0),
    "ResNet": (2, 3, 1, 0, 1),
    "bottlenecks": (4, 4, 1, 0, 6),
}
SPLIT_MEMORY = {
    ("VGG", "EpsilonAlpha2Beta1"): 1.36,
    ("ResNet", "EpsilonAlpha2Beta1"): 1.38,
    ("bottlenecks", "EpsilonPlusFlat"): 1.34,
    ("bottlenecks", "EpsilonGammaBox"): 1.45,
    ("bottlenecks", "EpsilonAlpha2Beta1"): 1.79,
}


@pytest.mark.parametrize("composite", FIRST)
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_rule_that_splits_weights_has_its_passes(name, composite):
    before_relu, before_sum, dense, first, inner = CONVOLUTIONS[name]
    expected = (
        FIRST[composite]
        + before_relu * IN_FRONT_OF_RELU[composite]
        + before_sum * IN_FRONT_OF_A_SUM[composite]
        + dense * DENSE
    )
    if composite == "EpsilonAlpha2Beta1":
        expected += first * FEW["first"] + inner * FEW["inner"]
    assert count(relevance(name, composite)) == expected
    most = SPLIT_MEMORY.get((name, composite), 1.3)
    whole = temporary(gradient(name))
    assert temporary(relevance(name, composite)) <= most * whole


# ---- one layer -------------------------------------------------------------------

LAYER = {
    ("between ReLUs", "epsilon"): 2,
    ("between ReLUs", "z-plus"): 3,
    ("between ReLUs", "gamma"): 3,
    ("between ReLUs", "alpha-beta"): 4,
    ("both signs", "epsilon"): 2,
    ("both signs", "z-plus"): 4,
    ("both signs", "gamma"): 4,
    ("both signs", "alpha-beta"): 4,
    ("first", "flat"): 1,
    ("first", "w-square"): 2,
    ("first", "z-box"): 3,
}
SHAPES = {
    "convolution": layers.Shape(1, 8, 16, 3, 1, 16),
    "convolution by two": layers.Shape(1, 16, 8, 3, 2, 16),
    "dense": layers.Shape(64, 64, 32),
}
# Sums of changed weights: of a convolution's a small product for each axis of the
# image, of a dense layer's none.
SUMS = {"convolution": 2, "convolution by two": 2, "dense": 0}
STEM = layers.Shape(1, 3, 64, 7, 2, 32)


def costs(shape, place, rule):
    """The gradient and the relevance of a layer, compiled."""
    apply, params, x = layers.layer(shape, place)
    composite = composites.Uniform(layers.PLACES[place][rule])
    sides = (
        gradient_ratio.gradient(apply, "all"),
        gradient_ratio.relevance(apply, composite, "all"),
    )
    return [compiled(side, params, x) for side in sides]


@pytest.mark.parametrize(("place", "rule"), LAYER)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_layer_has_the_passes_of_its_rule(shape, place, rule):
    slope, explained = costs(SHAPES[shape], place, rule)
    assert count(slope) == 2
    sums = SUMS[shape] if rule in ("w-square", "z-box") else 0
    assert count(explained) == LAYER[place, rule] + sums


@pytest.mark.parametrize(
    ("rule", "passes"), [("flat", 1.0), ("w-square", 2.0), ("z-box", 3.0)]
)
def test_the_counts_of_a_first_layer_are_thin(rule, passes):
    """Beside full passes, of which a gradient is two, there are thin ones.

    Flat sums over windows of one feature. The others sum the weights that lie inside of
    the image, down and then across. A part is for what is no product.
    """
    assert STEM.kernel is not None
    down, across = 1 / (STEM.size // STEM.stride), 1 / STEM.kernel
    thin = 0 if rule == "flat" else (down + across) / STEM.features
    most = (passes + thin) / 2 + 0.05
    slope, explained = costs(STEM, "first", rule)
    assert hlo.flops(explained) <= most * hlo.flops(slope)


def test_contractions_are_found_wherever_they_stand():
    text = """
      %fused (p: f32[2,3]) -> f32[2,2] {
        ROOT %dot.1 = f32[2,2]{1,0} dot(%p, %q), lhs_contracting_dims={1}
      }
      %conv = f32[1,4,4,2]{3,2,1,0} convolution(%a, %b), window={size=3x3}
      %pair = (f32[2]{0}, s8[0]{0}) custom-call(%a), custom_call_target="__cublas$gemm"
      %other = f32[2]{0} custom-call(%a), custom_call_target="__cudnn$convForward"
      %none = f32[2]{0} custom-call(%a), custom_call_target="TopK"
      %dotted = f32[2]{0} add(%dot.1, %convolution.2)
    """
    assert hlo.contractions(text) == 4
