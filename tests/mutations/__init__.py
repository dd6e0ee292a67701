"""Single changes of the code, and whether the tests notice them: `make mutate`.

`mutations.txt` is the list: a place, the change, and the tests that should notice it.
`run` makes each change in a copy of the tree and runs these tests as `make test` does.
"""
