"""Programs as data, as code, and as a strategy of Hypothesis."""

from __future__ import annotations

import dataclasses
import linecache
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from hypothesis import strategies as st

from tests.fuzz import names
from tests.fuzz.vocabulary import OPERATIONS, Operation

FIRST = """from tests.fuzz.names import *

jax.config.update("jax_enable_x64", True)"""
EDGE = "{} @ MIX"
"""Around bodies: what they begin and end with has no part outside of them.

A chain behind a layer and the region of an activation end where a loop does.
"""


@dataclasses.dataclass(frozen=True)
class Step:
    """One operation.

    Attributes:
      name: of the operation.
      back: how far back the operands lie; beyond the first value it begins again.
      body: of an operation that takes a function.
    """

    name: str
    back: tuple[int, int] = (0, 0)
    body: tuple[Step, ...] = ()

    @property
    def operation(self) -> Operation:
        return OPERATIONS[self.name]


Program = tuple[Step, ...]


def steps_of(program: Iterable[Step]) -> Iterator[Step]:
    """All steps, those of bodies too."""
    for step in program:
        yield step
        yield from steps_of(step.body)


def code(program: Program, name: str = "f", also: bool = False) -> str:
    """The program as a function `name(x, y)` in Python.

    Args:
      program: what it does.
      name: of the function.
      also: each operation by its other expression, if it has one.
    """
    lines = [f"def {name}(x, y):"]
    last = _write(program, ["x", "y"], lines, 1, "v", also)
    return "\n".join([*lines, f"    return {last} @ HEAD", ""])


def _write(
    program: Sequence[Step],
    values: list[str],
    lines: list[str],
    depth: int,
    prefix: str,
    also: bool,
) -> str:
    """Writes the statements of a body; returns the name of its last value."""
    indent = "    " * depth
    for i, step in enumerate(program):
        a, b = (values[-1 - k % len(values)] for k in step.back)
        operation, target = step.operation, f"{prefix}{i}"
        text = operation.also if also and operation.also else operation.text
        if operation.has_body:
            inner = f"{target}_"
            lines.append(f"{indent}def {inner}f(c, t):")
            lines.append(f"{indent}    {inner} = {EDGE.format('c')}")
            # What has a derivative of its own may not close over what it is taken of.
            first = "c" if "with_" in operation.text else values[0]
            given = [first, "t", inner]
            last = _write(step.body, given, lines, depth + 1, inner, also)
            lines.append(f"{indent}    return {EDGE.format(last)}")
            text = EDGE.format(f"({text})").replace("{f}", f"{inner}f")
        lines.append(f"{indent}{target} = {text.format(a=a, b=b)}")
        values.append(target)
    return values[-1]


def function(source: str, name: str = "f") -> Callable[..., Any]:
    """The function that this code defines; tracebacks show its lines."""
    file = f"<program {hash(source):x}>"
    linecache.cache[file] = (len(source), None, source.splitlines(True), file)
    scope = {n: getattr(names, n) for n in names.__all__}
    exec(compile(source, file, "exec"), scope)  # noqa: S102
    return scope[name]


def programs(
    operations: Mapping[str, Operation], size: int = 8, depth: int = 2
) -> st.SearchStrategy[Program]:
    """Lists of steps; bodies are half as long, and hold bodies `depth` deep."""
    alone = sorted(n for n, o in operations.items() if not o.has_body)
    nested = sorted(n for n, o in operations.items() if o.has_body)
    back = st.tuples(st.integers(0, 4), st.integers(0, 4))
    step = st.builds(Step, st.sampled_from(alone), back)
    if nested and depth:
        body = programs(operations, max(size // 2, 1), depth - 1)
        holder = st.builds(Step, st.sampled_from(nested), back, body)
        step = st.one_of(*[step] * 4, holder)
    return st.lists(step, min_size=1, max_size=size).map(tuple)
