"""The rule book's own vocabulary: what an entry says, and how entries are found.

An entry states the algebra of one primitive: what kind of map it is, in which
operands it is linear, what it does to signs. The rules of LRP follow from that, so
most entries are one line. Entries know nothing of the engine that reads them.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from jax.extend.core import Primitive, primitives


class Kind(enum.StrEnum):
    """What a primitive does with relevance.

    Examples:
      >>> from jax.extend.core.primitives import dot_general_p
      >>> from jaxlrp import primitives
      >>> primitives.lookup(dot_general_p).kind is primitives.Kind.CONTRACTION
      True
    """

    STRUCTURAL = "structural"
    """Copies, moves or drops elements: relevance follows them exactly."""
    ELEMENTWISE = "elementwise"
    """`out[i] = phi(a[i], b[i], ...)`; operands of size one are broadcast."""
    LINEAR = "linear"
    """Linear but not elementwise, without weights: sums, averages, transforms."""
    CONTRACTION = "contraction"
    """Bilinear, with a kernel: `dot_general`, convolution."""
    SELECTION = "selection"
    """Picks elements by value: the winner takes all."""
    HOMOGENEOUS = "homogeneous"
    """Of a degree in its operands: gradient x input over the degree conserves."""
    TAYLOR = "taylor"
    """Nonlinear and not elementwise: gradient x input, which need not conserve."""
    INERT = "inert"
    """Carries no relevance: integers, comparisons, randomness, barriers."""
    CALL = "call"
    """Calls a jaxpr once; read as if its equations were in the caller."""
    CONTROL = "control"
    """Loops, branches and rematerialisation: emitted again with a rewritten body."""
    CUSTOM = "custom"
    """Brings its own rule."""
    REFUSED = "refused"
    """Cannot be explained; the entry says why."""


Active = Sequence[bool]
Signs = Sequence[bool]
Params = Mapping[str, Any]
Shape = tuple[int, ...]
Shapes = Sequence[Shape]


def never(*_: Any) -> bool:
    """No operands at all."""
    return False


def always(*_: Any) -> bool:
    """Whatever the operands."""
    return True


def jointly(active: Active) -> bool:
    """Linear in all operands together, as `add`."""
    return True


def each(active: Active) -> bool:
    """Linear in each operand while the others are held, as `mul`."""
    return sum(active) <= 1


def only(*positions: int) -> Callable[[Active], bool]:
    """Linear in the operands at `positions`, as `div` is in its first."""
    return lambda active: not any(a for i, a in enumerate(active) if i not in positions)


def nothing_held(params: Params, active: Active) -> Sequence[int]:
    """No operand is held constant for the others."""
    return ()


def argument(position: int) -> Callable[[Params, Active], Sequence[int]]:
    """What is not the function's argument is held: exponents, coefficients."""

    def held(params: Params, active: Active) -> Sequence[int]:
        others = [i for i, a in enumerate(active) if a and i != position]
        return others if active[position] else ()

    return held


def no_degree(params: Params, active: Active) -> None:
    """Not homogeneous, or it is not known of what degree."""
    return None


def no_refusal(params: Params, active: Active) -> str:
    """Relevance can pass."""
    return ""


def same_axes(
    params: Params, position: int, shapes: Shapes, result: Shape
) -> dict[int, int]:
    """Operands of the result's rank keep their axes."""
    ndim = len(shapes[position])
    return (
        dict(zip(range(ndim), range(ndim), strict=True)) if ndim == len(result) else {}
    )


def no_form(params: Params) -> None:
    """The primitive itself."""
    return None


def same_params(params: Params, dtype: Any) -> Params:
    """The parameters say nothing of dtypes."""
    return {}


def all_nonnegative(signs: Signs, params: Params) -> bool:
    """Nonnegative operands give a nonnegative result, as for `add`."""
    return all(signs)


def any_nonnegative(signs: Signs, params: Params) -> bool:
    """One nonnegative operand suffices, as for `max`."""
    return any(signs)


def first_nonnegative(signs: Signs, params: Params) -> bool:
    """The first operand decides."""
    return signs[0]


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the rule book says about one primitive.

    Examples:
      >>> from jax.extend.core.primitives import div_p
      >>> from jaxlrp import primitives
      >>> entry = primitives.lookup(div_p)
      >>> entry.is_quotient, entry.linear([True, False]), entry.treatment
      (True, True, 'nonlinear')

    Attributes:
      kind: what the primitive does with relevance.
      linear: given which operands are active, is the map linear in those together?
      nonnegative: given which operands are known to be `>= 0`, is the result?
      at_most_one: its result is `<= 1` whatever the operands.
      homogeneous: given the operands' literal values (None where unknown), is the
        map piecewise linear through the origin in the others? Its derivative is then
        the identity rule: `phi(x) = phi'(x) x`.
      takes_root: given the parameters, does it turn a statistic (a variance, a sum of
        squares) into a scale, as a root, a power or a reciprocal does?
      power: given the parameters, the power that it takes its operand to.
      by_result: its derivative is computed from its result, which a gradient keeps.
      exponential: an exponential that softmax is made of.
      exponential_less: an exponential minus one.
      raises: the first operand to the power of the second, which makes an exponential
        of that where the first is a constant.
      selects: chooses between cases by a predicate, its first operand.
      subtracts: the second operand from the first.
      negates: flips the sign.
      bounds: bounds one operand by the other, as `max`, or the elements by each other.
      picks: is one of its operands, by value, as `max`: a selection where several are
        active.
      held: given the parameters and which operands are active: those of them that count
        as constants next to the others (a divisor, an exponent, the matrix of a linear
        system).
      degree: given the parameters and which operands are active: a function of the
        operands to the degree in which the map is homogeneous in those, or None.
      writes: what becomes of a value given to it cannot be known.
      decides: the positions of operands that only decide where relevance goes, as
        indices do, though they are not integers.
      form: given the parameters, the same map with a derivative that is the rule,
        where JAX's own is not, or is missing; else None.
      fixed: given the parameters, is the result the same whatever the operands?
      rounds: to a number nearby.
      differs: tells where two operands differ; one operand twice is a test for NaN.
      matches: true where two operands are equal, as a one-hot code is.
      combines: makes one integer or boolean from others, elementwise.
      shifts: an integer's bits, to the left (1) or to the right (-1), by how many the
        second operand says.
      of_dtype: given the parameters and a dtype: those that change where the same map
        is done in this dtype.
      origin: given its parameters, operands, the position of an index among them and
        the relevance of the result: what the columns of the index looked up of it,
        without the axis of columns.
      logarithm: a logarithm that log-softmax is made of.
      sums: sums over axes; what a statistic begins with.
      totals: sums what devices, or positions along a mapped axis, hold.
      still: every element of the result is the operand's at the same position.
      layout: for a bijective structural primitive, moves a layout of axes with it.
      axes: where every element of the result depends on operands' elements at the same
        positions along some axes: given the parameters, an operand's position, the
        operands' shapes and the result's: `{axis of the result: axis of the operand}`
        of these.
      role: the name of the layer that a contraction makes, or of the role that a
        homogeneous map has.
      squares: given the parameters, is the contraction of `x` with itself a sum of
        squares, each element meeting itself?
      kernel_axes: for a contraction, which axes of the result belong to the kernel.
      input_axes: for a contraction, which axes of the signal meet which of the kernel.
      with_ones: for a contraction, given its parameters, the position of an operand
        that is all ones, the other operand, the shape of the ones and that of the
        result: the result, at less than a contraction; None where that is not known.
      rule: its own rule, for kind CUSTOM.
      shadows: the rule hands relevance to shadows, not as a multiplier.
      candidates: for a selection, given its parameters, operand and a fill value: the
        stack, on a new first axis, of the values that each result is chosen from.
      refuses: given the parameters and which operands are active: why relevance cannot
        pass, or nothing.
      reason: why a primitive is refused, or what a reader should know.
    """

    kind: Kind
    linear: Callable[[Active], bool] = never
    nonnegative: Callable[[Signs, Params], bool] = never
    at_most_one: bool = False
    homogeneous: Callable[[Sequence[Any]], bool] = never
    takes_root: Callable[[Params], bool] = never
    power: Callable[[Params], int] | None = None
    by_result: bool = False
    exponential: bool = False
    exponential_less: bool = False
    raises: bool = False
    selects: bool = False
    subtracts: bool = False
    negates: bool = False
    bounds: bool = False
    picks: bool = False
    held: Callable[[Params, Active], Sequence[int]] = nothing_held
    degree: Callable[[Params, Active], Callable[..., Any] | None] = no_degree
    writes: bool = False
    decides: tuple[int, ...] = ()
    form: Callable[[Params], Callable[..., Any] | None] = no_form
    fixed: Callable[[Params], bool] = never
    rounds: bool = False
    differs: bool = False
    matches: bool = False
    combines: bool = False
    shifts: int = 0
    of_dtype: Callable[[Params, Any], Params] = same_params
    origin: Callable[..., Any] | None = None
    logarithm: bool = False
    sums: bool = False
    totals: bool = False
    still: bool = False
    layout: Callable[..., Any] | None = None
    axes: Callable[[Params, int, Shapes, Shape], dict[int, int]] | None = None
    role: str = ""
    squares: Callable[[Params], bool] = never
    kernel_axes: Callable[..., Any] | None = None
    input_axes: Callable[..., Any] | None = None
    with_ones: Callable[..., Any] | None = None
    rule: Callable[..., Any] | None = None
    shadows: bool = False
    candidates: Callable[..., Any] | None = None
    refuses: Callable[[Params, Active], str] = no_refusal
    reason: str = ""

    @property
    def treatment(self) -> Treatment:
        """The class of the primitive: what becomes of relevance there."""
        if self.kind is not Kind.ELEMENTWISE:
            return _TREATMENTS[self.kind]
        if self.selects or self.decides:
            return "structural"
        if self.picks:
            return "selection"
        return "linear" if self.is_sum else "nonlinear"

    def linear_in(self, count: int) -> tuple[int, ...]:
        """The positions, of `count` operands, in which alone the map is linear."""
        return tuple(
            i for i in range(count) if self.linear([i == j for j in range(count)])
        )

    @property
    def is_sum(self) -> bool:
        """Linear in two operands together, as `add` and `sub`."""
        return self.linear([True, True])

    @property
    def is_product(self) -> bool:
        """Linear in either of two operands, not in both together, as `mul`."""
        either = self.linear([True, False]) and self.linear([False, True])
        return either and not self.is_sum

    @property
    def is_quotient(self) -> bool:
        """Linear in the first operand alone, as `div`."""
        return self.linear([True, False]) and not self.linear([False, True])


Treatment = Literal[
    "structural",
    "linear",
    "selection",
    "nonlinear",
    "Taylor",
    "none",
    "refused",
    "of its body",
    "custom",
]
"""The classes of primitives. `none`: it carries no relevance; of calls and loops it is
that of their bodies. `Taylor` is the local gradient, which need not conserve; all
before it conserve."""

_TREATMENTS: dict[Kind, Treatment] = {
    Kind.STRUCTURAL: "structural",
    Kind.LINEAR: "linear",
    Kind.CONTRACTION: "linear",
    Kind.SELECTION: "selection",
    Kind.HOMOGENEOUS: "nonlinear",
    Kind.TAYLOR: "Taylor",
    Kind.INERT: "none",
    Kind.CALL: "of its body",
    Kind.CONTROL: "of its body",
    Kind.CUSTOM: "custom",
    Kind.REFUSED: "refused",
}

_by_name: dict[str, Entry] = {}
_by_primitive: dict[Primitive, Entry] = {}


def enter(names: str | Iterable[str], entry: Entry) -> None:
    """Writes `entry` into the book for JAX's primitives called `names`."""
    for name in names.split() if isinstance(names, str) else names:
        if name in _by_name:
            raise ValueError(f"the rule book has an entry for {name!r} already")
        _by_name[name] = entry


def enter_primitive(primitive: Primitive, entry: Entry) -> None:
    """Writes or replaces the entry of one primitive object.

    Args:
      primitive: the primitive, a user's own or one of JAX's.
      entry: what it does with relevance.

    Examples:
      >>> from jax.extend.core import Primitive
      >>> from jaxlrp import primitives
      >>> mine = Primitive("mine")
      >>> primitives.enter_primitive(mine, primitives.Entry(primitives.Kind.TAYLOR))
      >>> primitives.lookup(mine).treatment
      'Taylor'
    """
    _by_primitive[primitive] = entry


def lookup(primitive: Primitive) -> Entry | None:
    """The entry of `primitive`, or None where the book has none.

    Args:
      primitive: the primitive.

    Examples:
      >>> from jax.extend.core.primitives import tanh_p
      >>> lookup(tanh_p).kind
      <Kind.ELEMENTWISE: 'elementwise'>
    """
    if primitive in _by_primitive:
        return _by_primitive[primitive]
    # A user's own primitive may have the name of one of JAX's.
    public = getattr(primitives, f"{primitive.name}_p".replace("-", "_"), primitive)
    return _by_name.get(primitive.name) if public is primitive else None


def pages() -> tuple[dict[Any, Entry], ...]:
    """The book as it is now, to be compared with what it is later."""
    return dict(_by_name), dict(_by_primitive)


def entries() -> dict[str, Entry]:
    """All entries by name of primitive, users' own included.

    Examples:
      >>> from jaxlrp import primitives
      >>> primitives.entries()["tanh"].treatment
      'nonlinear'
    """
    return {**_by_name, **{p.name: e for p, e in _by_primitive.items()}}
