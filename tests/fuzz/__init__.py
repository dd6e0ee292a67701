"""Random programs, and what must hold of each of them.

`python -m tests.fuzz` runs many; `test_fuzz.py` runs a slice that never changes.
"""
