"""Walks one by one: chosen, all of them, and the most relevant."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp import _compat
from jaxlrp._arguments import flag
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums, positive, wraps
from jaxlrp.composites import Composite
from jaxlrp.walks._ask import Axis, as_array, over, starter, with_question
from jaxlrp.walks._search import largest

P = ParamSpec("P")


def levels(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    sites: str | Sequence[str],
    axis: Axis = 0,
    argnums: ArgNums = -1,
    target: Target = "max",
) -> Callable[P, tuple[str, ...]]:
    """The names of the levels that walks pass, from the input to the output.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `jaxlrp.lrp`.
      sites: as for `relevance`.
      axis: as for `relevance`.
      argnums: as for `jaxlrp.lrp`.
      target: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments, which may be `jax.ShapeDtypeStruct`s, that returns
      the names; an iteration of a loop has its number, `h[2]`. Nothing is computed.

    Raises:
      ValueError: as for `relevance`.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> def f(weights, x):
      ...     x = checkpoint_name(x, "nodes")
      ...     step = lambda h, w: (checkpoint_name(jnp.tanh(h @ w), "h"), None)
      ...     return jax.lax.scan(step, x, weights)[0].sum()
      >>> names = jaxlrp.walks.levels(f, sites=["nodes", "h"], target="all")
      >>> names(jnp.ones((2, 3, 3)), jnp.ones((4, 3)))
      ('nodes', 'h[0]', 'h[1]')
    """
    start = starter(f, composite, sites, axis, argnums, target)

    @wraps(f, "walks.levels", "the names of the levels, from the input on: strings.")
    def named(*args: P.args, **kwargs: P.kwargs) -> tuple[str, ...]:
        return tuple(level.name for level in start(args, kwargs).levels)

    return named


def relevance(
    f: Callable[..., Any],
    composite: Composite | None = None,
    *,
    sites: str | Sequence[str],
    axis: Axis = 0,
    chunk: int = 128,
    argnums: ArgNums = -1,
    target: Target = "max",
) -> Callable[..., Array]:
    """The relevance of walks: what passes one node at each level.

    `R_w = 1' T_1[w_0, w_1] ... T_L[w_{L-1}, w_L] R_L[w_L]`, at the first level. All
    walks add up to the relevance of the first level, which is that of the input where
    nothing between them absorbs any.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `jaxlrp.lrp`. Its rules have to be linear in the relevance that
        arrives, as all are but `Rescaled`, `TopK` and `min_relevance`.
      sites: the levels: the name of a value or a pattern of names, or several.
        `concepts.sites` lists all. Each value that one matches is a level, and each
        iteration of a `scan` that it lies in; their order is that of the program,
        whatever that of the names.
      axis: the axis of the nodes in each value (in that of one iteration), or a
        sequence with one for each entry of `sites`.
      chunk: how many walks are computed at a time. The function is evaluated once for
        each chunk; a larger one takes more memory.
      argnums: as for `jaxlrp.lrp`; of `f`'s own arguments.
      target: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s positional arguments and, after them, walks: an integer array
      Int[Array, "*walks levels"] of nodes, from the input's level on. It returns
      Float[Array, "*walks"]. Under `jax.jit`, where walks are not known, one with a
      node out of range has NaN.

    Raises:
      ValueError: for sites that name no value, lie in a while loop, or differ in their
        number of nodes, and for walks of the wrong length or with a node out of range.
      TypeError: for arguments of the wrong type.

    Source: Schnake et al. 2022, "Higher-order explanations of graph neural networks via
    relevant walks".

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> bonds = jnp.array([[1.0, 1.0], [0.0, 1.0]])
      >>> def f(x):
      ...     h = checkpoint_name(x, "in")
      ...     return checkpoint_name(bonds @ h, "out").sum()
      >>> walks = jaxlrp.walks.relevance(f, sites=["in", "out"], target="all")
      >>> x = jnp.array([[2.0], [3.0]])
      >>> four = jnp.array([[0, 0], [0, 1], [1, 0], [1, 1]])
      >>> walks(x, four).round().astype(int).tolist()
      [2, 0, 3, 3]
    """
    start = starter(f, composite, sites, axis, argnums, target)
    size = positive("chunk", chunk)

    @wraps(f, "walks.relevance", "the relevance of each walk.", "walks, after them")
    def of_walks(*args: Any, **kwargs: Any) -> Array:
        *own, given = with_question("walks", args)
        asked = start(tuple(own), kwargs)
        walks = _checked_walks(given, len(asked.levels), asked.nodes)

        def one(walk: Array) -> Array:
            masks = jax.nn.one_hot(walk, asked.nodes, dtype=jnp.float32)
            # What passes the others at the first level is not wanted: no mask there.
            found = asked.passing(masks.at[0].set(1))[walk[0]]
            # Of walks that are traced nothing was known that could be refused.
            known = ((walk >= 0) & (walk < asked.nodes)).all()
            return jnp.where(known, found, jnp.nan)

        found = over(one, walks.reshape(-1, walks.shape[-1]), size)
        return found.reshape(walks.shape[:-1])

    return of_walks


def every(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    sites: str | Sequence[str],
    axis: Axis = 0,
    chunk: int = 128,
    most_bytes: int = 2**30,
    argnums: ArgNums = -1,
    target: Target = "max",
) -> Callable[P, Array]:
    """The relevance of every walk, for few nodes and levels.

    One reverse pass gives those that differ in their first node alone, so that it takes
    `nodes ** (levels - 1)` of them.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `relevance`.
      sites: as for `relevance`.
      axis: as for `relevance`.
      chunk: as for `relevance`.
      most_bytes: how large the result may be.
      argnums: as for `jaxlrp.lrp`.
      target: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments that returns an array with an axis of all nodes for
      each level, Float[Array, "nodes nodes ..."]: `[w_0, w_1, ...]` is that of a walk.

    Raises:
      ValueError: as for `relevance`, and where there are more than `most_bytes`.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> bonds = jnp.array([[1.0, 1.0], [0.0, 1.0]])
      >>> def f(x):
      ...     h = checkpoint_name(x, "in")
      ...     return checkpoint_name(bonds @ h, "out").sum()
      >>> table = jaxlrp.walks.every(f, sites=["in", "out"], target="all")
      >>> table(jnp.array([[2.0], [3.0]])).round().astype(int).tolist()
      [[2, 0], [3, 3]]
    """
    start = starter(f, composite, sites, axis, argnums, target)
    size = positive("chunk", chunk)
    most = positive("most_bytes", most_bytes)

    @wraps(f, "walks.every", "the relevance of every walk, an axis for each level.")
    def of_all(*args: P.args, **kwargs: P.kwargs) -> Array:
        asked = start(args, kwargs)
        n, rest = asked.nodes, len(asked.levels) - 1
        needed = 4 * n ** (rest + 1)
        if needed > most:
            raise ValueError(
                f"most_bytes: got {most}, but the {n ** (rest + 1)} walks of {n} nodes "
                f"on {rest + 1} levels need {needed} bytes; walks.relevance takes "
                f"chosen ones, walks.top finds the most relevant"
            )

        def one(number: Array) -> Array:
            tail = jnp.stack(jnp.unravel_index(number, (n,) * rest)) if rest else ()
            masks = jax.nn.one_hot(jnp.asarray(tail, int), n, dtype=jnp.float32)
            return asked.passing(jnp.concatenate([jnp.ones((1, n)), masks]))

        found = over(one, jnp.arange(n**rest), size)
        return found.T.reshape((n,) * (rest + 1))

    return of_all


@dataclasses.dataclass(frozen=True)
class Top:
    """The most relevant walks, the first one first.

    Attributes:
      walks: their nodes, or neurons, from the input's level on, an integer array
        (walks, levels) of NumPy.
      relevances: theirs, (walks,), float64.
      levels: the names of the levels.
      opened: how many walks the search has begun with until it knew.

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import walks
      >>> walks.Top(np.array([[0, 1]]), np.array([2.0]), ("in", "out"), 1).levels
      ('in', 'out')
    """

    walks: np.ndarray
    relevances: np.ndarray
    levels: tuple[str, ...]
    opened: int


def top(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    sites: str | Sequence[str],
    axis: Axis = 0,
    k: int = 10,
    by: str = "nodes",
    absolute: bool = False,
    chunk: int = 128,
    most_bytes: int = 2**31,
    most_opened: int = 1_000_000,
    argnums: ArgNums = -1,
    target: Target = "max",
) -> Callable[P, Top]:
    """The `k` most relevant walks, exactly, without looking at all of them.

    The matrices `T_l` are computed, each column of all of them by one reverse pass, and
    then the walks are built from the output to the input. What a beginning can still
    reach is bounded from above by max-product messages over neurons from the input on,
    and the one with the highest bound is gone on with. By neurons, nodes of one feature
    each, the bound is what is reached, and the search takes `k * levels` steps; by
    nodes, whose features add up, it is a bound, and the search opens more.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `relevance`.
      sites: as for `relevance`.
      axis: as for `relevance`.
      k: how many; fewer are returned where there are fewer walks.
      by: `"nodes"`, or `"neurons"`: walks over single features. Neuron `i` is feature
        `i % features` of node `i // features`.
      absolute: the largest by their absolute value instead.
      chunk: how many columns are computed at a time.
      most_bytes: how much memory the matrices may take.
      most_opened: how many beginnings of walks the search may go on with.
      argnums: as for `jaxlrp.lrp`.
      target: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments, which must be known (not under `jax.jit`), that
      returns `Top`.

    Raises:
      ValueError: as for `relevance`; where the matrices take more than `most_bytes`,
        or `most_opened` beginnings are not enough.
      TypeError: under `jax.jit` or `jax.vmap`.

    Source: Xiong et al. 2023, "Relevant walk search for explaining graph neural
    networks" (EMP-neu); the search by nodes is a branch and bound on the same messages.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> bonds = jnp.array([[1.0, 1.0], [0.0, 1.0]])
      >>> def f(x):
      ...     h = checkpoint_name(x, "in")
      ...     return checkpoint_name(bonds @ h, "out").sum()
      >>> best = jaxlrp.walks.top(f, sites=["in", "out"], k=3, target="all")
      >>> found = best(jnp.array([[2.0], [5.0]]))
      >>> found.walks.tolist(), found.relevances.round(3).tolist()
      ([[1, 0], [1, 1], [0, 0]], [5.0, 5.0, 2.0])
    """
    start = starter(f, composite, sites, axis, argnums, target)
    count, size = positive("k", k), positive("chunk", chunk)
    memory = positive("most_bytes", most_bytes)
    opened = positive("most_opened", most_opened)
    flag("absolute", absolute)
    if by not in ("nodes", "neurons"):
        raise ValueError(f'by: got {by!r}, expected "nodes" or "neurons"')

    @wraps(f, "walks.top", "the most relevant walks and their relevances.")
    def best(*args: P.args, **kwargs: P.kwargs) -> Top:
        asked = start(args, kwargs)
        if not all(map(_compat.is_known, asked.traced.inputs)):
            raise TypeError(
                "top: got traced arguments, expected arrays that are known: it "
                "searches outside of jax.jit and jax.vmap"
            )
        chain = asked.chain(size, memory, by == "neurons")
        found, values, steps = largest(chain, count, absolute, opened)
        names = tuple(level.name for level in asked.levels)
        return Top(found, values, names, steps)

    return best


def _checked_walks(given: Any, length: int, nodes: int) -> Array:
    walks = as_array("walks", given)
    if not jnp.issubdtype(walks.dtype, jnp.integer):
        raise TypeError(f"walks: got dtype {walks.dtype}, expected integers, nodes")
    if not walks.ndim or walks.shape[-1] != length:
        raise ValueError(
            f"walks: got shape {walks.shape}, expected (*walks, {length}), a node for "
            f"each level"
        )
    if _compat.is_known(walks) and walks.size:
        known = np.asarray(walks)
        wrong = known[(known < 0) | (known >= nodes)]
        if wrong.size:
            raise ValueError(
                f"walks: got node {wrong[0]}, expected nodes from 0 to {nodes - 1}"
            )
    return walks
