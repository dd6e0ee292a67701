"""Every use of JAX that has no public, stable form, and every version difference.

Nothing else in the package reads parameters that differ between versions, touches
`jax.interpreters`, or asks which version is running. Tested on the oldest and the
newest JAX that are supported.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import lax
from jax.extend import source_info_util
from jax.extend.core import (
    Jaxpr,
    Primitive,
    jaxpr_as_fun,
    jaxprs_in_params,
    no_effects,
)
from jax.extend.core.primitives import custom_jvp_call_p
from jax.interpreters import ad, batching, mlir

_FOLDER = f"{pathlib.Path(jax.__file__).parent}{os.sep}"
_WRAPPER = re.compile(r"\w+\(([^()]*)\)")


def open_jaxpr(jaxpr: Any) -> tuple[Any, tuple[Any, ...]]:
    """`(jaxpr, consts)`: one class since JAX 0.11, two before."""
    return getattr(jaxpr, "jaxpr", jaxpr), tuple(getattr(jaxpr, "consts", ()))


def constvars(jaxpr: Any) -> Sequence[Any]:
    """The variables that stand for the constants of a jaxpr."""
    return jaxpr.constvars


def scan_split(params: dict[str, Any]) -> tuple[int, int]:
    """(number of constants, number of carries); `ft_in` since JAX 0.11."""
    if "ft_in" in params:
        consts, carry, _ = params["ft_in"].unpack()
        return len(consts), len(carry)
    return params["num_consts"], params["num_carry"]


def scan_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """How a `scan` goes on, as `lax.scan` takes it: length, reverse, unroll."""
    return {name: params[name] for name in ("length", "reverse", "unroll")}


def iterations(params: Mapping[str, Any]) -> range:
    """The places on the stacks of a `scan`, in the order in which they are read."""
    places = range(params["length"])
    return places[::-1] if params["reverse"] else places


def remat_options(params: Mapping[str, Any]) -> dict[str, Any]:
    """What a `jax.checkpoint` was asked for, as it takes that."""
    return {name: params[name] for name in ("policy", "prevent_cse")}


def inner_jaxprs(params: Mapping[str, Any]) -> tuple[Any, ...]:
    """The branches of a `cond` or `switch`, else the jaxpr that is called, if any."""
    if is_branch(params):
        return tuple(params["branches"])
    body = called_jaxpr(dict(params))
    return () if body is None else (body,)


def call_constants(params: Mapping[str, Any]) -> int:
    """How many operands of a call come first that its function closes over."""
    return params.get("num_consts", 0)


def tag_of(params: Mapping[str, Any]) -> str:
    """What `checkpoint_name` calls a value."""
    return params["name"]


def joined_axis(params: Mapping[str, Any]) -> int | None:
    """The axis of a `concatenate`; None of other equations."""
    return params.get("dimension")


def slice_starts(params: Mapping[str, Any]) -> tuple[int, ...]:
    """Where a `slice` begins, along each axis."""
    return params["start_indices"]


def gathered_sizes(params: Mapping[str, Any]) -> tuple[int, ...]:
    """How much of each axis a `gather` takes for an index."""
    return params["slice_sizes"]


def squeezed_axes(params: Mapping[str, Any]) -> tuple[int, ...]:
    """The axes that a `squeeze` leaves out."""
    return params["dimensions"]


def broadcast_axes(params: Mapping[str, Any]) -> tuple[int, ...] | None:
    """Where the operand's axes are in a broadcast's result; None of other equations."""
    return params.get("broadcast_dimensions")


def reduced_axes(params: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The axes that a reduction is over; None of other equations."""
    return params.get("axes")


def image_axes(params: Mapping[str, Any]) -> dict[int, int]:
    """`{axis of a convolution's result: axis of its image}` of those it moves over."""
    numbers = params["dimension_numbers"]
    return dict(zip(numbers.out_spec[2:], numbers.lhs_spec[2:], strict=True))


def window_sizes(params: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The size of a reduction's windows along each axis; None of other equations."""
    return params.get("window_dimensions")


class Windows(NamedTuple):
    """How a reduction's windows lie, each with an entry for each axis.

    Attributes:
      sizes: of a window.
      strides: from one window to the next.
      apart: how far its places are from each other.
      config: what `lax.pad` takes, to have them all inside.
    """

    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    apart: tuple[int, ...]
    config: list[tuple[int, int, int]]


def windows(params: Mapping[str, Any]) -> Windows:
    """Those of a reduction over windows."""
    config = [
        (low, high, base - 1)
        for (low, high), base in zip(
            params["padding"], params["base_dilation"], strict=True
        )
    ]
    sizes, strides = params["window_dimensions"], params["window_strides"]
    return Windows(sizes, strides, params["window_dilation"], config)


def with_zeros_outside(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a `gather` that finds zeros where indices are out of bounds."""
    return {**params, "fill_value": 0} if "fill_value" in params else dict(params)


class WhileParts(NamedTuple):
    """A `while` equation: its jaxprs, and how many constants each is given first."""

    test: Any
    body: Any
    test_constants: int
    constants: int


def while_parts(params: Mapping[str, Any]) -> WhileParts:
    """The parts of a `while` equation: both constants come first, then the carry."""
    names = ("cond_jaxpr", "body_jaxpr", "cond_nconsts", "body_nconsts")
    return WhileParts(*(params[name] for name in names))


def has_effects(jaxpr: Any) -> bool:
    """Does a jaxpr do anything but compute its results?"""
    return bool(open_jaxpr(jaxpr)[0].effects)


def without_effects(jaxpr: Any) -> Any:
    """The jaxpr without what it does for its effect alone, in the bodies in it too."""
    open_, _ = open_jaxpr(jaxpr)
    if not open_.effects:
        return jaxpr
    eqns = [_quiet(e) for e in open_.eqns if e.outvars or not e.effects]
    effects = _joined(e.effects for e in eqns)
    quiet = open_.replace(eqns=eqns, effects=effects)
    return quiet if open_ is jaxpr else jaxpr.replace(jaxpr=quiet)


def _joined(effects: Iterable[Any]) -> Any:
    return set().union(no_effects, *effects)  # type: ignore[arg-type]


def _quiet(eqn: Any) -> Any:
    """An equation whose bodies have no effects."""
    if not eqn.effects:
        return eqn
    params = quiet_params(eqn.params)
    inner = list(jaxprs_in_params(params))
    effects = _joined(j.effects for j in inner)
    return eqn.replace(params=params, effects=effects) if inner else eqn


def quiet_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an equation, the bodies among them without effects."""

    def quiet(v: Any) -> Any:
        if is_jaxpr(v):
            return without_effects(v)
        if isinstance(v, tuple) and any(map(is_jaxpr, v)):
            return tuple(map(quiet, v))
        return v

    return {name: quiet(v) for name, v in params.items()}


def is_jaxpr(value: Any) -> bool:
    """Is it a jaxpr, open or closed?"""
    return isinstance(open_jaxpr(value)[0], Jaxpr)


def called_jaxpr(params: dict[str, Any]) -> Any | None:
    """The jaxpr that a call-like equation carries, whatever the parameter's name."""
    for name in ("jaxpr", "call_jaxpr", "body_jaxpr", "call"):
        if name in params:
            return params[name]
    return None


def bodies_by_name(params: Mapping[str, Any]) -> dict[str, Any]:
    """The jaxprs of an equation by parameter; branches by `branches`, numbered.

    What decides how often a loop runs is none of them.
    """
    if is_branch(params):
        return {f"branches{i}": b for i, b in enumerate(params["branches"])}
    if is_while(params):
        return {"body_jaxpr": params["body_jaxpr"]}
    names = (n for n in ("jaxpr", "call_jaxpr", "call") if n in params)
    return {n: params[n] for n in names if is_jaxpr(params[n])}


def with_bodies(params: Mapping[str, Any], bodies: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of an equation with other jaxprs, named as `bodies_by_name` does.

    An open one stays open.
    """
    if is_branch(params):
        return {"branches": tuple(bodies.values())}
    changed = {}
    for name, body in bodies.items():
        jaxpr, consts = open_jaxpr(body)
        is_open = isinstance(params[name], Jaxpr)
        if is_open and consts:
            raise ValueError(f"a body without a place for constants has {len(consts)}")
        changed[name] = jaxpr if is_open else body
    return changed


def in_avals(jaxpr: Any) -> list[Any]:
    """The types of a jaxpr's inputs."""
    return [v.aval for v in open_jaxpr(jaxpr)[0].invars]


def names_of(equation_params: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a call's function and of the kernels in it."""
    found = []
    for body in jaxprs_in_params(equation_params):
        found.append(str(getattr(body.debug_info, "func_name", "") or ""))
        for eqn in body.eqns:
            found.append(str(eqn.params.get("name") or ""))
            found += names_of(eqn.params)
    return tuple(filter(None, found))


def is_sized(aval: Any) -> bool:
    """An array's type: not a reference's, and of sizes that are numbers."""
    is_array = isinstance(aval, jax.core.ShapedArray)
    return is_array and all(isinstance(n, int) for n in aval.shape)


def stack_of(aval: Any, length: int) -> Any:
    """The type of a stack of arrays."""
    return jax.core.ShapedArray((length, *aval.shape), aval.dtype)


def is_known(x: Any) -> bool:
    """Is the array's value known: neither traced nor a mere shape?"""
    return not isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct)


def is_staged() -> bool:
    """Is what is computed now traced, to be compiled as a whole?

    Then even what depends on nothing is traced; `grad` and `vmap` alone compute it.
    """
    return isinstance(lax.full((), 0.0), jax.core.Tracer)


def constants_go() -> Any | None:
    """How an array that nothing is said about lies; None where it would be traced."""
    made = lax.full((), 0.0)
    return None if isinstance(made, jax.core.Tracer) else made.sharding


def is_debugged() -> bool:
    """Has the user asked JAX to look closely at what runs?"""
    names = ("disable_jit", "debug_nans", "debug_infs", "check_tracer_leaks")
    ways = ("host_to_device", "device_to_device", "device_to_host")
    guards = (getattr(jax.config, f"jax_transfer_guard_{way}") for way in ways)
    return any(getattr(jax.config, f"jax_{name}") for name in names) or any(
        guard not in (None, "allow") for guard in guards
    )


def all_settings() -> Any:
    """All that what is traced now may depend on, to be compared.

    Every option, as it is here and now: there is no public list of those that matter.
    """
    values = jax.config.values  # some of these have no attribute
    options = tuple(getattr(jax.config, name, values[name]) for name in values)
    return options, jax.sharding.get_abstract_mesh()


def own_derivative(params: Mapping[str, Any]) -> str | None:
    """Which function of JAX's own a `custom_jvp_call` is, `name at file:line`.

    None for a user's, and for a user's derivative of one of JAX's functions: then that
    has none of its own, or the call is around the one that it has.
    """
    body, derivative = open_jaxpr(params["call_jaxpr"])[0], params["jvp_jaxpr_fun"]
    where, rule = (
        str(debug.func_src_info or "")
        for debug in (body.debug_info, derivative.debug_info)
    )
    own = _is_custom(where) and rule.partition(" at ")[2].startswith(_FOLDER)
    return where if own and not _mentions(body, custom_jvp_call_p) else None


@functools.cache
def _is_custom(where: str) -> bool:
    """Is a function of JAX's, `name at file:line`, a `jax.custom_jvp`?"""
    name, _, place = where.partition(" at ")
    file = place.rpartition(":")[0]
    if not file.startswith(_FOLDER):
        return False
    modules = list(sys.modules.values())
    found = (m for m in modules if getattr(m, "__file__", None) == file)
    return any(isinstance(getattr(m, name, None), jax.custom_jvp) for m in found)


def evaluate(jaxpr: Any, arrays: Sequence[Any]) -> list[Any]:
    """Evaluates a closed jaxpr, operation by operation."""
    return jaxpr_as_fun(jaxpr)(*arrays)


def settings() -> tuple[Any, ...]:
    """The settings that what is traced now depends on."""
    return (
        jax.config.jax_enable_x64,
        jax.config.jax_default_matmul_precision,
        jax.sharding.get_abstract_mesh(),
    )


def is_branch(params: Mapping[str, Any]) -> bool:
    """Is it a `cond` or `switch`, by its parameters?"""
    return "branches" in params


def is_loop(params: Mapping[str, Any]) -> bool:
    """Is it a `scan`, by its parameters?"""
    return "length" in params


def is_while(params: Mapping[str, Any]) -> bool:
    """Is it a `while` loop, by its parameters?"""
    return "cond_jaxpr" in params


@functools.cache
def barrier() -> Primitive:
    """The primitive of `lax.optimization_barrier`, for which JAX has no public name."""
    jaxpr, _ = open_jaxpr(jax.make_jaxpr(lax.optimization_barrier)(0.0))
    return jaxpr.eqns[0].primitive


def is_remat(params: Mapping[str, Any]) -> bool:
    """Is it a `jax.checkpoint`, by its parameters?"""
    return "prevent_cse" in params


def with_body(
    primitive: Primitive,
    params: Mapping[str, Any],
    body: Callable[..., list[Any]],
    places: Sequence[int | None],
) -> Callable[..., list[Any]]:
    """The map of a `jax.checkpoint` equation with another body.

    A new `jax.checkpoint` would not be one that has been differentiated, before which
    XLA may not merge what is to be recomputed.

    Args:
      primitive: the equation's.
      params: the equation's.
      body: a function of arrays to a list of arrays.
      places: for each operand, which one of the equation it was, or None.
    """

    def bind(*operands: Any) -> list[Any]:
        jaxpr, consts = open_jaxpr(jax.make_jaxpr(body)(*operands))
        # The primitive has no place for constants: they are leading operands.
        jaxpr = jaxpr.replace(constvars=[], invars=[*constvars(jaxpr), *jaxpr.invars])
        apart = params["prevent_cse"]
        if isinstance(apart, tuple):
            own = (True if p is None else apart[p] for p in places)
            apart = (*(False for _ in consts), *own)
        changed = {**params, "jaxpr": jaxpr, "prevent_cse": apart}
        return primitive_bind(primitive, changed)(*consts, *operands)

    return bind


def varying_like(t: Any, x: Any) -> Any:
    """`t`, which under `shard_map` may differ from device to device where `x` does."""
    missing = _varying(x) - _varying(t)
    return lax.pcast(t, tuple(missing), to="varying") if missing else t


def _varying(x: Any) -> frozenset[Any]:
    kinds = getattr(jax.typeof(x), "manual_axis_type", None)
    return frozenset(getattr(kinds, "varying", ()))


def is_sharded(params: Mapping[str, Any]) -> bool:
    """Is it a `shard_map`, by its parameters?"""
    return "newly_manual_axes" in params


class ShardMapParts(NamedTuple):
    """A `shard_map` equation: mesh, how operands and results lie on it, manual axes."""

    mesh: Any
    inputs: tuple[Any, ...]
    outputs: tuple[Any, ...]
    axes: Any
    checked: bool


def shard_map_parts(params: Mapping[str, Any]) -> ShardMapParts:
    """The parts of a `shard_map` equation, as `jax.shard_map` takes them."""
    names = ("mesh", "in_specs", "out_specs", "newly_manual_axes", "check_vma")
    return ShardMapParts(*(params[name] for name in names))


SENDS_ZEROS = jax.__version_info__ < (0, 11)
"""JAX 0.10 mistakes the shape of a None from a `custom_vjp` for a scan's stacked
result: it gets zeros, and differentiates on with them."""


def no_cotangent(tree: Any) -> Any:
    """What a `custom_vjp` returns for operands that receive nothing: None for each."""
    if not SENDS_ZEROS:
        return jax.tree.map(lambda _: None, tree)

    def zero(x: Any) -> Any:
        real = jnp.issubdtype(jnp.result_type(x), jnp.inexact)
        return jnp.zeros_like(x) if real else None

    return jax.tree.map(zero, tree)


def summarize(source: Any) -> str:
    """`file:line (function)` of the user's line that an equation comes from."""
    return source_info_util.summarize(source)


def traceback_of(source: Any) -> Any:
    """The traceback that was taken when an equation was traced."""
    return source.traceback


def name_stack(source: Any) -> str:
    """The named scopes around an equation, `outer/inner`.

    Transformations wrap what they traced, `vmap(outer)/inner`; the wrappers go.
    """
    stack, bare = "", str(source.name_stack)
    while stack != bare:
        stack, bare = bare, _WRAPPER.sub(r"\1", bare)
    return bare.strip("/")


def primitive_bind(
    primitive: Primitive, params: dict[str, Any]
) -> Callable[..., list[Any]]:
    """The equation's own map, as a function of its operands to a list of results."""

    def bind(*operands: Any) -> list[Any]:
        # Stored parameters of custom_jvp_call and friends cannot be bound as they are.
        results = primitive.bind(*operands, **primitive.get_bind_params(params))
        return list(results) if primitive.multiple_results else [results]

    return bind


def implementation(eqn: Any) -> Any | None:
    """The jaxpr of what a primitive computes, if that is written in JAX; else None.

    Packages define primitives whose implementation is a function of JAX's own, to give
    them another rule for `vmap`. JAX's primitives bind themselves in theirs.
    """
    primitive, params = eqn.primitive, eqn.params
    operands = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]

    def compute(*operands: Any) -> list[Any]:
        results = primitive.impl(*operands, **params)
        return list(results) if primitive.multiple_results else [results]

    try:
        body = jax.make_jaxpr(compute)(*operands)
    except Exception:  # written in something else, which may raise anything
        return None
    found = [v.aval.str_short() for v in open_jaxpr(body)[0].outvars]
    if found != [v.aval.str_short() for v in eqn.outvars]:
        return None
    return None if _mentions(open_jaxpr(body)[0], primitive) else body


def _mentions(jaxpr: Any, primitive: Primitive) -> bool:
    """Does the primitive occur, in the bodies too?"""
    return any(
        eqn.primitive is primitive
        or any(_mentions(body, primitive) for body in jaxprs_in_params(eqn.params))
        for eqn in jaxpr.eqns
    )


def has_derivative(primitive: Primitive) -> bool:
    """Can JAX differentiate the primitive?

    Callbacks have a rule, which raises.
    """
    return primitive in ad.primitive_jvps and not is_callback(primitive)


def is_callback(primitive: Primitive) -> bool:
    """Does it call back into Python? Known by name: JAX does not export these."""
    return primitive.name in ("pure_callback", "io_callback")


@contextlib.contextmanager
def equation_context(source: Any, ctx: Any, scope: str):
    """The scopes, source line and mesh under which an equation was traced."""
    stack = source_info_util.current_name_stack()
    for name in filter(None, scope.split("/")):
        stack = stack.extend(name)
    with (
        source_info_util.user_context(traceback_of(source), name_stack=stack),
        ctx.manager,
    ):
        yield


def define_call(
    name: str,
    evaluate: Callable[..., list[Any]],
    batch: Callable[..., Any],
) -> Primitive:
    """A primitive that evaluates `evaluate(*operands, **params)` wherever it occurs.

    JAX has no public way to put a named function with a vmap rule into a jaxpr, so
    the tables that its own documentation on primitives uses are filled here.
    """
    primitive = Primitive(name)
    primitive.multiple_results = True
    primitive.def_impl(evaluate)

    def abstract(*avals: Any, **params: Any) -> list[Any]:
        shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
        outs = jax.eval_shape(lambda *xs: evaluate(*xs, **params), *shapes)
        return [jax.core.ShapedArray(o.shape, o.dtype) for o in outs]

    def jvp(primals: Any, tangents: Any, **params: Any) -> Any:
        dense = [
            ad.instantiate_zeros(t) if isinstance(t, ad.Zero) else t for t in tangents
        ]
        return jax.jvp(
            lambda *xs: evaluate(*xs, **params), tuple(primals), tuple(dense)
        )

    primitive.def_abstract_eval(abstract)
    ad.primitive_jvps[primitive] = jvp
    batching.primitive_batchers[primitive] = batch
    mlir.register_lowering(primitive, mlir.lower_fun(evaluate, multiple_results=True))
    return primitive


def versions() -> dict[str, str]:
    """This package's version and JAX's, with jaxlib's where that is another."""
    import jaxlib.version

    import jaxlrp

    own, lib = jax.__version__, jaxlib.version.__version__
    found = own if own == lib else f"{own} with jaxlib {lib}"
    return {"jaxlrp": jaxlrp.__version__, "jax": found}
