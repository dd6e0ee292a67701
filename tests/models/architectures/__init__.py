"""Networks of many families by configuration, in their published and a reduced size.

`ARCHITECTURES[name]` is an `Architecture`.
"""

from tests.models.architectures import (
    generative,
    graphs,
    implicit,
    mixtures,
    recurrent,
    state_space,
    transformers,
    vision,
)
from tests.models.architectures._base import Architecture, Model

FAMILIES = (
    transformers,
    vision,
    mixtures,
    recurrent,
    state_space,
    graphs,
    generative,
    implicit,
)

ARCHITECTURES: dict[str, Architecture] = {
    a.name: a for module in FAMILIES for a in module.ARCHITECTURES
}

__all__ = ["ARCHITECTURES", "Architecture", "Model"]
