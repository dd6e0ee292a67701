"""AttnLRP and CP-LRP by the papers' equations: plain NumPy, one operation at a time.

An independent reading of the transformers of this package: each operation computes its
value and says how the relevance of that value is shared, in relevances and not as a
multiple of a gradient. Nothing here knows JAX.

Sources: Achtibat et al. 2024 (AttnLRP), Ali et al. 2022 (CP-LRP).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from tests.models.architectures.mixtures import Experts
from tests.models.architectures.transformers import (
    Language,
    Pair,
    Stack,
    Text,
    Translation,
    Vision,
    buckets,
    slopes,
)

Params = Mapping[str, Any]


@dataclasses.dataclass
class Node:
    """A value; the relevance that arrived at it; how that is shared."""

    value: np.ndarray
    sources: Sequence[Node] = ()
    share: Callable[[np.ndarray], Sequence[np.ndarray]] = lambda _: ()
    relevance: Any = 0.0
    constant: bool = False

    def __post_init__(self) -> None:
        self.constant |= bool(self.sources) and all(s.constant for s in self.sources)


@dataclasses.dataclass(frozen=True)
class Method:
    """What AttnLRP and CP-LRP do differently.

    Attributes:
      attention: does relevance go through attention weights (AttnLRP)?
      gates: does it go through an activation that is multiplied?
    """

    attention: bool = True
    gates: bool = True


def relevances(output: Node, seed: np.ndarray) -> None:
    """Hands relevance back from `output`, each node after all that use it."""
    order: list[Node] = []
    seen: set[int] = set()

    def visit(node: Node) -> None:
        if id(node) not in seen:
            seen.add(id(node))
            for source in node.sources:
                visit(source)
            order.append(node)

    visit(output)
    output.relevance = seed
    for node in reversed(order):
        for source, r in zip(node.sources, node.share(node.relevance), strict=True):
            source.relevance = source.relevance + r


# ---- operations ------------------------------------------------------------------


def linear(x: Node, p: Params) -> Node:
    """`R_j = sum_i x_j w_ji R_i / z_i`, the bias keeps its part."""
    w = p["kernel"]
    z = x.value @ w + p.get("bias", 0.0)
    return Node(z, [x], lambda r: [x.value * ((r / z) @ w.T)])


def add(*xs: Node) -> Node:
    """`R_k = x_k R / z`; operands that are no node keep theirs."""
    z = np.sum([x.value for x in xs], axis=0)
    return Node(z, xs, lambda r: [x.value * r / z for x in xs])


def shifted(x: Node, constant: np.ndarray) -> Node:
    z = x.value + constant
    return Node(z, [x], lambda r: [x.value * r / z])


def scaled(x: Node, constant: Any) -> Node:
    """A factor changes no relevance."""
    return Node(x.value * constant, [x], lambda r: [r])


def moved(x: Node, move: Callable[[np.ndarray], np.ndarray], back: Any) -> Node:
    return Node(move(x.value), [x], lambda r: [back(r)])


def reshaped(x: Node, *shape: int) -> Node:
    return moved(x, lambda v: v.reshape(shape), lambda r: r.reshape(x.value.shape))


def written(x: Node, new: Node, place: int) -> Node:
    """One token of `x` is replaced: what was there gets nothing."""
    z = x.value.copy()
    z[:, place] = new.value[:, 0]

    def share(r: np.ndarray) -> list[np.ndarray]:
        kept = r.copy()
        kept[:, place] = 0.0
        return [kept, r[:, place, None]]

    return Node(z, [x, new], share)


def contracted(
    spec: str, a: Node, b: Node, shares: tuple[float, float] = (0.5, 0.5)
) -> Node:
    """`R_a = share sum a b R / z` (AttnLRP, proposition 3.3: half to each).

    Beside a constant the other operand takes all: the product is a linear layer.
    """
    if a.constant or b.constant:
        shares = (float(b.constant), float(a.constant))
    left, right, out = spec.replace("->", ",").split(",")
    z = np.einsum(spec, a.value, b.value)

    def share(r: np.ndarray) -> list[np.ndarray]:
        c = r / z
        return [
            shares[0] * a.value * np.einsum(f"{out},{right}->{left}", c, b.value),
            shares[1] * b.value * np.einsum(f"{out},{left}->{right}", c, a.value),
        ]

    return Node(z, [a, b], share)


def weights(x: Node, seen: np.ndarray, method: Method) -> Node:
    """Softmax: `R_x = x (R - p sum R)` (AttnLRP, proposition 3.1), or a constant."""
    score = np.where(seen, x.value, -np.inf)
    p = np.exp(score - score.max(-1, keepdims=True))
    p /= p.sum(-1, keepdims=True)

    def share(r: np.ndarray) -> list[np.ndarray]:
        expanded = x.value * (r - p * r.sum(-1, keepdims=True))
        return [np.where(seen, expanded, 0.0) if method.attention else 0.0 * r]

    return Node(p, [x], share)


def normalised(x: Node, kind: str, p: Params) -> Node:
    """The divisor is a constant; the mean is part of a linear map (layer norm)."""
    if kind != "layer":
        scale = 1 + p["weight"] if kind == "unit" else p["scale"]
        root = np.sqrt((x.value**2).mean(-1, keepdims=True) + 1e-6)
        return Node(x.value / root * scale, [x], lambda r: [r])
    centred = x.value - x.value.mean(-1, keepdims=True)
    u = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6) * p["scale"]

    def share(r: np.ndarray) -> list[np.ndarray]:
        c = u * r / (u + p["bias"]) / centred
        return [x.value * (c - c.mean(-1, keepdims=True))]

    return Node(u + p["bias"], [x], share)


def activated(x: Node, f: Callable[[np.ndarray], np.ndarray], passes: bool) -> Node:
    """Identity."""
    return Node(f(x.value), [x], lambda r: [r if passes else 0.0 * r])


def unit(x: Node) -> Node:
    """The divisor, a norm over the last axis, is a constant."""
    return scaled(x, 1 / np.linalg.norm(x.value, axis=-1, keepdims=True))


def multiplied(a: Node, b: Node, shares: tuple[float, float]) -> Node:
    return Node(a.value * b.value, [a, b], lambda r: [s * r for s in shares])


def gelu_tanh(x: np.ndarray) -> np.ndarray:
    return x / 2 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


ACTIVATIONS = {
    "gelu": lambda x: x / 2 * (1 + special.erf(x / math.sqrt(2))),
    "gelu_tanh": gelu_tanh,
    "silu": lambda x: x * special.expit(x),
}


def rotated(x: Node, theta: float) -> Node:
    """A rotation of pairs, a linear map: `R_j = sum_i x_j w_ji R_i / z_i`."""
    steps, dim = x.value.shape[1], x.value.shape[-1]
    turn = np.zeros((steps, dim, dim))
    half = dim // 2
    for t in range(steps):
        for k in range(half):
            angle = t * theta ** (-2 * k / dim)
            cos, sin = math.cos(angle), math.sin(angle)
            turn[t, k, k], turn[t, k + half, k] = cos, -sin
            turn[t, k, k + half], turn[t, k + half, k + half] = sin, cos
    z = np.einsum("bthi,tij->bthj", x.value, turn)
    back = lambda r: [x.value * np.einsum("bthj,tij->bthi", r / z, turn)]  # noqa: E731
    return Node(z, [x], back)


# ---- the networks ----------------------------------------------------------------


def attention(
    s: Stack,
    method: Method,
    p: Params,
    x: Node,
    memory: Node | None,
    theta: float,
    seen: np.ndarray | None,
    added: np.ndarray | None,
) -> Node:
    groups, dim = s.groups or s.heads, s.dim or s.width // s.heads
    memory = x if memory is None else memory

    def heads(node: Node, *shape: int) -> Node:
        return reshaped(node, *node.value.shape[:2], *shape)

    q = heads(linear(x, p["query"]), s.heads, dim)
    k = heads(linear(memory, p["key"]), groups, dim)
    v = heads(linear(memory, p["value"]), groups, dim)
    if s.qk_norm:
        q = normalised(q, s.norm, p["query_norm"])
        k = normalised(k, s.norm, p["key_norm"])
    if theta:
        q, k = rotated(q, theta), rotated(k, theta)
    q = heads(q, groups, s.heads // groups, dim)
    scale = dim**-0.5 if s.scale is None else s.scale
    h = mixed(q, k, v, scale, s.cap, added, seen, method)
    return linear(heads(h, s.heads * dim), p["out"])


def mixed(
    q: Node,
    k: Node,
    v: Node,
    scale: float,
    cap: float,
    added: np.ndarray | None,
    seen: np.ndarray | None,
    method: Method,
) -> Node:
    """Values mixed by attention weights; queries in groups with one key and value."""
    scores = scaled(contracted("btgrd,bsgd->bgrts", q, k), scale)
    if cap:
        capped = scaled(scores, 1 / cap)
        scores = scaled(activated(capped, np.tanh, passes=True), cap)
    if added is not None:
        groups = k.value.shape[2]
        scores = shifted(scores, added.reshape(groups, -1, *added.shape[1:]))
    seen = np.full((1, 1), True) if seen is None else seen
    p_node = weights(scores, seen, method)
    shares = (0.5, 0.5) if method.attention else (0.0, 1.0)
    return contracted("bgrts,bsgd->btgrd", p_node, v, shares)


def feed_forward(s: Stack, method: Method, p: Params, x: Node) -> Node:
    passes = method.gates or not s.gated
    h = activated(linear(x, p["up"]), ACTIVATIONS[s.activation], passes)
    if s.gated:
        shares = (0.5, 0.5) if method.gates else (0.0, 1.0)
        h = multiplied(h, linear(x, p["gate"]), shares)
    return linear(h, p["down"])


def blocks(
    s: Stack,
    method: Method,
    p: Params,
    x: Node,
    memory: Node | None = None,
    mask: np.ndarray | None = None,
) -> Node:
    steps = x.value.shape[1]
    added = None
    if s.relative:
        place = buckets(steps, steps, s.relative, not s.causal)
        added = p["relative"]["embedding"][place].transpose(2, 0, 1)
    age = np.arange(steps)[:, None] - np.arange(steps)[None]
    if s.alibi:
        added = -slopes(s.heads)[:, None, None] * age
    for i in range(s.layers):
        local = s.window and (i + 1) % s.period
        seen = age >= 0 if s.causal else np.full(age.shape, True)
        seen = seen & (age < s.window) if local else seen
        seen = seen if mask is None else seen & mask
        mine = p[f"block{i}"]
        theta = s.local if local else s.theta

        def attend(h: Node, mine=mine, theta=theta, seen=seen) -> Node:
            return attention(s, method, mine["attention"], h, None, theta, seen, added)

        def look(h: Node, mine=mine) -> Node:
            return attention(s, method, mine["cross"], h, memory, 0.0, None, None)

        def think(h: Node, mine=mine) -> Node:
            return feed_forward(s, method, mine["mlp"], h)

        if s.where == "parallel":
            h = normalised(x, s.norm, mine["norm"])
            x = add(x, attend(h), think(h))
            continue
        x = part(s, mine, x, "attention", attend)
        if s.cross:
            x = part(s, mine, x, "cross", look)
        x = part(s, mine, x, "mlp", think)
    return normalised(x, s.norm, p["final_norm"]) if s.final else x


def part(s: Stack, p: Params, x: Node, name: str, f: Callable[[Node], Node]) -> Node:
    if s.where == "post":
        return normalised(add(x, f(x)), s.norm, p[f"{name}_norm"])
    h = f(normalised(x, s.norm, p[f"{name}_norm"]))
    if s.where == "both":
        h = normalised(h, s.norm, p[f"{name}_post_norm"])
    return add(x, h)


def at(x: Node, place: int) -> Node:
    """One token."""

    def back(r: np.ndarray) -> np.ndarray:
        spread = np.zeros_like(x.value)
        spread[:, place] = r
        return spread

    return moved(x, lambda v: v[:, place], back)


def language(c: Language, method: Method, p: Params, x: Node) -> Node:
    if c.normed:
        x = normalised(x, c.stack.norm, p["embed_norm"])
    if c.scaled:
        x = scaled(x, math.sqrt(c.stack.width))
    if c.positions:
        x = shifted(x, p["positions"][: c.length])
    x = at(blocks(c.stack, method, p["blocks"], x), -1)
    kernel = p["embed"]["table"]["embedding"].T if c.tied else p["head"]["kernel"]
    scores = linear(x, {"kernel": kernel})
    if c.cap:
        capped = activated(scaled(scores, 1 / c.cap), np.tanh, passes=True)
        scores = scaled(capped, c.cap)
    return scores


def text(c: Text, method: Method, p: Params, x: Node) -> Node:
    x = shifted(x, p["positions"][: c.length] + p["kind"][0])
    x = normalised(x, "layer", p["LayerNorm_0"])
    real = np.arange(c.length) < c.length - c.padding
    x = blocks(c.stack, method, p["blocks"], x, mask=real[None])
    h = activated(linear(at(x, 0), p["pool"]), np.tanh, passes=True)
    return linear(h, p["head"])


def embedded_patches(patch: int, p: Params, x: Node) -> Node:
    n, side = len(x.value), x.value.shape[1] // patch
    kernel = p["patches"]["kernel"]

    def cut(v: np.ndarray) -> np.ndarray:
        v = v.reshape(n, side, patch, side, patch, 3).transpose(0, 1, 3, 2, 4, 5)
        return v.reshape(n, side * side, -1)

    def back(r: np.ndarray) -> np.ndarray:
        r = r.reshape(n, side, side, patch, patch, 3).transpose(0, 1, 3, 2, 4, 5)
        return r.reshape(x.value.shape)

    flat = {**p["patches"], "kernel": kernel.reshape(-1, kernel.shape[-1])}
    return linear(moved(x, cut, back), flat)


def vision(c: Vision, method: Method, p: Params, x: Node) -> Node:
    cls = np.broadcast_to(p["cls"], (len(x.value), 1, c.stack.width))
    tokens = moved(
        embedded_patches(c.patch, p, x),
        lambda v: np.concatenate([cls, v], 1),
        lambda r: r[:, 1:],
    )
    tokens = shifted(tokens, p["positions"])
    return linear(at(blocks(c.stack, method, p["blocks"], tokens), 0), p["head"])


def pair(c: Pair, method: Method, p: Params, x: Mapping[str, Node]) -> Node:
    s = c.image.stack
    image = embedded_patches(c.image.patch, p, x["image"])
    image = blocks(s, method, p["image"], shifted(image, p["image_positions"]))
    probe = np.broadcast_to(p["probe"], (len(image.value), 1, s.width))
    probe = Node(probe, constant=True)
    h = attention(s, method, p["pool"], probe, image, 0.0, None, None)
    think = feed_forward(
        s, method, p["pool_mlp"], normalised(h, "layer", p["LayerNorm_0"])
    )
    image = unit(at(add(h, think), 0))
    text = blocks(s, method, p["text"], shifted(x["ids"], p["text_positions"]))
    text = unit(linear(at(text, -1), p["text_head"]))
    shares = (0.5, 0.5) if method.attention else (1.0, 1.0)
    cosine = contracted("id,jd->ij", image, text, shares)
    return shifted(scaled(cosine, np.exp(p["scale"])), p["bias"])


def translation(
    c: Translation, method: Method, p: Params, x: Mapping[str, Node]
) -> Node:
    memory = blocks(c.encoder, method, p["encoder"], x["source"])
    y = at(blocks(c.decoder, method, p["decoder"], x["ids"], memory), -1)
    return linear(y, p["head"])


def mixture(c: Experts, method: Method, p: Params, x: Node) -> Node:
    """The chosen experts of each token, weighed by the router.

    The router's weights of these are divided by their sum, a constant. What they are
    multiplied with gets half (AttnLRP), or all: they are attention's, to experts.
    """
    shape, s = x.value.shape, c.stack
    tokens = reshaped(x, -1, s.width)
    up, gate, down = (
        Node(p[f"{name}_kernel"], constant=True) for name in ("up", "gate", "down")
    )
    h = activated(
        contracted("td,edh->teh", tokens, gate), ACTIVATIONS[s.activation], method.gates
    )
    shares = (0.5, 0.5) if method.gates else (0.0, 1.0)
    h = multiplied(h, contracted("td,edh->teh", tokens, up), shares)
    h = contracted("teh,ehd->ted", h, down)
    router = linear(tokens, p["router"])
    router = weights(router, np.full(router.value.shape, True), method)
    least = np.sort(router.value, -1)[:, -c.chosen, None]
    chosen = np.where(router.value >= least, router.value, 0.0)
    weight = scaled(router, (chosen > 0) / chosen.sum(-1, keepdims=True))
    shares = (0.5, 0.5) if method.attention else (0.0, 1.0)
    return reshaped(contracted("te,ted->td", weight, h, shares), *shape)


def experts(c: Experts, method: Method, p: Params, x: Node) -> Node:
    s, steps = c.stack, x.value.shape[1]
    past = np.tril(np.full((steps, steps), True))
    for i in range(s.layers):
        h = normalised(x, "rms", p[f"RMSNorm_{2 * i}"])
        mine = p[f"Attention_{i}"]
        x = add(x, attention(s, method, mine, h, None, s.theta, past, None))
        h = normalised(x, "rms", p[f"RMSNorm_{2 * i + 1}"])
        x = add(x, mixture(c, method, p[f"Mixture_{i}"], h))
    return linear(at(normalised(x, "rms", p[f"RMSNorm_{2 * s.layers}"]), -1), p["head"])
