"""All small Flax networks by name: `linen.<name>` and `nnx.<name>`.

A builder takes a dtype and returns `(apply, params, x)`.
"""

from . import linen_models, nnx_models

NAMES = (
    "mlp",
    "vgg",
    "resnet",
    "unet",
    "lstm",
    "gru",
    "vit",
    "bert",
    "llama",
    "scanned",
)

MODELS = {
    f"{framework}.{name}": getattr(module, name)
    for framework, module in (("linen", linen_models), ("nnx", nnx_models))
    for name in NAMES
}
