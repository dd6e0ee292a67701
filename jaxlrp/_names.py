"""Names of parameters: where in a function's arguments they are, and globs for that.

A layer is called as its weights are: `conv1.kernel`, `layers[3].attention.query.w`. The
path counts from the argument that holds them. The argument's own name comes first if
two arguments have the same path in them, or the argument is the array itself or a list.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
import fnmatch
import inspect
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from jax.tree_util import GetAttrKey, keystr

MOST = 16
"""What is made of more leaves than this is no parameter, and has no name."""

CLOSED_OVER = (
    "no layer of f has a name by its parameters: weights that f closes over are "
    "constants, without a path. Pass the model, or its parameters, as an argument of f"
)
"""Why there may be no path at all."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """A leaf of the arguments that a constant comes from.

    Attributes:
      names: what it is called; the first is shown. All have the index of the part that
        was taken: `[3]`, `[:]` where a scan takes one after the other, or `[*]`.
      whole: is it the leaf, or a part by its first axis, and nothing else? Only then is
        the next index one of that leaf.
    """

    names: tuple[str, ...]
    whole: bool = True

    def part(self, index: str) -> Origin:
        """What one index along the first axis picks; of what was changed unknown."""
        if not self.whole:
            return self
        return Origin(tuple(f"{name}[{index}]" for name in self.names))

    def changed(self) -> Origin:
        """What is made of it by more than an index."""
        return dataclasses.replace(self, whole=False)


_QUOTED = re.compile(r"\[(?:'([^']*)'|\"([^\"]*)\")\]")
_NUMBERED = re.compile(r"\[(-?\d+|:|\*)\]")


def plain(path: str) -> str:
    """A path with dots alone: `['params']['Dense_0'].w[3]` is `params.Dense_0.w.3`."""
    path = _QUOTED.sub(lambda m: f".{m[1] if m[1] is not None else m[2]}", path)
    return _NUMBERED.sub(r".\1", path).lstrip(".")


def fits(pattern: str, name: str) -> bool:
    """Does a glob match a path, or the beginning of one up to a whole part?"""
    pattern, name = plain(pattern), plain(name)
    return fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(
        name, f"{pattern}.*"
    )


def numbered(path: str, index: Sequence[int]) -> str | None:
    """The path of one of the parts that scans take; None where it is not one for each.

    >>> numbered("layers.w[:]", (3,))
    'layers.w[3]'
    """
    if path.count("[:]") != len(index):
        return None
    numbers = iter(index)
    return re.sub(r"\[:\]", lambda _: f"[{next(numbers)}]", path)


def fits_any(pattern: str, names: Iterable[str]) -> bool:
    """Does a glob match one of several paths?"""
    return any(fits(pattern, name) for name in names)


def of_leaves(f: Callable[..., Any], paths: Sequence[Any]) -> list[Origin]:
    """The origins of leaves of `(args, kwargs)`, by their key paths."""
    arguments = _argument_names(f)
    ways = [(_argument(path, arguments), _inner(path[2:])) for path in paths]
    counts = collections.Counter(inner for _, inner in ways)
    origins = []
    for argument, inner in ways:
        whole = _joined(argument, inner)
        alone = inner[:1] not in ("", "[") and counts[inner] == 1
        origins.append(Origin((inner, whole) if alone else (whole, inner or whole)))
    return origins


def _argument_names(f: Callable[..., Any]) -> list[str]:
    """The names of positional parameters, as far as they are known."""
    try:
        parameters = inspect.signature(f).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.kind in _POSITIONAL]


_POSITIONAL = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


def _argument(path: Any, names: list[str]) -> str:
    if path[0].idx == 1:
        return str(path[1].key)
    position = path[1].idx
    return names[position] if position < len(names) else f"[{position}]"


def _inner(path: Any) -> str:
    """A key path in writing; the `.value` of a framework's variable is left out."""
    if len(path) > 1 and path[-1] == GetAttrKey("value"):
        path = path[:-1]
    parts = [keystr((key,), simple=True) for key in path]
    shown = (f"[{p}]" if p.isdigit() else f".{p}" for p in parts)
    return "".join(shown).lstrip(".")


def _joined(argument: str, inner: str) -> str:
    return argument + inner if inner[:1] in ("", "[") else f"{argument}.{inner}"


def nearest(pattern: str, scopes: Sequence[str], paths: Sequence[str]) -> list[str]:
    """Of scopes and paths those that are most like a pattern; else the first ones."""
    bare = pattern.replace("*", "").strip("/.")
    known = {n.lower(): n for n in reversed([*scopes, *paths])}
    parts = {p.lower(): n for n in reversed(scopes) for p in n.split("/")}
    parts |= {p.lower(): n for n in reversed(paths) for p in plain(n).split(".")}
    parts |= {plain(n).rpartition(".")[0].lower(): n for n in reversed(paths)}
    found: list[str] = []
    for options in (known, parts):
        near = difflib.get_close_matches(plain(bare).lower(), options, 3, 0.4)
        found += [options[name] for name in near]
    both = [*scopes[:3], *paths[:3]]
    return list(dict.fromkeys(found))[:5] or both
