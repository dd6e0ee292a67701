"""What positions contribute, beside what stands there (PA-LRP)."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _trace
from jaxlrp._lrp import lrp
from jaxlrp._operations import own_settings
from jaxlrp._program.program import Value
from jaxlrp._reading.facts import is_symbol
from jaxlrp._rewriting.backward import Traced
from jaxlrp._rewriting.forward import Edits, forward
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums
from jaxlrp._warn import warn
from jaxlrp.attribution import _encodings
from jaxlrp.attribution._again import keep_signature, leaves
from jaxlrp.attribution._encodings import Encoding
from jaxlrp.composites import Composite, Proportional
from jaxlrp.errors import PositionsWarning

__all__ = ["positional"]

P = ParamSpec("P")


def positional(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    axis: int | Sequence[int] | None = None,
    only: str | Sequence[str] = "*",
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """Relevance of what stands at each position, and of the positions themselves.

    A transformer is told positions by constants: a learned table, sinusoids, the sines
    and cosines of a rotation (RoPE), a bias of attention by distance (ALiBi, T5). In
    `jaxlrp.lrp` they keep their relevance as biases do. Here they are attributed like
    an input,

        R_p = p c_p,    sum R_tokens + sum R_positions = score - biases,

    under the composite's rules: what is added shares as sums do, and what multiplies,
    as the cosine of a rotation, takes a factor's part, half under the default, from the
    tokens.

    They are found in the program, whatever they are called: constants that are not the
    same at all positions and meet, in a sum, a product, a quotient or a contraction
    along positions, a value that has the position's axis. Masks are none, made of what
    is true or false, nor are convolutions, recurrences and causality itself, by which a
    network may know positions as well. A constant that is made of the tokens is none
    either.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `jaxlrp.lrp`. A rule that holds attention's weights leaves
        nothing to rotations and biases of attention.
      axis: of the attributed array, the axis or axes of positions. By default the last
        one of integers, and of floating-point arrays the last but one, or the only one.
      only: names, or globs for names, of the encodings that are attributed; the others
        are constants. All that there are by default.
      argnums: as for `jaxlrp.lrp`.
      target: as for `jaxlrp.lrp`.
      has_aux: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments that returns `(tokens, positions)`: the first as
      `jaxlrp.lrp(f)` does, the second a dict from the name of each encoding to its
      relevance by position, of shape (positions,). A name is a parameter's path, else
      `"cos"`, `"sin"` or `"positions"`, numbered where it is not alone. What depends on
      two positions, as a bias by distance, is shared between them by halves. Relevance
      is summed over all other axes, over loops, and over a batch in `x`: map over
      examples with `jax.vmap` to tell them apart. With `has_aux` it returns
      `((tokens, positions), aux)`.

    Raises:
      TypeError: as `jaxlrp.lrp`, and for an axis that is no int.
      ValueError: as `jaxlrp.lrp`; where no encoding is found or is named; for an axis
        that is none; and for an encoding that cannot be attributed where it stands.

    Warns:
      PositionsWarning: where positions could not be followed, and where something that
        was counted, as a table of relative positions, is used in a way that is not
        read: what it contributes is in neither result.

    Source: Bakish, Zimerman, Chefer, Wolf 2025, "Revisiting LRP: positional attribution
    as the missing ingredient for transformer explainability" (PA-LRP).

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> params = {"embed": jnp.ones((2, 1)), "place": jnp.array([[0.0], [2.0]])}
      >>> f = lambda params, ids: (params["embed"][ids] + params["place"]).sum(0)
      >>> tokens, positions = attribution.positional(f)(params, jnp.array([1, 0]))
      >>> tokens.tolist(), {name: r.tolist() for name, r in positions.items()}
      ([1.0, 1.0], {'place': [0.0, 2.0]})
    """
    rules = _trace.checked(f, composite, argnums, target, has_aux)
    patterns: Any = only if isinstance(only, tuple | list) else (only,)
    if not patterns or not all(isinstance(p, str) for p in patterns):
        raise TypeError(f"only: got {only!r}, expected names or patterns of names")
    places = _checked_axis(axis)

    def explained(*args: P.args, **kwargs: P.kwargs) -> Any:
        numbers = _trace.from_front(argnums, len(args))
        traced = _trace.trace(
            f,
            args,
            kwargs,
            Proportional(),
            numbers,
            has_aux,
            strict=False,
            keep_calls=False,
            by_scope=True,
        )
        chosen, masks = _chosen(traced, places, patterns)
        given = _values(traced, chosen)
        several = isinstance(numbers, tuple | list)
        own: tuple[int, ...] = _trace.numbers(numbers)
        again = _with_positions(f, traced, chosen, masks, has_aux)
        explain = lrp(
            again,
            rules,
            argnums=(*own, len(args)),
            target=target,
            has_aux=has_aux,
        )
        found = explain(*args, given, **kwargs)
        found, aux = found if has_aux else (found, None)
        *tokens, positions = found
        by_name = {e.name: _by_position(e, positions[e.name]) for e in chosen}
        both = tuple(tokens) if several else tokens[0], by_name
        return (both, aux) if has_aux else both

    returns = "`(tokens, positions)`: relevance of the attributed argument, and a dict."
    return _trace.wraps(f, "attribution.positional", returns)(explained)


def _checked_axis(axis: Any) -> tuple[int, ...] | None:
    if axis is None:
        return None
    several = axis if isinstance(axis, tuple | list) else (axis,)
    whole = (
        isinstance(a, int | np.integer) and not isinstance(a, bool) for a in several
    )
    if not several or not all(whole):
        raise TypeError(f"axis: got {axis!r}, expected an int or a sequence of ints")
    return tuple(int(a) for a in several)


# ---- what is found -----------------------------------------------------------------


def _chosen(
    traced: Traced, axis: tuple[int, ...] | None, patterns: Sequence[str]
) -> tuple[list[Encoding], tuple[Any, ...]]:
    """The encodings that are attributed, and the addresses of masks."""
    program = traced.reading.program
    axes = [frozenset[int]()] * len(program.inputs)
    for i in traced.attributed:
        axes[i] = _positions_of(program.inputs[i], axis)
    found = _encodings.find(traced.reading, axes)
    for what in found.lost:
        warn(
            f"positions could not be followed through {what}: encodings behind it are "
            f"not attributed",
            PositionsWarning,
        )
    for line in found.unread:
        warn(
            f"at {line} a value is multiplied with what is made of counted numbers, "
            f"perhaps a table of relative positions: it is not read as an encoding, "
            f"and not attributed",
            PositionsWarning,
        )
    names = [e.name for e in found.encodings]
    if not names:
        raise ValueError(
            "f: no encoding of positions was found, no constant that differs from "
            "position to position and meets a value there. Masks, convolutions, "
            "recurrences and a constant made of the tokens are none; see axis"
        )
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise ValueError(
                f"only: got {pattern!r}, expected the name of an encoding, one of "
                f"{', '.join(map(repr, names))}"
            )
    chosen = [
        e
        for e in found.encodings
        if any(fnmatch.fnmatchcase(e.name, p) for p in patterns)
    ]
    return chosen, found.masks


def _positions_of(value: Value, axis: tuple[int, ...] | None) -> frozenset[int]:
    """The axes of positions of an attributed input."""
    count = len(value.aval.shape)
    if axis is None:
        last = 1 if is_symbol(value.aval) or count < 2 else 2
        return frozenset({count - last} if count else ())
    wrong = [a for a in axis if not -count <= a < count]
    if wrong:
        raise ValueError(
            f"axis: got {wrong[0]}, expected one in [{-count}, {count}), an axis of "
            f"the attributed array, of shape {value.aval.shape}"
        )
    return frozenset(a % count for a in axis)


# ---- the function with positions as an argument ------------------------------------


def _inside(chosen: Sequence[Encoding], traced: Traced) -> dict[int, Encoding]:
    """Those that equations make, by number; the others are inputs or constants."""
    program = traced.reading.program
    outer = {*program.inputs, *(v for v, _ in program.constants)}
    return {i: e for i, e in enumerate(chosen) if e.address[-1] not in outer}


def _values(traced: Traced, chosen: Sequence[Encoding]) -> dict[str, Array]:
    """The values of encodings, zero where they are infinite, as masks are."""
    program = traced.reading.program
    inside = _inside(chosen, traced)
    numbers = {e.address: i for i, e in inside.items()}

    def record(number: int, x: Array, given: Any, memory: Any) -> Any:
        return x, x, memory

    edits = Edits(record, numbers, {i: () for i in inside})
    _, records, _ = forward(traced.reading, traced.inputs, edits)
    known = dict(zip(program.inputs, traced.inputs, strict=True))
    known |= dict(program.constants)
    found = {}
    for i, one in enumerate(chosen):
        x = records[i] if i in inside else jnp.asarray(known[one.address[-1]])
        found[one.name] = jnp.where(jnp.isfinite(x), x, 0)
    return found


def _with_positions(
    f: Callable[..., Any],
    traced: Traced,
    chosen: Sequence[Encoding],
    masks: Sequence[Any],
    has_aux: bool,
) -> Callable[..., Any]:
    """`f` with one more argument, the values of encodings by name."""
    reading, program = traced.reading, traced.reading.program
    inside = _inside(chosen, traced)
    numbers = {e.address: i for i, e in inside.items()}
    numbers |= {a: -1 - i for i, a in enumerate(masks) if a not in numbers}
    constants = dict(program.constants)

    def edit(number: int, x: Array, given: Any, memory: Any) -> Any:
        # Of a mask nothing is attributed, but a sum with it must be finite.
        return (_bounded(x) if number < 0 else _mixed(x, given)), (), memory

    @own_settings()
    def again(*args: Any, **kwargs: Any) -> Any:
        given = args[-1]
        inputs = leaves(traced, args[:-1], kwargs)
        known = dict(constants)
        for i, one in enumerate(chosen):
            if i in inside:
                continue
            v = one.address[-1]
            if v in known:
                known[v] = _mixed(known[v], given[one.name])
            else:
                place = program.inputs.index(v)
                inputs[place] = _mixed(inputs[place], given[one.name])
        here = _with_constants(reading, known)
        new = {n: () if n < 0 else given[chosen[n].name] for n in numbers.values()}
        edits = Edits(edit, numbers, new)
        outs, _, _ = forward(here, inputs, edits)
        out = jax.tree.unflatten(traced.out_tree, outs[: traced.n_out])
        return (out, traced.restore_aux(outs[traced.n_out :])) if has_aux else out

    keep_signature(again, f)
    return again


def _with_constants(reading: Any, known: Any) -> Any:
    constants = tuple((v, known[v]) for v, _ in reading.program.constants)
    program = dataclasses.replace(reading.program, constants=constants)
    return dataclasses.replace(reading, program=program)


def _mixed(x: Array, given: Array) -> Array:
    """What is given; but where the program's own value is infinite, as a mask's is."""
    return jnp.where(jnp.isfinite(x), given, _bounded(x))


def _bounded(x: Array) -> Array:
    """Not infinite: rules that compare the parts of a sum divide by it."""
    if jnp.iscomplexobj(x):
        return x
    largest = jnp.finfo(x.dtype).max / 4
    return jnp.clip(x, -largest, largest)


def _by_position(one: Encoding, relevance: Array) -> Array:
    """Relevance summed to one axis of positions."""
    loops = len(one.lengths)
    axes = [loops + a for a in one.axes]
    rest = tuple(i for i in range(relevance.ndim) if i not in axes)
    found = relevance.sum(rest)
    if found.ndim < 2:
        return found
    size = max(found.shape)
    sides = [i for i, n in enumerate(found.shape) if n == size]
    shares = [found.sum(tuple(j for j in range(found.ndim) if j != i)) for i in sides]
    return jnp.stack(shares).mean(0)
