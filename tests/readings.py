"""How programs are read: the steps that each is taken apart into, and their rules.

A change of the reading shows here before it shows in numbers, and tracing takes a
hundredth of the time that compiling does. `golden/readings.txt` has one line for each
program: its steps in order, the role and the default's rule of each, without what only
moves elements. Dots stand for loops and branches around a step. After a change that is
meant, write it again, and read the difference:

    python -m tests.readings
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp
from jaxlrp import _files
from tests.equal_programs import PAIRS
from tests.reading.test_recurrences import CELLS, XS, network, parameters
from tests.spellings import GROUPS, Group
from tests.test_equal_programs import X, between

READINGS = Path(__file__).parent / "golden" / "readings.txt"
Program = tuple[Callable[..., Any], tuple[Any, ...]]


def behind(f: Callable[..., Any], group: Group) -> Callable[[Any], Any]:
    """A spelling of scores, and of values, that a layer makes."""
    weights = [np.ones((4, *shape)) for shape in group.shapes]
    return lambda x: f(*(jnp.tensordot(x, w, 1) for w in weights))


def programs() -> Iterator[tuple[str, Callable[[], Program]]]:
    """Every program by name, made when it is called."""
    for name, pair in PAIRS.items():
        for form, f in (("one", pair.one), ("other", pair.other)):
            yield f"{name} ({form})", lambda f=f: (between(f), (X,))
    for name, group in GROUPS.items():
        for form, f in {"reference": group.reference, **group.spellings}.items():
            made = lambda f=f, group=group: (behind(f, group), (np.ones(4),))  # noqa: E731
            yield f"{name} ({form})", made
    for cell in CELLS:
        for form, unrolled in (("loop", False), ("steps", True)):
            args = (cell, unrolled, parameters(cell, jax.random.key(0)), XS)
            yield f"{cell} ({form})", lambda args=args: (network, args)


def reading(program: Callable[[], Program]) -> str:
    """The steps of a program, as the file has them."""
    f, args = program()
    *fixed, x = args
    rows = jaxlrp.plan(lambda x: f(*fixed, x))(x).rows
    steps = [
        f"{'.' * r.depth}{r.role} {_short(r.rule)}"
        for r in rows
        if r.role != "structural"
    ]
    # How many steps a softmax is left in is JAX's: its versions differ.
    softmax = "softmax Taylor"
    again = [before == now == softmax for before, now in itertools.pairwise(steps)]
    return ", ".join(
        s for s, left in zip(steps, [False, *again], strict=True) if not left
    )


def _short(rule: str) -> str:
    """A rule without what the default has everywhere."""
    for usual in ("epsilon=1e-06", "relative=True"):
        rule = rule.replace(f"{usual}, ", "").replace(usual, "")
    return rule.replace(", )", ")").removesuffix("()")


def listed(text: str) -> dict[str, str]:
    """The readings of a file by name."""
    return dict(line.split(": ", 1) for line in text.splitlines())


def main() -> None:
    with jax.enable_x64(True):
        lines = [f"{name}: {reading(program)}\n" for name, program in programs()]
    _files.write(READINGS, "".join(lines).encode())


if __name__ == "__main__":
    main()
