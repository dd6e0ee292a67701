"""What rules are made of: the base classes, and what a rule sees of its layer."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Literal, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _arguments, _html
from jaxlrp._operations import held_constant

T = TypeVar("T")
Exactness = Literal["exact", "proportional", "Taylor", "none"]

STABILISERS = ("sign", "plain", "clip", "zeros")
"""The forms of a stabilised denominator `s(z)`:

`sign`: `z + epsilon sign(z)`, `sign(0) = +1`; `plain`: `z + epsilon`; `clip`:
`sign(z) max(|z|, epsilon)`; `zeros`: `z`, and `epsilon` where `z = 0`.
"""


_OFTEN = 16
"""A weight that is used this often is recomputed."""


@dataclasses.dataclass(frozen=True)
class Share:
    """A part of the output's relevance, and the surrogate that distributes it.

    `c_h = part * R / s(z)`: the surrogate `h` is linear in the layer's input (or in its
    shadow), and JAX's transpose of `h` takes the part to the input.

    Attributes:
      surrogate: `h`.
      z: the denominator before it is stabilised.
      epsilon: the stabiliser.
      part: a factor; a scalar or of `h`'s shape.
      per: axes; epsilon is in units of the root mean square of `z` over them.
      form: the stabiliser's form, one of `STABILISERS`.
      side: of the relevance, all (0) or that of positive (1) or negative (-1) outputs.
      rounding: of two such shares, the first `z` is the sum of all that is positive and
        the second that of all that is negative, `z1 + z2 = y`, and these are booleans:
        where no input contributes, `h` is rounding next to a bias, and gets nothing.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import rules
      >>> y = jnp.array([3.0])
      >>> rules.Share(y, z=y, epsilon=1e-6).part  # of the epsilon rule: all of it
      1.0
    """

    surrogate: Array
    z: Array
    epsilon: Any
    part: Any = 1.0
    per: tuple[int, ...] = ()
    form: str = "sign"
    side: int = 0
    rounding: Array | None = None


@dataclasses.dataclass(frozen=True)
class Layer:
    """What a rule sees of a layer `y = W x + b`.

    Attributes:
      x: the layer's input.
      y: its output, the bias included.
      shadow: zeros of `x`'s shape, for rules that are not multiples of `x`, else None.
      linear: `linear(x, kernel)` is `W x` for any input and kernel of these shapes.
      fold: computes (kernel, bias), which not every rule asks for.
      nonnegative: is `x >= 0` known from the structure of the program?
      features: the axes of `y` that belong to the kernel.
      rectified: is it known that no relevance arrives where `y < 0`, as before a ReLU?
      of_parameters: is the relevance of weights and biases asked for as well, or what
        each part of the relevance comes to?
      contributed: computes `contributions`, from the layer's own product.
      evenly: `evenly(x)` is `linear(x, ones)`, at less than a product's cost.
      summed: `summed(kernel)` is `linear(ones, kernel)`, at less than a product's cost.
      without_scales: computes the product or sum alone, without the constant factors
        after it.
      in_kernel: lays an array that broadcasts to `x` out along the kernel's axes, where
        the two meet; None where it varies along others.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> @jax.tree_util.register_static
      ... class Seen(rules.Epsilon):
      ...     def shares(self, layer):
      ...         print(layer.x.shape, layer.y.shape, layer.nonnegative)
      ...         return super().shares(layer)
      >>> w, x = jnp.ones((2, 3)), jnp.ones(2)
      >>> explain = jaxlrp.lrp(lambda x: jnp.abs(x) @ w, composites.Uniform(Seen()))
      >>> explain(x).shape
      (2,) (3,) True
      (2,)
    """

    x: Array
    y: Array
    shadow: Array | None
    linear: Callable[[Array, Any], Array]
    fold: Callable[[], tuple[Array | None, Array | None]]
    nonnegative: bool
    features: tuple[int, ...]
    rectified: bool = False
    of_parameters: bool = False
    contributed: Callable[[], Array] | None = None
    evenly: Callable[[Array], Array] | None = None
    summed: Callable[[Any], Array] | None = None
    in_kernel: Callable[[Any], Array | None] | None = None
    without_scales: Callable[[], Array] | None = None

    @functools.cached_property
    def contributions(self) -> Array:
        """`W x`: the output without the bias, at the cost of no further product."""
        if self.contributed is None:
            return self.linear(self.x, self.kernel)
        return self.contributed()

    @functools.cached_property
    def _folded(self) -> tuple[Array | None, Array | None]:
        return self.fold()

    @property
    def kernel(self) -> Array | None:
        """The weights, constant scales after the layer folded in; None for sums."""
        return self._folded[0]

    @property
    def bias(self) -> Array | None:
        """The bias, of a shape that broadcasts to `y`'s, or None."""
        return self._folded[1]

    @property
    def fan_in(self) -> int:
        """How many contributions an output has, those of padding too."""
        if self.kernel is None:
            return _count(self.x.shape) // max(_count(self.y.shape), 1)
        outputs = _count([self.y.shape[i] for i in self.features])
        return self.kernel.size // max(outputs, 1)

    def weights(self) -> Array:
        """The kernel; an error where the rule needs one and there is none."""
        if self.kernel is None:
            raise TypeError("this rule needs weights, and a sum or average has none")
        return self.kernel

    def weighted(self, x: Array, change: Callable[[Array], Array]) -> Array:
        """`change(W) x`, for an elementwise map of the weights.

        The weights of a sum or average are all one factor `a`; for maps with
        `change(|a| w) = |a| change(w)`, as all that look at signs are, its sign
        suffices.

        A weight that is used often is recomputed in the reverse pass: keeping changed
        weights costs memory, changing them costs little compared to the product.
        """
        if self.kernel is None:
            sign = jnp.sign(self.count())
            return self.linear(x, None) * (sign * change(sign))
        others = (n for i, n in enumerate(self.y.shape) if i not in self.features)
        # A batch may have any size when it is exported.
        if math.prod(n for n in others if isinstance(n, int)) < _OFTEN:
            return self.linear(x, change(self.weights()))

        def again(x: Array) -> Array:
            kernel, _ = self.fold()
            assert kernel is not None
            return self.linear(x, change(kernel))

        return jax.checkpoint(again)(x)

    def plus_bias(self, z: Array, change: Callable[[Array], Array]) -> Array:
        """`z + change(b)`, or `z` for a layer without a bias."""
        return z if self.bias is None else z + change(self.bias)

    def even(self, x: Array) -> Array:
        """`sum_j x_j` over the connected inputs of each output."""
        if self.evenly is not None:
            return self.evenly(x)
        ones = None if self.kernel is None else jnp.ones_like(self.kernel)
        return self.linear(x, ones)

    def sums(self, kernel: Array) -> Array:
        """`sum_j w_ij` of a kernel over the connected inputs of each output."""
        if self.summed is not None:
            return self.summed(kernel)
        return self.linear(jnp.ones_like(self.x), kernel)

    def count(self) -> Array:
        """The number of connected inputs of each output; padding does not count."""
        return held_constant(self.even(jnp.ones_like(self.x)))

    def per_input(self) -> Array:
        """`1 / m_j`, over the `m` outputs that each input is connected to.

        All features of a position count as one output, which keeps these of size one.
        """
        sizes = (self.y.shape[i] for i in self.features)
        features = math.prod(n for n in sizes if isinstance(n, int))
        y, transpose = jax.vjp(self.even, jnp.ones_like(self.x))
        (count,) = transpose(jnp.full_like(y, 1 / features))
        some = jnp.where(count == 0, jnp.ones_like(count), count)
        return held_constant(1 / some)

    def spread(self, carrier: Array) -> Array:
        """`sum_j carrier_j / n`, over the `n` connected inputs of each output."""
        count = self.count()
        some = jnp.where(count == 0, jnp.ones_like(count), count)
        return self.even(carrier) / some


@dataclasses.dataclass(frozen=True)
class Total:
    """What a rule sees of a sum `y = sum_k w_k x_k` of equally many elements each.

    Attributes:
      parts: the contributions `w_k x_k`, those of constants last.
      weights: the `w_k`, each one or minus one.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import rules
      >>> total = rules.Total((jnp.array([3.0]), jnp.array([-1.0])), (1, -1))
      >>> total.y.tolist(), total.add(lambda part, _: jnp.abs(part)).tolist()
      ([2.0], [4.0])
    """

    parts: tuple[Array, ...]
    weights: tuple[int, ...]

    @functools.cached_property
    def y(self) -> Array:
        """The sum."""
        return functools.reduce(jnp.add, self.parts)

    def add(self, change: Callable[[Array, int], Array]) -> Array:
        """The sum of `change(part, weight)` over all parts."""
        changed = map(change, self.parts, self.weights)
        return functools.reduce(jnp.add, changed)


@dataclasses.dataclass(frozen=True)
class Operation:
    """What a rule that is stated on relevances sees of an operation `y = f(x1, ...)`.

    Attributes:
      xs: the operands that relevance can go to.
      y: the result.
      function: `f`, of those operands.
      constants: the other operands.
      candidates: for a selection, `candidates(x, fill)` is the stack of the values
        that it chooses between, `fill` where a window meets padding; else None.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import rules
      >>> xs = jnp.array([1.0, 2.0]), jnp.array([3.0, 4.0])
      >>> operation = rules.Operation(xs, xs[0] * xs[1], jnp.multiply)
      >>> [r.tolist() for r in operation.pull(jnp.ones(2))]
      [[3.0, 4.0], [1.0, 2.0]]
    """

    xs: tuple[Array, ...]
    y: Array
    function: Callable[..., Array]
    constants: tuple[Array, ...] = ()
    candidates: Callable[[Array, Any], Array] | None = None

    def stack(self, x: Array, fill: Any) -> Array:
        """`candidates`, or an error where the operation is not such a selection."""
        if self.candidates is None:
            raise TypeError("this rule needs a maximum or minimum over axes or windows")
        return self.candidates(x, fill)

    def pull(self, relevance: Array) -> tuple[Array, ...]:
        """`(dy/dx)^T R` for each operand."""
        _, transpose = jax.vjp(self.function, *self.xs)
        return transpose(relevance.astype(self.y.dtype))


def positive(x: Array) -> Array:
    """`x+`, the elementwise maximum with zero; its derivative at zero is zero.

    Args:
      x: an array.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import rules
      >>> rules.positive(jnp.array([-1.0, 2.0])).tolist()
      [0.0, 2.0]
    """
    return jnp.where(x > 0, x, jnp.zeros_like(x))


def negative(x: Array) -> Array:
    """`x-`, the elementwise minimum with zero; its derivative at zero is zero.

    Args:
      x: an array.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import rules
      >>> rules.negative(jnp.array([-1.0, 2.0])).tolist()
      [-1.0, 0.0]
    """
    return jnp.where(x < 0, x, jnp.zeros_like(x))


def _count(shape: Iterable[Any]) -> int:
    """The product of those sizes that are known."""
    return math.prod(n for n in shape if isinstance(n, int))


class Rule:
    """The base of all rules; see the package's docstring for the notation.

    Attributes:
      exactness: `exact` (LRP's own answer, no choice), `proportional` (a stated share
        rule), `Taylor` (a local expansion; need not conserve) or `none` (no relevance).
      needs_shadow: relevance can appear where `x = 0`.

    Examples:
      >>> from jaxlrp import rules
      >>> rules.Epsilon().exactness, rules.Flat().needs_shadow, rules.Epsilon(0.1)
      ('proportional', True, Epsilon(epsilon=0.1))
    """

    exactness: ClassVar[Exactness] = "proportional"

    @property
    def needs_shadow(self) -> bool:
        """Can relevance appear where the input is zero?"""
        return False

    @property
    def compares_parts(self) -> bool:
        """Does it look at all parts of a sum together? Then `to_parts` is asked."""
        return False

    def to_parts(self, total: Total, R: Array) -> Sequence[Array]:  # noqa: N803
        """The multipliers of a sum's parts `x_k`: each gets the relevance `x_k c_k`."""
        raise NotImplementedError

    def _repr_html_(self) -> str:
        return _html.rule(self)

    def __repr__(self) -> str:
        """Options are shown after the rest, unless they have their default."""
        if not dataclasses.is_dataclass(self):
            return object.__repr__(self)
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        shown = [
            f"{f.name}={getattr(self, f.name)!r}"
            for f in sorted(fields, key=lambda f: f.kw_only is True)
            if not (
                (f.kw_only or f.default is None)
                and _is(getattr(self, f.name), f.default)
            )
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def _is(value: Any, default: Any) -> bool:
    """Equal, and plain Python: a traced hyper-parameter is compared with nothing."""
    plain = isinstance(value, str | bool | int | float | tuple | None)
    return plain and type(value) is type(default) and value == default


class LayerRule(Rule):
    """A rule of a linear layer: how it shares its relevance.

    Examples:
      >>> import dataclasses, jax, jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> @jax.tree_util.register_dataclass
      ... @dataclasses.dataclass(frozen=True)
      ... class Squared(rules.LayerRule):  # by the squares of the contributions' sizes
      ...     def shares(self, layer):
      ...         h = layer.linear(layer.x**2, layer.weights() ** 2)
      ...         return (rules.Share(h, h, 1e-6),)
      >>> w, x = jnp.array([[1.0, -1.0], [2.0, 0.5]]), jnp.array([1.0, 2.0])
      >>> composite = composites.Uniform(Squared())
      >>> print(jaxlrp.lrp(lambda x: x @ w, composite, target=0)(x).round(1))
      [0.6      9.400001]
    """

    def shares(self, layer: Layer) -> tuple[Share, ...]:
        """The shares that the output's relevance is split into."""
        raise NotImplementedError


class RelevanceRule(Rule):
    """A rule that is stated on relevances: what each operand gets of `R`.

    A custom rule suits any role. With numbers it is a frozen dataclass that is a
    pytree; without any a plain class will do.

    Examples:
      >>> import dataclasses, jax, jax.numpy as jnp, jaxlrp
      >>> from jaxlrp import composites, rules
      >>> @jax.tree_util.register_dataclass
      ... @dataclasses.dataclass(frozen=True)
      ... class Branch(rules.RelevanceRule):  # a fixed part to the second operand
      ...     part: float = 0.25
      ...     def relevances(self, operation, R):
      ...         return (1 - self.part) * R, self.part * R
      >>> composite = composites.Default().on("sum", Branch())
      >>> f = lambda x: x["skip"] + x["branch"]
      >>> x = {"skip": jnp.array([1.0, 2.0]), "branch": jnp.array([3.0, 6.0])}
      >>> explain = jaxlrp.lrp(f, composite, target="all")
      >>> explain(x)["branch"].tolist()
      [1.0, 2.0]
    """

    @property
    def needs_shadow(self) -> bool:
        """Relevance goes to the operand whatever its value."""
        return True

    def relevances(self, operation: Operation, R: Array) -> tuple[Array, ...]:  # noqa: N803
        """The relevance of each operand, of its shape."""
        raise NotImplementedError


def unbroadcast(x: Array, shape: tuple[int, ...]) -> Array:
    """`x` summed over the axes that `shape` was broadcast along."""
    if x.shape == shape:
        return x
    x = x.sum(tuple(range(x.ndim - len(shape))))
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and x.shape[i] != 1)
    return x.sum(axes, keepdims=True)


def quotient(a: Array, b: Array) -> Array:
    """`a / b`, and zero where `b = 0`."""
    none = b == 0
    return jnp.where(none, 0, a / jnp.where(none, 1, b))


def static(*, default: Any, kw_only: bool = True) -> Any:
    """A field that is part of the pytree's structure, given by keyword."""
    return dataclasses.field(
        default=default, metadata={"static": True}, kw_only=kw_only
    )


def option(*, default: Any, kw_only: bool = True) -> Any:
    """A hyper-parameter that is given by keyword."""
    return dataclasses.field(default=default, kw_only=kw_only)


@dataclass_transform(frozen_default=True, field_specifiers=(static, option))
def rule(cls: type[T]) -> type[T]:
    """A frozen dataclass that is a pytree of its fields; static ones are marked."""
    frozen: Any = dataclasses.dataclass(frozen=True, repr=False)(cls)
    _register(frozen, dataclasses.fields(frozen))
    return frozen


def as_pytree(rule: Rule) -> None:
    """Makes a pytree of a user's class of rules that is none yet.

    A class that has no numbers need not be a dataclass, and one that is made from
    another rule has that one's.

    Raises:
      TypeError: if it has other attributes, of which nobody knows what they are.
    """
    if not jax.tree_util.all_leaves([rule]):
        return
    kind: Any = type(rule)
    fields: Any = dataclasses.fields(kind) if dataclasses.is_dataclass(kind) else ()
    if not set(vars(rule)) <= {f.name for f in fields}:
        raise TypeError(
            f"rule: got {rule!r}, which is not a pytree: make {type(rule).__name__} a "
            f"frozen dataclass, and decorate it with jax.tree_util.register_dataclass"
        )
    _register(kind, fields)


def _register(kind: Any, fields: Sequence[Any]) -> None:
    """Makes a pytree of a class, of its fields; static ones are marked."""
    fixed = [f.name for f in fields if f.metadata.get("static")]
    data = [f.name for f in fields if f.name not in fixed]

    def values(rule: Any, names: list[str]) -> tuple[Any, ...]:
        return tuple(getattr(rule, name) for name in names)

    def flatten(rule: Any) -> Any:
        keys = map(jax.tree_util.GetAttrKey, data)
        return zip(keys, values(rule, data), strict=True), values(rule, fixed)

    def unflatten(options: Any, leaves: Any) -> Any:
        # Not by the constructor, whose checks are of numbers: a leaf may be anything.
        made = object.__new__(kind)
        for name, value in zip([*fixed, *data], [*options, *leaves], strict=True):
            object.__setattr__(made, name, value)
        return made

    jax.tree_util.register_pytree_with_keys(
        kind, flatten, unflatten, lambda r: (values(r, data), values(r, fixed))
    )


def check_number(
    rule: Any, name: str, least: float = -math.inf, optional: bool = False
) -> None:
    """Refuses what is no real number, or a known one that is none of these.

    Raises:
      TypeError: for what is no number.
      ValueError: for a number of Python or NumPy that is not finite, or too small.
    """
    value = getattr(rule, name)
    if not (optional and value is None):
        _arguments.number(name, value, type(rule).__name__, least=least)


def check_option(rule: Any, name: str, allowed: tuple[Any, ...]) -> None:
    """Refuses a choice that does not exist.

    Raises:
      ValueError: naming the option and the choices.
    """
    value = getattr(rule, name)
    if not any(_is_same(value, choice) for choice in allowed):
        choices = ", ".join(map(repr, allowed))
        raise ValueError(
            f"{name}: got {value!r} for {type(rule).__name__}, expected one of "
            f"{choices}"
        )


def _is_same(value: Any, choice: Any) -> bool:
    """Equal and of one type: 1 is not True, and an array is neither."""
    if isinstance(choice, bool):
        return isinstance(value, bool | np.bool_) and bool(value) is choice
    return type(value) is type(choice) and value == choice
