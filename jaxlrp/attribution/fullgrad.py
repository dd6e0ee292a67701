"""FullGrad: the relevance of the input, and of each bias where it is added."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import Literal

from jaxlrp import _trace
from jaxlrp._lrp import lrp
from jaxlrp._operations import own_settings
from jaxlrp._program.bodies import bodies_of
from jaxlrp._program.program import Equation
from jaxlrp._reading.facts import facts_of
from jaxlrp._reading.steps import Reading
from jaxlrp._rewriting.backward import Traced
from jaxlrp._rewriting.forward import Edits, forward
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums
from jaxlrp.attribution._again import keep_signature, leaves
from jaxlrp.composites import Composite, Proportional
from jaxlrp.primitives import lookup
from jaxlrp.rules import LRP0

__all__ = ["FullGrad", "fullgrad"]

P = ParamSpec("P")


@dataclasses.dataclass(frozen=True)
class FullGrad:
    """The relevance of an input and of all biases; a pytree.

    Attributes:
      input: the relevance of the attributed argument.
      biases: by name, the relevance of a bias at each place where it is added, of the
        shape of that sum, with an axis in front for each loop that it lies in.
      loops: by name, how many of these axes there are.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> f = lambda b, x: (x * 2.0 + b).sum(keepdims=True)
      >>> found = attribution.fullgrad(f)(jnp.array(0.5), jnp.array([1.0, 3.0]))
      >>> found.total().item(), found.places(0).tolist()
      (9.0, [2.5, 6.5])
    """

    input: Any
    biases: dict[str, Array]
    loops: dict[str, int]

    def total(self) -> Array:
        """The sum of all of it: the score, where the rules lose nothing."""
        return sum(
            (r.sum() for r in jax.tree.leaves((self.input, self.biases))), jnp.zeros(())
        )

    def places(self, axes: int | Sequence[int], *, by: str = "signed") -> Array:
        """One map over places of the input, made of all parts.

        A bias's relevance is summed over all other axes and spread linearly over the
        input's places, so that its sum stays the same; that of a bias without places,
        as of a dense layer, is spread evenly. Under `jax.vmap` use it inside.

        Args:
          axes: those of the input's places, `(0, 1)` for an image `(height, width,
            channels)`. Those of features between are the same axes, behind axes of size
            one; features with another number of axes have no places.
          by: `"signed"` for a map whose sum is `total()`, or `"size"` for that of
            `|R|`, FullGrad+.

        Returns:
          An array over the places.

        Raises:
          TypeError: for an input that is not one array, or axes that are no ints.
          ValueError: for axes that it does not have, or another `by`.

        Examples:
          >>> import jax.numpy as jnp
          >>> from jaxlrp import attribution
          >>> found = attribution.FullGrad(
          ...     jnp.array([[1.0], [-2.0]]), {"b": jnp.array([[3.0]])}, {"b": 0}
          ... )
          >>> found.places(0).tolist(), found.places(0, by="size").tolist()
          ([2.5, -0.5], [2.5, 3.5])
        """
        if by not in ("signed", "size"):
            raise ValueError(f"by: got {by!r}, expected 'signed' or 'size'")
        if not _trace.is_array(self.input):
            raise TypeError(
                f"input: got {jax.tree.structure(self.input)}, expected one array"
            )
        shape = jnp.shape(self.input)
        kept = _checked_axes(axes, shape)
        sizes = [shape[a] for a in kept]
        found = _on_axes(_sized(self.input, by), kept)
        for name, r in self.biases.items():
            loops = self.loops[name]
            r = _sized(r, by).sum(tuple(range(loops)))
            while r.ndim > len(shape) and r.shape[0] == 1:
                r = r[0]  # a batch of one inside
            if r.ndim != len(shape):
                found = found + r.sum() / max(found.size, 1)
                continue
            found = found + _spread(_on_axes(r, kept), sizes)
        return found


jax.tree_util.register_dataclass(FullGrad, ["input", "biases"], ["loops"])


def _checked_axes(axes: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    several = axes if isinstance(axes, tuple | list) else (axes,)
    if not all(isinstance(a, int) and not isinstance(a, bool) for a in several):
        raise TypeError(f"axes: got {axes!r}, expected an int or a sequence of ints")
    wrong = [a for a in several if not -len(shape) <= a < len(shape)]
    if wrong or len({a % len(shape) for a in several}) < len(several):
        raise ValueError(
            f"axes: got {axes!r}, expected different ones of an input of shape {shape}"
        )
    return tuple(a % len(shape) for a in several)


def _sized(r: Array, by: str) -> Array:
    return jnp.abs(r) if by == "size" else r


def _on_axes(r: Array, kept: tuple[int, ...]) -> Array:
    """Summed over all other axes, and in this order."""
    letters = "abcdefghijklmnopqrstuvwxyz"[: r.ndim]
    return jnp.einsum(f"{letters}->{''.join(letters[a] for a in kept)}", r)


def _spread(r: Array, sizes: Sequence[int]) -> Array:
    """Resized linearly along each axis, with the same sum."""
    for axis, size in enumerate(sizes):
        n = r.shape[axis]
        if n == size:
            continue
        ways = jax.image.resize(jnp.eye(n, dtype=r.dtype), (size, n), "linear")
        ways = ways / ways.sum(0)
        r = jnp.moveaxis(jnp.tensordot(ways, r, (1, axis)), 0, axis)
    return r


def fullgrad(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
) -> Callable[P, Any]:
    """The relevance of the input, and of each bias at each place where it is added.

    In `jaxlrp.lrp` biases keep their part of the relevance. Here they are attributed
    like an input, each element of the sum that they are added in by itself,

        score = sum x c_x + sum_layers sum_places b c_b,

    where under LRP-0 `c_b` is the multiplier of the sum. On networks of layers and
    ReLUs this is FullGrad, with gradients for multipliers. Where activations and norms
    are no straight lines gradients lose part of the score, and rules do not:
    composite `None` is LRP-0 for all layers, and `Proportional` elsewhere.
    `found.places((0, 1), by="size")` is FullGrad+, one map for an image.

    Biases are what is added to or subtracted from a value, parameters and numbers: the
    shifts of layers and of norms, class tokens aside, which are put beside others, and
    numbers that a value is subtracted from, as in `1 - gate`. What rules absorb
    elsewhere, `jaxlrp.audit` says, is in no part.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `jaxlrp.lrp`, without rules for first layers: biases are inputs
        here, behind which all layers would be first ones.
      argnums: as for `jaxlrp.lrp`.
      target: as for `jaxlrp.lrp`.
      has_aux: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments that returns a `FullGrad`; with `has_aux` it returns
      `(FullGrad, aux)`. It can be compiled, and mapped over examples. A bias is called
      by its parameter's path, or `"constant"`; equal names are numbered.

    Raises:
      TypeError: as `jaxlrp.lrp`.
      ValueError: as `jaxlrp.lrp`, for a composite with rules for first layers, and for
        a bias in a `while` loop or a `shard_map`, which cannot be told apart there.

    Source: Srinivas, Fleuret 2019, "Full-gradient representation for neural network
    visualization"; Mehri, Baghshah, Pilehvar 2025, "LibraGrad" (FullGrad+).

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import attribution
      >>> w, b = jnp.array([[1.0, -1.0], [2.0, 0.5]]), jnp.array([0.5, 0.0])
      >>> f = lambda params, x: jax.nn.relu(x @ params["w"] + params["b"])
      >>> params = {"w": w, "b": b}
      >>> found = attribution.fullgrad(f)(params, jnp.array([1.0, 2.0]))
      >>> found.input.tolist(), found.biases["b"].tolist()
      ([1.0, 4.0], [0.5, 0.0])
    """
    if composite is None:
        composite = Proportional().on("layer", LRP0()).named("FullGrad")
    rules = _trace.checked(f, composite, argnums, target, has_aux)
    if any(line.first for line in rules.assignments):
        raise ValueError(
            f"composite: got {rules.name}, which has rules for first layers; biases "
            f"are inputs here, behind which all layers are first ones"
        )

    def explained(*args: P.args, **kwargs: P.kwargs) -> Any:
        numbers = _trace.from_front(argnums, len(args))
        traced = _trace.trace(
            f,
            args,
            kwargs,
            rules,
            numbers,
            has_aux,
            keep_calls=False,
            by_scope=True,
        )
        biases = _named(_find(traced.reading, ()))
        given = _values(traced, biases)
        several = isinstance(numbers, tuple | list)
        own: tuple[int, ...] = _trace.numbers(numbers)
        explain = lrp(
            _with_biases(f, traced, biases, has_aux),
            rules,
            argnums=(*own, len(args)),
            target=target,
            has_aux=has_aux,
        )
        found = explain(*args, given, **kwargs)
        found, aux = found if has_aux else (found, None)
        *of_input, of_biases = found
        loops = {name: one.loops for name, one in biases.items()}
        whole = tuple(of_input) if several else of_input[0]
        full = FullGrad(whole, of_biases, loops)
        return (full, aux) if has_aux else full

    returns = "`FullGrad`: the relevance of the attributed argument and of biases."
    return _trace.wraps(f, "attribution.fullgrad", returns)(explained)


@dataclasses.dataclass(frozen=True)
class _Bias:
    """A constant that one equation adds.

    Attributes:
      name: of its parameter, or `constant`.
      address: the steps around the equation, each with the number of its body, and the
        equation with the operand's position.
      loops: how many loops it lies in.
    """

    name: str
    address: tuple[Any, ...]
    loops: int


def _find(reading: Reading, prefix: tuple[Any, ...], loops: int = 0) -> list[_Bias]:
    """The biases of the steps that relevance passes, in the program's order."""
    found = []
    for step in reading.steps:
        if not step.signals:
            continue
        flow = bodies_of(step.main).flow if step.bodies else ""
        for number, body in enumerate(step.bodies):
            inner = _find(body, (*prefix, step, number), loops + (flow == "scan"))
            if inner and flow in ("while", "shard_map"):
                raise ValueError(
                    f"f: a bias is added in a {flow} at {step.main.line}, where it "
                    f"cannot be told apart; a lax.scan has an axis for its steps"
                )
            found += inner
        for equation in _shifts(step):
            position = _constant(equation, reading)
            if position is not None:
                address = (*prefix, (equation, position))
                name = _name(equation.inputs[position], reading)
                found.append(_Bias(name, address, loops))
    return found


def _shifts(step: Any) -> tuple[Equation, ...]:
    """The equations of a step that may add a constant."""
    if step.layer is not None:
        links = step.layer.links
        return tuple(link.equation for link in links if link.kind == "shift")
    return step.equations if step.role in ("shift", "sum") else ()


def _constant(equation: Equation, reading: Reading) -> int | None:
    """The position of the one operand that is added and constant."""
    entry = lookup(equation.primitive)
    if entry is None or not entry.is_sum or len(equation.inputs) != 2:
        return None
    carrying = [reading.carries(v) for v in equation.inputs]
    if sum(carrying) != 1:
        return None
    position = 1 - carrying.index(True)
    atom = equation.inputs[position]
    if isinstance(atom, Literal):
        # Of `1 - gate` the one belongs to the gate.
        gate = equation.primitive.name == "sub" and position == 0
        return None if gate or not np.any(atom.val) else position
    if facts_of(atom, reading.facts).cut or not _is_float(atom):
        return None
    return position


def _is_float(atom: Any) -> bool:
    return jnp.issubdtype(atom.aval.dtype, jnp.floating)


def _name(atom: Any, reading: Reading) -> str:
    if isinstance(atom, Literal):
        return "constant"
    origins = facts_of(atom, reading.facts).origins
    names = [name for origin in origins for name in origin.names]
    return names[0] if names else "constant"


def _named(biases: Sequence[_Bias]) -> dict[str, _Bias]:
    counts = collections.Counter(b.name for b in biases)
    seen: dict[str, int] = collections.defaultdict(int)
    found = {}
    for one in biases:
        name = f"{one.name}#{seen[one.name]}" if counts[one.name] > 1 else one.name
        seen[one.name] += 1
        found[name] = one
    return found


def _values(traced: Traced, biases: dict[str, _Bias]) -> dict[str, Array]:
    """What each bias is at each place, zero where it is infinite, as a mask is."""
    shapes = {
        i: one.address[-1][0].outputs[0].aval for i, one in enumerate(biases.values())
    }

    def record(number: int, x: Any, given: Any, memory: Any) -> Any:
        aval = shapes[number]
        whole = jnp.broadcast_to(jnp.asarray(x, aval.dtype), aval.shape)
        return x, jnp.where(jnp.isfinite(whole), whole, 0), memory

    numbers = {one.address: i for i, one in enumerate(biases.values())}
    edits = Edits(record, numbers, {i: () for i in shapes})
    _, records, _ = forward(traced.reading, traced.inputs, edits)
    return {name: records[i] for i, name in enumerate(biases)}


def _with_biases(
    f: Callable[..., Any], traced: Traced, biases: dict[str, _Bias], has_aux: bool
) -> Callable[..., Any]:
    """`f` with one more argument, the values of biases by name."""
    numbers = {one.address: i for i, one in enumerate(biases.values())}

    def edit(number: int, x: Any, given: Any, memory: Any) -> Any:
        x = jnp.asarray(x, given.dtype)
        limit = jnp.finfo(x.dtype).max / 4  # a mask stays one, and its sum finite
        return jnp.where(jnp.isfinite(x), given, jnp.clip(x, -limit, limit)), (), memory

    @own_settings()
    def again(*args: Any, **kwargs: Any) -> Any:
        inputs = leaves(traced, args[:-1], kwargs)
        given = {i: args[-1][name] for i, name in enumerate(biases)}
        outs, _, _ = forward(traced.reading, inputs, Edits(edit, numbers, given))
        out = jax.tree.unflatten(traced.out_tree, outs[: traced.n_out])
        return (out, traced.restore_aux(outs[traced.n_out :])) if has_aux else out

    keep_signature(again, f)
    return again
