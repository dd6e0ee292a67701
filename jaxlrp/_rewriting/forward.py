"""A program evaluated as it is, with edits at named values and operands.

No rule is in it, and its derivative is JAX's own. An edit sees the value, what it is
given, and a memory that passes from edit to edit in the order in which they run; it
returns the value that the program goes on with, a record, and the memory. Records of
edits in a loop come back stacked, as what these are given is scanned over.

Only what an edit lies in is taken apart: other loops, branches and calls are run as
they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Literal

from jaxlrp import _compat
from jaxlrp._operations import own_settings
from jaxlrp._program.bodies import bodies_of
from jaxlrp._program.program import Equation
from jaxlrp._reading.steps import Reading, Step
from jaxlrp._rewriting.environment import as_arrays, bind

Edit = Callable[[int, Array, Any, Any], tuple[Array, Any, Any]]
"""`edit(number, value, given, memory)` returns `(value, record, memory)`."""


@dataclasses.dataclass(frozen=True)
class Edits:
    """What is done at the named values of a program, and of the bodies in it.

    Attributes:
      edit: the function that is called there.
      numbers: the number of each address, as for `environment.Visits`; or one that ends
        in `(equation, position)` instead of a value, for what this equation alone reads
        there.
      given: what an edit is given, by number: arrays with a leading axis for each loop
        around its value that has not been entered yet.
    """

    edit: Edit
    numbers: Mapping[tuple[Any, ...], int]
    given: Mapping[int, Any]

    def inside(self, step: Step, body: int) -> Edits:
        """Those in a body of `step`."""
        numbers = {
            address[2:]: n
            for address, n in self.numbers.items()
            if address[0] is step and address[1] == body
        }
        return Edits(self.edit, numbers, {n: self.given[n] for n in numbers.values()})

    def touches(self, step: Step) -> bool:
        """Is there one in some body of `step`?"""
        return any(address[0] is step for address in self.numbers)


Records = dict[int, Any]


@own_settings()
def forward(
    reading: Reading, inputs: Sequence[Any], edits: Edits, memory: Any = ()
) -> tuple[list[Array], Records, Any]:
    """Evaluates a program with edits.

    Args:
      reading: the program, read.
      inputs: its inputs.
      edits: what is done where. None may lie in a `while` loop or a `shard_map`.
      memory: what the first edit is given.

    Returns:
      The outputs, the records by number, and the memory after the last edit.
    """
    outs, records, memory = _evaluate(reading, inputs, edits, memory)
    return as_arrays(reading.program.outputs, outs), records, memory


def _evaluate(
    reading: Reading, inputs: Sequence[Any], edits: Edits, memory: Any
) -> tuple[list[Any], Records, Any]:
    program = reading.program
    values = dict(zip(program.inputs, inputs, strict=True)) | dict(program.constants)
    within = {s.main: s for s in reading.steps if s.bodies and edits.touches(s)}
    records: Records = {}
    own = {a[0][0] for a in edits.numbers if len(a) == 1 and isinstance(a[0], tuple)}

    def read(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    def edited(place: Any, y: Any) -> Any:
        nonlocal memory
        number = edits.numbers.get((place,))
        if number is None:
            return y
        y, records[number], memory = edits.edit(number, y, edits.given[number], memory)
        return y

    for equation in program.equations:
        scope = program.inner_scope(equation)
        with _compat.equation_context(equation.source, equation.context, scope):
            step = within.get(equation)
            if equation in own:
                operands = iter(
                    [
                        edited((equation, i), read(v))
                        for i, v in enumerate(equation.inputs)
                    ]
                )
                results = bind(equation, lambda _, given=operands: next(given))
            elif step is None:
                results = bind(equation, read)
            else:
                flow = _BY_FLOW[bodies_of(equation).flow]
                operands = [read(v) for v in equation.inputs]
                results, found, memory = flow(step, equation, operands, edits, memory)
                records |= found
            for v, y in zip(equation.outputs, results, strict=True):
                values[v] = edited(v, y)
    return [read(v) for v in program.outputs], records, memory


def _scan(
    step: Step, equation: Equation, operands: list[Any], edits: Edits, memory: Any
) -> tuple[list[Any], Records, Any]:
    (reading,) = step.bodies
    params = dict(equation.params)
    consts, carries = _compat.scan_split(params)
    split = consts + carries
    inside = edits.inside(step, 0)

    def body(carry: Any, x: Any) -> Any:
        (values, memory), (xs, given) = carry, x
        here = dataclasses.replace(inside, given=given)
        outs, records, memory = _evaluate(
            reading, [*operands[:consts], *values, *xs], here, memory
        )
        outs = as_arrays(reading.program.outputs, outs)
        return (outs[:carries], memory), (outs[carries:], records)

    (values, memory), (ys, records) = lax.scan(
        body,
        (operands[consts:split], memory),
        (operands[split:], inside.given),
        **_compat.scan_options(params),
    )
    return [*values, *ys], records, memory


def _cond(
    step: Step, equation: Equation, operands: list[Any], edits: Edits, memory: Any
) -> tuple[list[Any], Records, Any]:
    """Of a branch that is not taken the records are zero."""
    index, *rest = operands
    insides = [edits.inside(step, i) for i in range(len(step.bodies))]

    def plain(number: int, operands: Any, memory: Any) -> Any:
        reading = step.bodies[number]
        outs, records, memory = _evaluate(reading, operands, insides[number], memory)
        return as_arrays(reading.program.outputs, outs), records, memory

    shapes = [
        jax.eval_shape(lambda o, m, i=i: plain(i, o, m)[1], rest, memory)
        for i in range(len(step.bodies))
    ]
    nothing = {
        number: jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), of_record)
        for of_branch in shapes
        for number, of_record in of_branch.items()
    }

    def branch(number: int) -> Callable[..., Any]:
        def run(operands: Any, memory: Any) -> Any:
            outs, records, memory = plain(number, operands, memory)
            return outs, nothing | records, memory

        return run

    branches = [branch(i) for i in range(len(step.bodies))]
    return lax.switch(index, branches, rest, memory)


def _checkpoint(
    step: Step, equation: Equation, operands: list[Any], edits: Edits, memory: Any
) -> tuple[list[Any], Records, Any]:
    (reading,) = step.bodies
    inside = edits.inside(step, 0)

    def body(operands: Any, given: Any, memory: Any) -> Any:
        here = dataclasses.replace(inside, given=given)
        outs, records, memory = _evaluate(reading, operands, here, memory)
        return as_arrays(reading.program.outputs, outs), records, memory

    again = jax.checkpoint(body, **_compat.remat_options(equation.params))
    return again(operands, inside.given, memory)


def _call(
    step: Step, equation: Equation, operands: list[Any], edits: Edits, memory: Any
) -> tuple[list[Any], Records, Any]:
    (reading,) = step.bodies
    return _evaluate(reading, operands, edits.inside(step, 0), memory)


_BY_FLOW: Mapping[str, Callable[..., tuple[list[Any], Records, Any]]] = {
    "branch": _cond,
    "scan": _scan,
    "checkpoint": _checkpoint,
    "call": _call,
}
"""What control flow becomes, by its kind."""
