"""Formulas about nodes: read, and written as a sum over the sets that walks avoid."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

MOST = 12
"""How many names a formula may have: it takes two sets to that power."""

_TOKEN = re.compile(r"\s*(?:([()&|~!])|'([^']*)'|\"([^\"]*)\"|([^\s()&|~!'\"]+))")
_WORDS = {"and": "&", "or": "|", "not": "~", "&": "&", "|": "|", "~": "~", "!": "~"}

Holds = Callable[[frozenset[str]], bool]


@dataclasses.dataclass(frozen=True)
class Formula:
    """A formula: the names in it, and whether it holds where some of them are met."""

    text: str
    names: tuple[str, ...]
    holds: Holds

    def terms(
        self, names: tuple[str, ...], weigh: Callable[[frozenset[str]], float]
    ) -> list[tuple[tuple[str, ...], float]]:
        """Sets of names, with factors: what avoids them, times these, adds up.

        What meets the names `P` and no others counts `weigh(P)` times. It is, with
        `A(T)` for what avoids `T`,

            E_P = sum over Q in P of (-1)^(|P| - |Q|) A(all names without Q)

        Args:
          names: all names that are told apart, those of the formula among them.
          weigh: the weight of what meets these names and no others.
        """
        factors: dict[tuple[str, ...], float] = {}
        for met in _subsets(names):
            if not self.holds(frozenset(met)):
                continue
            weight = weigh(frozenset(met))
            for kept in _subsets(met):
                avoided = tuple(n for n in names if n not in kept)
                sign = (-1) ** (len(met) - len(kept))
                factors[avoided] = factors.get(avoided, 0) + sign * weight
        return [(a, f) for a, f in factors.items() if abs(f) > 1e-12]


def terms_of(
    formulas: Sequence[Formula], weights: str
) -> list[list[tuple[tuple[str, ...], float]]]:
    """Those of each formula: `"prediff"` for weights of one, `"shapley"` for shares.

    Raises:
      ValueError: for formulas with too many names between them, where they share.
    """
    if weights == "prediff":
        return [f.terms(f.names, lambda _: 1.0) for f in formulas]
    names = tuple(dict.fromkeys(n for f in formulas for n in f.names))
    if len(names) > MOST:
        raise ValueError(
            f"ask: got {len(names)} names in all formulas, expected at most {MOST} "
            f"with weights='shapley', which has to know of every walk how many hold "
            f"for it"
        )

    def share(met: frozenset[str]) -> float:
        return 1 / sum(f.holds(met) for f in formulas)

    return [f.terms(names, share) for f in formulas]


def parse(text: str) -> Formula:
    """Reads a formula: `or` binds least, `not` most.

    Raises:
      ValueError: with the place at which it cannot be read.
    """
    tokens = list(_tokens(text))
    names: dict[str, None] = {}

    def fail(place: int, expected: str) -> ValueError:
        found = "its end" if place >= len(tokens) else repr(tokens[place][1])
        return ValueError(f"ask: got {text!r}, in which {found} is met; {expected}")

    def is_sign(place: int, sign: str) -> bool:
        return place < len(tokens) and tokens[place] == (True, sign)

    def chain(sign: str, part: Callable, join: Callable, place: int) -> tuple:
        one, place = part(place)
        parts = [one]
        while is_sign(place, sign):
            one, place = part(place + 1)
            parts.append(one)
        if len(parts) == 1:
            return parts[0], place
        return lambda met: join(p(met) for p in parts), place

    def either(place: int) -> tuple[Holds, int]:
        return chain("|", both, any, place)

    def both(place: int) -> tuple[Holds, int]:
        return chain("&", single, all, place)

    def single(place: int) -> tuple[Holds, int]:
        if is_sign(place, "~"):
            inner, place = single(place + 1)
            return lambda met: not inner(met), place
        if is_sign(place, "("):
            inner, place = either(place + 1)
            if not is_sign(place, ")"):
                raise fail(place, "expected a closing parenthesis")
            return inner, place + 1
        if place >= len(tokens) or tokens[place][0]:
            raise fail(place, "expected a name, not or a parenthesis")
        name = tokens[place][1]
        names.setdefault(name)
        return lambda met: name in met, place + 1

    holds, end = either(0)
    if end < len(tokens):
        raise fail(end, "expected and, or or its end")
    if len(names) > MOST:
        raise ValueError(f"ask: got {len(names)} names, expected at most {MOST}")
    return Formula(text, tuple(names), holds)


def check_names(formula: Formula, nodes: Mapping[str, object]) -> None:
    """Raises for a name without nodes."""
    for name in formula.names:
        if name not in nodes:
            known = [str(n) for n in nodes]
            near = difflib.get_close_matches(name, known, 3, 0.0) or known[:3]
            raise ValueError(
                f"ask: got {formula.text!r}, but nodes has no {name!r}; near are "
                f"{', '.join(map(repr, near)) or 'none'}"
            )


def _tokens(text: str) -> Iterator[tuple[bool, str]]:
    """Signs (True) and names (False)."""
    place = 0
    stripped = text.rstrip()
    while place < len(stripped):
        match = _TOKEN.match(stripped, place)
        if match is None:
            raise ValueError(
                f"ask: got {text!r}, in which {stripped[place:]!r} cannot be read: a "
                f"quote that does not end?"
            )
        sign, one, two, bare = match.groups()
        place = match.end()
        if sign is not None:
            yield True, _WORDS.get(sign, sign)
        elif bare is not None and bare.lower() in _WORDS:
            yield True, _WORDS[bare.lower()]
        else:
            yield False, next(t for t in (bare, one, two) if t is not None)


def _subsets(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    names = tuple(names)
    for size in range(len(names) + 1):
        yield from itertools.combinations(names, size)
