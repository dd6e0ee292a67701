"""Recognising layers: a contraction or sum, and the affine chain after it."""

from __future__ import annotations

from jax.extend.core import Literal

from jaxlrp._program.program import Equation, Value, aval_of
from jaxlrp._reading.claims import Claims, may_be_infinite
from jaxlrp._reading.facts import facts_of, is_real
from jaxlrp._reading.norms import begins_batch_norm, stays_merged
from jaxlrp._reading.steps import LayerForm, Link, Step
from jaxlrp.composites import Composite
from jaxlrp.primitives import Entry, Kind
from jaxlrp.primitives.structural import Layout, is_kernels
from jaxlrp.rules import LRP0, Epsilon, Rule


def claim_layers(claims: Claims, composite: Composite) -> dict[int, Step]:
    """Layers and averages, by the index of their last equation."""
    steps: dict[int, Step] = {}
    for i, equation in enumerate(claims.program.equations):
        if i in claims.role or not claims.active_inputs(equation):
            continue
        entry = claims.entry(equation)
        active = [claims.active(v) for v in equation.inputs]
        if entry.kind is Kind.CONTRACTION and sum(active) == 1:
            role = entry.role
        elif entry.sums and sum(active) == 1 and len(active) == 1:
            role = "average"
        else:
            continue
        position = active.index(True)
        form, members = _chain(i, position, entry, claims, composite)
        last = members[-1]
        for j in members:
            claims.role[j] = "chain"
        equations = tuple(claims.program.equations[j] for j in members)
        signal = equation.inputs[position]
        assert isinstance(signal, Value)
        steps[last] = Step(role, equations, (signal,), form)
    return steps


def _chain(
    index: int, position: int, entry: Entry, claims: Claims, composite: Composite
) -> tuple[LayerForm, list[int]]:
    """The affine chain after a head: the layer's own bias and scale.

    It ends where the value is used twice, where elements repeat, at a batch norm that
    has its own rule, and at a constant that is not the layer's (a positional embedding
    varies over positions, a bias only over the kernel's axes).
    """
    head = claims.program.equations[index]
    (value,) = head.outputs
    layout = _head_layout(head, position, entry)
    blocks = _blocks(head, position, entry)
    links: list[Link] = []
    members = [index]
    while True:
        uses = claims.uses.get(value, [])
        if len(uses) != 1 or uses[0] < 0 or uses[0] in claims.role:
            break
        equation = claims.program.equations[uses[0]]
        merges = stays_merged(equation, claims, composite)
        if not merges and begins_batch_norm(uses[0], claims):
            break
        biased = any(before.kind == "shift" for before in links)
        if uses[0] in claims.scales and not biased:
            held = claims.scales[uses[0]]
            rule = composite.rule(claims.place(head, entry.role or "average"))
            link = _scaled_back(equation, value, layout, held, rule, claims)
            after = layout
        else:
            link, after = _link(equation, value, layout, entry, blocks, claims)
        if link is None or after is None or _parts_at_sum(link, links, claims):
            break
        if _is_summand(link, claims, composite):
            break
        links.append(link)
        members.append(uses[0])
        layout, (value,) = after, equation.outputs
    # Changes of shape after the last scale or shift are their own steps.
    while links and links[-1].kind == "structural":
        layout = links.pop().layout
        members.pop()
    return LayerForm(head, position, tuple(links), layout), members


def _scaled_back(
    equation: Equation,
    value: Value,
    layout: Layout,
    held: int,
    rule: Rule,
    claims: Claims,
) -> Link | None:
    """A factor that was divided out of the layer's input: the layer's own scale.

    Most rules look at the signs of weights, so that it may change none.
    """
    factor, position = equation.inputs[held], equation.inputs.index(value)
    same = equation.outputs[0].aval.shape == value.aval.shape
    entry = claims.entry(equation)
    if position == held or not same or entry.is_sum:
        return None
    unsigned = isinstance(rule, LRP0 | Epsilon)
    if not unsigned and not facts_of(factor, claims.facts).nonnegative:
        return None
    return Link(equation, position, "held", layout)


def _parts_at_sum(link: Link, links: list[Link], claims: Claims) -> bool:
    """Does a sum separate what lies before and after it?

    A bias before it is added once on each device, or in each block. A factor after it
    can be folded into each device's weights where it is the same on all of them.
    """
    if link.kind in ("across", "blocks"):
        return any(before.kind == "shift" for before in links)
    totals = [before for before in links if before.kind == "across"]
    if link.kind != "scale" or not totals:
        return False
    constants = [v for v in link.equation.inputs if not isinstance(v, Literal)]
    typed = totals[-1].equation.primitive.name == "psum_invariant"
    return len(constants) > 1 and not typed


def _is_summand(link: Link, claims: Claims, composite: Composite) -> bool:
    """Is a shift's constant a layer of constants, not a bias, for rules that care?

    In a recurrent network's first step it is what the state at the start adds; in a
    loop that state may be active, and the same addition is a sum.
    """
    if link.kind != "shift":
        return False
    rule = composite.rule(claims.place(link.equation, "shift"))
    if not rule.compares_parts:
        return False
    return any(claims.layers_of(link.equation.inputs[1 - link.position]))


def _head_layout(head: Equation, position: int, entry: Entry) -> Layout:
    shape = head.outputs[0].aval.shape
    if entry.kernel_axes is None:
        return tuple(((None, n, 1),) for n in shape)
    kernel = 1 - position
    ndims = tuple(len(aval_of(v).shape) for v in head.inputs)
    axes = entry.kernel_axes(head.params, kernel, ndims)
    return tuple(((axes.get(i), n, 1),) for i, n in enumerate(shape))


def _blocks(head: Equation, position: int, entry: Entry) -> frozenset[int]:
    """The axes of the kernel that the signal has as well, each element meeting one."""
    if entry.kernel_axes is None:
        return frozenset()
    ndims = tuple(len(aval_of(v).shape) for v in head.inputs)
    of_kernel = entry.kernel_axes(head.params, 1 - position, ndims)
    of_signal = entry.kernel_axes(head.params, position, ndims)
    return frozenset(of_kernel[i] for i in of_kernel.keys() & of_signal.keys())


def _summed(
    equation: Equation, entry: Entry, layout: Layout, blocks: frozenset[int]
) -> Layout | None:
    """The layout after a sum over blocks of a layer; None where it is over others."""
    assert entry.axes is not None
    shapes = [aval_of(v).shape for v in equation.inputs]
    result = equation.outputs[0].aval.shape
    kept = entry.axes(equation.params, 0, shapes, result)
    gone = [atoms for i, atoms in enumerate(layout) if i not in kept.values()]
    if any(axis not in blocks for atoms in gone for axis, _, _ in atoms):
        return None
    return tuple(layout[kept[i]] for i in range(len(result)))


def _link(
    equation: Equation,
    value: Value,
    layout: Layout,
    head: Entry,
    blocks: frozenset[int],
    claims: Claims,
) -> tuple[Link | None, Layout | None]:
    """The next link of a chain and the layout after it, or Nones where it ends."""
    if sum(claims.active(v) for v in equation.inputs) != 1:
        return None, None
    entry = claims.entry(equation)
    position = equation.inputs.index(value)
    (out,) = equation.outputs if len(equation.outputs) == 1 else (None,)
    if out is None:
        return None, None
    if entry.layout is not None and len(equation.inputs) == 1:
        after = entry.layout(equation.params, layout, out.aval.shape)
        kind = "across" if entry.totals else "structural"
        return Link(equation, position, kind, layout), after
    if entry.sums and entry.axes is not None and len(equation.inputs) == 1:
        after = _summed(equation, entry, layout, blocks)
        return (None if after is None else Link(equation, 0, "blocks", layout)), after
    if entry.kind is not Kind.ELEMENTWISE or out.aval.shape != value.aval.shape:
        return None, None
    active = [claims.active(v) for v in equation.inputs]
    if not entry.linear(active) or len(active) > 2 or not is_real(out.aval):
        return None, None
    if len(active) == 1:
        return Link(equation, position, "scale", layout), layout
    if may_be_infinite(equation, claims):
        return None, None
    other = equation.inputs[1 - position]
    varies = facts_of(other, claims.facts).varies
    if not all(is_kernels(layout[axis]) for axis in varies):
        return None, None
    kind = "shift" if entry.is_sum else "scale"
    if kind == "shift" and head.kernel_axes is None:
        return None, None
    return Link(equation, position, kind, layout), layout
