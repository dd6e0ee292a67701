"""What a random program is made of, as data to which a line can be added.

An operation is the text of an expression in which `{a}` and `{b}` stand for values of
`SHAPE`, which its result is too, and `{f}` for the function that its body is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class Operation:
    """One way to make a value of others.

    Attributes:
      text: the expression.
      also: another expression for the same: operands commuted, loops written out, calls
        left out.
      linear: it is piecewise linear without a bias, so that LRP-0 is gradient x input.
      casts: to a type of less precision, so that it is not smooth.
      while_loop: it has no second derivative.
    """

    text: str
    also: str | None = None
    linear: bool = False
    casts: bool = False
    while_loop: bool = False

    @property
    def has_body(self) -> bool:
        return "{f}" in self.text


def _of(
    texts: Mapping[str, str | tuple[str, str]], **given: bool
) -> dict[str, Operation]:
    def one(text: str | tuple[str, str]) -> Operation:
        pair = (text, None) if isinstance(text, str) else text
        return Operation(*pair, **given)

    return {name: one(text) for name, text in texts.items()}


LINEAR = {
    # layers without a bias
    "matmul": "{a} @ W",
    "einsum": "jnp.einsum('ij,jk->ik', {a}, V)",
    "columns": "ROWS @ {a}",
    "tall": "({a} @ TALL) @ TALL.T",
    "matvec": "jax.vmap(lambda r: W.T @ r)({a})",
    "convolution of rows": (
        "lax.conv_general_dilated({a}[:, :, None], KERNEL, (1,), 'SAME', "
        "dimension_numbers=('NWC', 'WIO', 'NWC'))[:, :, 0]"
    ),
    "convolution": (
        "lax.conv_general_dilated(image({a}), KERNELS, (1, 1), 'SAME', "
        "dimension_numbers=('NHWC', 'HWIO', 'NHWC'))[0, :, :, 0]"
    ),
    "convolve": "jax.vmap(lambda r: jnp.convolve(r, B[:3], 'same'))({a})",
    # sums
    "add": ("{a} + {b}", "{b} + {a}"),
    "subtract": ("{a} - {b}", "-{b} + {a}"),
    "add three": ("{a} + {b} + {a} / 2", "{b} + {a} + {a} / 2"),
    "centre": "{a} - {a}.mean(-1, keepdims=True)",
    # piecewise linear
    "relu": "jax.nn.relu({a})",
    "leaky relu": "jax.nn.leaky_relu({a}, 0.1)",
    "abs": "jnp.abs({a})",
    "maximum": ("jnp.maximum({a}, {b})", "jnp.maximum({b}, {a})"),
    "minimum": ("jnp.minimum({a}, {b})", "jnp.minimum({b}, {a})"),
    "choose": "jnp.where({a} > {b}, {a}, 0.5 * {b})",
    "maxout": "jnp.maximum({a} @ W, {a} @ V)",
    # scales and structure
    "scale": ("-1.5 * {a}", "{a} * -1.5"),
    "scales": ("{a} * SCALE", "SCALE * {a}"),
    "divide": "{a} / SCALE",
    "mask": ("jnp.where(MASK, {a}, 0)", "{a} * MASK"),
    "transpose": "{a}.T.reshape(3, 4)",
    "reverse": "{a}[::-1]",
    "flip": "jnp.flip({a}, 1)",
    "roll": "jnp.roll({a}, 1, axis=1)",
    "pad": "jnp.pad({a}[1:], ((0, 1), (0, 0)))",
    "concatenate": "jnp.concatenate([{a}[:, 2:], {b}[:, :2]], axis=1)",
    "stack": "jnp.stack([{a}, {b}]).reshape(6, 4)[1:4]",
    "repeat": "jnp.repeat({a}[:, :2], 2, axis=1)",
    "gather": "{a}[:, np.array([3, 3, 0, 1])]",
    "take": "jnp.take({a}, np.array([2, 0, 0]), axis=0)",
    "dynamic slice": "lax.dynamic_slice(jnp.concatenate([{a}, {b}]), (1, 0), (3, 4))",
    "update": "{a}.at[0].set({b}[1])",
    "scatter-add": "{a}.at[np.array([0, 0])].add({b}[:2])",
    "dynamic update": "lax.dynamic_update_slice({a}, {b}[:1], (1, 0))",
    "rows by segments": "jax.ops.segment_sum({a}, np.array([0, 2, 0]), 3)",
    # reductions and selections
    "mean": "{a}.mean(0, keepdims=True) + jnp.zeros_like({a})",
    "sum": "jnp.broadcast_to({a}.sum(1, keepdims=True), (3, 4))",
    "cumsum": "jnp.cumsum({a}, 1)",
    "max": "jnp.broadcast_to({a}.max(1, keepdims=True), (3, 4))",
    "max pool": "lax.reduce_window({a}, -jnp.inf, lax.max, (2, 2), (1, 1), 'SAME')",
    "mean pool": "lax.reduce_window({a}, 0.0, lax.add, (2, 2), (1, 1), 'SAME') / 4",
    "sort": "jnp.sort({a}, 1)",
    "top": "lax.top_k({a}, 4)[0]",
    "median": "jnp.median({a}, axis=0) + 0 * {a}",
    "cummax": "lax.cummax({a}, 1)",
    "Fourier": "jnp.fft.irfft(jnp.fft.rfft({a}) * TURN[0, 0], 4)",
    "rotate": (
        "(lambda z: jnp.concatenate([z.real, z.imag], 1))"
        "(lax.complex({a}[:, :2], {a}[:, 2:]) * TURN)"
    ),
    "solve": "jnp.linalg.solve(ROWS + 2 * np.eye(3), {a})",
}
"""Piecewise linear and without a bias."""

SMOOTH = {
    # layers with a bias
    "dense": ("{a} @ W + B", "B + {a} @ W"),
    "dense relu": "jax.nn.relu({a} @ V + B)",
    "columns with a bias": "(ROWS @ {a}) + B",
    "batch norm": (
        "({a} @ W - BATCH_MEAN) * lax.rsqrt(BATCH_VAR + 1e-5) * SCALE + B",
        "B + SCALE * (lax.rsqrt(BATCH_VAR + 1e-5) * ({a} @ W - BATCH_MEAN))",
    ),
    "position": ("{a} + GRID", "GRID + {a}"),
    # activations
    "tanh": "jnp.tanh({a})",
    "silu": ("jax.nn.silu({a})", "jax.nn.sigmoid({a}) * {a}"),
    "gelu": "jax.nn.gelu({a})",
    "gelu by erf": "jax.nn.gelu({a}, approximate=False)",
    "sigmoid": "jax.nn.sigmoid({a})",
    "softplus": "jax.nn.softplus({a})",
    "elu": "jax.nn.elu({a})",
    "mish": "jax.nn.mish({a})",
    "hard swish": "jax.nn.hard_swish({a})",
    "clip": "jnp.clip({a}, -1.0, 2.0)",
    "sine": "jnp.sin({a})",
    "bell": "jnp.exp(-{a} * {a})",
    "logarithm": "jnp.log1p({a} * {a})",
    "root": "jnp.sqrt(1 + {a} ** 2)",
    "cube": "{a} ** 3 / 8",
    "arctangent": "jnp.arctan({a} + 0.3)",
    "shift": ("{a} + 0.5", "0.5 + {a}"),
    # products and quotients
    "product": ("{a} * jnp.tanh({b})", "jnp.tanh({b}) * {a}"),
    "three factors": "{a} * jnp.tanh({b}) * jnp.sin({a})",
    "gate": ("{a} * jax.nn.sigmoid({b} @ W)", "jax.nn.sigmoid({b} @ W) * {a}"),
    "highway": "(lambda g: g * {a} + (1 - g) * {b})(jax.nn.sigmoid({a} @ V))",
    "quotient": "{a} / (1 + {b} * {b})",
    "square": "{a} * {a} / 4",
    "bilinear": "{a} @ jnp.tanh({b}).T @ {b} / 4",
    "outer": "jnp.einsum('ij,kj,kl->il', jnp.tanh({a}), jnp.tanh({b}), {a}) / 3",
    "product of rows": "jnp.cumprod(jnp.tanh({a}) + 1.5, 0)",
    # normalisations
    "layer norm": (
        "({a} - {a}.mean(-1, keepdims=True)) "
        "* lax.rsqrt({a}.var(-1, keepdims=True) + 0.1)"
    ),
    "layer norm with weights": (
        "jax.nn.standardize({a}, -1, epsilon=0.1) * SCALE + B",
        "B + SCALE * jax.nn.standardize({a}, -1, epsilon=0.1)",
    ),
    "RMS norm": (
        "{a} / jnp.sqrt(({a} ** 2).mean(-1, keepdims=True) + 0.1) * SCALE",
        "SCALE * ({a} / jnp.sqrt(0.1 + ({a} ** 2).mean(-1, keepdims=True)))",
    ),
    "L2 norm": "{a} / jnp.linalg.norm({a} + 0.1, axis=-1, keepdims=True)",
    "group norm": (
        "jax.nn.standardize({a}.reshape(3, 2, 2), (0, 2), epsilon=0.1).reshape(3, 4)"
    ),
    # softmax and attention
    "softmax": "jax.nn.softmax({a}) * 2",
    "masked softmax": "jax.nn.softmax(jnp.where(MASK, {a}, -1e9), axis=0)",
    "log-softmax": "jax.nn.log_softmax({a})",
    "logsumexp": "jax.nn.logsumexp({a}, axis=0, keepdims=True) + {b}",
    "softmax by hand": (
        "(lambda e: e / e.sum(-1, keepdims=True))(jnp.exp({a} - {a}.max(-1)[:, None]))"
    ),
    "attention": "jax.nn.softmax({a} @ W @ ({b} @ V).T / 2) @ {b}",
    "causal attention": (
        "jax.nn.softmax(jnp.where(np.tri(3, dtype=bool), {a} @ {b}.T / 2, -jnp.inf)) "
        "@ ({b} @ W)"
    ),
    "heads": (
        "jnp.einsum('hqk,khd->qhd', jax.nn.softmax(jnp.einsum('qhd,khd->hqk', "
        "{a}.reshape(3, 2, 2), {b}.reshape(3, 2, 2))), {b}.reshape(3, 2, 2))"
        ".reshape(3, 4)"
    ),
    "edges": (
        "jax.ops.segment_sum({a}[np.array([0, 1, 2, 0])] "
        "* jax.nn.sigmoid({b}[np.array([1, 2, 0, 2])]), np.array([1, 2, 0, 2]), 3)"
    ),
    # complex numbers and what is cut
    "spectrum": "jnp.abs(jnp.fft.fft({a}, axis=1) + 0.5j)",
    "modulus": (
        "(lambda z: jnp.concatenate([z.real, z.imag], 1) / (1 + jnp.abs(z).sum()))"
        "(lax.complex({a}[:, :2], {a}[:, 2:]))"
    ),
    "stop": "{a} + lax.stop_gradient({b})",
    "look-up": "{a} + TABLE[jnp.argmax({b}, -1)]",
    "padding": "jnp.pad({a}[1:], ((1, 0), (0, 0)), constant_values=0.3)",
    "fill": "jnp.where(MASK, {a}, 0.2)",
    "experts": (
        "jnp.einsum('te,tef->tf', jax.nn.softmax({a} @ W[:, :2]), "
        "jnp.einsum('td,edf->tef', {b}, WS))"
    ),
}

CASTS = {
    "bfloat16": "{a}.astype(jnp.bfloat16).astype({a}.dtype)",
    "float32": "{a}.astype(jnp.float32).astype({a}.dtype)",
    "bfloat16 product": (
        "({a}.astype(jnp.bfloat16) @ W.astype(jnp.bfloat16)).astype({a}.dtype)"
    ),
}

PAIRS = "jnp.stack([{a}, {b}]), jnp.stack([{b}, {a}])"
LOOPS = {
    "scan": (
        "lax.scan(lambda c, t: ({f}(c, t), None), {a}, jnp.stack([{b}, {a}]))[0]",
        "{f}({f}({a}, {b}), {a})",
    ),
    "scan backwards": (
        "lax.scan(lambda c, t: ({f}(c, t), None), {a}, jnp.stack([{b}, {a}]), "
        "reverse=True)[0]",
        "{f}({f}({a}, {a}), {b})",
    ),
    "scan unrolled": (
        "lax.scan(lambda c, t: ({f}(c, t), None), {a}, jnp.stack([{b}, {a}]), "
        "unroll=2)[0]",
        "{f}({f}({a}, {b}), {a})",
    ),
    "scan that collects": (
        "lax.scan(lambda c, t: ({f}(c, t),) * 2, {a}, jnp.stack([{b}, {a}]))[1]"
        ".reshape(6, 4)[1:4]",
        "(lambda c: jnp.concatenate([c, {f}(c, {a})])[1:4])({f}({a}, {b}))",
    ),
    "stacked layers": (
        "lax.scan(lambda c, w: ({f}(c @ w, {b}), None), {a}, WS)[0]",
        "{f}({f}({a} @ WS[0], {b}) @ WS[1], {b})",
    ),
    "fori": (
        "lax.fori_loop(0, 2, lambda i, c: {f}(c, {b}), {a})",
        "{f}({f}({a}, {b}), {b})",
    ),
    "map": (
        "lax.map(lambda p: {f}(*p), (" + PAIRS + ")).reshape(6, 4)[1:4]",
        "jnp.stack([{f}({a}, {b}), {f}({b}, {a})]).reshape(6, 4)[1:4]",
    ),
}
WHILE = {
    "while": (
        "lax.while_loop(lambda s: s[0] < 2, "
        "lambda s: (s[0] + 1, {f}(s[1], {b})), (0, {a}))[1]",
        "{f}({f}({a}, {b}), {b})",
    ),
}
CALLS = {
    "vmap": (
        "jax.vmap({f})(" + PAIRS + ").reshape(6, 4)[1:4]",
        "jnp.stack([{f}({a}, {b}), {f}({b}, {a})]).reshape(6, 4)[1:4]",
    ),
    "cond": (
        "lax.cond({b}[0, 0] > 0, {f}, lambda c, t: t @ W, {a}, {b})",
        "jnp.where({b}[0, 0] > 0, {f}({a}, {b}), {b} @ W)",
    ),
    "switch": (
        "lax.switch(jnp.argmax({b}[0]), [{f}, lambda c, t: c - t, {f}, "
        "lambda c, t: t @ W], {a}, {b})",
        "(lambda i: jnp.where(i == 1, {a} - {b}, jnp.where(i == 3, {b} @ W, "
        "{f}({a}, {b}))))(jnp.argmax({b}[0]))",
    ),
    "checkpoint": ("jax.checkpoint({f})({a}, {b})", "{f}({a}, {b})"),
    "jit": ("jax.jit({f})({a}, {b})", "{f}({a}, {b})"),
    "twice": (
        "(lambda j: j(j({a}, {b}), {b}))(jax.jit({f}))",
        "{f}({f}({a}, {b}), {b})",
    ),
    "twice in Python": ("{f}({f}({a}, {b}), {b})", "{f}({f}({a}, {b}), {b})"),
    "custom_vjp": ("with_vjp({f})({a}, {b})", "{f}({a}, {b})"),
    "custom_jvp": ("with_jvp({f})({a}, {b})", "{f}({a}, {b})"),
}
"""What has a body: `{f}` takes two values."""

LINEAR_OPERATIONS: dict[str, Operation] = _of(LINEAR, linear=True)
SIMPLE: dict[str, Operation] = LINEAR_OPERATIONS | _of(SMOOTH)
CAST: dict[str, Operation] = _of(CASTS, casts=True)
CONTROL: dict[str, Operation] = _of(LOOPS | CALLS, linear=True)
OPERATIONS: dict[str, Operation] = (
    SIMPLE | CAST | CONTROL | _of(WHILE, linear=True, while_loop=True)
)
"""By name."""
