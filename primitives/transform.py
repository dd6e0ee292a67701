"""Linear algebra and transforms.

Transforms are linear. So is the solution of a linear system in its right-hand side;
the matrix is a divisor, and held where both are active. A Cholesky factor is of degree
1/2 in its matrix. Other decompositions have their gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from jaxlrp.primitives._book import (
    Active,
    Entry,
    Kind,
    Params,
    enter,
    jointly,
    only,
    same_axes,
)

__all__ = []

# Of a complex value the relevance is the real part of value times multiplier.
enter("fft", Entry(Kind.LINEAR, linear=jointly))
enter("real imag conj complex", Entry(Kind.LINEAR, linear=jointly, axes=same_axes))


def _matrix(size: int) -> Callable[[Params, Active], Sequence[int]]:
    """The first operands make the matrix, the last is the right-hand side."""

    def held(params: Params, active: Active) -> Sequence[int]:
        return [i for i in range(size) if active[i]] if active[size] else ()

    return held


def _reciprocal(params: Params, active: Active) -> Callable[..., Any] | None:
    """A solution with a constant right-hand side is of degree -1 in the matrix."""
    whole = all(active[:-1]) and not active[-1]
    return (lambda *_: -1) if whole and not params.get("unit_diagonal") else None


def _of_solve(params: Params, active: Active) -> Sequence[int]:
    """Constants of the functions that multiply and solve come before the sides."""
    size = sum(params["const_lengths"])
    if not any(active[size:]):
        return ()
    return [i for i in range(size) if active[i]]


def _degree_of_solve(params: Params, active: Active) -> Callable[..., Any] | None:
    """Of degree -1 where the matrix is all that the multiplication closes over."""
    sizes = params["const_lengths"]
    if any(active[sum(sizes) :]) or not all(active[: sizes.matvec]):
        return None
    product = params["jaxprs"].matvec
    return (lambda *_: -1) if _is_a_product(product, sizes.matvec) else None


def _is_a_product(jaxpr: Any, constants: int) -> bool:
    """Is it the contraction of its one constant with the rest, except for moves?"""
    body = getattr(jaxpr, "jaxpr", jaxpr)
    if constants != 1:
        return False
    moved = {id(body.invars[0])}
    multiplied = set[int]()
    for equation in body.eqns:
        name = equation.primitive.name
        inside = [id(v) in moved for v in equation.invars]
        behind = any(id(v) in multiplied for v in equation.invars)
        if not any(inside) and not behind:
            continue
        if name == "dot_general" and sum(inside) == 1 and not behind:
            multiplied.update(map(id, equation.outvars))
        elif name in _MOVES and len(inside) == 1:
            (moved if inside[0] else multiplied).update(map(id, equation.outvars))
        else:
            return False
    return all(id(v) in multiplied for v in body.outvars)


_MOVES = frozenset(
    "transpose reshape squeeze broadcast_in_dim copy reduce_sum neg".split()
)

enter(
    "triangular_solve",
    Entry(Kind.LINEAR, linear=only(1), held=_matrix(1), degree=_reciprocal),
)
enter(
    "tridiagonal_solve",
    Entry(Kind.LINEAR, linear=only(3), held=_matrix(3), degree=_reciprocal),
)
enter(
    "custom_linear_solve",
    Entry(
        Kind.LINEAR,
        linear=lambda active: active[-1],
        held=_of_solve,
        degree=_degree_of_solve,
        reason="a matrix that is not a single array has its gradient",
    ),
)
enter(
    "cholesky",
    Entry(Kind.HOMOGENEOUS, degree=lambda params, active: lambda x: 0.5),
)
SCALES = (
    "conserves for what scales with the matrix (eigenvalues, singular values, upper "
    "factors); the parts of the others sum to zero"
)


def _eigenvectors(params: Params, active: Active) -> str:
    vectors = params.get("compute_left_eigenvectors") or params.get(
        "compute_right_eigenvectors"
    )
    why = (
        "JAX has a derivative for eigenvectors only with enable_eigvec_derivs=True; "
        "jnp.linalg.eigvals makes none, and jnp.linalg.eigh has one"
    )
    return why if vectors and not params.get("enable_eigvec_derivs") else ""


enter("eigh svd qr lu", Entry(Kind.TAYLOR, reason=SCALES))
enter("eig", Entry(Kind.TAYLOR, refuses=_eigenvectors, reason=SCALES))
enter(
    "schur hessenberg householder_product cholesky_update geqrf geqp3 ormqr "
    "symmetric_product tridiagonal",
    Entry(Kind.REFUSED, reason="JAX has no derivative for this decomposition"),
)
# In JAX 0.12: CustomRoot, Ldexp, Frexp and others, integer results among them.
enter("call_hi_primitive", Entry(Kind.TAYLOR, reason="its own derivative"))
enter("random_gamma", Entry(Kind.TAYLOR, reason="in the shape parameter, implicitly"))
