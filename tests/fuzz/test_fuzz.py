"""Two hundred random programs, always the same; `make fuzz` has others."""

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.fuzz import checks
from tests.fuzz.checks import CHECKS, Case, Check
from tests.fuzz.programs import Step, code, function, programs, steps_of
from tests.fuzz.search import Failed, search
from tests.fuzz.vocabulary import CONTROL, OPERATIONS, SIMPLE

SEED = 0
SMALL = 3
"""Operations of a program; a loop is compiled whenever it runs, so few have one."""
COUNTS = {
    "jit": 8, "vmap": 20, "remat": 12, "split": 22, "words": 30, "unrolled": 4,
    "wrapped": 12, "gradient x input": 24, "audit": 8, "linear": 20, "differences": 8,
    "prepare": 10, "each": 12, "all at once": 10,
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_float64():
    with jax.enable_x64(True):
        yield


def test_the_slice_has_two_hundred_programs_and_every_check():
    assert set(COUNTS) == set(CHECKS) and sum(COUNTS.values()) == 200


@pytest.mark.whole
@pytest.mark.parametrize("check", CHECKS)
def test_what_must_hold_holds_of_random_programs(check):
    """On a failure the message has the smallest program, as code, and its seed."""
    # Programs of one seed are alike.
    seed = SEED + list(CHECKS).index(check)
    print(f"seed {seed}")
    chosen = CHECKS[check].operations
    if not CHECKS[check].bodies:
        chosen = {n: o for n, o in chosen.items() if not o.has_body}
    search(check, seed, COUNTS[check], SMALL, chosen)


def test_every_operation_runs_and_is_as_its_other_expression():
    for name, operation in OPERATIONS.items():
        body = (Step("tanh"),) if operation.has_body else ()
        case = Case((Step(name, (1, 0), body),), "Default", 0)
        value = jax.eval_shape(case.f, *case.inputs)
        assert value.shape == (3, 3) and value.dtype == jnp.float64, name
        if operation.also:
            one, other = case.f(*case.inputs), case.other(*case.inputs)
            np.testing.assert_allclose(one, other, 0, 1e-12, err_msg=name)


def test_a_program_is_printed_as_code_that_runs_by_itself():
    program = (Step("scan", (0, 1), (Step("tanh"), Step("dense"))), Step("add", (0, 2)))
    scope: dict = {}
    exec(f"from tests.fuzz.names import *\n{code(program)}", scope)  # noqa: S102
    x, y = Case(program, "Default", 0).inputs
    assert (scope["f"](x, y) == function(code(program))(x, y)).all()


def test_a_failing_program_is_shrunk_and_printed(monkeypatch):
    def no_sine(case):
        assert "sine" not in [s.name for s in steps_of(case.program)]

    few = {name: SIMPLE[name] for name in ("add", "scale", "sine", "tanh")}
    monkeypatch.setitem(checks.CHECKS, "broken", Check(no_sine, few))
    with pytest.raises(Failed) as caught:
        search("broken", 0, 50)
    text = str(caught.value)
    assert "v0 = jnp.sin(y)\n    return v0 @ HEAD" in text
    assert "--check 'broken' --seed 0" in text
    assert "from tests.fuzz.names import *" in text


def test_programs_nest_and_have_many_operations():
    sizes = []

    @hypothesis.settings(max_examples=60, database=None, derandomize=True)
    @hypothesis.given(programs(OPERATIONS, 30))
    def look(program):
        names = {s.name for s in steps_of(program)}
        sizes.append((len(list(steps_of(program))), bool(names & set(CONTROL))))

    look()
    assert max(n for n, _ in sizes) >= 20 and any(nested for _, nested in sizes)
