"""LXT's own patches on Hugging Face's decoders with random weights.

Next to them `tests.architectures` in the reduced size with the same weights. BERT, ViT
and LLaMA are among the trained networks.
"""

from benchmarks.peers import patching

# isort: split
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from lxt.efficient.models import gemma3, gpt2, qwen3

import jaxlrp
from benchmarks.peers import ports
from benchmarks.peers.cases import LIMIT, Case
from benchmarks.peers.ports import Port
from jaxlrp import rules
from jaxlrp.compat import lxt
from jaxlrp.composites import Composite
from tests.architectures.transformers import ARCHITECTURES, Decoder, Language


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of decoder.

    Attributes:
      name: of the architecture.
      build: the network in PyTorch.
      maps: LXT's patches, for AttnLRP and CP-LRP.
      cp: ours for CP-LRP.
    """

    name: str
    build: Callable[[Any, Language], Port]
    maps: tuple[patching.Patches, patching.Patches]
    cp: Composite


HELD = lxt.CPLRP(hold_gates=True)
FAMILIES = (
    Family("GPT-2", ports.gpt2, (gpt2.attnLRP, gpt2.cp_LRP), lxt.CPLRP()),
    Family("Qwen3-0.6B", ports.qwen3, (qwen3.attnLRP, qwen3.cp_LRP), HELD),
    Family("Gemma-3-270M", ports.gemma3, (gemma3.attnLRP, gemma3.cp_LRP), HELD),
)


def configuration(name: str) -> Language:
    """The reduced size, of two layers."""
    (config,) = (a.reduced for a in ARCHITECTURES if a.name == name)
    return dataclasses.replace(
        config, stack=dataclasses.replace(config.stack, layers=2)
    )


def weights(config: Language, random: np.random.Generator) -> Any:
    """Random ones, those of norms included."""
    ids = jax.ShapeDtypeStruct((1, config.length), jnp.int32)
    shapes = jax.eval_shape(Decoder(config).init, jax.random.key(0), ids)

    def leaf(path: Any, like: Any) -> jax.Array:
        name = path[-1].key
        fan = like.shape[0] if name == "kernel" else 4
        values = random.standard_normal(like.shape) / fan**0.5
        return jnp.asarray(values + (name == "scale"))

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def cases(seed: int, examples: int = 3) -> Iterator[Case]:
    """AttnLRP and CP-LRP on every family; the latter with gamma, too, where dense
    layers are `nn.Linear`."""
    for family in FAMILIES:
        random = np.random.default_rng(seed)
        config = configuration(family.name)
        params = weights(config, random)
        module = Decoder(config)
        x = random.standard_normal((examples, config.length, config.stack.width))
        scores = np.asarray(module.apply(params, jnp.asarray(x)))
        classes = scores.argmax(-1)
        build = functools.partial(family.build, params["params"], config)
        with patching.in_float64():
            found = build().scores(ports.tensor(x)).detach().numpy()
        if not (apart := np.abs(found - scores).max()) <= 1e-10:
            raise AssertionError(f"the two {family.name} differ by {apart:.1e}")
        attn, cp = family.maps
        gamma = family.cp.on("dense", rules.GeneralizedGamma(0.05))
        runs: list[tuple[str, patching.Patches, Composite, patching.Gamma]] = [
            ("AttnLRP", attn, lxt.AttnLRP(), None),
            ("CP-LRP", cp, family.cp, None),
        ]
        if family.name != "GPT-2":
            runs.append(("CP-LRP, gamma", cp, gamma, (0.25, 0.05)))

        def ours(
            composite: Composite, x: Any = x, params: Any = params, apply: Any = module
        ) -> np.ndarray:
            explain = jaxlrp.lrp(apply.apply, composite)
            return np.asarray(jax.jit(explain)(params, jnp.asarray(x)))

        for name, patches, composite, given in runs:
            yield Case(
                "lxt",
                family.name,
                name,
                functools.partial(patching.by_lxt, build, patches, x, classes, given),
                functools.partial(ours, composite),
                1e-6 if given else LIMIT,
                patching.GAMMA_REASON if given else "",
            )
