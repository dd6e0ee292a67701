"""A program evaluated again with the rules in it; `jax.vjp` is then the reverse pass.

`evaluate` goes through the steps of a reading and calls the function of each role. It
is in the module with the name of the construct in `jaxlrp._reading`.
"""
