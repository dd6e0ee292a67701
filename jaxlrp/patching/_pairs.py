"""A clean and a corrupt input of one program, checked and read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxlrp._trace import is_array
from jaxlrp.composites import Composite
from jaxlrp.patching._program import Program, read
from jaxlrp.patching._sites import Group, Site


@dataclasses.dataclass(frozen=True, eq=False)
class Pair:
    """Both runs of a function.

    Attributes:
      clean: the program at the clean input.
      corrupt: the same at the corrupt one.
    """

    clean: Program
    corrupt: Program

    def groups(
        self, sites: Mapping[str, Site], argument: str
    ) -> tuple[dict[str, Group], dict[str, Group]]:
        """The values that sites name, in the clean and in the corrupt program.

        Raises:
          ValueError: if they are others.
        """
        clean = self.clean.groups(sites, argument)
        if self.clean.traced.reading is self.corrupt.traced.reading:
            return clean, clean
        corrupt = self.corrupt.groups(sites, argument)
        for name in clean:
            if clean[name].shape != corrupt[name].shape:
                raise ValueError(
                    f"{argument}: {name!r} has shape {clean[name].shape} in the clean "
                    f"run and {corrupt[name].shape} in the corrupt one"
                )
        return clean, corrupt


def read_pair(
    f: Callable[..., Any],
    params: Any,
    clean: Any,
    corrupt: Any,
    composite: Composite | None,
) -> Pair:
    """Reads `f(params, x)` for both inputs, once where they have the same structure.

    Raises:
      ValueError: for inputs of different structure or shape.
    """
    _check_alike(clean, corrupt)
    program = read(f, (params, clean), composite)
    if _same_rest(clean, corrupt):
        return Pair(program, program.at(params, corrupt))
    return Pair(program, read(f, (params, corrupt), composite))


def _check_alike(clean: Any, corrupt: Any) -> None:
    one, two = map(jax.tree_util.tree_flatten_with_path, (clean, corrupt))
    if one[1] != two[1]:
        raise ValueError(
            f"corrupt: got the structure {two[1]}, expected that of clean, {one[1]}"
        )
    for (path, a), (_, b) in zip(one[0], two[0], strict=True):
        shapes = [(jnp.shape(v), jnp.result_type(v)) for v in (a, b) if is_array(v)]
        if len(set(shapes)) > 1 or len(shapes) == 1:
            raise ValueError(
                f"corrupt{jax.tree_util.keystr(path)}: got {_shown(b)}, expected what "
                f"clean has there, {_shown(a)}: both runs must have the same positions"
            )


def _shown(value: Any) -> str:
    if not is_array(value):
        return repr(value)
    return f"shape {jnp.shape(value)} and dtype {jnp.result_type(value)}"


def _same_rest(clean: Any, corrupt: Any) -> bool:
    """Are the leaves that are no arrays, and that `f` may branch on, the same?"""
    pairs = zip(jax.tree.leaves(clean), jax.tree.leaves(corrupt), strict=True)
    return all(is_array(a) or a is b or a == b for a, b in pairs)
