import jax
import torch
import torchax

import jaxlrp
from jaxlrp import composites

module = torch.nn.Sequential(
    torch.nn.Conv2d(3, 8, 3, padding=1),
    torch.nn.BatchNorm2d(8),
    torch.nn.ReLU(),
    torch.nn.MaxPool2d(2),
    torch.nn.Flatten(),
    torch.nn.Linear(8 * 8 * 8, 10),
).eval()
params, apply = torchax.extract_jax(module)  # arrays, and a function of JAX
images = jax.random.uniform(jax.random.key(0), (4, 3, 16, 16))


def scores(params, images):
    return apply(params, (images,))


# Nothing of PyTorch is left here: jit, vmap, grad, shard_map, runs, all as elsewhere.
explain = jax.jit(jaxlrp.value_and_lrp(scores, composites.EpsilonPlusFlat()))
value, relevance = explain(params, images)

# Layers are called by the paths of PyTorch's parameters.
composite = composites.EpsilonPlusFlat().on(
    "convolution", jaxlrp.rules.ZBox(0.0, 1.0), scope="*0.weight*"
)
boxed = jax.jit(jaxlrp.lrp(scores, composite))(params, images)
