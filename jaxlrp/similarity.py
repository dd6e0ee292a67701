"""Similarities explained by pairs of features: BiLRP.

A similarity is a scalar product of two embeddings, `s(x, y) = <f(x), f(y)>`. What makes
two inputs similar is not a feature of one of them but a pair, one of each, and BiLRP
gives each pair its part. It is LRP through either branch once for each dimension of the
embedding, all of which share one evaluation of `f`, and one contraction over the
dimensions.

Source: Eberle et al. 2020, "Building and interpreting deep similarity models".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
from jax import Array, lax

from jaxlrp._operations import wide
from jaxlrp._rewriting.backward import backward
from jaxlrp._rewriting.environment import Run
from jaxlrp._trace import as_composite, as_positions, numbers, trace, wraps
from jaxlrp.attribution._checks import check_key, natural
from jaxlrp.composites import Composite

P = ParamSpec("P")

__all__ = ["bilrp", "branch", "join", "value_and_bilrp"]

Reduce = Callable[[Any], Array]
"""From the relevance of an input to an array: a sum over features of a token, say."""


def branch(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    argnums: int = -1,
    reduce: Reduce | None = None,
    chunk: int = 64,
    projections: int | None = None,
    key: Array | None = None,
) -> Callable[P, tuple[Array, Array]]:
    """One branch of a similarity: the relevance for each dimension of an embedding.

    `R[k, i] = R_i(f_k)`, the relevance of feature `i` for dimension `k`, with
    `sum_i R[k, i] = f_k(x)` as far as nothing is absorbed. With projections it is that
    for `A f` in place of `f`, where `A` has `m` rows and entries `+-1 / sqrt(m)`.

    Args:
      f: an embedding. Its output is one array, of shape (dimensions,); a batch is
        mapped over with `jax.vmap`.
      composite: as for `jaxlrp.lrp`.
      argnums: the positional argument to attribute, one int; the last by default.
      reduce: a linear function of the relevance for one dimension, of the shape of the
        attributed argument, which makes it smaller: `lambda r: r.sum(-1)` gives
        relevances of tokens from those of their features. None leaves it unchanged.
      chunk: how many dimensions are computed at a time. More take more memory: the
        forward pass is done once for all of them, the reverse pass for each.
      projections: how many random projections replace the dimensions, `m`, or None for
        the dimensions themselves. It is worth its noise where an embedding has
        thousands of dimensions.
      key: a key of `jax.random`, for the projections. Branches that are joined have the
        same.

    Returns:
      A function of `f`'s arguments that returns `(embedding, relevances)`: the output
      of `f`, and an array (dimensions, ...) or (projections, ...), whose other axes are
      those of the argument, or of what `reduce` makes of it.

    Raises:
      TypeError: if `argnums` is not an int, or `key` not a key.
      ValueError: if `f` returns anything other than one axis of floats, or there are
        projections without a key.

    Source: Eberle et al. 2020; projections as in its demonstration, with signs instead
    of normal numbers: Achlioptas 2003, "Database-friendly random projections".

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> w = jnp.array([[1.0, 0.0], [1.0, 2.0]])
      >>> explain = jaxlrp.similarity.branch(lambda x: x @ w)
      >>> embedding, r = explain(jnp.array([3.0, 4.0]))
      >>> embedding.tolist(), r.round().astype(int).tolist()
      ([7.0, 8.0], [[3, 4], [0, 8]])
    """
    relevances = _branch(f, composite, argnums, reduce, chunk, projections, key)

    @wraps(f, "similarity.branch", "`(embedding, relevances)`, of this branch alone.")
    def explained(*args: P.args, **kwargs: P.kwargs) -> tuple[Array, Array]:
        return relevances(args, kwargs)

    return explained


def join(first: Array, second: Array) -> Array:
    """The relevances of two branches, contracted: `R[i, j] = sum_k F[k, i] S[k, j]`.

    For branches of two encoders, of images and texts say, or of one whose inputs need
    other arguments, such as masks.

    Args:
      first: relevances of a branch, (dimensions, ...).
      second: those of another, of as many dimensions.

    Returns:
      An array whose axes are those of the first branch's input and then those of the
      second's, at least float32.

    Raises:
      ValueError: if the branches differ in their dimensions.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> text, image = jnp.ones((5, 3)), jnp.ones((5, 2, 2))
      >>> jaxlrp.similarity.join(text, image).shape
      (3, 2, 2)
    """
    for name, given in (("first", first), ("second", second)):
        if not hasattr(given, "shape") or not given.shape:
            raise ValueError(
                f"{name}: got {given!r}, expected the relevances of a branch, an array "
                f"(dimensions, ...)"
            )
    if first.shape[0] != second.shape[0]:
        raise ValueError(
            f"second: got shape {second.shape}, expected ({first.shape[0]}, ...), as "
            f"the first branch has {first.shape[0]} dimensions"
        )
    # Parts of a similarity cancel: no reduced precision, whatever the device's default.
    dtype = jnp.promote_types(jnp.result_type(first, second), jnp.float32)
    first, second = jnp.asarray(first, dtype), jnp.asarray(second, dtype)
    return jnp.tensordot(first, second, axes=(0, 0), precision=lax.Precision.HIGHEST)


def bilrp(
    f: Callable[..., Any],
    composite: Composite | None = None,
    *,
    cosine: bool = False,
    argnums: int = -1,
    reduce: Reduce | None = None,
    chunk: int = 64,
    projections: int | None = None,
    key: Array | None = None,
) -> Callable[..., Array]:
    """The relevance of each pair of features for the similarity of two inputs.

    `R_ij = sum_k R_i(f_k; x) R_j(f_k; y)`, where `R(f_k; x)` is the relevance of `x`
    for dimension `k` of its embedding. If LRP conserves on both branches,
    `sum_ij R_ij = <f(x), f(y)>`. If it does on that of `y`, the sum over `j` is the
    relevance of `x` for the similarity to a constant `f(y)`.

    Args:
      f: an embedding. Its output is one array, of shape (dimensions,).
      composite: as for `jaxlrp.lrp`; `composites.BiLRP` is the paper's, for images.
      cosine: explain `<f(x), f(y)> / (|f(x)| |f(y)|)`. The norms are held constant, as
        normalisers are under the default composite; an embedding that normalises itself
        has the same relevances.
      argnums: the positional argument of `f` that is attributed, one int.
      reduce: a linear function of the relevance of one input, see `branch`.
      chunk: how many dimensions are computed at a time.
      projections: how many random projections replace the dimensions, or
        None. With them `R` is an unbiased estimate.
      key: a key of `jax.random`, for the projections.

    Returns:
      A function of `f`'s arguments and, after them, the second input: `(params, x, y)`
      for `f(params, x)`. It returns an array of shape (*shape of x, *shape of y), or
      those of what `reduce` makes of them, at least float32. Inputs may differ in
      shape. It can be compiled, and mapped over pairs.

    Raises:
      TypeError: if `argnums` is not an int, `key` not a key, or the second input is
        missing.
      ValueError: if `f` returns anything other than one axis of floats, or there are
        projections without a key.

    Source: Eberle et al. 2020, "Building and interpreting deep similarity models".

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> table = jnp.array([[0.0, 0.0], [1.0, 2.0], [3.0, -1.0]])
      >>> embed = lambda table, ids: table[ids].mean(0)  # of token ids
      >>> explain = jax.jit(jaxlrp.similarity.bilrp(embed))
      >>> r = explain(table, jnp.array([1, 2]), jnp.array([1, 1, 0]))
      >>> [[round(6 * float(v), 3) for v in row] for row in r]
      [[5.0, 5.0, 0.0], [1.0, 1.0, 0.0]]
    """
    pairs = _pairs(f, composite, cosine, argnums, reduce, chunk, projections, key)

    @wraps(
        f,
        "similarity.bilrp",
        "the relevance of pairs of features of the two inputs.",
        "the second input",
    )
    def explained(*args: Any, **kwargs: Any) -> Array:
        return pairs(args, kwargs)[1]

    return explained


def value_and_bilrp(
    f: Callable[..., Any],
    composite: Composite | None = None,
    *,
    cosine: bool = False,
    argnums: int = -1,
    reduce: Reduce | None = None,
    chunk: int = 64,
    projections: int | None = None,
    key: Array | None = None,
) -> Callable[..., tuple[Array, Array]]:
    """Like `bilrp`, with the similarity from the same evaluations.

    The similarity is exact, with projections, too.

    Args:
      f: as for `bilrp`.
      composite: as for `bilrp`.
      cosine: as for `bilrp`.
      argnums: as for `bilrp`.
      reduce: as for `bilrp`.
      chunk: as for `bilrp`.
      projections: as for `bilrp`.
      key: as for `bilrp`.

    Returns:
      A function of `f`'s arguments and the second input that returns
      `(similarity, relevance)`.

    Examples:
      >>> import jax.numpy as jnp, jaxlrp
      >>> explain = jaxlrp.similarity.value_and_bilrp(lambda x: 2 * x)
      >>> value, relevance = explain(jnp.array([1.0, 2.0]), jnp.array([3.0, 1.0]))
      >>> float(value), relevance.round().astype(int).tolist()
      (20.0, [[12, 0], [0, 8]])
    """
    pairs = _pairs(f, composite, cosine, argnums, reduce, chunk, projections, key)

    @wraps(
        f,
        "similarity.value_and_bilrp",
        "`(similarity, relevance)`, of pairs of features of the two inputs.",
        "the second input",
    )
    def explained(*args: Any, **kwargs: Any) -> tuple[Array, Array]:
        return pairs(args, kwargs)

    return explained


def _pairs(
    f: Callable[..., Any],
    composite: Composite | None,
    cosine: bool,
    argnums: int,
    reduce: Reduce | None,
    chunk: int,
    projections: int | None,
    key: Array | None,
) -> Callable[[tuple, dict], tuple[Array, Array]]:
    """Both branches, joined: from packed arguments to `(similarity, relevance)`."""
    relevances = _branch(f, composite, argnums, reduce, chunk, projections, key)

    def pairs(args: tuple, kwargs: dict) -> tuple[Array, Array]:
        if len(args) < 2:
            raise TypeError(
                f"got {len(args)} positional arguments, expected those of f and, "
                f"after them, the second input"
            )
        *own, other = args
        (position,) = as_positions(argnums, len(own))
        others = (*own[:position], other, *own[position + 1 :])
        first, of_first = relevances(tuple(own), kwargs)
        second, of_second = relevances(others, kwargs)
        one, two = wide(first), wide(second)
        value = jnp.vdot(one, two, precision=lax.Precision.HIGHEST)
        relevance = join(of_first, of_second)
        if not cosine:
            return value, relevance
        norms = jnp.linalg.norm(one) * jnp.linalg.norm(two)
        scale = jnp.where(norms == 0, 0, 1 / jnp.where(norms == 0, 1, norms))
        return value * scale, relevance * scale

    return pairs


def _branch(
    f: Callable[..., Any],
    composite: Composite | None,
    argnums: int,
    reduce: Reduce | None,
    chunk: int,
    projections: int | None,
    key: Array | None,
) -> Callable[[tuple, dict], tuple[Array, Array]]:
    """`branch` on packed arguments; what can be checked now is."""
    rules = as_composite(composite)
    if not callable(f):
        raise TypeError(f"f: got {f!r}, expected a function")
    if isinstance(argnums, tuple | list):
        raise TypeError(f"argnums: got {argnums!r}, expected one int")
    numbers(argnums)
    if reduce is not None and not callable(reduce):
        raise TypeError(f"reduce: got {reduce!r}, expected a function or None")
    size = natural("chunk", chunk)
    count = None if projections is None else natural("projections", projections)
    if count is None and key is not None:
        raise ValueError("key: got one without projections, expected None")
    if count is not None:
        check_key(key)

    def relevances(args: tuple, kwargs: dict) -> tuple[Array, Array]:
        traced = trace(f, args, kwargs, rules, argnums, False)
        once = backward(traced, Run(rules))
        embedding = _embedding(jax.tree.unflatten(traced.out_tree, once.outs))

        def of(multiplier: Array) -> Array:
            leaves, _ = once.relevance([multiplier], None)
            return _one_array(traced.restore(leaves), reduce)

        seeds = _seeds(embedding, count, key)
        if len(seeds) <= size:
            return embedding, jax.vmap(of)(seeds)
        return embedding, lax.map(of, seeds, batch_size=size)

    return relevances


def _embedding(out: Any) -> Array:
    """The output of an embedding, checked."""
    is_array = isinstance(out, Array)
    if not is_array or out.ndim != 1 or not jnp.issubdtype(out.dtype, jnp.floating):
        shapes = jax.tree.map(lambda y: f"{y.dtype}{list(y.shape)}", out)
        hint = "; map over batches" if is_array and out.ndim > 1 else ""
        raise ValueError(
            f"f: got the output {shapes}, expected one array of floats of shape "
            f"(dimensions,){hint}"
        )
    return out


def _one_array(relevance: Any, reduce: Reduce | None) -> Array:
    """The relevance for one dimension as an array."""
    made = relevance if reduce is None else reduce(relevance)
    if isinstance(made, Array):
        return made
    if reduce is None:
        raise TypeError(
            f"reduce: got None for an attributed argument of the structure "
            f"{jax.tree.structure(relevance)}, expected a function that makes one "
            f"array of its relevance"
        )
    raise TypeError(f"reduce: it returned {type(made).__name__}, expected an array")


def _seeds(embedding: Array, count: int | None, key: Array | None) -> Array:
    """The multipliers of the output, a row for each dimension or projection."""
    if count is None:
        return jnp.eye(len(embedding), dtype=embedding.dtype)
    assert key is not None
    signs = jax.random.rademacher(key, (count, len(embedding)), jnp.float32)
    return (signs / jnp.sqrt(count)).astype(embedding.dtype)
