"""A function as a list of equations.

`program` inlines the calls of a jaxpr, `opaque` says which stay whole, `kinds` which
values can carry relevance, `axes` which axes of a result are which of its operands.
`partial` computes in advance what known values decide alone.
"""
