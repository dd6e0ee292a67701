"""The book names primitives that exist, and is looked up by object before name."""

import gc
import importlib

import pytest
from jax.extend.core import Primitive
from jax.extend.core import primitives as live

from jaxlrp import primitives
from jaxlrp.primitives import Entry, Kind, _book, entries, lookup

ENTRIES = dict(_book._by_name)

PUBLIC = {p.name for p in vars(live).values() if isinstance(p, Primitive)}

# What makes primitives beside `jax` itself.
MODULES = """
    jax.export jax.ffi jax.experimental.pallas jax.experimental.custom_partitioning
    jax.experimental.buffer_callback jax.experimental.checkify jax.experimental.layout
    jax.experimental.xla_metadata
""".split()

# In another of the supported versions of JAX only.
OTHER_VERSIONS = "call closed_call log2 one_minus_square polynomial relayout".split()


def alive():
    """The names of all primitives that this version of JAX has."""
    for module in MODULES:
        importlib.import_module(module)
    return {p.name for p in gc.get_objects() if isinstance(p, Primitive)}


def test_every_name_is_that_of_a_primitive():
    assert not sorted(set(ENTRIES) - alive() - set(OTHER_VERSIONS))


def test_most_public_primitives_have_an_entry():
    missing = sorted(name for name in PUBLIC if name not in ENTRIES)
    # What is missing is refused by name when relevance meets it.
    assert len(missing) < 0.25 * len(PUBLIC), missing


COMMON = """
    add sub mul div neg max min abs exp log tanh logistic sqrt rsqrt pow integer_pow erf
    dot_general conv_general_dilated reduce_sum reduce_max cumsum sort top_k gather
    scatter dynamic_slice dynamic_update_slice select_n concatenate pad rev reshape
    transpose broadcast_in_dim squeeze slice while cond scan convert_element_type
""".split()


@pytest.mark.parametrize("name", COMMON)
def test_common_primitive_is_public_and_in_the_book(name):
    assert name in PUBLIC
    assert name in ENTRIES


@pytest.mark.parametrize("name", ENTRIES)
def test_entry_is_whole(name):
    entry = ENTRIES[name]
    assert isinstance(entry.kind, Kind)
    assert (entry.kind is Kind.REFUSED) <= bool(entry.reason)
    assert (entry.kind is Kind.CONTRACTION) == bool(entry.role)
    assert (entry.kind is Kind.CONTRACTION) == (entry.kernel_axes is not None)
    assert entry.layout is None or entry.kind is Kind.STRUCTURAL
    assert (entry.rule is not None) == (entry.kind is Kind.CUSTOM)


def test_name_is_entered_once():
    with pytest.raises(ValueError, match="has an entry for 'add' already"):
        _book.enter("add", Entry(Kind.INERT))


def test_own_entry_of_a_primitive_comes_first(monkeypatch):
    monkeypatch.setattr(_book, "_by_primitive", {})
    primitive = Primitive("add")  # another object of that name
    assert lookup(primitive) is None  # a name of JAX's, but not JAX's primitive
    own = Entry(Kind.INERT)
    primitives.enter_primitive(primitive, own)
    assert lookup(primitive) is own
    assert lookup(live.add_p) is ENTRIES["add"]
    assert lookup(Primitive("never heard of")) is None


def test_entries_hold_users_own(monkeypatch):
    monkeypatch.setattr(_book, "_by_primitive", {})
    primitives.enter_primitive(Primitive("mine"), Entry(Kind.INERT))
    assert {"mine", "add"} <= set(entries())


@pytest.mark.parametrize(
    ("linear", "active", "expected"),
    [
        (_book.never, [True], False),
        (_book.jointly, [True, True], True),
        (_book.each, [True, False], True),
        (_book.each, [True, True], False),
        (_book.only(0), [True, False], True),
        (_book.only(0), [False, True], False),
        (_book.only(0, 2), [True, False, True], True),
    ],
)
def test_words_for_linearity(linear, active, expected):
    assert linear(active) is expected
