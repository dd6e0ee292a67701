"""Sets of walks: those inside of sub-graphs, of given parts, and by formulas."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jaxlrp._arguments import flag, number, text
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums, positive, wraps
from jaxlrp.composites import Composite
from jaxlrp.walks import _queries
from jaxlrp.walks._ask import Asked, Axis, as_array, starter, with_question

P = ParamSpec("P")

Nodes = int | Sequence[int]


def subgraph(
    f: Callable[..., Any],
    composite: Composite | None = None,
    *,
    sites: str | Sequence[str],
    axis: Axis = 0,
    outside: Any = 0.0,
    touching: bool = False,
    chunk: int = 128,
    argnums: ArgNums = -1,
    target: Target = "max",
) -> Callable[..., Array]:
    """The relevance of sub-graphs: of all walks inside a set of nodes, at once.

    `R_S = 1' M T_1 M ... T_L M R_L`, with `M` one on the nodes of `S` and `outside` on
    the others, so that a walk counts `outside` once for each level on which it is
    outside. One reverse pass for each set, its time linear in the depth.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `relevance`.
      sites: as for `relevance`.
      axis: as for `relevance`.
      outside: the factor at nodes outside of the set, a number: 0 counts walks that
        never leave it, 1 all walks.
      touching: do not count walks that never enter the set, whatever `outside` is:
        `R_S` minus the same with zero on `S`.
      chunk: how many sets are computed at a time.
      argnums: as for `jaxlrp.lrp`; of `f`'s own arguments.
      target: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s positional arguments and, after them, masks: booleans, or
      numbers where a node belongs to the set in part, of shape (*sets, nodes). It
      returns Float[Array, "*sets"]. Masks may also be mapped over by `jax.vmap`.

    Raises:
      ValueError: as for `relevance`, and for masks of another number of nodes.
      TypeError: for arguments of the wrong type.

    Source: Xiong et al. 2022, "Efficient computation of higher-order subgraph
    attribution via message passing".

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> bonds = jnp.array([[1.0, 1.0], [0.0, 1.0]])
      >>> def f(x):
      ...     h = checkpoint_name(x, "in")
      ...     return checkpoint_name(bonds @ h, "out").sum()
      >>> inside = jaxlrp.walks.subgraph(f, sites=["in", "out"], target="all")
      >>> x = jnp.array([[2.0], [3.0]])
      >>> sets = jnp.array([[1, 0], [0, 1], [1, 1]], bool)
      >>> inside(x, sets).round().astype(int).tolist()
      [2, 3, 8]
    """
    start = starter(f, composite, sites, axis, argnums, target)
    _check_number("outside", outside)
    flag("touching", touching)
    size = positive("chunk", chunk)

    @wraps(f, "walks.subgraph", "the relevance of each set.", "masks, after them")
    def of_sets(*args: Any, **kwargs: Any) -> Array:
        *own, given = with_question("masks", args)
        asked = start(tuple(own), kwargs)
        sets = _checked_masks(given, asked.nodes)
        flat = sets.reshape(-1, asked.nodes)
        if not touching:
            return asked.of_sets(_beside(flat, outside), size).reshape(sets.shape[:-1])
        both = jnp.concatenate([_beside(flat, outside), outside * (1 - flat)])
        found = asked.of_sets(both, size)
        return (found[: len(flat)] - found[len(flat) :]).reshape(sets.shape[:-1])

    return of_sets


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dividends:
    """What sets of parts say that none of their subsets says.

    Attributes:
      sets: the sets, each a tuple of the numbers of its parts, the smallest first.
      relevances: of each set that of the walks that pass all of its parts and no
        others, Float[Array, "sets"].

    Examples:
      >>> import jax.numpy as jnp
      >>> from jaxlrp import walks
      >>> found = walks.Dividends(((), (0,)), jnp.array([0.0, 2.0]))
      >>> float(found[0,])
      2.0
    """

    sets: tuple[tuple[int, ...], ...] = dataclasses.field(metadata={"static": True})
    relevances: Array

    def __getitem__(self, parts: Any) -> Array:
        """That of one set, given as the numbers of its parts."""
        wanted = tuple(sorted({operator.index(p) for p in parts}))
        try:
            return self.relevances[self.sets.index(wanted)]
        except ValueError:
            raise KeyError(
                f"{wanted}: expected a set of parts that was asked for, of at most "
                f"{len(self.sets[-1])}"
            ) from None


def harsanyi(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    sites: str | Sequence[str],
    axis: Axis = 0,
    parts: Sequence[Nodes] | None = None,
    order: int | None = None,
    most: int = 100_000,
    chunk: int = 128,
    argnums: ArgNums = -1,
    target: Target = "max",
) -> Callable[P, Dividends]:
    """Harsanyi dividends: the relevance that a set of parts has beyond its subsets.

        mu_D = sum over S in D of (-1)^(|D| - |S|) R_S

    It is the relevance of the walks that pass every part of `D` and no other. The
    dividends of all subsets of a set add up to its `R_S`. Each set is a reverse pass
    with a mask, all in one mapped call.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `relevance`.
      sites: as for `relevance`.
      axis: as for `relevance`.
      parts: the players: nodes, or groups of nodes such as the tokens of a word; each
        node by default. Nodes in none of them are in every set.
      order: the number of parts in the largest sets, all of them by default.
      most: how many sets there may be.
      chunk: as for `subgraph`.
      argnums: as for `jaxlrp.lrp`.
      target: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments that returns `Dividends`.

    Raises:
      ValueError: as for `relevance`; for a node out of range or in two parts, and for
        more than `most` sets.

    Source: Schnake et al. 2025, "Towards symbolic XAI: explanation through human
    understandable logical relationships between features".

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> bonds = jnp.array([[1.0, 1.0], [0.0, 1.0]])
      >>> def f(x):
      ...     h = checkpoint_name(x, "in")
      ...     return checkpoint_name(bonds @ h, "out").sum()
      >>> of_sets = jaxlrp.walks.harsanyi(f, sites=["in", "out"], target="all")
      >>> found = of_sets(jnp.array([[2.0], [3.0]]))
      >>> dict(zip(found.sets, found.relevances.round().astype(int).tolist()))
      {(): 0, (0,): 2, (1,): 3, (0, 1): 3}
    """
    start = starter(f, composite, sites, axis, argnums, target)
    size, limit = positive("chunk", chunk), positive("most", most)
    if order is not None:
        positive("order", order)

    @wraps(f, "walks.harsanyi", "the relevance of sets beyond that of their subsets.")
    def of_sets(*args: P.args, **kwargs: P.kwargs) -> Dividends:
        return _dividends(start(args, kwargs), parts, order, limit, size)

    return of_sets


def bodies(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    sites: str | Sequence[str],
    axis: Axis = 0,
    order: int | None = None,
    most: int = 100_000,
    chunk: int = 128,
    argnums: ArgNums = -1,
    target: Target = "max",
) -> Callable[P, Array]:
    """The relevance by the number of distinct nodes of a walk: one-body, two-body, ...

    The sum of the Harsanyi dividends of all sets of each size. No walk has more
    distinct nodes than there are levels.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `relevance`.
      sites: as for `relevance`.
      axis: as for `relevance`.
      order: the largest number of distinct nodes; that of the levels by default.
      most: how many sets of nodes there may be.
      chunk: as for `subgraph`.
      argnums: as for `jaxlrp.lrp`.
      target: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments that returns Float[Array, "order"]: of walks with
      one node, with two, and so on.

    Raises:
      ValueError: as for `harsanyi`.

    Source: Bonneau et al. 2024, "Peering inside the black box: interpreting
    coarse-grained neural network potentials" (n-body terms of GNN-LRP).

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> bonds = jnp.array([[1.0, 1.0], [0.0, 1.0]])
      >>> def f(x):
      ...     h = checkpoint_name(x, "in")
      ...     return checkpoint_name(bonds @ h, "out").sum()
      >>> share = jaxlrp.walks.bodies(f, sites=["in", "out"], target="all")
      >>> share(jnp.array([[2.0], [3.0]])).round().astype(int).tolist()
      [5, 3]
    """
    start = starter(f, composite, sites, axis, argnums, target)
    size, limit = positive("chunk", chunk), positive("most", most)
    if order is not None:
        positive("order", order)

    @wraps(f, "walks.bodies", "the relevance by the number of distinct nodes.")
    def by_number(*args: P.args, **kwargs: P.kwargs) -> Array:
        asked = start(args, kwargs)
        largest = min(len(asked.levels), asked.nodes)
        count = largest if order is None else min(order, largest)
        found = _dividends(asked, None, count, limit, size)
        sizes = np.array([len(s) for s in found.sets])
        return jnp.stack(
            [found.relevances[sizes == m].sum() for m in range(1, count + 1)]
        )

    return by_number


def query(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    sites: str | Sequence[str],
    ask: str | Sequence[str],
    nodes: Mapping[str, Nodes],
    weights: str = "prediff",
    axis: Axis = 0,
    chunk: int = 128,
    argnums: ArgNums = -1,
    target: Target = "max",
) -> Callable[P, Array]:
    """The relevance of all walks for which a logical formula about nodes holds.

    A name in the formula holds of a walk that passes one of its nodes. So

        R(a)         = R_N - R_{N without a}
        R(not a)     = R_{N without a}
        R(a and b)   = R(a) + R(b) - R(a or b),    R(a or b) = R_N - R_{N without a, b}

    and any formula of `m` names takes `2 ** m` sets by inclusion and exclusion, those
    of all questions in one mapped call. A formula and its negation add up to the
    relevance.

    With `weights="shapley"` the formulas that are asked share: a walk for which several
    of them hold counts for each in equal parts,

        R(q) = sum over L in N of mu_L q(L) / (sum over p in ask of p(L)),

    `mu_L` the Harsanyi dividend of the names `L`, what passes all of them and no other
    name. So what formulas of one name each get are their Shapley values, and answers
    add up to the relevance of all walks for which any formula holds.

    Args:
      f: as for `jaxlrp.lrp`.
      composite: as for `relevance`.
      sites: as for `relevance`.
      ask: a formula, or several: names, `and`, `or`, `not` (or `&`, `|`, `~`, of which
        `not` binds most and `or` least) and parentheses. A name that is none of these
        stands bare; `'not'` in quotes is the word.
      nodes: for each name a node, or several, as the tokens of a word.
      weights: `"prediff"`, one for each walk for which a formula holds, or `"shapley"`,
        one over the number of formulas that hold for it.
      axis: as for `relevance`.
      chunk: as for `subgraph`.
      argnums: as for `jaxlrp.lrp`.
      target: as for `jaxlrp.lrp`.

    Returns:
      A function of `f`'s arguments that returns the relevance, Float[Array, ""], or of
      several formulas Float[Array, "formulas"].

    Raises:
      ValueError: as for `relevance`; for a formula that cannot be read, with the place,
        one with more than twelve names, or twelve in all formulas that share, a name
        that `nodes` does not have, a node out of range, and unknown weights.

    Source: Schnake et al. 2025, "Towards symbolic XAI", equations 6 to 8, with the
    weights of PredDiff, which are one, or those of the Shapley value.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> bonds = jnp.array([[1.0, 1.0], [0.0, 1.0]])
      >>> def f(x):
      ...     h = checkpoint_name(x, "in")
      ...     return checkpoint_name(bonds @ h, "out").sum()
      >>> asked = jaxlrp.walks.query(
      ...     f,
      ...     sites=["in", "out"],
      ...     ask=["a", "a and b", "b and not a"],
      ...     nodes={"a": 0, "b": 1},
      ...     target="all",
      ... )
      >>> asked(jnp.array([[2.0], [3.0]])).round().astype(int).tolist()
      [5, 3, 3]
    """
    start = starter(f, composite, sites, axis, argnums, target)
    size = positive("chunk", chunk)
    single = isinstance(ask, str)
    if not single and (not isinstance(ask, Sequence) or not ask):
        raise TypeError(f"ask: got {ask!r}, expected a formula, a str, or several")
    if weights not in ("prediff", "shapley"):
        raise ValueError(f"weights: got {weights!r}, expected 'prediff' or 'shapley'")
    formulas = [_queries.parse(text("ask", a)) for a in ([ask] if single else ask)]
    if not isinstance(nodes, Mapping):
        raise TypeError(f"nodes: got {nodes!r}, expected a dict from names to nodes")
    for formula in formulas:
        _queries.check_names(formula, nodes)
    terms_of = _queries.terms_of(formulas, weights)

    @wraps(f, "walks.query", "the relevance of the walks for which the formula holds.")
    def answers(*args: P.args, **kwargs: P.kwargs) -> Array:
        asked = start(args, kwargs)
        members = {
            name: _as_mask(f"nodes[{name!r}]", given, asked.nodes)
            for name, given in nodes.items()
        }
        sets, rows, factors = [], [], []
        for row, terms in enumerate(terms_of):
            for avoided, factor in terms:
                out = np.zeros(asked.nodes, bool)
                for name in avoided:
                    out |= members[name]
                sets.append(~out)
                rows.append(row)
                factors.append(factor)
        if not sets:  # no walk can meet what contradicts itself
            found = jnp.zeros(len(formulas))
        else:
            of_sets = asked.of_sets(jnp.asarray(np.array(sets), jnp.float32), size)
            each = of_sets * jnp.asarray(factors, of_sets.dtype)
            found = jax.ops.segment_sum(each, jnp.asarray(rows), len(formulas))
        return found[0] if single else found

    return answers


def _checked_masks(given: Any, nodes: int) -> Array:
    masks = as_array("masks", given)
    boolean = jnp.issubdtype(masks.dtype, jnp.bool_)
    if not boolean and not jnp.issubdtype(masks.dtype, jnp.floating):
        raise TypeError(
            f"masks: got dtype {masks.dtype}, expected booleans, or floats where a "
            f"node is in the set in part"
        )
    if not masks.ndim or masks.shape[-1] != nodes:
        raise ValueError(
            f"masks: got shape {masks.shape}, expected (*sets, {nodes}), one for each "
            f"node"
        )
    return masks.astype(jnp.float32) if boolean else masks


def _check_number(name: str, value: Any) -> None:
    """One number, traced or not."""
    number(name, value, "nodes outside")
    if jnp.shape(value):
        raise TypeError(f"{name}: got shape {jnp.shape(value)}, expected one number")


def _beside(sets: Array, outside: Any) -> Array:
    """One on the sets, `outside` off them."""
    return sets + outside * (1 - sets)


def _as_mask(name: str, given: Any, nodes: int) -> np.ndarray:
    """Nodes by number as a mask."""
    try:
        numbers = np.asarray([operator.index(given)], np.intp)
    except TypeError:
        try:
            numbers = np.asarray([operator.index(i) for i in given], np.intp)
        except TypeError:
            raise TypeError(
                f"{name}: got {given!r}, expected a node or several, ints"
            ) from None
    if not numbers.size or numbers.min() < 0 or numbers.max() >= nodes:
        raise ValueError(f"{name}: got {given!r}, expected nodes from 0 to {nodes - 1}")
    mask = np.zeros(nodes, bool)
    mask[numbers] = True
    return mask


def _dividends(
    asked: Asked,
    parts: Sequence[Nodes] | None,
    order: int | None,
    most: int,
    chunk: int,
) -> Dividends:
    members = _members(parts, asked.nodes)
    count = len(members)
    largest = count if order is None else min(order, count)
    total = sum(math.comb(count, m) for m in range(largest + 1))
    if total > most:
        raise ValueError(
            f"most: got {most}, but {count} parts have {total} sets of at most "
            f"{largest}; a smaller order has fewer, and so have parts of several nodes"
        )
    sets = [
        s for m in range(largest + 1) for s in itertools.combinations(range(count), m)
    ]
    places = {s: i for i, s in enumerate(sets)}
    rest = ~np.any(members, axis=0)
    masks = np.array([rest | np.any(members[list(s)], axis=0) for s in sets])
    of_sets = asked.of_sets(jnp.asarray(masks, jnp.float32), chunk)
    found = []
    for m in range(largest + 1):
        # Subsets of each set of m parts, as places in the list of all sets.
        within = list(_subsets(m))
        below = np.array(
            [
                [places[tuple(s[i] for i in chosen)] for chosen in within]
                for s in itertools.combinations(range(count), m)
            ]
        )
        signs = np.array([(-1.0) ** (m - len(chosen)) for chosen in within])
        found.append(of_sets[below] @ jnp.asarray(signs, of_sets.dtype))
    return Dividends(tuple(sets), jnp.concatenate(found))


def _subsets(size: int) -> Iterator[tuple[int, ...]]:
    for m in range(size + 1):
        yield from itertools.combinations(range(size), m)


def _members(parts: Any, nodes: int) -> np.ndarray:
    """A mask of nodes for each part; each node by default."""
    if parts is None:
        return np.eye(nodes, dtype=bool)
    if isinstance(parts, str) or not isinstance(parts, Sequence) or not len(parts):
        raise TypeError(f"parts: got {parts!r}, expected nodes, or groups of nodes")
    masks = np.array([_as_mask(f"parts[{i}]", p, nodes) for i, p in enumerate(parts)])
    twice = np.flatnonzero(masks.sum(0) > 1)
    if twice.size:
        raise ValueError(
            f"parts: node {twice[0]} is in two of them, expected each in one at most"
        )
    return masks
