"""`while` loops: run forwards as they are, and backwards by recomputation.

How many steps a `while` loop takes is not known when it is compiled, so that JAX cannot
keep its carries and has no reverse pass for it. Here the forward pass counts the steps,
and the reverse pass recomputes the carry before each:

    keep K carries, evenly spaced over all n steps
    for each of the K segments, from the last:  keep K carries, evenly spaced over it
        for each part of it, from the last:  step to the carry before each of its steps

Each step is then evaluated with rules, under `jax.vjp`. That is 2 K carries in memory
and, up to K**2 steps, three evaluations of the body for each step besides the one that
is differentiated.

`equinox.internal.while_loop(kind="checkpointed")` does this for gradients, with another
placing of its checkpoints. It is not used: the step backwards here is not the transpose
of the step but a reading of it with rules and shadows, and neither its place in that
package nor its behaviour is promised.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import jaxpr_as_fun

from jaxlrp import _compat
from jaxlrp._reading.facts import is_real
from jaxlrp.errors import UnexplainedPrimitiveError


@dataclasses.dataclass(frozen=True, eq=False)
class Loop:
    """A loop whose steps close over nothing that is traced.

    Attributes:
      test: from what is given and the carry to whether there is another step.
      move: from what is given and the carry to the next carry.
      recompute: the same without effects.
      explained: from what is given, the carry and its shadows to the next carry and its
        shadows, with rules.
      checkpoints: how many carries are kept on either level.
    """

    test: Callable[[Any, list[Any]], Array]
    move: Callable[[Any, list[Any]], list[Any]]
    recompute: Callable[[Any, list[Any]], list[Any]]
    explained: Callable[[Any, list[Any], list[Any]], tuple[list[Any], list[Any]]]
    checkpoints: int


Explained = Callable[
    [Sequence[Any], Sequence[Any], Sequence[Any], Sequence[Any]],
    tuple[list[Any], list[Any]],
]
"""`(constants, their shadows, carry, its shadows)` to the next carry and shadows."""


def run_loop(
    params: dict[str, Any],
    line: str,
    explained: Explained,
    test_constants: Sequence[Any],
    constants: Sequence[Any],
    constant_shadows: Sequence[Any],
    carry: Sequence[Any],
    shadows: Sequence[Any],
    checkpoints: int,
    again: bool,
) -> tuple[list[Any], list[Any]]:
    """Runs a `while` equation; its derivative is that of its steps with rules.

    Args:
      params: of the equation.
      line: of the user, for an error.
      explained: one step, with rules; it may close over tracers.
      test_constants: what the condition is given besides the carry.
      constants: what the body is given besides the carry.
      constant_shadows: of the constants; None where there is none.
      carry: the start.
      shadows: of the start; None where there is none.
      checkpoints: how many carries are kept on either level of the reverse pass.
      again: has all of it been run before, with its effects?

    Returns:
      The last carry, and its shadows.

    Raises:
      UnexplainedPrimitiveError: if the body has effects that it needs the results of.
    """
    loop = _compat.while_parts(params)
    closed, hoisted = jax.closure_convert(
        explained, constants, constant_shadows, carry, shadows
    )

    quiet = _compat.without_effects(loop.body)
    if _compat.has_effects(quiet):
        raise UnexplainedPrimitiveError(
            f"while loop at {line}: its body has an effect with a result (such as "
            f"io_callback), and has to be evaluated again in the reverse pass. Pass "
            f"the results of effects into the loop."
        )

    tested, moved = loop.test, loop.body
    if again:
        tested, moved = _compat.without_effects(tested), quiet

    def test(given: Any, carry: list[Any]) -> Array:
        (holds,) = jaxpr_as_fun(tested)(*given[0], *carry)
        return holds

    def move(given: Any, carry: list[Any]) -> list[Any]:
        return jaxpr_as_fun(moved)(*given[1], *carry)

    def recompute(given: Any, carry: list[Any]) -> list[Any]:
        return jaxpr_as_fun(quiet)(*given[1], *carry)

    def explain(given: Any, carry: list[Any], shadows: list[Any]) -> Any:
        _, constants, constant_shadows, hoisted = given
        return closed(constants, constant_shadows, carry, shadows, *hoisted)

    given = (list(test_constants), list(constants), list(constant_shadows), hoisted)
    parts = Loop(test, move, recompute, explain, checkpoints)
    return reversible(parts, given, list(carry), list(shadows))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def reversible(
    loop: Loop, given: Any, carry: list[Any], shadows: list[Any]
) -> tuple[list[Any], list[Any]]:
    return _forward(loop, given, carry, shadows)[0]


def _forward(loop: Loop, given: Any, carry: list[Any], shadows: list[Any]) -> Any:
    def body(state: tuple[Array, list[Any]]) -> tuple[Array, list[Any]]:
        count, carry = state
        holds = loop.test(given, carry) if count.shape else jnp.bool_(True)
        moved = _chosen(holds, loop.move(given, carry), carry)
        return count + holds.astype(count.dtype), moved

    none = jax.eval_shape(loop.test, given, carry)
    start = (jnp.zeros(none.shape, jnp.int32), carry)
    count, last = lax.while_loop(
        lambda state: loop.test(given, state[1]).any(), body, start
    )
    return (last, shadows), (given, carry, shadows, count)


def _chosen(holds: Array, new: Sequence[Any], old: Sequence[Any]) -> list[Any]:
    """The new values where the condition holds: under `vmap` it has leading axes."""
    if not holds.shape:
        return list(new)

    def choose(x: Any, y: Any) -> Any:
        ones = (1,) * (jnp.ndim(x) - holds.ndim)
        return jnp.where(holds.reshape(*holds.shape, *ones), x, y)

    return [choose(x, y) for x, y in zip(new, old, strict=True)]


def _backward(loop: Loop, residuals: Any, cotangents: Any) -> Any:
    given, start, shadows, count = residuals
    cs, rs = cotangents
    outer, inner = (
        [jnp.broadcast_to(x, (loop.checkpoints, *jnp.shape(x))) for x in start]
        for _ in range(2)
    )
    state = (_reals(start, cs), rs, _zeros(_reals(given)))

    def single(i: Array, before: list[Any], state: Any) -> Any:
        """From the cotangents after step `i` to those before it."""
        c, r, collected = state
        c_here = _chosen(i < count, c, _zeros(c))
        r_here = _with_leaves(r, lambda v: _chosen(i < count, v, _zeros(v)))

        def explained(reals: Any, carry: Any, shadows: Any) -> Any:
            outs, out_shadows = loop.explained(
                _with_reals(given, reals), _with_reals(before, carry), shadows
            )
            return _reals(outs), out_shadows

        _, pull = jax.vjp(explained, _reals(given), _reals(before), shadows)
        g, c_before, r_before = pull((c_here, r_here))
        c = _chosen(i < count, c_before, c)
        leaves = jax.tree.leaves(r)
        r = _with_leaves(r_before, lambda v: _chosen(i < count, v, leaves))
        return c, r, jax.tree.map(jnp.add, collected, g)

    def advance(at: list[Any], first: Array, number: Array) -> list[Any]:
        """The carry after `number` steps, of which the first has that number."""

        def move(i: Array, at: list[Any]) -> list[Any]:
            return _chosen(i < count, loop.recompute(given, at), at)

        return lax.fori_loop(first, first + number, move, at)

    def keep(at: list[Any], first: Array, steps: Array, slots: list[Any]) -> Segments:
        """Keeps the carries at the starts of segments of so many steps."""
        stride = jnp.maximum(-(-steps // loop.checkpoints), 1)
        number = -(-steps // stride)

        def note(i: Array, state: Any) -> Any:
            at, slots = state
            slots = [
                lax.dynamic_update_index_in_dim(s, x, i, 0)
                for s, x in zip(slots, at, strict=True)
            ]
            # Nothing reads the carry after the last one.
            further = jnp.where(i < number - 1, stride, 0)
            return advance(at, first + i * stride, further), slots

        _, slots = lax.fori_loop(0, number, note, (at, slots))
        return Segments(first, steps, stride, number, slots)

    def undo_segment(j: Array, both: Any) -> Any:
        state, inner = both
        parts = keep(*outside.from_the_last(j), inner)

        def undo_part(j: Array, state: Any) -> Any:
            at, first, steps = parts.from_the_last(j)

            def undo_step(k: Array, state: Any) -> Any:
                before = steps - 1 - k
                return single(first + before, advance(at, first, before), state)

            return lax.fori_loop(0, steps, undo_step, state)

        return lax.fori_loop(0, parts.number, undo_part, state), parts.slots

    zero = jnp.zeros((), count.dtype)
    outside = keep(start, zero, count.max(), outer)
    (c, r, collected), _ = lax.fori_loop(
        0, outside.number, undo_segment, (state, inner)
    )
    return _with_reals(given, collected, None), _with_reals(start, c, None), r


class Segments(NamedTuple):
    """Segments of steps, and the carries at their starts.

    Attributes:
      first: the first step of all.
      steps: how many there are in all.
      stride: how many there are in a segment; the last may have fewer.
      number: how many segments there are.
      slots: the carries, with a leading axis for the segments.
    """

    first: Array
    steps: Array
    stride: Array
    number: Array
    slots: list[Any]

    def from_the_last(self, j: Array) -> tuple[list[Any], Array, Array]:
        """(carry, number of the first step, number of steps) of a segment."""
        i = self.number - 1 - j
        at = [lax.dynamic_index_in_dim(s, i, 0, keepdims=False) for s in self.slots]
        done = i * self.stride
        return at, self.first + done, jnp.minimum(self.stride, self.steps - done)


reversible.defvjp(_forward, _backward)


# ---- the parts of a tree that have a derivative ------------------------------------


def _with_leaves(tree: Any, change: Callable[[list[Any]], list[Any]]) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(structure, change(leaves))


def _zeros(values: Sequence[Any]) -> list[Any]:
    return [jnp.zeros_like(v) for v in values]


def _reals(tree: Any, values: Any = None) -> list[Any]:
    """The leaves that have a derivative; or those of `values` instead."""
    leaves = jax.tree.leaves(tree)
    others = leaves if values is None else jax.tree.leaves(values)
    return [v for x, v in zip(leaves, others, strict=True) if is_real(x)]


_OWN = object()


def _with_reals(tree: Any, reals: Sequence[Any], others: Any = _OWN) -> Any:
    """The tree with other leaves instead of those that have a derivative."""
    slots = iter(reals)
    leaves, structure = jax.tree.flatten(tree)
    return jax.tree.unflatten(
        structure,
        [
            next(slots) if is_real(x) else x if others is _OWN else others
            for x in leaves
        ],
    )
