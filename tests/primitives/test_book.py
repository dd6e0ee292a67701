"""The book names primitives that exist, and is looked up by object before name."""

import contextlib
import importlib
import re
import sys
import typing

import pytest
from jax.extend.core import Primitive
from jax.extend.core import primitives as live

from jaxlrp import primitives
from jaxlrp.primitives import Entry, Kind, _book, entries, lookup

ENTRIES = dict(_book._by_name)

PUBLIC = {p.name for p in vars(live).values() if isinstance(p, Primitive)}

# What makes primitives beside `jax` itself.
MODULES = """
    jax.lax jax.lax.linalg jax.numpy jax.numpy.fft jax.numpy.linalg jax.random jax.nn
    jax.image jax.scipy.cluster.vq jax.scipy.fft jax.scipy.integrate
    jax.scipy.interpolate jax.scipy.linalg jax.scipy.ndimage jax.scipy.optimize
    jax.scipy.signal jax.scipy.sparse.linalg jax.scipy.spatial.transform
    jax.scipy.special jax.scipy.stats jax.ad_checkpoint jax.custom_batching
    jax.custom_derivatives jax.debug jax.export jax.ffi jax.ref jax.sharding
    jax.experimental.buffer_callback jax.experimental.checkify
    jax.experimental.compute_on jax.experimental.custom_partitioning
    jax.experimental.fused jax.experimental.hijax jax.experimental.layout
    jax.experimental.multihost_utils jax.experimental.ode jax.experimental.pallas
    jax.experimental.pjit jax.experimental.rnn jax.experimental.scheduling_groups
    jax.experimental.sparse jax.experimental.xla_metadata
""".split()

# In another of the supported versions of JAX only.
OTHER_VERSIONS = """
    call closed_call program_order log2 one_minus_square polynomial relayout
    box_get box_set log_extend log_read new_box new_log
    core_map jaxpr_call psum_start pbroadcast_start pbroadcast_done
    unreduced_psum_start unreduced_reduce_scatter_start pbroadcast_dynamic
    reduced_vary_cast reduced_vary_cast_p vary_unreduced_cast vary_unreduced_cast_p
    unreduced_pmax unreduced_pmin
""".split()

# Modules of kernels' own primitives, which never stand in a program.
KERNELS = re.compile("mosaic|triton|pallas.tpu|pallas.fuser|tpu_custom_call|thunky")


def alive():
    """The names of all primitives of JAX that this version has."""
    for module in MODULES:
        with contextlib.suppress(ModuleNotFoundError):  # of another version
            importlib.import_module(module)
    owners = [
        m
        for name, m in sys.modules.items()
        if name.split(".")[0] == "jax" and not KERNELS.search(name)
    ]
    values = [v for m in owners for v in list(vars(m).values())]
    return {v.name for v in values if isinstance(v, Primitive)}


def test_every_name_is_that_of_a_primitive():
    assert not sorted(set(ENTRIES) - alive() - set(OTHER_VERSIONS))


def test_every_primitive_has_an_entry():
    missing = sorted(alive() - set(ENTRIES))
    assert not missing, f"enter in primitives/: {missing}"


COMMON = """
    add sub mul div neg max min abs exp log tanh logistic sqrt rsqrt pow integer_pow erf
    dot_general conv_general_dilated reduce_sum reduce_max cumsum sort top_k gather
    scatter dynamic_slice dynamic_update_slice select_n concatenate pad rev reshape
    transpose broadcast_in_dim squeeze slice while cond scan convert_element_type
""".split()


def test_common_primitives_are_public_and_in_the_book():
    assert not set(COMMON) - PUBLIC
    assert not set(COMMON) - set(ENTRIES)


def test_entries_are_whole():
    for entry in ENTRIES.values():
        assert isinstance(entry.kind, Kind)
        assert (entry.kind is Kind.REFUSED) <= bool(entry.reason)
        assert (entry.kind is Kind.CONTRACTION) <= bool(entry.role)
        assert bool(entry.role) <= (entry.kind in (Kind.CONTRACTION, Kind.HOMOGENEOUS))
        assert (entry.kind is Kind.CONTRACTION) == (entry.kernel_axes is not None)
        assert entry.layout is None or entry.kind in (Kind.STRUCTURAL, Kind.LINEAR)
        assert entry.treatment in typing.get_args(_book.Treatment)
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
