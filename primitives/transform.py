"""Linear algebra and transforms: linear ones exactly, decompositions by gradient."""

from __future__ import annotations

from jaxlrp.primitives._book import Entry, Kind, enter, jointly, only

# Of a complex value the relevance is the real part of value times multiplier.
enter("fft real imag conj complex", Entry(Kind.LINEAR, linear=jointly))
enter("triangular_solve", Entry(Kind.LINEAR, linear=only(1)))
enter("tridiagonal_solve", Entry(Kind.LINEAR, linear=only(3)))
enter(
    "custom_linear_solve cholesky eigh eig lu qr svd",
    Entry(Kind.TAYLOR),
)
enter(
    "schur hessenberg householder_product cholesky_update geqrf geqp3 ormqr "
    "symmetric_product tridiagonal",
    Entry(Kind.REFUSED, reason="JAX has no derivative for this decomposition"),
)
enter("random_gamma", Entry(Kind.TAYLOR))
