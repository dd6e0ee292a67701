"""The book names primitives that exist, and is looked up by object before name."""

import jax
import pytest
from jax.extend.core import Primitive, primitives as live

from jaxlrp import primitives
from jaxlrp.primitives import Entry, Kind, _book, entries, lookup

ENTRIES = {name: entry for name, entry in _book._by_name.items()}

LIVE = {p.name for p in vars(live).values() if isinstance(p, Primitive)}

# No public objects: matched by name, found by tracing what makes them.
BY_NAME = """
    add_any all_gather_invariant approx_top_k buffer_callback call call_exported check
    closed_call cholesky composite copy_p core_call create_token custom_partitioning
    dce_sink debug_callback debug_print device_put eval_jaxpr ffi_call from_edtype
    io_callback name optimization_barrier pallas_call platform_index psum_invariant
    pure_callback pvary reduce_precision regularized_incomplete_beta relayout reshard
    scaled_dot scaled_matmul scaled_matmul_wrapper sharding_constraint stage tie
    to_edtype unreduced_psum layout_constraint with_memory_space_constraint
    xla_metadata_value
""".split()

# In the other supported versions of JAX only.
OTHER_VERSIONS = """
    unstack polynomial one_minus_square log2 stop_gradient empty empty2 expand_dims
    broadcast_to mulhi zeros_like eq_to le_to lt_to axis_index dim_as_value
    dimension_size pbroadcast schur hessenberg householder_product philox2x32 philox4x32
    threefry4x32 iota_2x32_shape lu_pivots_to_permutation rng_uniform
    tridiagonal_solve
""".split()


def test_every_name_is_a_primitive_or_known_to_be_private():
    known = LIVE | set(BY_NAME) | set(OTHER_VERSIONS)
    assert not sorted(set(ENTRIES) - known)


def test_most_public_primitives_have_an_entry():
    missing = sorted(name for name in LIVE if name not in ENTRIES)
    # What is missing is refused by name when relevance meets it.
    assert len(missing) < 0.25 * len(LIVE), missing


COMMON = """
    add sub mul div neg max min abs exp log tanh logistic sqrt rsqrt pow integer_pow erf
    dot_general conv_general_dilated reduce_sum reduce_max cumsum sort top_k gather
    scatter dynamic_slice dynamic_update_slice select_n concatenate pad rev reshape
    transpose broadcast_in_dim squeeze slice while cond scan convert_element_type
""".split()


@pytest.mark.parametrize("name", COMMON)
def test_common_primitive_is_public_and_in_the_book(name):
    assert name in LIVE
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
    assert lookup(primitive) is ENTRIES["add"]
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


def test_jax_of_this_test_is_named():
    assert jax.__version__
