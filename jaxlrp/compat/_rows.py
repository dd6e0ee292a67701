"""What a table of a peer's names is made of, and how presets are varied."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from jaxlrp.composites import Composite
from jaxlrp.rules import Rule, TopK


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of a table for those who come from another package.

    Attributes:
      name: the peer's name, as one writes it there.
      ours: the same in this package, an expression in `composites`, `rules`, `jaxlrp`.
      differs: what is not the same, or nothing.
      call: the module's own function, an expression that is equal to `ours`.

    Examples:
      >>> from jaxlrp.compat import zennit
      >>> row = zennit.TABLE[0]
      >>> row.name, row.ours, row.call
      ('Epsilon()', 'rules.Epsilon(1e-6)', 'zennit.Epsilon()')
    """

    name: str
    ours: str
    differs: str = ""
    call: str = ""


def changed(composite: Composite, change: Callable[[Rule], Rule]) -> Composite:
    """The composite with every rule replaced by `change(rule)`."""

    def deep(rule: Rule) -> Rule:
        if isinstance(rule, TopK):
            return dataclasses.replace(rule, rule=change(rule.rule))
        return change(rule)

    lines = (dataclasses.replace(a, rule=deep(a.rule)) for a in composite.assignments)
    return dataclasses.replace(composite, assignments=tuple(lines))


def with_options(rule: Any, **options: Any) -> Rule:
    """The rule with those of the options that it has."""
    names = {field.name for field in dataclasses.fields(rule)}
    return dataclasses.replace(rule, **{k: v for k, v in options.items() if k in names})
