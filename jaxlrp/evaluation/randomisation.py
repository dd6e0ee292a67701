"""Sanity checks: does the explanation depend on the weights, and on the class?

An explanation of a network is repeated with random weights, layer after layer, or for
another class. If it hardly changes, it does not depend on what was changed.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp.attribution import _checks as checks
from jaxlrp.evaluation import _checks
from jaxlrp.evaluation._chunks import map_over
from jaxlrp.evaluation.similarity import MEASURES

__all__ = [
    "compare",
    "layer_names",
    "logit_swap",
    "parameter_randomisation",
    "random_logit",
    "randomise",
]

Measure = Callable[[jax.Array, jax.Array], jax.Array]
Init = str | Measure

ORDERS = ("cascading", "independent", "bottom_up")
INITS = ("normal", "shuffle")


def layer_names(params: Any) -> tuple[str, ...]:
    """The groups of parameters that `parameter_randomisation` can be asked about.

    A name is the path of a leaf without its last part, with slashes: of Flax,
    `params/Conv_0` for the leaves `params/Conv_0/kernel` and `params/Conv_0/bias`.
    They are in the order of the tree, which need not be that of the network.

    Args:
      params: a pytree of parameters.

    Returns:
      The names.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> params = {"a": {"w": jnp.ones(2), "b": jnp.ones(1)}, "c": {"w": jnp.ones(1)}}
      >>> evaluation.layer_names(params)
      ('a', 'c')
    """
    names = (path.rpartition("/")[0] or path for path in _paths(params))
    return tuple(dict.fromkeys(names))


def randomise(
    params: Any,
    key: Array,
    layers: Sequence[str],
    *,
    init: Init = "normal",
) -> Any:
    """Parameters with some layers redrawn, each with its own key.

    Args:
      params: a pytree of parameters.
      key: a key of `jax.random`; the layer with number `l` gets `fold_in(key, l)`, and
        each leaf in it its own key from that.
      layers: as for `parameter_randomisation`.
      init: as for `parameter_randomisation`.

    Returns:
      A pytree like `params`.

    Raises:
      TypeError: if `key` is no PRNG key, or `layers` has no names.
      ValueError: if `layers` names no parameter, or one twice, or `init` is none of its
        names.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> params = {"a": jnp.arange(3.0), "b": jnp.arange(3.0)}
      >>> drawn = evaluation.randomise(params, jax.random.key(0), ["b"], init="shuffle")
      >>> drawn["a"].tolist(), sorted(drawn["b"].tolist())
      ([0.0, 1.0, 2.0], [0.0, 1.0, 2.0])
    """
    checks.check_key(key)
    draw = _draw(init)
    numbers = _numbers(params, layers)
    leaves, tree = jax.tree.flatten(params)
    count: dict[int, int] = {}
    new = []
    for leaf, number in zip(leaves, numbers, strict=True):
        if number is not None and jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            place = count[number] = count.get(number, -1) + 1
            one = jax.random.fold_in(jax.random.fold_in(key, number), place)
            leaf = _like(jnp.asarray(leaf), draw(one, jnp.asarray(leaf)))
        new.append(leaf)
    return jax.tree.unflatten(tree, new)


def parameter_randomisation(
    explain: Callable[..., Any],
    params: Any,
    *args: Any,
    key: Array,
    layers: Sequence[str],
    order: str = "cascading",
    init: Init = "normal",
    measures: Mapping[str, Measure] = MEASURES,
    batch_ndim: int = 0,
) -> dict[str, Any]:
    """How similar explanations stay as layers are randomised: low is good.

        s_l = similarity(explain(params, ...), explain(params with layers S_l new, ...))

    | order | `S_l` |
    | --- | --- |
    | `"cascading"` | the layers `l, l + 1, ...`, from `l` to the output |
    | `"independent"` | the layer `l` alone |
    | `"bottom_up"` | the layers `0, ..., l`, from the input to `l` |

    A layer gets the same new weights in each order, and no two layers the same key. The
    explanation is compiled once, in a loop over the layers.

    Args:
      explain: from `(params, *args)` to a relevance, or a pytree of relevances: with
        `capture` of `jaxlrp.lrp` that is one for each depth.
      params: a pytree of parameters.
      *args: further arguments of `explain`.
      key: a key of `jax.random`.
      layers: names of groups of parameters, *from the input to the output*, as in
        `layer_names`: a path with slashes, or a glob against paths. A name stands for
        all leaves at and below it, and no leaf may be in two layers. Leaves in none
        stay as they are.
      order: as in the table.
      init: `"normal"` draws from a normal distribution with the leaf's own mean and
        standard deviation, `"shuffle"` permutes its entries, and a function
        `(key, leaf) -> leaf` does as it likes. By the first two what is constant, as
        biases of zero, stays so. Only floating-point leaves are redrawn.
      measures: similarities by name: functions of two arrays.
      batch_ndim: how many leading axes of the relevances count examples.

    Returns:
      For each measure its values, in the form of the relevances, of shape
      `(layers, *examples)`. Number `l` belongs to `layers[l]` in any order.

    Raises:
      TypeError: if `explain` is no function, `key` is no PRNG key, `layers` has no
        names, `measures` has no functions by name, or `batch_ndim` is no int.
      ValueError: if `layers` names no parameter, or one twice, `order` or `init` is
        none of its names, or `batch_ndim` is below 0.

    Source: Adebayo et al. 2018, "Sanity checks for saliency maps".

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> params = {"a": jnp.array([1.0, 2.0, 4.0]), "b": jnp.array([5.0, 1.0, 2.0])}
      >>> explain = lambda p: p["a"] * 7
      >>> found = evaluation.parameter_randomisation(
      ...     explain, params, key=jax.random.key(0), layers=["a", "b"]
      ... )
      >>> found["cosine"].shape, round(float(found["cosine"][1]), 4)
      ((2,), 1.0)
    """
    _checks.function("explain", explain)
    _checks.one_of("order", order, ORDERS)
    checks.natural("batch_ndim", batch_ndim, least=0)
    numbers = _numbers(params, layers)
    leaves, tree = jax.tree.flatten(params)
    fresh = jax.tree.leaves(randomise(params, key, layers, init=init))
    base = explain(params, *args)

    def at(layer: Array) -> dict[str, Any]:
        mixed = []
        for leaf, new, number in zip(leaves, fresh, numbers, strict=True):
            if number is not None:
                replaced = {
                    "cascading": number >= layer,
                    "independent": number == layer,
                    "bottom_up": number <= layer,
                }[order]
                leaf = jnp.where(replaced, new, leaf)
            mixed.append(leaf)
        other = explain(jax.tree.unflatten(tree, mixed), *args)
        return compare(base, other, measures, batch_ndim)

    return lax.map(at, jnp.arange(len(layers)))


def random_logit(
    explain: Callable[[Any], Any],
    target: Any,
    key: Array,
    *,
    classes: int,
    measures: Mapping[str, Measure] = MEASURES,
    batch_ndim: int = 0,
) -> dict[str, Any]:
    """How similar the explanations of a class and of a random other are: low is good.

        similarity(explain(t), explain(u)),    u uniform among the other classes

    Args:
      explain: from a class to a relevance, or a pytree of them, as
        `lambda t: jaxlrp.lrp(f, target=t)(params, x)`. The class is traced.
      target: the class: an int, or an integer array with one for each example.
      key: a key of `jax.random`.
      classes: how many classes there are.
      measures: as for `parameter_randomisation`.
      batch_ndim: as for `parameter_randomisation`.

    Returns:
      For each measure its values, in the form of the relevances, one for each example.

    Raises:
      TypeError: if `explain` is no function, `target` is no integer, `key` is no PRNG
        key, `classes` or `batch_ndim` is no int, or `measures` has no functions by
        name.
      ValueError: if `target` is not below `classes`, `classes` is below 2, or
        `batch_ndim` is below 0.

    Source: Sixt et al. 2020, "When explanations lie: why many modified BP attributions
    fail".

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> explain = lambda t: jnp.eye(3)[t]
      >>> key = jax.random.key(0)
      >>> float(evaluation.random_logit(explain, 1, key, classes=3)["cosine"])
      0.0
    """
    checks.check_key(key)
    checks.natural("classes", classes, least=2)
    own = _classes("target", target)
    _checks.index("target", own, classes)
    step = jax.random.randint(key, own.shape, 1, classes)
    swapped = logit_swap(
        explain,
        own,
        ((own + step) % classes)[None],
        measures=measures,
        batch_ndim=batch_ndim,
    )
    return jax.tree.map(lambda v: v[0], swapped)


def logit_swap(
    explain: Callable[[Any], Any],
    target: Any,
    others: Any,
    *,
    measures: Mapping[str, Measure] = MEASURES,
    batch_ndim: int = 0,
    chunk: int = 8,
) -> dict[str, Any]:
    """How similar the explanations of a class and of each of some others are.

        s_k = similarity(explain(t), explain(u_k))

    The explanations of `chunk` classes are one call under `jax.vmap`, in which what
    does not depend on the class, the forward pass, runs once.

    Args:
      explain: as for `random_logit`.
      target: as for `random_logit`.
      others: the other classes, an integer array of shape `(number, *target's shape)`.
      measures: as for `parameter_randomisation`.
      batch_ndim: as for `parameter_randomisation`.
      chunk: how many classes are explained at once.

    Returns:
      For each measure its values, in the form of the relevances, of shape
      `(number, *examples)`.

    Raises:
      TypeError: if `explain` is no function, `target` is no integer, `others` has no
        integers, `measures` has no functions by name, or `batch_ndim` or `chunk` is no
        int.
      ValueError: if `others` has another shape, `batch_ndim` is below 0, or `chunk` is
        below 1.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> explain = lambda t: jnp.eye(3)[t]
      >>> evaluation.logit_swap(explain, 1, jnp.array([0, 1]))["cosine"].tolist()
      [0.0, 1.0]
    """
    _checks.function("explain", explain)
    checks.natural("chunk", chunk)
    checks.natural("batch_ndim", batch_ndim, least=0)
    own, swapped = _classes("target", target), _classes("others", others)
    _checks.stack_of("others", swapped, own.shape, "target")
    base = explain(own)

    def at(other: Array) -> dict[str, Any]:
        return compare(base, explain(other), measures, batch_ndim)

    return map_over(at, swapped, chunk)


def compare(
    a: Any,
    b: Any,
    measures: Mapping[str, Measure] = MEASURES,
    batch_ndim: int = 0,
) -> dict[str, Any]:
    """The similarities of two relevances, or of two pytrees of them, leaf by leaf.

    Args:
      a: a relevance or a pytree of relevances.
      b: one of the same form.
      measures: as for `parameter_randomisation`.
      batch_ndim: as for `parameter_randomisation`.

    Returns:
      For each measure its values in the form of `a`, one for each example.

    Raises:
      TypeError: if `measures` has no functions by name, or `batch_ndim` is no int.
      ValueError: if `batch_ndim` is below 0.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import evaluation
      >>> a = {"input": jnp.array([[1.0, 0.0], [1.0, 0.0]])}
      >>> b = {"input": jnp.array([[2.0, 0.0], [0.0, 2.0]])}
      >>> measures = {"cosine": evaluation.cosine}
      >>> evaluation.compare(a, b, measures, batch_ndim=1)["cosine"]["input"].tolist()
      [1.0, 0.0]
    """
    checks.natural("batch_ndim", batch_ndim, least=0)
    if not isinstance(measures, Mapping) or not all(map(callable, measures.values())):
        raise TypeError(f"measures: got {measures!r}, expected functions by name")

    def over(measure: Measure) -> Callable[[Array, Array], Array]:
        for _ in range(batch_ndim):
            measure = jax.vmap(measure)
        return measure

    return {name: jax.tree.map(over(m), a, b) for name, m in measures.items()}


def _draw(init: Init) -> Callable[[Array, Array], Array]:
    if callable(init):
        return init
    _checks.one_of("init", init, INITS)

    def normal(key: Array, leaf: Array) -> Array:
        wide = leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))
        return wide.mean() + wide.std() * jax.random.normal(key, leaf.shape, wide.dtype)

    def shuffle(key: Array, leaf: Array) -> Array:
        return jax.random.permutation(key, leaf.reshape(-1)).reshape(leaf.shape)

    return {"normal": normal, "shuffle": shuffle}[init]


def _like(leaf: Array, new: Any) -> Array:
    if jnp.shape(new) != leaf.shape:
        raise ValueError(
            f"init: it returned shape {jnp.shape(new)} for a leaf of {leaf.shape}"
        )
    return jnp.asarray(new).astype(leaf.dtype)


def _paths(params: Any) -> list[str]:
    """The path of each leaf, with slashes."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(params)
    return [
        jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves
    ]


def _numbers(params: Any, layers: Any) -> list[int | None]:
    """The layer that each leaf is in, or None."""
    if isinstance(layers, str) or not isinstance(layers, Sequence) or not layers:
        raise TypeError(
            f"layers: got {layers!r}, expected names from the input to the output"
        )
    paths = _paths(params)
    found: list[int | None] = [None] * len(paths)
    for number, name in enumerate(layers):
        if not isinstance(name, str):
            raise TypeError(f"layers: got {name!r}, expected names of parameters")
        inside = [i for i, path in enumerate(paths) if _below(path, name)]
        if not inside:
            known = layer_names(params)
            near = difflib.get_close_matches(name, known, 3, 0.0) or known[:3]
            raise ValueError(
                f"layers: got {name!r}, which no parameter is named; near are "
                f"{', '.join(near)}"
            )
        for i in inside:
            if found[i] is not None:
                raise ValueError(
                    f"layers: {paths[i]!r} is in both {layers[found[i]]!r} and "  # type: ignore[index]
                    f"{name!r}, expected no parameter in two layers"
                )
            found[i] = number
    return found


def _below(path: str, name: str) -> bool:
    """Whether the path, or one that it begins with, is called by the name."""
    parts = path.split("/")
    return any(
        fnmatchcase("/".join(parts[:end]), name) for end in range(1, len(parts) + 1)
    )


def _classes(name: str, given: Any) -> Array:
    value = _checks.array(name, given)
    if not jnp.issubdtype(value.dtype, jnp.integer):
        raise TypeError(f"{name}: got dtype {value.dtype}, expected integers")
    return value
