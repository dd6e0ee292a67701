"""All rules and composites of zennit, captum and LXT on small random networks.

They are built in PyTorch with fresh random weights, and in JAX on those weights.
"""

from benchmarks.peers import torchvision_stub  # noqa: F401 - before what imports torchvision

# isort: split
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from captum.attr import LRP
from captum.attr._utils import lrp_rules as captum_rules
from jax import lax
from lxt.efficient import patches
from torch import nn
from zennit import composites as zennit_composites
from zennit import rules as zennit_rules
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.core import Stabilizer
from zennit.layer import Sum

import jaxlrp
from benchmarks.peers.cases import Case
from benchmarks.peers.patching import GAMMA_REASON, patched_zennit
from jaxlrp.compat import captum, lxt, zennit

Weights = dict[str, Any]

# Networks in PyTorch


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 4)
    )


class CNN(nn.Module):
    """Two convolutions with batch norm, ReLU and pooling, and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        # Without an eps, so that merging leaves no factor behind in zennit.
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1),
            nn.BatchNorm2d(4, eps=0.0),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.BatchNorm2d(6, eps=0.0),
            nn.ReLU(),
            nn.AvgPool2d(2),
        )
        self.head = nn.Linear(24, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).reshape(x.shape[0], -1))


class Residual(nn.Module):
    """A convolution, a residual block whose sum is zennit's module, an average."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.first = nn.Conv2d(4, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.stem_relu, self.relu, self.last_relu = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.sum, self.pool = Sum(), nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem_relu(self.stem(x))
        h = self.second(self.relu(self.first(x)))
        x = self.last_relu(self.sum(torch.stack([h, x], -1)))
        return self.head(self.pool(x)[..., 0, 0])


class LayerNorm(nn.LayerNorm):
    """Its own class, since patches affect whole classes."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return patches.layer_norm_forward(self, input)


class GELU(nn.GELU):
    """With LXT's identity rule."""

    original_forward = nn.GELU.forward

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return patches.non_linear_forward(self, input)


def attend(
    module: nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v


def attend_cp(
    module: nn.Module, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    return attend(module, q.detach(), k.detach(), v)


class Transformer(nn.Module):
    """A vision transformer of one block, with LXT's rules in it."""

    def __init__(self, attention: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.attention = attention
        self.patch = nn.Conv2d(3, 12, 4, stride=4)
        self.position = nn.Parameter(torch.randn(4, 12))
        self.norm1, self.norm2, self.norm = (LayerNorm(12) for _ in range(3))
        self.q, self.k, self.v, self.o = (nn.Linear(12, 12) for _ in range(4))
        self.up, self.gelu, self.down = nn.Linear(12, 24), GELU(), nn.Linear(24, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patch(x).flatten(2).mT + self.position
        h = self.norm1(x)
        q, k, v = (
            layer(h).unflatten(-1, (2, 6)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        h = self.attention(self, q, k, v).transpose(1, 2).flatten(2)
        x = x + self.o(h)
        x = x + self.down(self.gelu(self.up(self.norm2(x))))
        return self.head(self.norm(x).mean(1))


def initialised(network: nn.Module) -> nn.Module:
    """In float64 and evaluation mode, the statistics of its norms random, too."""
    network = network.double().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 2.0)
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(std=0.3)
    return network


def weights_of(network: nn.Module) -> Weights:
    state = network.state_dict()
    return {name: jnp.asarray(value.numpy()) for name, value in state.items()}


# The same in JAX


def dense(w: Weights, name: str, x: Any) -> Any:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def conv(w: Weights, name: str, x: Any, stride: int = 1, padding: int = 1) -> Any:
    y = lax.conv_general_dilated(
        x,
        w[f"{name}.weight"],
        (stride, stride),
        [(padding, padding)] * 2,
        dimension_numbers=("NCHW", "OIHW", "NCHW"),
    )
    return y + w[f"{name}.bias"][:, None, None]


def jax_mlp(w: Weights, x: Any) -> Any:
    x = jax.nn.relu(dense(w, "0", x))
    return dense(w, "4", jax.nn.relu(dense(w, "2", x)))


def jax_cnn(w: Weights, x: Any) -> Any:
    def normed(x: Any, i: int) -> Any:
        x = conv(w, f"features.{i}", x)
        weight, bias, mean, var = (
            w[f"features.{i + 1}.{part}"][:, None, None]
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return jax.nn.relu((x - mean) / jnp.sqrt(var) * weight + bias)

    window = (1, 1, 2, 2)
    x = lax.reduce_window(normed(x, 0), -jnp.inf, lax.max, window, window, "VALID")
    x = lax.reduce_window(normed(x, 4), 0.0, lax.add, window, window, "VALID") / 4
    return dense(w, "head", x.reshape(x.shape[0], -1))


def jax_residual(w: Weights, x: Any) -> Any:
    x = jax.nn.relu(conv(w, "stem", x))
    h = conv(w, "second", jax.nn.relu(conv(w, "first", x)))
    x = jax.nn.relu(h + x)
    return dense(w, "head", x.mean((2, 3)))


def jax_transformer(w: Weights, x: Any) -> Any:
    def norm(name: str, x: Any) -> Any:
        x = x - x.mean(-1, keepdims=True)
        x = x / jnp.sqrt((x**2).mean(-1, keepdims=True) + 1e-5)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = conv(w, "patch", x, 4, 0)
    x = x.reshape(*x.shape[:2], -1).swapaxes(1, 2) + w["position"]
    h = norm("norm1", x)
    q, k, v = (
        dense(w, name, h).reshape(*h.shape[:2], 2, 6).swapaxes(1, 2)
        for name in ("q", "k", "v")
    )
    h = jax.nn.softmax(q @ k.swapaxes(-1, -2) / 6**0.5) @ v
    x = x + dense(w, "o", h.swapaxes(1, 2).reshape(x.shape))
    h = jax.nn.gelu(dense(w, "up", norm("norm2", x)), approximate=False)
    x = x + dense(w, "down", h)
    return dense(w, "head", norm("norm", x).mean(1))


@dataclasses.dataclass(frozen=True)
class Pair:
    """A network on both sides, and an input."""

    theirs: nn.Module
    ours: Callable[[Weights, Any], Any]
    x: torch.Tensor

    def relevance(self, composite: Any) -> np.ndarray:
        """Ours, of the highest score of each example."""
        explain = jax.jit(jaxlrp.lrp(self.ours, composite))
        x = jnp.asarray(self.x.detach().numpy())
        return np.asarray(explain(weights_of(self.theirs), x))

    def same_output(self) -> float:
        """How far apart the outputs are."""
        x = jnp.asarray(self.x.detach().numpy())
        ours = self.ours(weights_of(self.theirs), x)
        return float(np.abs(self.theirs(self.x).detach().numpy() - ours).max())


def pairs() -> dict[str, Pair]:
    image = torch.rand(2, 3, 8, 8, dtype=torch.float64) * 6 - 3
    vector = torch.randn(3, 6, dtype=torch.float64)
    attention = {
        "cp": attend_cp,
        "attnlrp": patches.wrap_attention_forward(attend),
    }
    return {
        "mlp": Pair(initialised(mlp()), jax_mlp, vector),
        "cnn": Pair(initialised(CNN()), jax_cnn, image),
        "residual": Pair(initialised(Residual()), jax_residual, image),
        **{
            f"vit-{name}": Pair(initialised(Transformer(f)), jax_transformer, image)
            for name, f in attention.items()
        },
    }


# zennit


def hot(output: torch.Tensor) -> torch.Tensor:
    """One at the highest score, zero elsewhere."""
    return nn.functional.one_hot(output.argmax(-1), output.shape[-1]).to(output)


def top(output: torch.Tensor) -> torch.Tensor:
    """The output at its highest score, zero elsewhere."""
    return output * hot(output)


def by_zennit(pair: Pair, composite: Any) -> np.ndarray:
    with Gradient(model=pair.theirs, composite=composite) as attributor:
        result: Any = attributor(pair.x, top)
    return result[1].detach().numpy()


def zennit_cases(networks: dict[str, Pair]) -> Iterator[Case]:
    z: Any = zennit_rules
    bias: dict[str, Any] = {"zero_params": ["bias"]}
    made = (
        ("Epsilon()", z.Epsilon(), zennit.Epsilon()),
        ("Epsilon(0.25)", z.Epsilon(0.25), zennit.Epsilon(0.25)),
        (
            "Epsilon(Stabilizer(0.1, clip=True))",
            z.Epsilon(Stabilizer(0.1, clip=True)),
            zennit.Epsilon(zennit.Stabilizer(0.1, clip=True)),
        ),
        (
            "Epsilon(Stabilizer(0.1, norm_scale=True))",
            z.Epsilon(Stabilizer(0.1, norm_scale=True)),
            zennit.Epsilon(zennit.Stabilizer(0.1, norm_scale=True)),
        ),
        ("Gamma()", z.Gamma(), zennit.Gamma()),
        ("Gamma(1)", z.Gamma(1.0), zennit.Gamma(1.0)),
        ("ZPlus()", z.ZPlus(), zennit.ZPlus()),
        ("AlphaBeta(2, 1)", z.AlphaBeta(), zennit.AlphaBeta()),
        ("AlphaBeta(1, 0)", z.AlphaBeta(1.0, 0.0), zennit.AlphaBeta(1.0, 0.0)),
        ("WSquare()", z.WSquare(), zennit.WSquare()),
        ("Flat()", z.Flat(), zennit.Flat()),
        ("Epsilon, no bias", z.Epsilon(**bias), zennit.Epsilon(**bias)),
        ("Gamma, no bias", z.Gamma(**bias), zennit.Gamma(**bias)),
        ("ZPlus, no bias", z.ZPlus(**bias), zennit.ZPlus(**bias)),
        ("AlphaBeta, no bias", z.AlphaBeta(**bias), zennit.AlphaBeta(**bias)),
        ("WSquare, no bias", z.WSquare(**bias), zennit.WSquare(**bias)),
    )
    pair = networks["mlp"]
    for name, theirs, ours in made:
        layers: list[Any] = [(nn.Linear, theirs), (nn.ReLU, z.Pass())]
        composite = zennit_composites.LayerMapComposite(layers)
        yield Case(
            "zennit",
            "mlp",
            name,
            functools.partial(by_zennit, pair, composite),
            functools.partial(pair.relevance, zennit.EpsilonPlus().on("layer", ours)),
        )
    presets: tuple[tuple[str, Sequence[Any], dict[str, Any]], ...] = (
        ("EpsilonGammaBox", (), {"low": -3.0, "high": 3.0}),
        ("EpsilonPlus", (), {}),
        ("EpsilonPlus", (), {"epsilon": 0.1, "stabilizer": 0.01}),
        ("EpsilonPlusFlat", (), {}),
        ("EpsilonPlusFlat", (), bias),
        ("EpsilonAlpha2Beta1", (), {}),
        ("EpsilonAlpha2Beta1Flat", (), {}),
        ("ExcitationBackprop", (), {}),
        ("GuidedBackprop", (), {}),
        ("DeconvNet", (), {}),
        ("BetaSmooth", (), {}),
    )
    plain = ("GuidedBackprop", "DeconvNet", "BetaSmooth")
    for network in ("cnn", "residual"):
        pair = networks[network]
        for (name, _, given), merge in (
            (preset, merge)
            for preset in presets
            for merge in ((False, True) if network == "cnn" else (False,))
        ):
            theirs, ours = dict(given), dict(given)
            bounds = {k: theirs[k] for k in ("low", "high") if k in theirs}
            shape = pair.x[:1].shape
            theirs |= {k: torch.full(shape, v).double() for k, v in bounds.items()}
            if merge and name in plain:
                continue
            if merge:
                theirs["canonizers"] = [SequentialMergeBatchNorm()]
                ours["canonizers"] = ["SequentialMergeBatchNorm"]
            options = [f"{k}={v}" for k, v in given.items()] + ["merged"] * merge
            yield Case(
                "zennit",
                network,
                f"{name}({', '.join(options)})",
                functools.partial(
                    by_zennit, pair, getattr(zennit_composites, name)(**theirs)
                ),
                functools.partial(pair.relevance, getattr(zennit, name)(**ours)),
            )


# captum


def by_captum(pair: Pair, rules: dict[type, Callable[[], Any]]) -> np.ndarray:
    """captum's, with `rules` on modules of these types. It deletes them afterwards."""
    for module in pair.theirs.modules():
        if type(module) in rules:
            module.rule = rules[type(module)]()
    x = pair.x.clone().requires_grad_()
    target = pair.theirs(x).argmax(-1)
    return LRP(pair.theirs).attribute(x, target=target).detach().numpy()


def captum_cases(networks: dict[str, Pair]) -> Iterator[Case]:
    c = captum_rules
    zero = {"set_bias_to_zero": True}
    made = (
        ("EpsilonRule()", c.EpsilonRule, captum.EpsilonRule()),
        (
            "EpsilonRule(0.25)",
            functools.partial(c.EpsilonRule, 0.25),
            captum.EpsilonRule(0.25),
        ),
        ("GammaRule()", c.GammaRule, captum.GammaRule()),
        (
            "GammaRule, no bias",
            functools.partial(c.GammaRule, **zero),
            captum.GammaRule(**zero),
        ),
        ("Alpha1_Beta0_Rule()", c.Alpha1_Beta0_Rule, captum.Alpha1_Beta0_Rule()),
        (
            "Alpha1_Beta0_Rule, no bias",
            functools.partial(c.Alpha1_Beta0_Rule, **zero),
            captum.Alpha1_Beta0_Rule(**zero),
        ),
    )
    pair = networks["mlp"]
    for name, theirs, ours in made:
        yield Case(
            "captum",
            "mlp",
            name,
            functools.partial(by_captum, pair, {nn.Linear: theirs}),
            functools.partial(pair.relevance, captum.LRP(ours)),
        )
    pair = networks["cnn"]
    pool = "max pooling has a stabiliser of 1e-9 there"
    identity = {nn.BatchNorm2d: c.IdentityRule}
    for name, theirs, ours in made[:5]:
        composite = captum.LRP().on("convolution", ours)
        yield Case(
            "captum",
            "cnn",
            name,
            functools.partial(by_captum, pair, {nn.Conv2d: theirs}),
            functools.partial(pair.relevance, composite),
            1e-6,
            pool,
        )
        passed = composite.on("batch_norm", captum.IdentityRule())
        yield Case(
            "captum",
            "cnn",
            f"{name}, IdentityRule on batch norm",
            functools.partial(by_captum, pair, {nn.Conv2d: theirs, **identity}),
            functools.partial(pair.relevance, passed),
            1e-6,
            pool,
        )


# LXT


def by_lxt(pair: Pair, composite: Any = None) -> np.ndarray:
    """A gradient times the input; zennit's rules patched if there is a composite."""
    x = pair.x.clone().requires_grad_()
    with contextlib.ExitStack() as stack:
        if composite is not None:
            stack.enter_context(patched_zennit())
            stack.enter_context(composite.context(pair.theirs))
        output = pair.theirs(x)
        output.backward(hot(output))
    assert x.grad is not None
    return (x * x.grad).detach().numpy()


def lxt_cases(networks: dict[str, Pair]) -> Iterator[Case]:
    for name, ours in (("attnlrp", lxt.AttnLRP()), ("cp", lxt.CPLRP())):
        pair = networks[f"vit-{name}"]
        yield Case(
            "lxt",
            "vit",
            f"{ours.name}()",
            functools.partial(by_lxt, pair),
            functools.partial(pair.relevance, ours),
        )
    gamma = zennit_composites.LayerMapComposite(
        [(nn.Conv2d, zennit_rules.Gamma(0.25)), (nn.Linear, zennit_rules.Gamma(0.05))]
    )
    pair = networks["vit-cp"]
    yield Case(
        "lxt",
        "vit",
        "CPLRPGamma(0.25, 0.05)",
        functools.partial(by_lxt, pair, gamma),
        functools.partial(pair.relevance, lxt.CPLRPGamma(0.25, 0.05)),
        1e-6,
        GAMMA_REASON,
    )


PEERS = {"zennit": zennit_cases, "captum": captum_cases, "lxt": lxt_cases}


def cases(seed: int, only: Iterable[str]) -> Iterator[Case]:
    """Everything of these peers."""
    torch.manual_seed(seed)
    networks = pairs()
    for name, pair in networks.items():
        if not (apart := pair.same_output()) <= 1e-12:
            raise AssertionError(f"the two {name} differ by {apart:.1e}")
    for peer, found in PEERS.items():
        if peer in only:
            yield from found(networks)
