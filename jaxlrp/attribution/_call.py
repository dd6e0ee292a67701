"""A call as a function of its attributed leaves alone, and the targets of a method.

The methods of this package explain a *score*: the output, weighted with the seed that
the target gives at the explained input, and summed. The seed does not change when a
method evaluates the function elsewhere.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from jaxlrp import _targets, _trace
from jaxlrp._reading.facts import is_real
from jaxlrp._rewriting.difference import leaf_name
from jaxlrp._trace import ArgNums
from jaxlrp.attribution._chunks import accumulator

Explainer = Callable[..., Callable[..., Any]]
"""`method(f, *, argnums, target)`, as `gradient` or `jaxlrp.lrp`."""


@dataclasses.dataclass(frozen=True)
class Call:
    """A function and its arguments.

    Attributes:
      xs: the attributed leaves, as arrays.
      names: what messages call them.
      function: the function, without its auxiliary output.
      arguments: from attributed leaves to `(args, kwargs)`.
      output: from attributed leaves to `(out, aux)`.
      restore: puts the attributed leaves into the form that `argnums` asks for.
      has_aux: whether the function has an auxiliary output.
    """

    xs: list[Array]
    names: list[str]
    function: Callable[..., Any]
    arguments: Callable[[list[Any]], tuple[tuple, dict]]
    output: Callable[[list[Any]], tuple[Any, Any]]
    restore: Callable[[list[Any]], Any]
    has_aux: bool

    def auxiliary(self) -> Any:
        """The auxiliary output at the explained input; costs nothing without one."""
        return self.output(self.xs)[1] if self.has_aux else ()

    @property
    def order(self) -> list[int]:
        """The numbers of the attributed leaves, in the order of `restore`'s form."""
        return jax.tree.leaves(self.restore(list(range(len(self.xs)))))


def method(
    name: str,
    f: Callable[..., Any],
    argnums: ArgNums,
    target: Any,
    has_aux: bool,
    explain: Callable[[Call], tuple[list[Array], Any]],
) -> Callable[..., Any]:
    """The function that the method of this name returns; what can be checked is.

    `explain` gives the attributions of the leaves, and the auxiliary output.
    """

    def whole(call: Call) -> tuple[Any, Any]:
        attributions, aux = explain(call)
        return call.restore(as_inputs(attributions, call.xs)), aux

    returns = "the attribution of the chosen argument, in its structure and shapes"
    return wrapped(name, f, argnums, target, has_aux, whole, returns)


def wrapped(
    name: str,
    f: Callable[..., Any],
    argnums: ArgNums,
    target: Any,
    has_aux: bool,
    explain: Callable[[Call], tuple[Any, Any]],
    returns: str = "an array; see the method",
) -> Callable[..., Any]:
    """`method` for results in any form."""
    _trace.checked(f, None, argnums, target, has_aux)

    aux = "; `(attribution, aux)`" if has_aux else ""

    @_trace.wraps(f, f"attribution.{name}", f"{returns}{aux}.")
    def attribution(*args: Any, **kwargs: Any) -> Any:
        result, aux = explain(bind(f, args, kwargs, argnums, has_aux))
        return (result, aux) if has_aux else result

    return attribution


def as_inputs(attributions: list[Array], xs: list[Array]) -> list[Array]:
    """Attributions in their inputs' dtypes."""
    return [a.astype(x.dtype) for a, x in zip(attributions, xs, strict=True)]


def bind(
    f: Callable[..., Any], args: tuple, kwargs: dict, argnums: ArgNums, has_aux: bool
) -> Call:
    """Binds the arguments; checks `argnums` and the leaves that it names."""
    positions = _trace.as_positions(argnums, len(args))
    _trace.warn_of_keywords(f, args, kwargs, argnums)
    leaves, tree = jax.tree_util.tree_flatten_with_path((args, kwargs))
    chosen, names = [], []
    for i, (path, leaf) in enumerate(leaves):
        if path[0].idx == 0 and path[1].idx in positions:
            _trace.check_floating(path, leaf)
            chosen.append(i)
            names.append(leaf_name(path))

    arguments = _trace.refilled([leaf for _, leaf in leaves], tree, chosen)

    @_trace.wraps(f, "lrp", "its output alone.")  # layers have its arguments' names
    def function(*args: Any, **kwargs: Any) -> Any:
        return _trace.split_aux(f(*args, **kwargs), has_aux)[0]

    def output(xs: list[Any]) -> tuple[Any, Any]:
        args, kwargs = arguments(xs)
        out, aux = _trace.split_aux(f(*args, **kwargs), has_aux)
        return _trace.as_output(out), aux

    single = not isinstance(argnums, tuple | list)
    restore = _trace.restorer(args, positions, single)
    xs = [jnp.asarray(leaves[i][1]) for i in chosen]
    return Call(xs, names, function, arguments, output, restore, has_aux)


def floats(out: Any) -> list[Array]:
    """The leaves of an output that can carry a score."""
    leaves = jax.tree.leaves(out)
    real = [y for y in leaves if is_real(y.aval)]
    if not real:
        kinds = ", ".join(str(y.aval) for y in leaves) or "nothing"
        raise TypeError(
            f"f: its output has no floating-point leaf ({kinds}), so there is nothing "
            f"to attribute"
        )
    return real


def seed(target: Any, out: Any) -> list[Array]:
    """The cotangents of the output's floating-point leaves: one at the target."""
    real = floats(out)
    whole = _targets.weights(target, out)
    seeds = [s for s in jax.tree.leaves(whole) if is_real(s.aval)]
    return [s.astype(y.dtype) for s, y in zip(seeds, real, strict=True)]


def fixed(target: Any, out: Any) -> Any:
    """The target as it is at `out`: the highest is a class, a callable its seed."""
    if callable(target):
        at_input = _targets.relevance(target, out)
        return lambda _: at_input
    divided = _targets.split(target, out)
    if divided is not None:
        pairs, restore = divided
        return restore([None if t is None else fixed(t, o) for t, o in pairs])
    if isinstance(target, str) and target == "max":
        (leaf,) = _targets._single(target, out)
        return _targets.highest(leaf) if leaf.ndim else target
    inner = getattr(target, "target", None)
    if dataclasses.is_dataclass(target) and isinstance(inner, str):
        return dataclasses.replace(target, target=fixed(inner, out))  # type: ignore
    return target


def vjp(call: Call) -> tuple[Any, Any, Callable[[list[Array]], list[Array]]]:
    """`(out, aux, pull)`; `pull` takes the cotangents that `seed` gives."""
    trees: list[Any] = []

    def real(xs: list[Array]) -> Any:
        out, aux = call.output(xs)
        leaves, tree = jax.tree.flatten(out)
        arrays, restore_aux = _trace.arrays_of(aux)
        trees[:] = [tree, restore_aux]
        return floats(out), (leaves, arrays)

    _, pull, (leaves, arrays) = jax.vjp(real, call.xs, has_aux=True)
    tree, restore_aux = trees
    return (
        jax.tree.unflatten(tree, leaves),
        restore_aux(arrays),
        lambda seeds: pull(seeds)[0],
    )


def gradient_at(call: Call, seeds: list[Array], xs: list[Array]) -> list[Array]:
    """The gradient of the score, at other inputs."""
    _, _, pull = vjp(dataclasses.replace(call, xs=xs))
    return pull(seeds)


def score(call: Call, seeds: list[Array]) -> Callable[[list[Array]], Array]:
    """The score as a function of the attributed leaves, its seed held."""

    def of(xs: list[Array]) -> Array:
        values = floats(call.output(xs)[0])
        parts = [
            (y * s).astype(accumulator(y)).sum()
            for y, s in zip(values, seeds, strict=True)
        ]
        return sum(parts[1:], start=parts[0])

    return of


def explainer(
    call: Call, method: Explainer, target: Any, argnums: ArgNums
) -> Callable[[list[Array]], list[Array]]:
    """Another method on the same call, from attributed leaves to their attributions."""

    def attributions(xs: list[Array]) -> list[Array]:
        args, kwargs = call.arguments(xs)
        places = _trace.from_front(argnums, len(args))
        whole = method(call.function, argnums=places, target=target)(*args, **kwargs)
        found: list[Any] = [None] * len(xs)
        for i, leaf in zip(call.order, jax.tree.leaves(whole), strict=True):
            found[i] = leaf
        return found

    return attributions
