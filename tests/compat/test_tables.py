"""The tables say what the modules do: both sides of every row are the same rules."""

import dataclasses
import importlib
import pkgutil

import numpy as np
import pytest

import jaxlrp
from jaxlrp import compat, composites, rules
from jaxlrp.composites import Composite

PEERS = sorted(
    module.name
    for module in pkgutil.iter_modules(compat.__path__)
    if not module.name.startswith("_")
)
ROWS = [(peer, row) for peer in PEERS for row in getattr(compat, peer).TABLE]
CALLS = [(peer, row) for peer, row in ROWS if row.call]
WITHOUT_ROW = {
    ("zennit", "Stabilizer"),  # an argument of the rules
    ("innvestigate", "AlphaBetaRule"),  # its presets have rows
    ("innvestigate", "AlphaBetaIgnoreBiasRule"),
    ("innvestigate", "LRPAlphaBeta"),
    ("chefer", "one_hot"),  # a target
}


def evaluated(expression):
    modules = {peer: getattr(compat, peer) for peer in PEERS}
    names = {"composites": composites, "rules": rules, "jaxlrp": jaxlrp, **modules}
    arrays = dict.fromkeys(("relevance", "x"), np.ones((2, 6, 5, 3)))
    return eval(expression, {**names, **arrays, "f": lambda x: x})


def lines(value):
    """A rule, or the lines of a composite without its name."""
    return value.assignments if isinstance(value, Composite) else value


def test_every_peer_is_exported():
    assert set(PEERS) | {"Row"} == set(compat.__all__)


@pytest.mark.whole
@pytest.mark.parametrize(("peer", "row"), CALLS, ids=str)
def test_call_is_the_expression_beside_it(peer, row):
    assert lines(evaluated(row.call)) == lines(evaluated(row.ours))


@pytest.mark.whole
@pytest.mark.parametrize(("peer", "row"), ROWS, ids=str)
def test_expression_of_a_row_can_be_evaluated(peer, row):
    assert evaluated(row.ours) is not None


@pytest.mark.parametrize("peer", PEERS)
def test_every_function_has_a_row(peer):
    module = importlib.import_module(f"jaxlrp.compat.{peer}")
    own = {
        name
        for name, value in vars(module).items()
        if callable(value)
        and not name.startswith("_")
        and getattr(value, "__module__", "") == module.__name__
    }
    called = {row.call.split(".")[1].split("(")[0] for row in module.TABLE if row.call}
    without = {name for p, name in WITHOUT_ROW if p == peer}
    assert own - called == without


@pytest.mark.parametrize("peer", PEERS)
def test_names_of_a_table_are_unique(peer):
    names = [row.name for row in getattr(compat, peer).TABLE]
    assert len(set(names)) == len(names)


def test_row_is_plain_data():
    row = compat.Row("a", "b")
    assert dataclasses.astuple(row) == ("a", "b", "", "")
