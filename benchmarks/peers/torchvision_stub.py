"""Stands in for torchvision where that is not installed.

zennit and LXT import classes of torchvision's models to recognise them. The networks of
`benchmarks.peers` hold none, and torchvision has no build for a PyTorch that was built
for the CPU alone. Import this first.
"""

import importlib.machinery
import importlib.util
import sys
import types

from torch import nn

CLASSES = {
    "torchvision": {},
    "torchvision.models": {},
    "torchvision.models.resnet": {"Bottleneck": None, "BasicBlock": None},
    "torchvision.models.vision_transformer": {"nn": nn},
}


def install() -> None:
    """Puts empty modules in torchvision's place."""
    for name, names in CLASSES.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None, is_package=True)
        for attribute, value in names.items():
            setattr(module, attribute, value or type(attribute, (), {}))
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
        sys.modules[name] = module


if importlib.util.find_spec("torchvision") is None:
    install()
