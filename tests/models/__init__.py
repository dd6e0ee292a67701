"""Networks that tests and benchmarks share.

`architectures` has one of each kind, small; `networks` those that reference values were
computed with, and files in the forms in which weights are shipped; `usual` networks of
usual size, for figures of time and memory.
"""
