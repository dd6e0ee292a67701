"""The search for a program of which a check does not hold; Hypothesis shrinks it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import hypothesis
import hypothesis.errors
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st

from tests.fuzz.checks import CHECKS, COMPOSITES, Case, run
from tests.fuzz.programs import FIRST, code, programs, steps_of
from tests.fuzz.vocabulary import Operation

UNWATCHED = (
    HealthCheck.too_slow,
    HealthCheck.filter_too_much,
    HealthCheck.data_too_large,
    HealthCheck.large_base_example,
)
"""A program takes seconds, and those that overflow are left out."""


class Failed(AssertionError):
    """A program of which a check does not hold, as code."""


def shown(check: str, case: Case, seed: int) -> str:
    """A failing case as code that runs, with what finds it again."""
    return "\n".join(
        [
            f"check {check!r}, seed {seed}; composite {case.composite}, "
            f"inputs Case(..., seed={case.seed}).inputs",
            f"python -m tests.fuzz --check {check!r} --seed {seed}",
            "",
            FIRST,
            "",
            code(case.program),
            code(case.program, "other", also=True),
            f"program = {case.program!r}",
        ]
    )


def cases(
    operations: Mapping[str, Operation], size: int, bodies: bool
) -> st.SearchStrategy[Case]:
    """Programs with their inputs and a composite."""
    drawn = programs(operations, size)
    if bodies:
        drawn = drawn.filter(lambda p: any(s.body for s in steps_of(p)))
    return st.builds(Case, drawn, st.sampled_from(list(COMPOSITES)), st.integers(0, 99))


def search(
    check: str,
    seed: int,
    count: int,
    size: int = 8,
    operations: Mapping[str, Operation] | None = None,
    found: Callable[[str], None] | None = None,
) -> None:
    """Runs `count` programs; always the same for a seed.

    Args:
      check: one of `CHECKS`.
      seed: of the programs.
      count: how many.
      size: how many operations, beside those in bodies.
      operations: those of the check, if not given.
      found: told of the first program that fails, before it is shrunk.

    Raises:
      Failed: with the smallest program that was found, as code.
    """
    chosen = CHECKS[check]
    given = cases(operations or chosen.operations, size, chosen.bodies)
    smallest: list[Case] = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        derandomize=False,
        print_blob=False,
        report_multiple_bugs=False,
        suppress_health_check=UNWATCHED,
        phases=[Phase.generate, Phase.shrink],
    )
    @hypothesis.given(given)
    def every(case: Case) -> None:
        try:
            run(check, case)
        except hypothesis.errors.UnsatisfiedAssumption:
            raise
        except Exception:
            if not smallest and found is not None:
                found(shown(check, case, seed))
            smallest[:] = [case]
            raise

    try:
        every()
    except hypothesis.errors.Unsatisfiable:
        return
    except Exception as error:
        if not smallest:
            raise
        raise Failed(f"{error}\n\n{shown(check, smallest[0], seed)}") from error
