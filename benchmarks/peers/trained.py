"""The peers themselves on the networks of `benchmarks.faithfulness`.

Each runs on the trained weights, next to what that comparison has under its name. If
they agree, its tables are those of the peers. Relevances are kept, one file for each
network and seed.
"""

from benchmarks.peers import patching

# isort: split
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import captum.attr
import jax
import numpy as np
import torch
from lxt.efficient import patches
from lxt.efficient.models import bert as lxt_bert
from lxt.efficient.models import llama as lxt_llama
from lxt.efficient.models import vit_torch
from lxt.efficient.rules import stop_gradient
from torch import nn
from transformers.activations import GELUActivation
from transformers.models.vit import modeling_vit
from zennit import composites as zennit_composites
from zennit.attribution import Gradient

from benchmarks import faithfulness, trained
from benchmarks.faithfulness import Method, Setting
from benchmarks.peers import ports, units
from benchmarks.peers.cases import LIMIT, Case
from benchmarks.peers.patching import Gamma, at_class
from benchmarks.peers.ports import Port
from jaxlrp.compat import lxt

Attribute = Callable[[Setting], np.ndarray]
"""From examples to relevance in the shape of the inputs."""


NETWORKS = tuple(trained.TASKS)

STABILISED = 1e-5
"""The limit where the peer alone stabilises: differences are in proportion to that."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A method of a peer.

    Attributes:
      side: the peer, as `faithfulness` calls it.
      name: the method, as there.
      attribute: runs the peer.
      ours: what it is compared with; a name is looked up in `faithfulness.methods`,
        by default that of the same side and name.
      limit: how large the relative difference may be.
      reason: why, where that is not the usual limit.
      alone: is there nothing to compare with? Then its measures are told.
    """

    side: str
    name: str
    attribute: Attribute
    ours: Method | tuple[str, str] | None = None
    limit: float = LIMIT
    reason: str = ""
    alone: bool = False


def params_of(at: Setting) -> Any:
    return at.params["params"]


# ---- zennit ----------------------------------------------------------------------


def by_zennit(at: Setting, name: str, **bounds: float) -> np.ndarray:
    port = ports.cnn(params_of(at))
    x = ports.tensor(at.inputs)
    # Bounds have the shape of the layer's input, where channels come first.
    given = {k: torch.full_like(x[:1].movedim(-1, 1), v) for k, v in bounds.items()}
    composite = getattr(zennit_composites, name)(**given)
    with Gradient(model=port.module, composite=composite) as attributor:
        result: Any = attributor(x, functools.partial(at_class, classes=at.targets))
    return result[1].detach().numpy()


def zennit_run(name: str, **bounds: float) -> Run:
    return Run("zennit", name, functools.partial(by_zennit, name=name, **bounds))


# ---- captum ----------------------------------------------------------------------


def by_captum(
    at: Setting, build: Callable[[Any], Port], name: str, **options: Any
) -> np.ndarray:
    """A method of captum; `baselines` is replaced by the setting's."""
    x = ports.tensor(at.inputs)
    if "baselines" in options:
        options["baselines"] = ports.tensor(at.baseline).expand_as(x)
    target = torch.tensor(np.asarray(at.targets))
    with patching.in_float64():
        method = getattr(captum.attr, name)(build(params_of(at)).scores)
        found = method.attribute(x.requires_grad_(), target=target, **options)
    return found.detach().numpy()


def captum_runs(build: Callable[[Any], Port]) -> tuple[Run, ...]:
    """What needs gradients only."""

    def made(name: str, **options: Any) -> Attribute:
        return functools.partial(by_captum, build=build, name=name, **options)

    return (
        Run(
            "captum",
            "InputXGradient",
            made("InputXGradient"),
            ("other", "gradient x input"),
        ),
        Run(
            "captum",
            "IntegratedGradients",
            made("IntegratedGradients", baselines=None, n_steps=50),
            ("other", "integrated gradients"),
        ),
    )


# ---- LXT -------------------------------------------------------------------------

IDENTITY = functools.partial(
    patches.patch_method, patches.non_linear_forward, keep_original=True
)
NORM = functools.partial(patches.patch_method, patches.layer_norm_forward)

# LXT has no map for Hugging Face's ViT, and none of CP-LRP for BERT: its patches for
# the same parts, put together.
VIT_ATTNLRP: patching.Patches = {
    GELUActivation: IDENTITY,
    nn.LayerNorm: NORM,
    modeling_vit: patches.patch_attention,
}
VIT_CPLRP: patching.Patches = {
    **VIT_ATTNLRP,
    modeling_vit: patches.patch_cp_attention,
}
BERT_CPLRP: patching.Patches = {
    GELUActivation: IDENTITY,
    nn.Tanh: IDENTITY,
    nn.LayerNorm: NORM,
}


def hold_queries_and_keys(port: Port) -> Port:
    """CP-LRP where attention is not a function that could be patched."""
    for name, module in port.module.named_modules():
        if name.endswith((".query", ".key")):
            module.register_forward_hook(lambda _, given, out: stop_gradient(out))
    return port


def by_lxt(
    at: Setting, build: Callable[[Any], Port], given: patching.Patches, gamma: Gamma
) -> np.ndarray:
    port = functools.partial(build, params_of(at))
    return patching.by_lxt(port, given, at.inputs, at.targets, gamma)


def lxt_run(
    name: str,
    build: Callable[[Any], Port],
    given: patching.Patches,
    gamma: bool = False,
    ours: Method | None = None,
) -> Run:
    pair = (0.25, 0.05) if gamma else None
    attribute = functools.partial(by_lxt, build=build, given=given, gamma=pair)
    if not gamma:
        return Run("LXT", name, attribute, ours)
    return Run("LXT", name, attribute, ours, STABILISED, patching.GAMMA_REASON)


# ---- networks --------------------------------------------------------------------


def runs(name: str) -> tuple[Run, ...]:
    """The peers' methods on a network."""
    module: Any = trained.TASKS[name].module
    if name == "CNN":
        build = ports.cnn
        lrp = functools.partial(by_captum, build=build, name="LRP")
        lift = functools.partial(
            by_captum, build=build, name="DeepLift", baselines=None
        )
        return (
            zennit_run("EpsilonPlus"),
            zennit_run("EpsilonPlusFlat"),
            zennit_run("EpsilonAlpha2Beta1Flat"),
            zennit_run("EpsilonGammaBox", low=-1.5, high=1.5),
            Run(
                "captum",
                "LRP",
                lrp,
                limit=STABILISED,
                reason="max pooling has a stabiliser of 1e-9 there",
            ),
            *captum_runs(build),
            Run("captum", "DeepLift", lift, alone=True),
        )
    if name == "ViT":
        build = functools.partial(ports.vit, config=module.config)
        shipped = functools.partial(ports.vision_transformer, config=module.config)
        own = ("*mlp*", "*head*")
        inside = faithfulness.lrp("", lxt.CPLRPGamma(scopes=own), "LXT")
        return (
            lxt_run("AttnLRP", build, VIT_ATTNLRP),
            lxt_run("CP-LRP", build, VIT_CPLRP),
            lxt_run("CP-LRP, gamma", build, VIT_CPLRP, gamma=True),
            lxt_run(
                "CP-LRP, torchvision",
                shipped,
                vit_torch.cp_LRP,
                ours=faithfulness.lrp("", lxt.CPLRP(), "LXT"),
            ),
            lxt_run(
                "CP-LRP, gamma, torchvision",
                shipped,
                vit_torch.cp_LRP,
                gamma=True,
                ours=inside,
            ),
            *captum_runs(build),
        )
    if name == "encoder":
        build = functools.partial(ports.bert, config=module.config)
        held = lambda params: hold_queries_and_keys(build(params))  # noqa: E731
        return (
            lxt_run("AttnLRP", build, lxt_bert.attnLRP),
            lxt_run("CP-LRP", held, BERT_CPLRP),
            lxt_run("CP-LRP, gamma", held, BERT_CPLRP, gamma=True),
            *captum_runs(build),
        )
    build = functools.partial(ports.llama, config=module.config)
    return (
        lxt_run("AttnLRP", build, lxt_llama.attnLRP),
        lxt_run("CP-LRP", build, lxt_llama.cp_LRP),
        lxt_run("CP-LRP, gamma", build, lxt_llama.cp_LRP, gamma=True),
        *captum_runs(build),
    )


def same_output(at: Setting, port: Port) -> float:
    """How far apart the outputs are."""
    ours = jax.vmap(at.f, (None, 0))(at.params, at.inputs)
    theirs = port.scores(ports.tensor(at.inputs)).detach().numpy()
    return float(np.abs(theirs - np.asarray(ours)).max())


def check(at: Setting) -> None:
    """Raises if a network in PyTorch is another one than ours."""
    module: Any = trained.TASKS[at.name].module
    builders = {
        "CNN": (ports.cnn,),
        "ViT": (ports.vit, ports.vision_transformer),
        "encoder": (ports.bert,),
        "decoder": (ports.llama,),
    }
    for build in builders[at.name]:
        given = () if at.name == "CNN" else (module.config,)
        with patching.in_float64():
            apart = same_output(at, build(params_of(at), *given))
        if not apart <= 1e-10:
            raise AssertionError(
                f"{at.name} and {build.__name__} differ by {apart:.1e}"
            )


def explained(settings: Sequence[Setting], run: Run) -> np.ndarray:
    """What a peer finds: (seed, example, *units)."""
    return units.pooled(settings, map(run.attribute, settings))


def cases(
    seeds: int, examples: int, folder: Path, only: Iterable[str]
) -> Iterator[Case]:
    """All peers' methods on all networks; relevances are (seed, example, *units)."""
    for name in NETWORKS:
        settings = [
            units.setting(name, seed, examples, folder) for seed in range(seeds)
        ]
        for at in settings:
            check(at)
        known = {(m.side, m.name): m for m in faithfulness.methods(name)}
        note = units.told(units.measures(settings))
        for run in runs(name):
            if run.side.lower() not in only:
                continue
            method = None if run.alone else run.ours or (run.side, run.name)
            if isinstance(method, tuple):
                method = known[method]
            yield Case(
                run.side.lower(),
                name,
                run.name,
                functools.partial(explained, settings, run),
                method and functools.partial(units.explained, settings, method),
                run.limit,
                run.reason,
                None if method else note,
            )
