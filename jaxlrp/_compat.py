"""Every use of JAX that has no public, stable form, and every version difference.

Nothing else in the package reads parameters that differ between versions, touches
`jax.interpreters`, or asks which version is running. Tested on the oldest and the
newest JAX that are supported.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax.extend import source_info_util
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

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


def called_jaxpr(params: dict[str, Any]) -> Any | None:
    """The jaxpr that a call-like equation carries, whatever the parameter's name."""
    for name in ("jaxpr", "call_jaxpr"):
        if name in params:
            return params[name]
    return None


def is_known(x: Any) -> bool:
    """Is the array's value known: neither traced nor a mere shape?"""
    return not isinstance(x, jax.core.Tracer | jax.ShapeDtypeStruct)


def is_branch(params: Mapping[str, Any]) -> bool:
    """Is it a `cond` or `switch`, by its parameters?"""
    return "branches" in params


def is_loop(params: Mapping[str, Any]) -> bool:
    """Is it a `scan`, by its parameters?"""
    return "length" in params


def no_cotangent(tree: Any) -> Any:
    """What a `custom_vjp` returns for operands that receive nothing: None for each.

    JAX 0.10 mistakes the shape of a None for a scan's stacked result: zeros there.
    """
    if jax.__version_info__ >= (0, 11):
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
    """A primitive that evaluates `evaluate(*operands, **params)` wherever it stands.

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
