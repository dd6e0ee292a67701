"""One function in many spellings, as data: relevance must not depend on which.

Each group has a reference and the other ways to write it. A line is added by writing a
function of the same arguments, `(s, v)` with scores or features `s` and values `v`.
`tests/reading/test_spellings.py` compares them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Form = Callable[..., Any]
N = 5
"""How many scores there are."""
EDGES = np.array([0, 1, 0, 1, 1])
"""The node that each of the edges of a graph leads to."""
ONE = np.zeros(N, int)


@dataclasses.dataclass(frozen=True)
class Group:
    """Spellings of one function.

    Attributes:
      reference: the form that the others must agree with.
      spellings: by name.
      shapes: of the arguments.
      but: names of composites under which the spellings are known to differ.
    """

    reference: Form
    spellings: Mapping[str, Form]
    shapes: tuple[tuple[int, ...], ...] = ((N,), (N, 3))
    but: tuple[str, ...] = ()


def weighted(weights: Form) -> Form:
    """Values are mixed by weights of scores."""
    return lambda s, v: weights(s) @ v


# ---- softmax, as weights of scores --------------------------------------------------


def shifted(s):
    return jnp.exp(s - s.max())


def segments(s, ids=ONE):
    e = jnp.exp(s - jax.ops.segment_max(s, ids, 2)[ids])
    return e / jax.ops.segment_sum(e, ids, 2)[ids]


def segments_unshifted(s):
    e = jnp.exp(s)
    return e / jax.ops.segment_sum(e, ONE, 1)[ONE]


def segments_logarithm(s):
    return jnp.exp(s - jnp.log(jax.ops.segment_sum(jnp.exp(s), ONE, 1))[ONE])


def segments_logsumexp(s, ids=ONE):
    top = jax.ops.segment_max(s, ids, 2)[ids]
    total = jax.ops.segment_sum(jnp.exp(s - top), ids, 2)[ids]
    return jnp.exp(s - (jnp.log(total) + top))


def segments_stopped(s, ids=ONE):
    e = jnp.exp(s - lax.stop_gradient(jax.ops.segment_max(s, ids, 2))[ids])
    return e / (jax.ops.segment_sum(e, ids, 2)[ids] + 1e-20)


def added_at(s):
    e = shifted(s)
    return e / jnp.zeros(2).at[ONE].add(e)[ONE]


def written_at(s):
    """Experts of a dispatch: weights are written to places, and divided there."""
    order = np.array([3, 1, 4, 0, 2])
    e = jnp.zeros(N + 2).at[order].set(shifted(s))
    return (e / e.sum())[order]


def by_ones(s):
    e = shifted(s)
    return e / (e @ jnp.ones(N))


def ones_by(s):
    e = shifted(s)
    return e / (jnp.ones((1, N)) @ e)


def by_einsum(s):
    e = shifted(s)
    return e / jnp.einsum("i,i->", e, jnp.ones(N))


def written_out(s):
    e = shifted(s)
    return e / (e[0] + e[1] + e[2] + e[3] + e[4])


def pythons_sum(s):
    e = shifted(s)
    return e / sum(e)


def pairwise(s):
    e = shifted(s)
    while len(e) > 1:
        e = jnp.concatenate([e, jnp.zeros(len(e) % 2)])
        e = e[::2] + e[1::2]
    return shifted(s) / e


def of_scalars(s):
    e = [jnp.exp(x) for x in s]
    total = e[0] + e[1] + e[2] + e[3] + e[4]
    return jnp.stack([x / total for x in e])


def two_blocks(s):
    a, b = jnp.exp(s[:2]), jnp.exp(s[2:])
    total = a.sum() + b.sum()
    return jnp.concatenate([a / total, b / total])


def two_blocks_joined(s):
    top = jnp.maximum(s[:2].max(), s[2:].max())
    a, b = jnp.exp(s[:2] - top), jnp.exp(s[2:] - top)
    total = a.sum() + b.sum()
    return jnp.concatenate([a, b]) / total


def two_blocks_rescaled(s):
    a, b = s[:2].max(), s[2:].max()
    top = jnp.maximum(a, b)
    e, f = jnp.exp(s[:2] - a) * jnp.exp(a - top), jnp.exp(s[2:] - b) * jnp.exp(b - top)
    return jnp.concatenate([e, f]) / (e.sum() + f.sum())


def cumulated(s):
    e = shifted(s)
    return e / jnp.cumsum(e)[-1]


def by_scan(s):
    e = shifted(s)
    return e / lax.scan(lambda total, x: (total + x, None), jnp.zeros(()), e)[0]


def by_scan_from_a_number(s):
    """The carry is cast in each step, since the start has no dtype of its own."""
    e = shifted(s)
    return e / lax.scan(lambda total, x: (total + x, None), 0.0, e)[0]


def by_scan_of_scores(s):
    def step(total, x):
        e = jnp.exp(x)
        return total + e, e

    total, e = lax.scan(step, jnp.zeros(()), s)
    return e / total


def by_fori_loop(s):
    e = shifted(s)
    return e / lax.fori_loop(0, N, lambda i, total: total + e[i], jnp.zeros(()))


def by_while_loop(s):
    e = shifted(s)

    def step(carry):
        i, total = carry
        return i + 1, total + e[i]

    return e / lax.while_loop(lambda c: c[0] < N, step, (0, jnp.zeros(())))[1]


def by_associative_scan(s):
    e = shifted(s)
    return e / lax.associative_scan(jnp.add, e)[-1]


def by_map(s):
    e = lax.map(jnp.exp, s)
    return e / e.sum()


def by_window(s):
    e = shifted(s)
    return e / lax.reduce_window(e, 0.0, lax.add, (N,), (1,), "valid")


def by_reduce(s):
    e = shifted(s)
    return e / lax.reduce(e, np.zeros((), e.dtype), lax.add, (0,))


def by_convolution(s):
    e = shifted(s)
    return e / jnp.convolve(e, jnp.ones(N), "valid")


def by_mean(s):
    e = shifted(s)
    return e / e.mean() / N


def logaddexp(s):
    total = s[0]
    for i in range(1, N):
        total = jnp.logaddexp(total, s[i])
    return jnp.exp(s - total)


def logaddexp_by_scan(s):
    step = lambda total, x: (jnp.logaddexp(total, x), None)  # noqa: E731
    return jnp.exp(s - lax.scan(step, jnp.full((), -1e30), s)[0])


def logaddexp_pairwise(s):
    a, b = jnp.logaddexp(s[0], s[1]), jnp.logaddexp(s[2], s[3])
    return jnp.exp(s - jnp.logaddexp(jnp.logaddexp(a, b), s[4]))


def logaddexp_associative(s):
    return jnp.exp(s - lax.associative_scan(jnp.logaddexp, s)[-1])


def cumulative_logsumexp(s):
    return jnp.exp(s - lax.cumlogsumexp(s)[-1])


def logsumexp(s):
    return jnp.exp(s - jax.nn.logsumexp(s))


def log_softmax(s):
    return jnp.exp(jax.nn.log_softmax(s))


def power_of_e(s):
    e = jnp.power(jnp.e, s)
    return e / e.sum()


def power_of_two(s):
    e = 2.0 ** (s / math.log(2))
    return e / e.sum()


def exp2(s):
    e = jnp.exp2(s / math.log(2))
    return e / e.sum()


def inverse_power(s):
    e = shifted(s)
    return e * jnp.power(e.sum(), -1)


def inverse_power_float(s):
    e = shifted(s)
    return e * jnp.power(e.sum(), -1.0)


def reciprocal(s):
    e = shifted(s)
    return e * jnp.reciprocal(jnp.ones(N) @ e)


def expm1(s):
    e = jnp.expm1(s) + 1
    return e / e.sum()


def expm1_segments(s):
    e = jnp.expm1(s) + 1
    return e / jax.ops.segment_sum(e, ONE, 1)[ONE]


def minus_log(s):
    e = shifted(s)
    return e * jnp.exp(-jnp.log(e.sum()))


def of_half_scores(s):
    e = jnp.exp(s / 2) ** 2
    return e / e.sum()


def in_halves(s):
    e = jnp.exp(s / 2) * jnp.exp(s / 2)
    return e / e.sum()


def largest_weight(s):
    e = jnp.exp(s)
    e = e / e.max()
    return e / e.sum()


def running(s, begin=-1e30):
    """A running maximum of one score at a time; the weights last."""

    def step(carry, x):
        top, total = carry
        new = jnp.maximum(top, x)
        return (new, total * jnp.exp(top - new) + jnp.exp(x - new)), None

    start = jnp.full((), begin, s.dtype), jnp.zeros((), s.dtype)
    top, total = lax.scan(step, start, s)[0]
    return jnp.exp(s - top) / total


def running_from_the_first(s):
    def step(carry, x):
        top, total = carry
        new = jnp.maximum(top, x)
        return (new, total * jnp.exp(top - new) + jnp.exp(x - new)), None

    top, total = lax.scan(step, (s[0], jnp.ones((), s.dtype)), s[1:])[0]
    return jnp.exp(s - top) / total


def cumulative_maximum(s):
    e = jnp.exp(s - lax.cummax(s)[-1])
    return e / jnp.cumsum(e)[-1]


def sorted_maximum(s):
    e = jnp.exp(s - jnp.sort(s)[-1])
    return e / e.sum()


def pairwise_maximum(s):
    top = s[0]
    for i in range(1, N):
        top = jnp.maximum(top, s[i])
    e = jnp.exp(s - top)
    return e / (e[0] + e[1] + e[2] + e[3] + e[4])


# ---- softmax that is divided last, or within ---------------------------------------


def divided_last(s, v):
    e = shifted(s)
    return e @ v / e.sum()


def divided_by_ones(s, v):
    e = shifted(s)
    return e @ v / (e @ jnp.ones(N))


def divided_segments(s, v):
    e = jnp.exp(s - jax.ops.segment_max(s, ONE, 1)[ONE])
    mixed = jax.ops.segment_sum(e[:, None] * v, ONE, 1)
    return (mixed / jax.ops.segment_sum(e, ONE, 1)[:, None])[0]


def divided_in_blocks(s, v):
    a, b = jnp.exp(s[:2]), jnp.exp(s[2:])
    return (a @ v[:2] + b @ v[2:]) / (a.sum() + b.sum())


def split(s, v):
    """Each block with its own maximum, then joined."""

    def block(s, v):
        top = s.max()
        e = jnp.exp(s - top)
        return e @ v, top, e.sum()

    (a, m, k), (b, n, l) = block(s[:2], v[:2]), block(s[2:], v[2:])  # noqa: E741
    top = jnp.maximum(m, n)
    p, q = jnp.exp(m - top), jnp.exp(n - top)
    return (a * p + b * q) / (k * p + l * q)


def split_by_logarithms(s, v):
    """Two averages, and the logarithms of what they were divided by."""

    def block(s, v):
        level = jax.nn.logsumexp(s)
        return jnp.exp(s - level) @ v, level

    (a, k), (b, l) = block(s[:2], v[:2]), block(s[2:], v[2:])  # noqa: E741
    both = jnp.logaddexp(k, l)
    return a * jnp.exp(k - both) + b * jnp.exp(l - both)


def one_by_one(s, v):
    def step(carry, now):
        mix, top, total = carry
        x, v = now
        new = jnp.maximum(top, x)
        old, e = jnp.exp(top - new), jnp.exp(x - new)
        return (mix * old + e * v, new, total * old + e), None

    start = jnp.zeros(v.shape[1]), jnp.full((), -1e30), jnp.zeros(())
    mix, _, total = lax.scan(step, start, (s, v))[0]
    return mix / total


def divided_within(s, v):
    """`(e / l) @ v` in each step of an online softmax."""

    def step(carry, now):
        mix, top, total = carry
        s, v = now
        new = jnp.maximum(top, s.max())
        e, kept = jnp.exp(s - new), total * jnp.exp(top - new)
        total = kept + e.sum()
        return (mix * (kept / total) + (e / total) @ v, new, total), None

    start = jnp.zeros(v.shape[1]), jnp.full((), -1e30), jnp.zeros(())
    (mix, _, _), _ = lax.scan(step, start, (s[:, None], v[:, None]))
    return mix


def divided_within_by_logarithms(s, v):
    def step(carry, now):
        mix, level = carry
        s, v = now
        new = jnp.logaddexp(level, jax.nn.logsumexp(s))
        return (mix * jnp.exp(level - new) + jnp.exp(s - new) @ v, new), None

    start = jnp.zeros(v.shape[1]), jnp.full((), -1e30)
    return lax.scan(step, start, (s[:, None], v[:, None]))[0][0]


def used_twice(s, v):
    e = shifted(s)
    p = e / e.sum()
    return e @ v / e.sum() + 0 * p.sum()


# ---- the groups ----------------------------------------------------------------------


def softmax_of_edges(s, v):
    members = EDGES == np.arange(2)[:, None]
    weights = jax.nn.softmax(jnp.where(members, s, -jnp.inf), -1)
    return weights @ v


def edges(weights: Form) -> Form:
    return lambda s, v: jnp.zeros((2, N)).at[EDGES, np.arange(N)].set(weights(s)) @ v


def layer_norm(s):
    centred = s - s.mean(-1, keepdims=True)
    return centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def rms_norm(s):
    return s / jnp.sqrt((s**2).mean(-1, keepdims=True) + 1e-5)


def gated(gate: Form) -> Form:
    return lambda s, v: gate(s) * v


# ---- a mixture of experts: gates combine what experts return ------------------------

PLACES = np.array([[0, 1, 3], [2, 0, 1]])
"""The expert that each of two tokens sends its three gates to."""
DISPATCH = np.eye(4)[PLACES]


def combined(combine: Form) -> Form:
    """`combine(gates, y)`: gates of tokens and choices, results of experts."""
    return lambda s, v: combine(jax.nn.softmax(s.reshape(2, 3)), v)


def by_choice(gates, y):
    return (gates[..., None] * y[PLACES]).sum(1)


def choice_by_choice(gates, y):
    return sum(gates[:, i, None] * y[PLACES[:, i]] for i in range(3))


def token_by_token(gates, y):
    rows = [(g[:, None] * y[p]).sum(0) for g, p in zip(gates, PLACES, strict=True)]
    return jnp.stack(rows)


def taken_along_an_axis(gates, y):
    spread = jnp.broadcast_to(y, (2, *y.shape))
    taken = jnp.take_along_axis(spread, PLACES[..., None], 1)
    return (gates[..., None] * taken).sum(1)


def by_vmap_of_tokens(gates, y):
    return jax.vmap(lambda g, p: (g[:, None] * y[p]).sum(0))(gates, jnp.asarray(PLACES))


def by_scan_of_choices(gates, y):
    step = lambda out, at: (out + at[0][:, None] * y[at[1]], None)  # noqa: E731
    start = jnp.zeros((2, y.shape[-1]))
    return lax.scan(step, start, (gates.T, jnp.asarray(PLACES.T)))[0]


def by_einsum_of_three(gates, y):
    return jnp.einsum("tke,tk,ed->td", DISPATCH, gates, y)


def by_einsum_of_slots(gates, y):
    slots = jnp.stack([y, 2 * y], 1) / jnp.array([1, 2])[:, None]
    return jnp.einsum("tkec,tk,ecd->td", DISPATCH[..., None] / 2 * [1, 1], gates, slots)


def by_a_combine_tensor(gates, y):
    combine = (gates[..., None] * DISPATCH).sum(1)
    return jnp.einsum("te,ed->td", combine, y)


def by_a_combine_einsum(gates, y):
    return jnp.einsum("tk,tke->te", gates, DISPATCH) @ y


def by_one_hot(gates, y):
    return jnp.einsum("te,ed->td", (gates[..., None] * one_hot()).sum(1), y)


def one_hot():
    return jax.nn.one_hot(PLACES, 4, dtype=float)


EXPERTS = (
    token_by_token,
    taken_along_an_axis,
    by_vmap_of_tokens,
    by_einsum_of_three,
    by_einsum_of_slots,
    by_a_combine_tensor,
    by_a_combine_einsum,
    by_one_hot,
)
WEIGHTS = (
    segments,
    segments_unshifted,
    segments_logarithm,
    segments_logsumexp,
    segments_stopped,
    added_at,
    written_at,
    by_ones,
    ones_by,
    by_einsum,
    written_out,
    pythons_sum,
    pairwise,
    of_scalars,
    two_blocks,
    two_blocks_joined,
    two_blocks_rescaled,
    cumulated,
    by_scan,
    by_scan_from_a_number,
    by_scan_of_scores,
    by_fori_loop,
    by_while_loop,
    by_associative_scan,
    by_map,
    by_window,
    by_reduce,
    by_convolution,
    by_mean,
    logaddexp,
    logaddexp_by_scan,
    logaddexp_pairwise,
    logaddexp_associative,
    cumulative_logsumexp,
    logsumexp,
    log_softmax,
    power_of_e,
    power_of_two,
    exp2,
    inverse_power,
    inverse_power_float,
    reciprocal,
    expm1,
    expm1_segments,
    minus_log,
    of_half_scores,
    in_halves,
    largest_weight,
    running,
    running_from_the_first,
    cumulative_maximum,
    sorted_maximum,
    pairwise_maximum,
)
MIXES = (
    divided_last,
    divided_by_ones,
    divided_in_blocks,
    split,
    split_by_logarithms,
    divided_within,
    divided_within_by_logarithms,
    used_twice,
)
PRODUCTS = (divided_segments, one_by_one)

GROUPS: Mapping[str, Group] = {
    "softmax": Group(
        weighted(jax.nn.softmax),
        {f.__name__: weighted(f) for f in WEIGHTS},
    ),
    "attention": Group(
        weighted(jax.nn.softmax),
        {f.__name__: f for f in MIXES},
    ),
    "attention by products of elements": Group(
        lambda s, v: (jax.nn.softmax(s)[:, None] * v).sum(0),
        {f.__name__: f for f in PRODUCTS},
    ),
    "attention over edges": Group(
        softmax_of_edges,
        {
            "segments": edges(lambda s: segments(s, EDGES)),
            "logsumexp": edges(lambda s: segments_logsumexp(s, EDGES)),
            "stopped": edges(lambda s: segments_stopped(s, EDGES)),
        },
    ),
    "log-softmax": Group(
        lambda s, v: jax.nn.log_softmax(s),
        {
            "logsumexp": lambda s, v: s - jax.nn.logsumexp(s),
            "logarithm of a sum": lambda s, v: s - jnp.log(jnp.exp(s).sum()),
            "segments": lambda s, v: (
                s - jnp.log(jax.ops.segment_sum(jnp.exp(s), ONE, 1))[ONE]
            ),
        },
        but=("CPLRP",),  # it holds the differences in jax.nn's, and nothing passes
    ),
    "layer norm": Group(
        weighted(layer_norm),
        {
            "jax.nn": weighted(lambda s: jax.nn.standardize(s, -1, epsilon=1e-5)),
            "rsqrt": weighted(lambda s: (s - s.mean()) * lax.rsqrt(jnp.var(s) + 1e-5)),
            "contraction": weighted(
                lambda s: (
                    (s - s.mean())
                    / jnp.sqrt((s - s.mean()) @ (s - s.mean()) / N + 1e-5)
                )
            ),
        },
    ),
    "RMS norm": Group(
        weighted(rms_norm),
        {
            "rsqrt": weighted(lambda s: s * lax.rsqrt((s * s).mean() + 1e-5)),
            "power": weighted(lambda s: s * ((s**2).mean() + 1e-5) ** -0.5),
            "contraction": weighted(lambda s: s / jnp.sqrt(s @ s / N + 1e-5)),
        },
    ),
    "mixture of experts": Group(
        combined(by_choice),
        {f.__name__: combined(f) for f in EXPERTS},
        ((6,), (4, 3)),
    ),
    # By default sums that are written out have a rule of their own, by sign.
    "mixture of experts, choice by choice": Group(
        combined(by_choice),
        {f.__name__: combined(f) for f in (choice_by_choice, by_scan_of_choices)},
        ((6,), (4, 3)),
        but=("Default",),
    ),
    "sigmoid gate": Group(
        gated(jax.nn.sigmoid),
        {
            "reciprocal": gated(lambda s: 1 / (1 + jnp.exp(-s))),
        },
        ((N,), (N,)),
    ),
    "SiLU": Group(
        gated(jax.nn.silu),
        {
            "product": gated(lambda s: s * jax.nn.sigmoid(s)),
            "quotient": gated(lambda s: s / (1 + jnp.exp(-s))),
        },
        ((N,), (N,)),
    ),
    "GELU": Group(
        gated(lambda s: jax.nn.gelu(s, approximate=False)),
        {
            "erf": gated(lambda s: 0.5 * s * (1 + lax.erf(s / math.sqrt(2)))),
            "erfc": gated(lambda s: 0.5 * s * lax.erfc(-s / math.sqrt(2))),
        },
        ((N,), (N,)),
    ),
}
"""By name."""
