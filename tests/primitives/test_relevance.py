"""The relevance of every primitive that can carry some, against independent oracles.

Cases are explained by the dozen: one program of all of them, whose operands are one
pytree, so that each variant (alone, mapped, in another precision) is compiled once.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import subjaxprs

import jaxlrp
from jaxlrp import _compat, composites
from jaxlrp.primitives import Kind, collective, entries
from tests.primitives.cases import CASES, UNARY
from tests.primitives.test_book import alive

ALL = {f"{name} {i}": c for name, cases in CASES.items() for i, c in enumerate(cases)}
LRP_0 = composites.Composite("every role's default: nothing is absorbed")
DOZENS = [list(ALL)[i : i + 12] for i in range(0, len(ALL), 12)]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def weights_of(case):
    """A constant for each element of each result."""
    ys = jax.eval_shape(case.f, *(jnp.asarray(x) for x in case.xs))
    return [
        1.5 + np.cos(np.arange(y.size)).reshape(y.shape) for y in jax.tree.leaves(ys)
    ]


def joined(cases):
    """All cases as one function of `(active operands, others)`, weighted."""

    def f(active, others):
        results = []
        for name, case in cases.items():
            xs = [active[name].get(i, others[name].get(i)) for i in range(len(case.xs))]
            ys = jax.tree.leaves(case.f(*xs))
            for w, y in zip(weights_of(case), ys, strict=True):
                results.append(jnp.asarray(w, y.dtype) * y)
        return results

    return f


def split(xs, actives):
    """Each case's operands as two dicts by position."""
    active = {n: {i: xs[n][i] for i in p} for n, p in actives.items()}
    others = {
        n: {i: x for i, x in enumerate(xs[n]) if i not in p} for n, p in actives.items()
    }
    return active, others


def explain(cases):
    return jaxlrp.lrp(joined(cases), LRP_0, argnums=0, target="all")


def everything(cases, xs):
    """All variants: `{variant: {case: {position: relevance}}}`.

    Mapped over each operand, and in bfloat16, the first case of each name.
    """
    every = {name: tuple(range(len(case.xs))) for name, case in cases.items()}
    found = {"together": explain(cases)(*split(xs, every))}
    firsts = {n: c for n, c in cases.items() if n.endswith(" 0")}
    for i in range(4):
        here = {n: (i,) for n, c in cases.items() if (i,) in c.oracles()}
        here = {n: p for n, p in here.items() if len(every[n]) > 1}
        if here:
            alone = explain({n: cases[n] for n in here})
            found[f"alone {i}"] = alone(*split(xs, here))
        mapped = {n: c for n, c in firsts.items() if c.mapped and i in every[n]}
        if mapped:
            found[f"mapped {i}"] = over_rows(mapped, xs, every, i)
    low = {n: c for n, c in firsts.items() if c.low}
    if low:
        found["bfloat16"] = explain(low)(
            *cast(xs, {n: every[n] for n in low}, "bfloat16")
        )
    return found


def cast(xs, actives, dtype):
    active, others = split(xs, actives)
    return jax.tree.map(lambda x: x.astype(dtype), active), others


def over_rows(cases, xs, every, i):
    """The second of two rows of operand `i`, in float32."""
    active, others = cast(xs, {n: every[n] for n in cases}, "float32")
    axes = {n: {j: 0 if i == j else None for j in active[n]} for n in active}
    for given in active.values():
        given[i] = jnp.stack([0.9 * given[i], given[i]])
    rows = jax.vmap(explain(cases), (axes, None))(active, others)
    return jax.tree.map(lambda r: r[1], rows)


def agree(found, expected, tolerance, what):
    for r, e in zip(found, expected, strict=True):
        e = np.asarray(e, np.float64)
        scale = max(np.abs(e).max(initial=0), 1e-3)
        np.testing.assert_allclose(
            np.asarray(r, np.float64) / scale, e / scale, atol=tolerance, err_msg=what
        )


@pytest.mark.parametrize("dozen", DOZENS, ids=lambda names: names[0])
def test_relevance_is_that_of_the_oracle(dozen):
    cases = {name: ALL[name] for name in dozen}
    xs = {
        name: tuple(jnp.asarray(x, jnp.float64) for x in case.xs)
        for name, case in cases.items()
    }
    quickly = {"xla_backend_optimization_level": 0}
    run = jax.jit(lambda xs: everything(cases, xs), compiler_options=quickly)
    found = run(xs)
    for name, case in cases.items():
        weights = weights_of(case)
        every = tuple(range(len(case.xs)))
        for active, oracle in case.oracles().items():
            variant = "together" if active == every else f"alone {active[0]}"
            relevance = [found[variant][name][i] for i in active]
            expected = oracle(case.value, case.xs, active, weights)
            agree(relevance, expected, 1e-9, f"{name} {variant}")
        whole = [found["together"][name][i] for i in every]
        if case.conserves:
            ys = jax.tree.leaves(case.value(*case.xs))
            sent = sum(np.sum(w * y) for w, y in zip(weights, ys, strict=True))
            kept = sum(r.sum() for r in whole)
            np.testing.assert_allclose(kept, sent, rtol=1e-9, err_msg=name)
        for variant in found:
            if (
                variant == "together"
                or "alone" in variant
                or name not in found[variant]
            ):
                continue
            relevance = [found[variant][name][i] for i in every]
            low = variant == "bfloat16"
            agree(relevance, whole, 0.08 if low else 1e-4, f"{name} {variant}")
            dtype = jnp.dtype("bfloat16" if low else "float32")
            assert {r.dtype for r in relevance} == {dtype}


# No public function makes these of floating-point values on one device: they are copies
# inside kernels, for layouts, meshes and extended dtypes, which other entries share.
OUT_OF_REACH = """
    with_memory_space_constraint to_edtype from_edtype relayout stage call_hi_primitive
    global_array_to_host_local_array host_local_array_to_global_array
    reduced_vary_cast_p vary_unreduced_cast_p
""".split()


def primitives_of(jaxpr):
    """The names of all primitives in a jaxpr, those of its bodies included."""
    open_, _ = _compat.open_jaxpr(jaxpr)
    names = {eqn.primitive.name for eqn in open_.eqns}
    return names.union(*map(primitives_of, subjaxprs(open_)), set())


def test_every_primitive_that_carries_relevance_has_a_case():
    traced = set()
    for case in ALL.values():
        xs = [jnp.asarray(x) for x in case.xs]
        traced |= primitives_of(jax.make_jaxpr(case.f)(*xs))
    across_devices = inspect.getsource(collective)  # these have tests of their own
    kinds = {Kind.STRUCTURAL, Kind.ELEMENTWISE, Kind.LINEAR, Kind.CONTRACTION}
    kinds |= {Kind.SELECTION, Kind.HOMOGENEOUS, Kind.TAYLOR}
    missing = [
        name
        for name, entry in entries().items()
        if entry.kind in kinds
        and name in alive()
        and name not in traced
        and name not in OUT_OF_REACH
        and name not in across_devices
    ]
    assert not missing, "add cases to tests/primitives/cases.py"


EMPTY = {
    **{name: (f, ((0,),)) for name, (f, _) in UNARY.items()},
    "sum": (lambda x: x.sum(0), ((0, 3),)),
    "product": (lambda x: x.prod(1), ((2, 0),)),
    "cumulative product": (lambda x: jnp.cumprod(x, 0), ((0, 3),)),
    "sort": (lambda x: jnp.sort(x, 1), ((0, 3),)),
    "gather": (lambda x: x[jnp.zeros(0, int)], ((4, 3),)),
    "reshape": (lambda x: x.reshape(0), ((2, 0),)),
    "concatenate": (lambda x, y: jnp.concatenate([x, y]), ((0,), (3,))),
    "maximum": (jnp.maximum, ((0,), (0,))),
    "product of two": (jnp.multiply, ((0, 2), (0, 2))),
    "nothing contracted": (jnp.matmul, ((2, 0), (0, 3))),
    "contraction": (jnp.matmul, ((0, 3), (3, 2))),
    "cholesky": (jnp.linalg.cholesky, ((0, 2, 2),)),
}


@pytest.mark.filterwarnings("ignore::jaxlrp.errors.IndependentArgumentWarning")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_arrays_without_elements(dtype):
    for name, (f, shapes) in EMPTY.items():
        if name == "cholesky" and dtype == "bfloat16":
            continue
        xs = [jax.ShapeDtypeStruct(s, jnp.dtype(dtype)) for s in shapes]
        every = tuple(range(len(xs)))
        found = jax.eval_shape(jaxlrp.lrp(f, argnums=every, target="all"), *xs)
        assert [(r.shape, r.dtype) for r in found] == [(x.shape, x.dtype) for x in xs]


def test_scalars():
    names = [name for name, (_, x) in UNARY.items() if name != "lgamma"]

    def f(xs):
        return [UNARY[name][0](xs[name]) for name in names]

    xs = {name: jnp.asarray(UNARY[name][1][0]) for name in names}
    found = jax.jit(jaxlrp.lrp(f, target="all"))(xs)
    for name, y in zip(names, f(xs), strict=True):
        np.testing.assert_allclose(found[name], y, rtol=1e-9, err_msg=name)
