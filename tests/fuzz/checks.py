"""What must hold of every program, as data: a name, a function, its programs.

A check takes a `Case` and raises `AssertionError`. Two explanations of one program
agree to rounding, which is judged by the program itself: where they differ by more than
`ROUNDED`, by how much its relevance moves if its inputs do.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp
from jaxlrp import composites, errors, rules
from tests.fuzz.names import SHAPE, with_jvp, with_vjp
from tests.fuzz.programs import Program, code, function, steps_of
from tests.fuzz.vocabulary import (
    CAST,
    CONTROL,
    LINEAR_OPERATIONS,
    OPERATIONS,
    SIMPLE,
    Operation,
)

COMPOSITES: Mapping[str, composites.Composite] = {
    "Default": composites.Default(),
    "Uniform": composites.Uniform(rules.Epsilon(1e-3)),
    "AttnLRP": composites.AttnLRP(),
    "CPLRP": composites.CPLRP(),
    "EpsilonPlus": composites.EpsilonPlus(),
}
LRP0 = composites.Uniform(rules.LRP0())
BOTH = (0, 1)
ROUNDED = 1e-9
NUDGE, CAST_NUDGE = 1e-12, 2.0**-9
"""By how much inputs move: some thousands of roundings, or one of bfloat16."""
LARGE = 1e9


@dataclasses.dataclass(frozen=True)
class Case:
    """A program with its inputs and a composite."""

    program: Program
    composite: str
    seed: int

    @functools.cached_property
    def f(self) -> Callable[..., Any]:
        return function(code(self.program))

    @functools.cached_property
    def other(self) -> Callable[..., Any]:
        """The same program in other words."""
        return function(code(self.program, also=True))

    @functools.cached_property
    def inputs(self) -> tuple[Any, Any]:
        return self.drawn(0)

    def drawn(self, stream: int) -> Any:
        draw = np.random.default_rng([self.seed, stream]).normal
        return jnp.asarray(draw(size=SHAPE)), jnp.asarray(draw(size=SHAPE))

    @property
    def options(self) -> Any:
        rule = COMPOSITES[self.composite]
        return {"composite": rule, "argnums": BOTH, "target": "all"}

    @functools.cached_property
    def explain(self) -> Callable[..., Any]:
        return jaxlrp.lrp(self.f, **self.options)

    @functools.cached_property
    def relevance(self) -> np.ndarray:
        """Of the program as it is; of no use if it overflows."""
        value, relevance = jaxlrp.value_and_lrp(self.f, **self.options)(*self.inputs)
        hypothesis.assume(np.abs(value).max() < LARGE)
        found = np.asarray(relevance)
        if not np.isfinite(found).all():
            total = lambda x, y: self.f(x, y).sum()  # noqa: E731
            slopes = jax.grad(total, BOTH)(*self.inputs)
            assert not np.isfinite(slopes).all(), "relevance is NaN, the gradient not"
            hypothesis.reject()
        hypothesis.assume(np.abs(found).max() < LARGE)
        return found

    def nudged(self, explain: Callable[..., Any]) -> float:
        """How much an explanation moves if its inputs do, by a rounding or so."""
        casts = any(s.operation.casts for s in steps_of(self.program))
        size, moved = CAST_NUDGE if casts else NUDGE, []
        for stream in range(2, 5):
            inputs = zip(self.inputs, self.drawn(stream), strict=True)
            there = explain(*(x * (1 + size * np.sign(d)) for x, d in inputs))
            moved.append(np.abs(np.asarray(there) - explain(*self.inputs)).max())
        return max(moved) + (size if casts else 0) * (1 + np.abs(self.relevance).max())

    def agree(self, found: Any, expected: Any, explain: Any = None) -> None:
        """Asserts that they are equal but for rounding."""
        found, expected = np.asarray(found), np.asarray(expected)
        assert found.shape == expected.shape
        error = np.abs(found - expected).max()
        if error > ROUNDED * (1 + np.abs(expected).max()):
            tolerance = 10 * self.nudged(explain or self.explain)
            assert error <= tolerance, f"{error:.3g} > {tolerance:.3g}"


def jit_is_eager(case: Case) -> None:
    case.agree(jax.jit(case.explain)(*case.inputs), case.relevance)


def vmap_is_a_loop(case: Case) -> None:
    case.relevance  # noqa: B018
    there = case.drawn(1)
    batch = [jnp.stack(pair) for pair in zip(case.inputs, there, strict=True)]
    found = np.asarray(jax.vmap(case.explain)(*batch))
    second = np.asarray(case.explain(*there))
    hypothesis.assume(np.abs(second).max() < LARGE)

    def explain_there(*inputs):
        moved = zip(inputs, case.inputs, there, strict=True)
        return case.explain(*(x - a + b for x, a, b in moved))

    case.agree(found[:, 0], case.relevance)
    case.agree(found[:, 1], second, explain_there)


def remat_is_without(case: Case) -> None:
    again = jaxlrp.lrp(case.f, remat=True, **case.options)
    case.agree(again(*case.inputs), case.relevance)


def split_is_whole(case: Case) -> None:
    """The input in two arguments, put together first."""

    def split(top, bottom, y):
        return case.f(jnp.concatenate([top, bottom]), y)

    x, y = case.inputs
    options = case.options | {"argnums": (0, 1, 2)}
    top, bottom, other = jaxlrp.lrp(split, **options)(x[:1], x[1:], y)
    case.agree([np.concatenate([top, bottom]), other], case.relevance)


def other_words_are_the_same(case: Case) -> None:
    """Operands commuted, arguments in another order."""
    swapped = jaxlrp.lrp(lambda y, x: case.other(x, y), **case.options)
    case.agree(swapped(*case.inputs[::-1])[::-1], case.relevance)


def loops_are_unrolled(case: Case) -> None:
    case.agree(jaxlrp.lrp(case.other, **case.options)(*case.inputs), case.relevance)


def wrapped_is_the_same(case: Case) -> None:
    wrapper = (jax.jit, with_vjp, with_jvp, jax.checkpoint)[case.seed % 4]
    wrapped = jaxlrp.lrp(wrapper(case.f), **case.options)
    case.agree(wrapped(*case.inputs), case.relevance)


def lrp0_is_gradient_times_input(case: Case) -> None:
    zero = dataclasses.replace(case)
    explain = jaxlrp.value_and_lrp(case.f, **case.options | {"composite": LRP0})
    value, found = explain(*case.inputs)
    hypothesis.assume(np.abs(value).max() < LARGE)
    slopes = jax.grad(lambda x, y: case.f(x, y).sum(), BOTH)
    products = lambda x, y: [a * b for a, b in zip((x, y), slopes(x, y), strict=True)]  # noqa: E731
    zero.agree(found, products(*case.inputs), products)
    size = np.abs(np.asarray(found)).sum() + np.abs(value).sum() + 1
    assert abs(np.sum(found) - value.sum()) <= ROUNDED * size


def audit_adds_up(case: Case) -> None:
    case.relevance  # noqa: B018
    audit = jaxlrp.audit(case.f, **case.options)(*case.inputs)
    parts = [audit.total_in, *audit.absorbed.values()]
    passed = [abs(s.arrived) + abs(s.passed) for s in audit.steps]
    size = 1 + sum(map(abs, parts)) + max(passed, default=0.0)
    casts = any(s.operation.casts for s in steps_of(case.program))
    assert abs(sum(parts) - audit.total_out) <= (1e-2 if casts else 1e-8) * size
    case.agree(
        audit.total_in, case.relevance.sum(), lambda *xs: np.sum(case.explain(*xs))
    )


def relevance_is_linear(case: Case) -> None:
    case.relevance  # noqa: B018
    rule = COMPOSITES[case.composite]
    out, pull = jaxlrp.relprop(case.f, *case.inputs, composite=rule, argnums=BOTH)
    draw = np.random.default_rng(case.seed).normal
    r, s = (jnp.asarray(draw(size=out.shape)) for _ in range(2))
    first, second = (np.asarray(pull(one)) for one in (r, s))

    def explain(*inputs):
        _, pull = jaxlrp.relprop(case.f, *inputs, composite=rule, argnums=BOTH)
        return np.asarray(pull(r))

    hypothesis.assume(np.abs(first).max() < LARGE)
    hypothesis.assume(np.abs(second).max() < LARGE)
    case.agree(pull(r + 2 * s), first + 2 * second, explain)


def gradient_of_relevance_is_finite_differences(case: Case) -> None:
    case.relevance  # noqa: B018
    weights, direction = case.drawn(5), case.drawn(6)

    def score(*inputs):
        found = zip(case.explain(*inputs), weights, strict=True)
        return sum((r * w).sum() for r, w in found)

    slopes = jax.grad(score, BOTH)(*case.inputs)
    found = sum((s * d).sum() for s, d in zip(slopes, direction, strict=True))

    def difference(step):
        there = [
            score(
                *(
                    x + sign * step * d
                    for x, d in zip(case.inputs, direction, strict=True)
                )
            )
            for sign in (1, -1)
        ]
        return float(there[0] - there[1]) / (2 * step)

    # Two steps say whether the relevance is smooth here, and how well this is known.
    coarse, fine = difference(2e-5), difference(1e-5)
    doubt = abs(coarse - fine)
    hypothesis.assume(doubt < 1e-3 * (1 + abs(fine)))
    assert np.isfinite(found)
    assert abs(found - fine) <= 3 * doubt + 1e-5 * (1 + abs(fine))


def prepared_is_unprepared(case: Case) -> None:
    buffers, rest = jaxlrp.prepare(case.explain, *case.drawn(1), varying=BOTH)
    case.agree(rest(buffers, *case.inputs), case.relevance)


def each_is_one_by_one(case: Case) -> None:
    case.relevance  # noqa: B018
    options = case.options | {"target": "max"}

    def one(*inputs, row=0):
        return np.asarray(jaxlrp.lrp(lambda *xs: case.f(*xs)[row], **options)(*inputs))

    found = np.asarray(jaxlrp.lrp_each(case.f, **options)(*case.inputs))
    row = case.seed % 3
    case.agree(
        found[:, row], one(*case.inputs, row=row), functools.partial(one, row=row)
    )


def all_at_once_is_both(case: Case) -> None:
    expected = case.relevance
    all_three = jaxlrp.value_grad_and_lrp(case.f, **case.options)(*case.inputs)
    value, slopes, relevance = all_three
    case.agree(relevance, expected)
    case.agree(value, case.f(*case.inputs), case.f)
    gradient = jax.grad(lambda x, y: case.f(x, y).sum(), BOTH)
    case.agree(slopes, gradient(*case.inputs), gradient)


@dataclasses.dataclass(frozen=True)
class Check:
    """What must hold, and of which programs.

    Attributes:
      holds: raises if it does not.
      operations: of the programs.
      bodies: at least one operation has a body.
    """

    holds: Callable[[Case], None]
    operations: Mapping[str, Operation]
    bodies: bool = False


FLAT = SIMPLE | CAST
LINEAR_LOOPS = LINEAR_OPERATIONS | CONTROL
NO_WHILE = SIMPLE | CONTROL
CHECKS: Mapping[str, Check] = {
    "jit": Check(jit_is_eager, OPERATIONS),
    "vmap": Check(vmap_is_a_loop, OPERATIONS),
    "remat": Check(remat_is_without, OPERATIONS),
    "split": Check(split_is_whole, OPERATIONS),
    "words": Check(other_words_are_the_same, FLAT),
    "unrolled": Check(loops_are_unrolled, OPERATIONS, bodies=True),
    "wrapped": Check(wrapped_is_the_same, OPERATIONS),
    "gradient x input": Check(lrp0_is_gradient_times_input, LINEAR_LOOPS),
    "audit": Check(audit_adds_up, OPERATIONS),
    "linear": Check(relevance_is_linear, OPERATIONS),
    "differences": Check(gradient_of_relevance_is_finite_differences, NO_WHILE),
    "prepare": Check(prepared_is_unprepared, OPERATIONS),
    "each": Check(each_is_one_by_one, OPERATIONS),
    "all at once": Check(all_at_once_is_both, NO_WHILE),
}
"""By name."""
QUIET = (
    errors.IndependentArgumentWarning,
    errors.BoundsWarning,
    errors.RelevanceWarning,
    errors.TargetWarning,
    errors.TrainingWarning,
)
"""What a random program may well be told."""


def run(name: str, case: Case) -> None:
    """Checks one program, in float64."""
    with warnings.catch_warnings(), jax.enable_x64(True):
        for category in QUIET:
            warnings.simplefilter("ignore", category)
        try:
            CHECKS[name].holds(case)
        except jax.errors.JaxRuntimeError as error:
            # XLA on a CPU gives some Fourier transforms a layout that it refuses.
            if "fft_thunk" not in str(error):
                raise
            hypothesis.reject()
