"""What a user should know about a program, found by its structure.

Normalisers with the statistics of a batch, random numbers that meet what is explained,
a softmax or sigmoid at the output, an output without an axis of classes. `jaxlrp.check`
and `jaxlrp.plan` tell of all of them, `jaxlrp.lrp` warns of those that are certain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax.extend.core import jaxprs_in_params

from jaxlrp import _compat
from jaxlrp._program.axes import axes_of, shape_of
from jaxlrp._program.bodies import bodies_of
from jaxlrp._program.opaque import is_elementwise
from jaxlrp._program.program import Equation, Program, Value, aval_of, flatten
from jaxlrp._reading.facts import facts_of, is_real
from jaxlrp._reading.steps import Reading, Step
from jaxlrp.primitives import Kind, lookup

Notes = Iterator[tuple[str, str]]
"""Kinds of what was found, and messages."""


def found(reading: Reading, attributed: Sequence[int], n_out: int) -> Notes:
    """All that a user may want to know of a program, certain or not.

    Args:
      reading: the program, read.
      attributed: which of its inputs are attributed.
      n_out: how many of its outputs are explained; the rest is auxiliary.

    Returns:
      What was found, by kind.
    """
    lines = list(_with_batch_statistics(reading, batch_of(reading, attributed, n_out)))
    if lines:
        yield "batch statistics", batch_statistics(lines)
    lines = [line for line, _ in _with_random_numbers(reading, {})]
    if lines:
        yield (
            "random numbers",
            f"{_places(lines)} random numbers meet what is explained, as by dropout in "
            f"training. Evaluate the network without",
        )
    for atom in reading.program.outputs[:n_out]:
        head = _head(atom, reading)
        if head is not None:
            yield "probabilities", probabilities(head[0])
            return


def batch_statistics(lines: Sequence[str]) -> str:
    """What is said of normalisers at these lines."""
    return (
        f"{_places(lines)} a normaliser takes its statistics over the batch, as in "
        f"training: each explanation depends on the other examples. Evaluate the "
        f"network with its stored statistics"
    )


def probabilities(head: str) -> str:
    """What is said of an output that is such a head's."""
    return (
        f"the output is that of {head}: a probability is explained, and with "
        f"it what speaks for other classes. Explain the scores before it"
    )


# ---- what is certain ---------------------------------------------------------------


def with_running_statistics(
    reading: Reading, jaxpr: Any, attributed: Sequence[int], n_out: int
) -> list[str]:
    """The lines of normalisers over the batch, if running statistics are kept of them.

    That is what training mode does: a statistic is averaged with a stored one, and what
    is explained does not depend on the result. `jaxpr` still has what nobody reads.
    """
    batch = batch_of(reading, attributed, n_out)
    lines = list(_with_batch_statistics(reading, batch))
    if not lines or batch is None:
        return []
    program = flatten(jaxpr, keep_calls=False, live=False)
    return lines if _keeps_statistics(program, batch, attributed, n_out) else []


def _keeps_statistics(
    program: Program, batch: int, attributed: Sequence[int], n_out: int
) -> bool:
    """Is a statistic of the batch averaged with a value that is no input's?"""
    explained = _ancestors(program, program.outputs[:n_out])
    active = {program.inputs[i] for i in attributed}
    statistics: set[Value] = set()
    for equation in program.equations:
        values = [v for v in equation.inputs if isinstance(v, Value)]
        own = [v for v in values if v in active]
        if not own:
            continue
        active.update(equation.outputs)
        of_batch = _reduces_batch(equation, batch)
        if of_batch or all(v in statistics for v in own):
            statistics.update(equation.outputs)
        averages = equation.primitive.name in ("add", "sub") and not of_batch
        stored = [v for v in values if v not in active]
        if (
            averages
            and own[0] in statistics
            and stored
            and shape_of(stored[0]) == shape_of(own[0]) != ()
            and explained.isdisjoint(equation.outputs)
            and not explained.isdisjoint(statistics)
        ):
            return True
    return False


def _reduces_batch(equation: Equation, batch: int) -> bool:
    axes = _compat.reduced_axes(equation.params)
    if axes is None or not equation.primitive.name.startswith("reduce_"):
        return False
    return 0 in axes and aval_of(equation.inputs[0]).shape[0] == batch


def _ancestors(program: Program, outputs: Sequence[Any]) -> set[Value]:
    """The values that some outputs depend on."""
    needed = {v for v in outputs if isinstance(v, Value)}
    for equation in reversed(program.equations):
        if not needed.isdisjoint(equation.outputs):
            needed.update(v for v in equation.inputs if isinstance(v, Value))
    return needed


def with_dropout(reading: Reading) -> list[str]:
    """The lines where what is explained is scaled or chosen by a random mask."""
    return [line for line, masks in _with_random_numbers(reading, {}) if masks]


def dropout(lines: Sequence[str]) -> str:
    """What is said of dropout at these lines."""
    return (
        f"{_places(lines)} a random mask scales what is explained, as dropout does in "
        f"training: the next call explains another network. Evaluate it without"
    )


def heads(reading: Reading, explained: Sequence[bool], whole: bool) -> list[str]:
    """The softmaxes and sigmoids behind layers that explained outputs end in.

    Where an output is explained as a `whole`, sigmoids of several values for each
    example are no probabilities of classes, but what a decoder draws.
    """
    found = []
    for atom, wanted in zip(reading.program.outputs, explained, strict=False):
        head = _head(atom, reading) if wanted else None
        if head is None or not head[1]:
            continue
        shape = shape_of(atom)
        if whole and "sigmoid" in head[0] and len(shape) > 1 and shape[-1] != 1:
            continue
        found.append(head[0])
    return found


def has_independent_rows(reading: Reading, output: Any, attributed: int) -> bool:
    """Is it certain that the output's rows are those of the input, one by one?

    Each value on the way has an axis of the rows, and nothing mixes them.
    """
    value = reading.program.inputs[attributed]
    if not isinstance(output, Value):
        return False
    axes = _rows(reading, {value: 0})
    return axes.get(output) == 0


def _rows(reading: Reading, given: Mapping[Value, int]) -> dict[Value, int | None]:
    """The axis of the rows of each value that carries relevance, None if not known."""
    rows: dict[Value, int | None] = dict(given)
    for step in reading.steps:
        for equation in step.equations:
            if any(map(reading.carries, equation.inputs)):
                found = _rows_after(equation, step, rows, reading)
                rows.update(zip(equation.outputs, found, strict=True))
    return rows


def _rows_after(
    equation: Equation,
    step: Step,
    rows: Mapping[Value, int | None],
    reading: Reading,
) -> list[int | None]:
    """The axes of the rows of an equation's results."""
    unknown: list[int | None] = [None] * len(equation.outputs)
    if equation.primitive.name in _MIX:
        return unknown
    if step.bodies:
        how = bodies_of(step.main)
        if how.flow not in ("call", "checkpoint") or len(step.bodies) != 1:
            return unknown
        (body,) = step.bodies
        pairs = zip(body.program.inputs, equation.inputs[how.given], strict=True)
        inside = {v: rows.get(w) for v, w in pairs if isinstance(w, Value)}
        known = _rows(body, {v: axis for v, axis in inside.items() if axis is not None})
        ends = body.program.outputs
        return [known.get(v) if isinstance(v, Value) else None for v in ends]
    axes = set()
    for position, v in enumerate(equation.inputs):
        if isinstance(v, Value) and reading.carries(v):
            axes.add(_moved(equation, position, rows.get(v)))
    axis = axes.pop() if len(axes) == 1 else None
    return [axis for _ in equation.outputs]


_MIX = (
    *("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "sort", "rev", "pad"),
    *("scatter", "scatter-add", "scatter_add"),
)
"""What keeps axes, but may not keep their places."""


def _moved(equation: Equation, position: int, axis: int | None) -> int | None:
    """An axis of an operand as one of the result, where it is a whole one."""
    if axis is None:
        return None
    size = shape_of(equation.inputs[position])[axis]
    moved = _axes(equation, position)
    outs = [o for o, a in moved.items() if a == axis]
    if len(outs) != 1 or shape_of(equation.outputs[0])[outs[0]] != size:
        return None
    return outs[0]


def _axes(equation: Equation, position: int) -> dict[int, int]:
    body = _body_of(equation)
    if body is not None and is_elementwise(body):
        before, after = equation.inputs[position], equation.outputs[0]
        same = shape_of(before) == shape_of(after)
        return {i: i for i in range(len(shape_of(before)))} if same else {}
    entry, ndims = lookup(equation.primitive), tuple(map(_ndim, equation.inputs))
    windows = _compat.window_sizes(equation.params)
    reduced = _compat.reduced_axes(equation.params)
    if windows is not None and len(windows) == ndims[position]:
        return {i: i for i, size in enumerate(windows) if size == 1}
    if reduced is not None and equation.primitive.name.startswith("reduce_"):
        kept = [i for i in range(ndims[position]) if i not in reduced]
        return dict(enumerate(kept))
    if entry is not None and entry.kind is Kind.CONTRACTION and position == 0:
        # Of a convolution the examples are all that is known.
        own = entry.kernel_axes
        return {} if own is None else own(equation.params, 0, ndims)
    return axes_of(equation, position) or {}


def _ndim(atom: Any) -> int:
    return len(shape_of(atom))


# ---- batches -----------------------------------------------------------------------


def batch_of(reading: Reading, attributed: Sequence[int], n_out: int) -> int | None:
    """How many examples there are, if inputs and outputs seem to have an axis of them.

    The first axis of an attributed input of several axes is one if the outputs have it.
    """
    program = reading.program
    inputs = [program.inputs[i].aval.shape for i in attributed]
    outputs = [v.aval.shape for v in floats(program, n_out)]
    for shape in inputs:
        if len(shape) > 1 and outputs and all(o[:1] == shape[:1] for o in outputs):
            return shape[0]
    return None


def floats(program: Program, count: int) -> list[Any]:
    """Those of the first outputs that are floating-point."""
    return [v for v in program.outputs[:count] if is_real(v.aval)]


def _places(lines: Sequence[str]) -> str:
    different = list(dict.fromkeys(lines))
    more = f" and {len(different) - 1} more lines" if len(different) > 1 else ""
    return f"at {different[0]}{more}"


def _with_batch_statistics(reading: Reading, batch: int | None) -> Iterator[str]:
    """The lines of the normalisers whose statistics are of all examples."""
    if batch is None:
        return
    producer = {v: e for e in reading.program.equations for v in e.outputs}
    for step in reading.steps:
        for body in step.bodies:
            yield from _with_batch_statistics(body, batch)
        if step.role != "normaliser":
            continue
        inside = [v for e in step.equations for v in e.outputs] if step.path else []
        held = [step.main.inputs[i] for i in step.held]
        if any(_is_of_batch(v, batch, producer, reading) for v in [*held, *inside]):
            yield _where(step.main)


def _where(equation: Equation) -> str:
    """The line, and the scopes around it: the line may be a library's."""
    scope = f" in {equation.scope}" if equation.scope else ""
    return equation.line + scope


def _is_of_batch(
    value: Any, batch: int, producer: dict[Value, Equation], reading: Reading
) -> bool:
    """Is a statistic made by a reduction over the batch's axis?"""
    waiting, seen = [value], set()
    while waiting:
        v = waiting.pop()
        equation = producer.get(v) if isinstance(v, Value) else None
        if equation is None or v in seen or not reading.carries(v):
            continue
        seen.add(v)
        entry = lookup(equation.primitive)
        if entry is not None and entry.kind is Kind.CONTRACTION:
            continue
        axes = _compat.reduced_axes(equation.params)
        if axes is None or not equation.primitive.name.startswith("reduce_"):
            waiting += equation.inputs
        elif 0 in axes and aval_of(equation.inputs[0]).shape[0] == batch:
            return True
    return False


# ---- random numbers ----------------------------------------------------------------

_RANDOM = ("random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform")
"""The primitives that random numbers come from."""

_TO_MASK = ("eq", "ne", "lt", "le", "gt", "ge", "floor", "ceil", "round")
"""What makes a mask of random numbers."""


def _is_random(primitive: Any, params: Any) -> bool:
    return primitive.name in _RANDOM or any(
        _is_random(eqn.primitive, eqn.params)
        for body in jaxprs_in_params(params)
        for eqn in body.eqns
    )


def _with_random_numbers(
    reading: Reading, given: Mapping[Value, bool]
) -> Iterator[tuple[str, bool]]:
    """The lines where random numbers meet active values, and are they masks?

    `given` are the inputs that are made of random numbers.
    """
    random = dict(given)
    for step in reading.steps:
        for equation in step.equations:
            values = [v for v in equation.inputs if isinstance(v, Value)]
            meets = [random[v] for v in values if v in random]
            active = any(map(reading.carries, equation.inputs))
            if step.bodies:
                yield from _random_inside(step, random)
            elif meets and active and _by_elements(equation):
                yield _where(equation), any(meets) and _scales(equation)
            if meets or _is_random(equation.primitive, equation.params):
                is_mask = bool(meets) and (
                    equation.primitive.name in _TO_MASK or all(meets)
                )
                quiet = (v for v in equation.outputs if not reading.carries(v))
                random.update(dict.fromkeys(quiet, is_mask))


def _scales(equation: Equation) -> bool:
    """Is it a product, a quotient, or a choice?"""
    entry = lookup(equation.primitive)
    return equation.primitive.name in ("mul", "div", "select_n") or (
        entry is not None and entry.kind is Kind.SELECTION
    )


def _by_elements(equation: Equation) -> bool:
    entry = lookup(equation.primitive)
    return entry is not None and entry.kind in (Kind.ELEMENTWISE, Kind.SELECTION)


def _random_inside(
    step: Step, random: Mapping[Value, bool]
) -> Iterator[tuple[str, bool]]:
    given = step.main.inputs[bodies_of(step.main).given]
    for body in step.bodies:
        pairs = zip(body.program.inputs, given, strict=True)
        inside = {
            v: random[w] for v, w in pairs if isinstance(w, Value) and w in random
        }
        yield from _with_random_numbers(body, inside)


# ---- heads -------------------------------------------------------------------------


def _head(atom: Any, reading: Reading) -> tuple[str, bool] | None:
    """The softmax or sigmoid that an output ends in; does a layer precede it?"""
    made_by = {v: s for s in reading.steps for v in s.outputs}
    while isinstance(atom, Value) and atom in made_by:
        step = made_by[atom]
        last = _last_primitive(step.equations[-1])
        where = _where(step.main)
        if step.role == "softmax":
            return f"a softmax, at {where}", _is_layered(step, reading)
        if step.role == "activation" and last == "logistic":
            return f"a sigmoid, at {where}", _is_layered(step, reading)
        if step.role == "sum" and last == "sub":  # x - logsumexp(x)
            subtracted = _head(step.main.inputs[1], reading)
            if subtracted is None or "softmax" not in subtracted[0]:
                return None
            return f"a log-softmax, at {where}", subtracted[1]
        if step.role == "call" and step.bodies:
            (reading,) = step.bodies
            atom = reading.program.outputs[step.outputs.index(atom)]
            made_by = {v: s for s in reading.steps for v in s.outputs}
            continue
        passes = step.role in ("structural", "shift") or last == "log"
        if not passes or len(step.signals) != 1:
            return None
        (atom,) = step.signals
    return None


def _is_layered(step: Step, reading: Reading) -> bool:
    return any(facts_of(v, reading.facts).layered for v in step.signals)


def _last_primitive(equation: Equation) -> str:
    """The name of what gives its result, in the body of a call too."""
    body = _body_of(equation)
    if body is None:
        return equation.primitive.name
    eqns = _compat.open_jaxpr(body)[0].eqns
    return eqns[-1].primitive.name if eqns else ""


def _body_of(equation: Equation) -> Any:
    """The jaxpr that a call runs; what a `custom_lrp` function calls is none."""
    entry = lookup(equation.primitive)
    if entry is not None and entry.kind is Kind.CUSTOM:
        return None
    return _compat.called_jaxpr(dict(equation.params))
