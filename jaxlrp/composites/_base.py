"""What composites are made of: assignments of rules to roles."""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from jaxlrp import _html, rules
from jaxlrp._arguments import flag, text
from jaxlrp._names import fits_any
from jaxlrp.primitives import entries
from jaxlrp.rules import Rule
from jaxlrp.rules._base import as_pytree

DEFAULTS: dict[str, Rule] = {
    "dense": rules.LRP0(),
    "convolution": rules.LRP0(),
    "batch_norm": rules.Merge(),
    "average": rules.LRP0(),
    "sum": rules.LRP0(),
    "scale": rules.LRP0(),
    "shift": rules.LRP0(),
    "activation": rules.Pass(),
    "normaliser": rules.Detach(),
    "quotient": rules.Detach(),
    "softmax": rules.Taylor(),
    "bilinear": rules.UniformSplit(),
    "product": rules.UniformSplit(),
    "selection": rules.WinnerTakesAll(),
}
"""The rule of each role where a composite names none."""

_EVERYWHERE = (rules.Gradient, rules.Detach)
_LAYERS = (rules.LayerRule, rules.Pass, rules.Taylor, rules.TopK, *_EVERYWHERE)
_PROPORTIONAL = (rules.LRP0, rules.Epsilon, rules.Norm, rules.Absolute)
_BY_SIGN = (rules.GeneralizedGamma, rules.Gamma, rules.ZPlus, rules.AlphaBeta)
_AFFINE = (rules.LRP0, rules.Epsilon, rules.Pass)

ALLOWED: dict[str, tuple[type[Rule], ...]] = {
    "dense": _LAYERS,
    "convolution": _LAYERS,
    "batch_norm": (rules.Merge, *_AFFINE, *_EVERYWHERE),
    "average": (*_PROPORTIONAL, *_BY_SIGN, rules.Flat, *_EVERYWHERE),
    "sum": (
        *_PROPORTIONAL,
        *_BY_SIGN,
        rules.Rescaled,
        rules.UniformSplit,
        rules.Pass,
        *_EVERYWHERE,
    ),
    "scale": (*_AFFINE, rules.Absolute, *_EVERYWHERE),
    "shift": (*_AFFINE, *_BY_SIGN, rules.Absolute, *_EVERYWHERE),
    "activation": (
        rules.Pass,
        rules.Taylor,
        rules.Guided,
        rules.Deconv,
        rules.BetaSmooth,
        *_EVERYWHERE,
    ),
    "normaliser": (rules.Taylor, rules.Pass, *_EVERYWHERE),
    "quotient": (rules.Taylor, *_EVERYWHERE),
    "softmax": (rules.Taylor, rules.Pass, *_EVERYWHERE),
    "bilinear": (
        rules.UniformSplit,
        rules.SignalTakesAll,
        rules.Taylor,
        *_EVERYWHERE,
    ),
    "product": (
        rules.UniformSplit,
        rules.SignalTakesAll,
        rules.Absolute,
        rules.Taylor,
        *_EVERYWHERE,
    ),
    "selection": (rules.WinnerTakesAll, rules.Norm, rules.Flat, *_EVERYWHERE),
}
"""The rules that make sense for each role."""

Role = Literal[
    "dense",
    "convolution",
    "batch_norm",
    "average",
    "sum",
    "scale",
    "shift",
    "activation",
    "normaliser",
    "quotient",
    "softmax",
    "bilinear",
    "product",
    "selection",
    "layer",
    "any",
]
"""The names of roles, and of groups of them."""

GROUPS: dict[str, tuple[str, ...]] = {
    "layer": ("dense", "convolution"),
    "any": tuple(ALLOWED),
}
"""Names that stand for several roles."""

Depths = tuple[int | None, int | None]


@dataclasses.dataclass(frozen=True)
class Place:
    """What a composite is told about a step.

    Attributes:
      role: its role.
      first: does no layer lie between it and the input?
      scope: the named scopes around it.
      primitive: its main primitive.
      depth: the number of layers between the input and it, on the longest path.
      activated: does its result go into an activation and nowhere else?
      recurrent: is it a layer whose weights some path of the program passes twice, or
        a shift by the first state of a recurrence behind its weights?
      residual: is it a sum of a value and of what is made of that value?
      names: what its parameters are called, by their paths in the arguments.

    Examples:
      >>> from jaxlrp import composites
      >>> composites.EpsilonPlus().rule(composites.Place("convolution"))
      ZPlus(epsilon=1e-06)
    """

    role: str
    first: bool = False
    scope: str = ""
    primitive: str = ""
    depth: int = 0
    activated: bool = False
    recurrent: bool = False
    residual: bool = False
    names: tuple[str, ...] = ()

    def is_called(self, pattern: str) -> bool:
        """Does a glob match its named scopes, or the path of a parameter?"""
        if fnmatch.fnmatchcase(self.scope, pattern):
            return True
        return fits_any(pattern, self.names)


_CONDITIONS = ("scope", "primitive", "depth", "activated", "recurrent", "residual")
"""The conditions of a line that may be None."""


@dataclasses.dataclass(frozen=True)
class Assignment:
    """One line of a composite: a rule, and what it applies to.

    Attributes:
      role: the role, or the name of a group of roles.
      rule: the rule.
      first: only where no layer lies between the step and the input.
      scope: only where this glob matches the named scopes (`jax.named_scope`, Flax
        Linen module paths) or the path of the layer's parameter in the arguments
        (`conv1` or `conv1.kernel`), `*` matching any characters.
      primitive: only where the step's main primitive has this name.
      depth: only where `start <= number of layers before the step < stop`; either may
        be None. Layers are counted on the longest path from the input, a loop's once.
      activated: only where the result goes (True) or does not go (False) straight into
        an activation.
      recurrent: only layers that lie (True) or do not lie (False) in a recurrence: the
        same weights occur again along a path, in a loop or unrolled. Of shifts, only
        those by a recurrence's first state behind its weights.
      residual: only sums that are (True) or are not (False) of a value and what is made
        of it, as `x + f(x)`.

    Examples:
      >>> from jaxlrp import composites, rules
      >>> line = composites.Assignment("dense", rules.Gamma(0.1), scope="head*")
      >>> line.matches(composites.Place("dense", scope="head/out"))
      True
      >>> line.condition()
      'scope=head*'
    """

    role: str
    rule: Rule
    first: bool = False
    scope: str | None = None
    primitive: str | None = None
    depth: Depths | None = None
    activated: bool | None = None
    recurrent: bool | None = None
    residual: bool | None = None

    def __post_init__(self) -> None:
        _check_role(self.role)
        flag("first", self.first)
        if self.scope is not None:
            text("scope", self.scope, "a glob, a str, or None")
        if self.primitive is not None:
            text("primitive", self.primitive, "the name of a primitive, or None")
        if self.depth is not None:
            _check_depth(self.depth)
        for name in ("activated", "recurrent", "residual"):
            value = getattr(self, name)
            if value is not None and not isinstance(value, bool | np.bool_):
                raise ValueError(f"{name}: got {value!r}, expected True, False or None")

    def matches(self, place: Place) -> bool:
        """Does this line apply to such a step?"""
        start, stop = self.depth or (None, None)
        return (
            place.role in GROUPS.get(self.role, (self.role,))
            and (place.first or not self.first)
            and (self.scope is None or place.is_called(self.scope))
            and self.primitive in (None, place.primitive)
            and (start is None or start <= place.depth)
            and (stop is None or place.depth < stop)
            and self.activated in (None, place.activated)
            and self.recurrent in (None, place.recurrent)
            and self.residual in (None, place.residual)
        )

    def condition(self) -> str:
        """The conditions in words, for printing."""
        parts = ["first"] if self.first else []
        parts += [
            f"{name}={value}"
            for name in _CONDITIONS
            if (value := getattr(self, name)) is not None
        ]
        return ", ".join(parts)


def _check_role(role: Any) -> None:
    known = (*GROUPS, *ALLOWED)
    if not isinstance(role, str) or role not in known:
        names = ", ".join(known)
        raise ValueError(f"role: got {role!r}, expected one of {names}")


def _changed(rule: Any, changes: Mapping[str, Any]) -> Rule | None:
    """The rule with other attributes, or None if it has no such ones."""
    if set(changes) <= set(_attributes(type(rule))):
        return dataclasses.replace(rule, **changes)
    if isinstance(rule, rules.TopK):
        inner = _changed(rule.rule, changes)
        return None if inner is None else dataclasses.replace(rule, rule=inner)
    return None


def _attributes(rule: Any) -> list[str]:
    return [f.name for f in dataclasses.fields(rule) if f.init]


def _with_attributes(rule: type[Rule]) -> str:
    return f"{rule.__name__}({', '.join(_attributes(rule))})"


def _documented(rule: Rule) -> str:
    """Where a rule's docstring is."""
    kind = type(rule)
    module = "jaxlrp.rules" if kind in _OWN else kind.__module__
    return f"{module}.{kind.__qualname__}"


_OWN = frozenset(r for r in vars(rules).values() if isinstance(r, type))
"""The classes of this package; a user's are others."""


def _suits(rule: Rule, role: str) -> bool:
    """Does the rule make sense for the role? A user's on relevances does for any."""
    theirs = isinstance(rule, rules.RelevanceRule) and type(rule) not in _OWN
    return theirs or isinstance(rule, ALLOWED[role])


def _check_temperature(role: str, rule: Rule) -> None:
    """Raises for a temperature where there is no softmax."""
    if isinstance(rule, rules.Taylor) and rule.temperature is not None:
        if role != "softmax":
            raise ValueError(
                f"rule: got {rule!r} for role {role!r}: only a softmax has a "
                f"temperature"
            )


def _is_count(n: Any) -> bool:
    return isinstance(n, int) and not isinstance(n, bool) and n >= 0


def _check_primitive(primitive: str) -> None:
    """Raises for a name that is not in the rule book."""
    known = entries()
    if primitive not in known:
        near = [name for name in known if primitive in name][:5]
        near = near or difflib.get_close_matches(primitive, known, 3, 0.3)
        names = ", ".join(map(repr, near)) or "none"
        raise ValueError(
            f"primitive: got {primitive!r}, which is not in the rule book; nearest: "
            f"{names}"
        )


def _check_depth(depth: Any) -> None:
    pair = isinstance(depth, tuple) and len(depth) == 2
    if not pair or not all(n is None or _is_count(n) for n in depth):
        raise ValueError(
            f"depth: got {depth!r}, expected a pair (start, stop) of numbers of layers "
            f"or None"
        )
    start, stop = depth
    if stop is not None and (start or 0) >= stop:
        raise ValueError(f"depth: got {depth!r}, which holds no layer: start >= stop")


@dataclasses.dataclass(frozen=True)
class Composite:
    """Rules by role; a pytree whose leaves are the rules' hyper-parameters.

    Attributes:
      name: what it is called when printed.
      assignments: the lines; the last that matches wins.
      constants: globs of named scopes, or paths of parameters, whose results count as
        constants.

    Examples:
      >>> from jaxlrp import composites, rules
      >>> composite = composites.Composite("mine").on("layer", rules.Epsilon())
      >>> print(composite.on("convolution", rules.ZPlus()))
      mine
        role         rule                      documented in
        layer        Epsilon(epsilon=1e-06)    jaxlrp.rules.Epsilon
        convolution  ZPlus(epsilon=1e-06)      jaxlrp.rules.ZPlus
    """

    name: str
    assignments: tuple[Assignment, ...] = ()
    constants: tuple[str, ...] = ()

    def on(
        self,
        role: Role,
        rule: Rule,
        *,
        first: bool = False,
        scope: str | None = None,
        primitive: str | None = None,
        depth: Depths | None = None,
        activated: bool | None = None,
        recurrent: bool | None = None,
        residual: bool | None = None,
    ) -> Composite:
        """This composite with one more line, which wins over the earlier ones.

        Args:
          role: a role's name; `layer` for dense layers and convolutions, `any` for all.
          rule: the rule that such steps get.
          first: only for the first layers.
          scope: a glob for the named scopes, or for the path of the layer's kernel (or
            another parameter) in the arguments of `f`: `conv1`, `layers[3]`, `*.query`.
            A path is matched up to a whole part: `conv1` stands for `conv1.kernel`.
          primitive: the name of the step's main primitive.
          depth: `(start, stop)`, numbers of layers before the step.
          activated: whether an activation follows.
          recurrent: whether the layer lies in a recurrence.
          residual: whether the sum is of a value and what is made of it.

        Returns:
          A new composite.

        Raises:
          ValueError: for an unknown role or primitive, or a depth that is not a pair.
          TypeError: for a rule that makes no sense for that role.
        """
        line = Assignment(
            role,
            rule,
            first,
            scope,
            primitive,
            depth,
            activated,
            recurrent,
            residual,
        )
        if primitive is not None:
            _check_primitive(primitive)
        inner = rule.rule if isinstance(rule, rules.TopK) else rule
        given: Any = rule
        hint = "; was it meant to be called?" if isinstance(given, type) else ""
        for one in GROUPS.get(role, (role,)):
            if not all(_suits(r, one) for r in (rule, inner)):
                names = ", ".join(sorted(r.__name__ for r in ALLOWED[one]))
                raise TypeError(
                    f"rule: got {rule!r} for role {one!r}, which takes one of {names}"
                    f"{hint}"
                )
        for one in (rule, inner):
            as_pytree(one)
        _check_temperature(role, inner)
        return dataclasses.replace(self, assignments=(*self.assignments, line))

    def hold(self, scope: str) -> Composite:
        """This composite, under which what some layers compute is a constant.

        No relevance goes there, and nothing is lost: what a constant is multiplied
        with takes all, and what it is added to shares as with a bias.

        Args:
          scope: a glob for the named scopes (`jax.named_scope`, Flax Linen module
            paths), as `"*router*"` or `"*/gate"`, or for the path of a parameter: what
            is computed with it is a constant.

        Returns:
          A new composite.

        Raises:
          TypeError: for a scope that is no string.

        Examples:
          >>> import jax, jax.numpy as jnp, jaxlrp
          >>> def f(x):
          ...     with jax.named_scope("mix"):
          ...         weight = x.sum()
          ...     return weight * x
          >>> attn = jaxlrp.composites.AttnLRP()
          >>> x = jnp.array([1.0, 2.0])
          >>> jaxlrp.lrp(f, attn.hold("mix"), target="all")(x).round(2).tolist()
          [3.0, 6.0]
        """
        text("scope", scope, "a glob, a str")
        return dataclasses.replace(self, constants=(*self.constants, scope))

    def replace(self, role: Role, **changes: Any) -> Composite:
        """This composite with other numbers, or options, in the rules of a role.

        Lines keep their places and conditions. What a line for several roles says of
        the others stays: one for `role` alone is put behind it.

        Args:
          role: a role's name; `layer` for dense layers and convolutions, `any` for all.
          **changes: attributes of its rules, as `gamma=0.1`. They change in each line
            for the role whose rule has all of them; if there is no line for the role,
            in its default.

        Returns:
          A new composite.

        Raises:
          ValueError: for an unknown role, or a value that the rule refuses.
          TypeError: if no rule of the role has such attributes.

        Examples:
          >>> from jaxlrp import composites
          >>> composite = composites.EpsilonGammaBox(-1.0, 1.0)
          >>> composite = composite.replace("convolution", gamma=0.1)
          >>> composite.of_role("convolution")[1].rule
          GeneralizedGamma(gamma=0.1)
        """
        _check_role(role)
        if not changes:
            raise TypeError("changes: got none, expected attributes of a rule")
        wanted = set(GROUPS.get(role, (role,)))
        lines: list[Assignment] = []
        changed = False
        for line in self.assignments:
            own = set(GROUPS.get(line.role, (line.role,)))
            rule = _changed(line.rule, changes) if own & wanted else None
            if rule is None or not own <= wanted:
                lines.append(line)
            if rule is not None:
                for_role = line.role if own <= wanted else role
                lines.append(dataclasses.replace(line, role=for_role, rule=rule))
                changed = True
        if changed:
            return dataclasses.replace(self, assignments=tuple(lines))
        if role not in GROUPS and not self.of_role(role):
            rule = _changed(DEFAULTS[role], changes)
            if rule is not None:
                return self.on(role, rule)
        known = {r for one in wanted for r in self._rules_of(one)}
        rules_of = ", ".join(sorted(map(_with_attributes, known))) or "none"
        names = ", ".join(changes)
        raise TypeError(
            f"changes: got {names} for role {role!r}, expected attributes of one of "
            f"its rules in {self.name}: {rules_of}"
        )

    def _rules_of(self, role: str) -> set[type[Rule]]:
        """The classes of the rules that steps of a role may get."""
        lines = [a.rule for a in self.of_role(role)]
        inner = [r.rule for r in lines if isinstance(r, rules.TopK)]
        return {type(r) for r in [*lines, *inner] or [DEFAULTS[role]]}

    def named(self, name: str) -> Composite:
        """The same composite under another name.

        Args:
          name: what it is called when printed.

        Returns:
          A new composite.

        Raises:
          TypeError: for a name that is no string.

        Examples:
          >>> from jaxlrp import composites
          >>> composites.Epsilon().named("mine").name
          'mine'
        """
        text("name", name)
        return dataclasses.replace(self, name=name)

    def select(self, place: Place) -> int | None:
        """The position of the assignment that wins for such a step, or None."""
        for position in reversed(range(len(self.assignments))):
            if self.assignments[position].matches(place):
                return position
        return None

    def of_role(self, role: str) -> tuple[Assignment, ...]:
        """The lines that can apply to a role."""
        return tuple(
            a for a in self.assignments if role in GROUPS.get(a.role, (a.role,))
        )

    def rule(self, place: Place) -> Rule:
        """The rule of such a step."""
        slot = self.select(place)
        return DEFAULTS[place.role] if slot is None else self.assignments[slot].rule

    def _repr_html_(self) -> str:
        return _html.composite(self)

    def __str__(self) -> str:
        table = [("role", "rule", "where", "documented in")]
        for i, line in enumerate(self.assignments):
            words = f"[{c}]" if (c := line.condition()) else ""
            never = "never: a later line wins" if self._is_beaten(i) else words
            table.append((line.role, str(line.rule), never, _documented(line.rule)))
        hold = "jaxlrp.composites.Composite.hold"
        table += [("any", "constant", f"[scope={c}]", hold) for c in self.constants]
        widths = [max(len(row[i]) for row in table) for i in range(4)]
        if not any(row[2] for row in table[1:]):
            table, widths[2] = [(a, b, "", d) for a, b, _, d in table], 0
        lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in table]
        return "\n".join([self.name, *(f"  {line}" for line in lines)])

    def _is_beaten(self, position: int) -> bool:
        """Do later lines without conditions take all of a line's roles?"""
        line, *later = self.assignments[position:]
        own = set(GROUPS.get(line.role, (line.role,)))
        free = [a.role for a in later if not a.condition()]
        return own <= {one for role in free for one in GROUPS.get(role, (role,))}


jax.tree_util.register_dataclass(Assignment, ["rule"], ["role", "first", *_CONDITIONS])
jax.tree_util.register_dataclass(Composite, ["assignments"], ["name", "constants"])
