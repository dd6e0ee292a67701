"""A program evaluated again with LRP's rules in it, so that `jax.vjp` is the reverse pass.

`evaluate` goes through the steps of a reading and calls the function of each role. It
stands in the module that bears the name of the construct in `jaxlrp._reading`.
"""
