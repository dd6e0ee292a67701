"""The interpreter: evaluates a reading, with LRP's rules attached to its steps.

The result is the program's own value; its derivative, taken by `jax.vjp`, is the
relevance's multiplier. Beside a value whose reading asks for it, a shadow is carried:
zeros whose cotangent is plain relevance, for rules that are no multiple of the value.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Literal

from jaxlrp import _compat, rules
from jaxlrp._operations import hold, route, secant, stabilise, wide
from jaxlrp._program import Equation, Value
from jaxlrp._read import LayerForm, Reading, Step, passes_shadow
from jaxlrp.composites import Composite
from jaxlrp.errors import RuleError
from jaxlrp.primitives import Kind, lookup
from jaxlrp.primitives.structural import Layout
from jaxlrp.rules import Layer, Share

Observe = Callable[[str, Step, Array, Array | None], tuple[Array, Array | None]]
"""`observe(place, step, value, shadow)`: called at every value a step reads
("in"), at its surrogates ("surrogate") and results ("out"); see `jaxlrp._audit`."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What one evaluation shares among all programs in it.

    Attributes:
      composite: the rules, with their hyper-parameters.
      observe: sees every message, or None.
      jitted: the functions of the bodies that are kept as `jit`, by reading.
    """

    composite: Composite
    observe: Observe | None = None
    jitted: dict[int, Callable[..., Any]] = dataclasses.field(default_factory=dict)


class _Environment:
    """The values, and the shadows beside them, of one program being evaluated."""

    def __init__(self, reading: Reading):
        self.reading = reading
        self.values: dict[Value, Any] = dict(reading.program.constants)
        self.shadows: dict[Value, Array] = {}

    def read(self, atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else self.values[atom]

    def shadow(self, atom: Any) -> Array | None:
        return None if isinstance(atom, Literal) else self.shadows.get(atom)

    def wants_shadow(self, value: Value) -> bool:
        return value in self.reading.shadowed


def evaluate(
    reading: Reading,
    run: Run,
    inputs: Sequence[Any],
    shadows: Sequence[Array | None],
) -> tuple[list[Any], list[Array | None]]:
    """Evaluates a reading.

    Args:
      reading: what to evaluate.
      run: rules and observers.
      inputs: the program's inputs.
      shadows: zeros beside the inputs that `reading.shadowed_inputs` names.

    Returns:
      The program's outputs, and the shadows beside those that want one.
    """
    env = _Environment(reading)
    for v, x, shadow in zip(reading.program.inputs, inputs, shadows, strict=True):
        env.values[v] = x
        if shadow is not None:
            env.shadows[v] = shadow
    for step in reading.steps:
        with _compat.equation_context(
            step.main.source, step.main.context, step.main.scope
        ):
            _do(step, env, run)
    outs = [env.read(v) for v in reading.program.outputs]
    return outs, [
        _shadow_of(v, x, wanted, env)
        for v, x, wanted in zip(
            reading.program.outputs, outs, reading.shadowed_outputs, strict=True
        )
    ]


def _shadow_of(atom: Any, x: Any, wanted: bool, env: _Environment) -> Array | None:
    if not wanted:
        return None
    shadow = env.shadow(atom)
    return lax.full_like(x, 0) if shadow is None else shadow


def _do(step: Step, env: _Environment, run: Run) -> None:
    """Evaluates one step and writes its results and their shadows."""
    if not step.signals:
        for equation in step.equations:
            _write(equation.outputs, _bind(equation, env.read), env)
        return
    seen = env if run.observe is None else _observed_inputs(step, env, run.observe)
    rule = step.rule(run.composite)
    results, shadows = _HANDLERS[step.role](step, rule, seen, run)
    for v, y, shadow in zip(step.outputs, results, shadows, strict=True):
        wanted = env.wants_shadow(v)
        if wanted and shadow is None:
            shadow = _take_in(y)
        if run.observe is not None and env.reading.is_active(v):
            y, shadow = run.observe("out", step, y, shadow if wanted else None)
        env.values[v] = y
        if wanted and shadow is not None:
            env.shadows[v] = shadow


def _observed_inputs(step: Step, env: _Environment, observe: Observe) -> _Environment:
    """A view of `env` in which what the step reads is observed, edge by edge."""
    view = _Environment(env.reading)
    view.values, view.shadows = env.values.copy(), env.shadows.copy()
    for v in step.signals:
        x, shadow = observe("in", step, env.values[v], env.shadows.get(v))
        view.values[v] = x
        if shadow is not None:
            view.shadows[v] = shadow
    return view


def _write(outputs: Sequence[Value], results: Sequence[Any], env: _Environment) -> None:
    env.values.update(zip(outputs, results, strict=True))


def _bind(equation: Equation, read: Callable[[Any], Any]) -> list[Any]:
    bind = _compat.primitive_bind(equation.primitive, dict(equation.params))
    return bind(*map(read, equation.inputs))


def _run_equations(
    equations: Sequence[Equation],
    given: Mapping[Value, Any],
    read: Callable[[Any], Any] | None = None,
) -> list[Any]:
    """The results of the last of some equations, from given values and from `read`."""
    local = dict(given)

    def find(atom: Any) -> Any:
        if isinstance(atom, Literal):
            return atom.val
        return local[atom] if atom in local or read is None else read(atom)

    results: list[Any] = []
    for equation in equations:
        results = _bind(equation, find)
        local.update(zip(equation.outputs, results, strict=True))
    return results


# ---- taking relevance in -----------------------------------------------------------


def _take_in(y: Array) -> Array:
    """A shadow for `y` whose relevance `r` becomes a multiplier of `y`: `c = r / y`."""
    return route(_reciprocal_scale, lax.full_like(y, 0), (y,), ())


def _reciprocal_scale(_: Array, hs: tuple[Array], aux: tuple) -> tuple[Array]:
    (y,) = hs
    return (1 / stabilise(y, 0.0),)


def _shared(
    y: Array, shares: Sequence[Share], wants_shadow: bool
) -> tuple[Array, Array | None]:
    """`y` with its relevance cut into shares, and its shadow."""
    hs = tuple(s.surrogate for s in shares)
    aux = tuple((s.denominator, jnp.asarray(s.part)) for s in shares)
    shadow = None
    if wants_shadow:
        shadow = route(_plain_scales, lax.full_like(y, 0), hs, aux)
    return route(_multiple_scales, y, hs, aux), shadow


def _multiple_scales(y: Array, hs: Any, aux: Any) -> tuple[Array, ...]:
    """`part * y / denominator`: what arrives is a multiplier, `R = y c`."""
    return tuple(_scaled(part, wide(y) / denominator) for denominator, part in aux)


def _plain_scales(y: Array, hs: Any, aux: Any) -> tuple[Array, ...]:
    """`part / denominator`: what arrives is relevance."""
    return tuple(_scaled(part, 1 / denominator) for denominator, part in aux)


def _scaled(part: Array, scale: Array) -> Array:
    return part.astype(scale.dtype) * scale


# ---- layers ------------------------------------------------------------------------


def _layer(step: Step, rule: Any, env: _Environment, run: Run) -> Any:
    form = step.layer
    assert form is not None
    signal = step.signals[0]
    x, shadow = env.read(signal), env.shadow(signal)
    if isinstance(rule, rules.Detach):
        return _detached(step, env)
    (y,) = _run_equations(step.equations, {}, env.read)
    if isinstance(rule, rules.LRP0):
        return [y], [None]
    unit = _unit(form, x, y, shadow, env)
    shares = rule.shares(unit)
    for share in shares:
        _check_share(share, y, rule, step)
    if run.observe is not None:
        shares = [_observed_share(s, step, run.observe) for s in shares]
    y, out_shadow = _shared(y, shares, env.wants_shadow(step.outputs[0]))
    return [y], [out_shadow]


def _observed_share(share: Share, step: Step, observe: Observe) -> Share:
    surrogate, _ = observe("surrogate", step, share.surrogate, None)
    return dataclasses.replace(share, surrogate=surrogate)


def _check_share(share: Share, y: Array, rule: Any, step: Step) -> None:
    shape = jnp.shape(share.surrogate)
    if shape != y.shape:
        raise RuleError(
            f"rule {rule!r} returned a surrogate of shape {shape} for a layer with "
            f"results of shape {y.shape}, at {_compat.summarize(step.main.source)}"
        )


def _unit(
    form: LayerForm, x: Array, y: Array, shadow: Array | None, env: _Environment
) -> Layer:
    """The layer as its rule sees it."""
    entry = lookup(form.head.primitive)
    assert entry is not None
    kernel, bias = None, None
    if form.kernel is not None:
        kernel, bias = _folded(form, env)
    features = tuple(
        i for i, atoms in enumerate(form.layout) if any(a is not None for a, _ in atoms)
    )
    bind = _compat.primitive_bind(form.head.primitive, dict(form.head.params))
    folds = form.kernel is not None

    def linear(x: Array, kernel: Any) -> Array:
        operands = [x] if kernel is None else [x, kernel]
        (z,) = bind(*(operands if form.position == 0 else operands[::-1]))
        for link in form.links:
            if link.kind == "structural" or (link.kind == "scale" and not folds):
                z = _apply(link.equation, link.position, z, env)
            elif link.kind == "scale" and len(link.equation.inputs) == 1:
                z = lax.convert_element_type(z, link.equation.outputs[0].aval.dtype)
        return z

    signal = form.head.inputs[form.position]
    return Layer(
        x=x,
        y=y,
        shadow=shadow,
        linear=linear,
        kernel=kernel,
        bias=bias,
        nonnegative=env.reading.facts[signal].nonnegative,
        features=features,
    )


def _apply(equation: Equation, position: int, z: Array, env: _Environment) -> Array:
    """A chain's equation, applied to another value in the chain's place."""
    operands = [
        z if i == position else env.read(v) for i, v in enumerate(equation.inputs)
    ]
    bind = _compat.primitive_bind(equation.primitive, dict(equation.params))
    return bind(*operands)[0]


def _folded(form: LayerForm, env: _Environment) -> tuple[Array, Array | None]:
    """(kernel with the chain's scales folded in, the chain's shifts as one bias).

    Both are worked out in the kernel's own axes, where they are small: an array with
    the kernel's rank that is constant along every axis that makes no feature.
    """
    kernel = env.read(form.kernel)
    scale: Any = None
    bias: Any = None
    for link in form.links:
        if link.kind == "structural":
            continue
        if len(link.equation.inputs) == 1:  # a sign or a cast
            one = jnp.ones((), link.equation.inputs[0].aval.dtype)
            factor = _apply_scalar(link, one, env)
            scale = factor if scale is None else scale * factor
            bias = None if bias is None else bias * factor
            continue
        constant = _in_kernel_axes(link, kernel.ndim, env)
        if link.kind == "shift":
            if link.position == 1:  # b - z turns the sign
                sign = _sign_of(link, constant.dtype)
                scale = sign if scale is None else scale * sign
            zero = jnp.zeros_like(constant) if bias is None else bias
            bias = _with_constant(link, zero, constant)
        else:
            one = jnp.ones_like(constant)
            scale = _with_constant(link, one if scale is None else scale, constant)
            bias = None if bias is None else _with_constant(link, bias, constant)
    dtype = kernel.dtype
    folded = kernel if scale is None else kernel * scale.astype(dtype)
    return folded, None if bias is None else _to_result_axes(bias, form.layout)


def _sign_of(link: Any, dtype: Any) -> Array:
    """The factor of the chain's value in a sum or difference."""
    bind = _compat.primitive_bind(link.equation.primitive, dict(link.equation.params))
    return bind(jnp.zeros((), dtype), jnp.ones((), dtype))[0]


def _apply_scalar(link: Any, one: Array, env: _Environment) -> Array:
    bind = _compat.primitive_bind(link.equation.primitive, dict(link.equation.params))
    return bind(one)[0]


def _with_constant(link: Any, value: Array, constant: Array) -> Array:
    """The link's arithmetic with the chain's value and constant in kernel axes."""
    value, constant = jnp.broadcast_arrays(value, constant)
    operands = [constant, value] if link.position else [value, constant]
    params = {k: v for k, v in link.equation.params.items() if "sharding" not in k}
    bind = _compat.primitive_bind(link.equation.primitive, params)
    return bind(*operands)[0]


def _in_kernel_axes(link: Any, ndim: int, env: _Environment) -> Array:
    """A chain's constant, laid out along the kernel's axes."""
    constant = jnp.asarray(env.read(link.equation.inputs[1 - link.position]))
    if constant.ndim == 0:
        return constant.reshape((1,) * ndim)
    sizes: list[int] = []
    axes: list[int] = []
    for axis, atoms in enumerate(link.layout):
        own = atoms and all(a is not None for a, _ in atoms)
        if not own or constant.shape[axis] == 1:
            constant = lax.slice_in_dim(constant, 0, 1, axis=axis)
            continue
        sizes += [n for _, n in atoms]
        axes += [a for a, _ in atoms if a is not None]
    constant = constant.reshape(sizes)
    order = sorted(range(len(axes)), key=lambda i: axes[i])
    constant = lax.transpose(constant, order)
    present = {axes[i]: sizes[i] for i in order}
    return constant.reshape([present.get(a, 1) for a in range(ndim)])


def _to_result_axes(bias: Array, layout: Layout) -> Array:
    """A bias in the kernel's axes, in a shape that broadcasts to the result's."""
    axes = [(a, n) for atoms in layout for a, n in atoms if a is not None]
    order = [a for a, _ in axes]
    rest = [a for a in range(bias.ndim) if a not in order]  # all of size one
    bias = lax.transpose(bias, [*order, *rest])
    bias = bias.reshape([bias.shape[i] for i in range(len(order))])
    bias = jnp.broadcast_to(bias, [n for _, n in axes])
    return bias.reshape(
        [math.prod(n for a, n in atoms if a is not None) for atoms in layout]
    )


# ---- the other roles ---------------------------------------------------------------


def _plain(step: Step, rule: Any, env: _Environment, run: Run) -> Any:
    """JAX's own derivative is the rule."""
    if isinstance(rule, rules.Detach):
        return _detached(step, env)
    results = _bind(step.main, env.read)
    return results, _passed_shadows(step, rule, results, env)


def _detached(step: Step, env: _Environment) -> Any:
    """No relevance passes."""
    results = _run_equations(step.equations, {}, env.read)
    routed = [route(_no_scales, y, (), ()) for y in results]
    return routed, [lax.full_like(y, 0) for y in routed]


def _no_scales(y: Array, hs: Any, aux: Any) -> tuple[Array, ...]:
    return ()


def _passed_shadows(
    step: Step, rule: Any, results: Sequence[Array], env: _Environment
) -> list[Array | None]:
    """The results' shadows, for a step that hands shadows on."""
    if not any(env.wants_shadow(v) for v in step.outputs):
        return [None] * len(results)
    if not passes_shadow(step, rule):
        return [None] * len(results)
    entry = lookup(step.main.primitive)
    inputs = step.main.inputs
    pushes = entry is not None and (
        entry.kind is not Kind.ELEMENTWISE or len(step.signals) > 1 or len(inputs) > 2
    )
    if not pushes or step.role == "activation":
        shadow = env.shadow(_kept_signal(step))
        if shadow is None:
            return [lax.full_like(y, 0) for y in results]
        (y,) = results
        return [jnp.broadcast_to(shadow, y.shape).astype(y.dtype)]
    # Copies and selections move the shadow as they move the value.
    positions = [
        i for i, v in enumerate(inputs) if env.shadow(v) is not None
    ]
    operands = [env.read(v) for v in inputs]
    bind = _compat.primitive_bind(step.main.primitive, dict(step.main.params))

    def moved(*xs: Any) -> list[Any]:
        full = list(operands)
        for i, x in zip(positions, xs, strict=True):
            full[i] = x
        return bind(*full)

    primals = [operands[i] for i in positions]
    tangents = [env.shadow(inputs[i]) for i in positions]
    if not positions:
        return [lax.full_like(y, 0) for y in results]
    return list(jax.jvp(moved, primals, tangents)[1])


def _kept_signal(step: Step) -> Value:
    """The one operand that relevance goes to."""
    if step.root is not None:
        return step.root
    held = [step.main.inputs[i] for i in step.held]
    (signal,) = [v for v in step.signals if v not in held]
    return signal


def _sum(step: Step, rule: Any, env: _Environment, run: Run) -> Any:
    """`y = a + b`: in proportion, by JAX's transpose or with a stabiliser."""
    if isinstance(rule, rules.Detach):
        return _detached(step, env)
    (y,) = _bind(step.main, env.read)
    if isinstance(rule, rules.LRP0):
        return [y], [None]
    unit = Layer(y, y, None, lambda x, _: x, None, None, False, ())
    shares: Sequence[Share] = rule.shares(unit)
    if run.observe is not None:
        shares = [_observed_share(s, step, run.observe) for s in shares]
    y, shadow = _shared(y, shares, env.wants_shadow(step.outputs[0]))
    return [y], [shadow]


def _scale(step: Step, rule: Any, env: _Environment, run: Run) -> Any:
    """`y = a x` or `y = x + b` with a constant, standing alone."""
    if not isinstance(rule, rules.Pass):
        return _plain(step, rule, env, run)
    return _activation(dataclasses.replace(step, root=step.signals[0]), rule, env, run)


def _activation(step: Step, rule: Any, env: _Environment, run: Run) -> Any:
    """`y = phi(x)`: the identity, relevance passes unchanged."""
    if isinstance(rule, rules.Detach):
        return _detached(step, env)
    assert step.root is not None
    root, equations = step.root, step.equations
    inner = {v for e in equations for v in e.outputs}
    held = [
        v
        for v in dict.fromkeys(
            a for e in equations for a in e.inputs if isinstance(a, Value)
        )
        if v is not root and v not in inner
    ]
    phi = _Region(root, tuple(held), equations)
    x, constants = env.read(root), tuple(env.read(v) for v in held)
    if step.plain or isinstance(rule, rules.Taylor) or x.shape != step_shape(step):
        y = phi(x, constants)
    else:
        y = secant(phi, x, constants, getattr(rule, "epsilon", None))
    return [y], _passed_shadows(step, rule, [y], env)


def step_shape(step: Step) -> tuple[int, ...]:
    """The shape of the step's result."""
    return step.outputs[0].aval.shape


@dataclasses.dataclass(frozen=True, eq=False)
class _Region:
    """An elementwise region as a function of its root and of what it holds."""

    root: Value
    held: tuple[Value, ...]
    equations: tuple[Equation, ...]

    def __call__(self, x: Array, constants: Sequence[Any]) -> Array:
        given = {self.root: x, **dict(zip(self.held, constants, strict=True))}
        return _run_equations(self.equations, given)[0]


def _held(step: Step, rule: Any, env: _Environment, run: Run) -> Any:
    """A product or quotient whose divisor or statistic counts as a constant."""
    if isinstance(rule, rules.Taylor) or not step.held:
        return _plain(step, rules.Taylor(), env, run)
    inputs = step.main.inputs
    bind = _compat.primitive_bind(step.main.primitive, dict(step.main.params))
    order = [i for i in range(len(inputs)) if i not in step.held] + list(step.held)
    split = len(inputs) - len(step.held)

    def f(xs: Sequence[Any], held: Sequence[Any]) -> Any:
        operands: list[Any] = [None] * len(inputs)
        for i, x in zip(order, [*xs, *held], strict=True):
            operands[i] = x
        return bind(*operands)[0]

    values = [env.read(inputs[i]) for i in order]
    y = hold(f, tuple(values[:split]), tuple(values[split:]))
    return [y], _passed_shadows(step, rule, [y], env)


def _product_rule(step: Step, rule: Any, env: _Environment, run: Run) -> Any:
    """A product of two active operands: half to each, or the signal takes all."""
    if isinstance(rule, rules.SignalTakesAll) and step.held:
        return _held(step, rule, env, run)
    if isinstance(rule, rules.Taylor):
        return _plain(step, rule, env, run)
    if isinstance(rule, rules.Detach):
        return _detached(step, env)
    (y,) = _bind(step.main, env.read)
    return [route(_half_scale, y, (y,), ())], [None]


def _half_scale(y: Array, hs: Any, aux: Any) -> tuple[Array]:
    return (lax.full_like(y, 0.5),)


def _gradient(step: Step, rule: Any, env: _Environment, run: Run) -> Any:
    """No rule of its own: gradient x input."""
    results = _bind(step.main, env.read)
    return results, [None] * len(results)


def _custom(step: Step, rule: Any, env: _Environment, run: Run) -> Any:
    """A rule that the user registered."""
    equation = step.main
    entry = lookup(equation.primitive)
    assert entry is not None and entry.rule is not None
    active = tuple(env.reading.is_active(v) for v in equation.inputs)
    operands = [env.read(v) for v in equation.inputs]
    shadows = [env.shadow(v) for v in equation.inputs]
    results, out_shadows = entry.rule(
        _compat.primitive_bind(equation.primitive, dict(equation.params)),
        active,
        operands,
        shadows,
        dict(equation.params),
    )
    where = _compat.summarize(equation.source)
    name = equation.primitive.name
    if len(results) != len(equation.outputs):
        raise RuleError(
            f"the rule of primitive {name!r} returned {len(results)} results, expected "
            f"{len(equation.outputs)}, at {where}"
        )
    for y, v in zip(results, equation.outputs, strict=True):
        if jnp.shape(y) != v.aval.shape or jnp.result_type(y) != v.aval.dtype:
            raise RuleError(
                f"the rule of primitive {name!r} returned {jnp.result_type(y)}"
                f"{list(jnp.shape(y))}, expected {v.aval.str_short()}, at {where}"
            )
    return results, out_shadows


# ---- bodies ------------------------------------------------------------------------


def _body(reading: Reading, run: Run, inputs: Sequence[Any], shadows: Sequence[Any]):
    """Evaluates a body; shadows travel as flat lists of those that are there."""
    slots = iter(shadows)
    placed = [next(slots) if wanted else None for wanted in reading.shadowed_inputs]
    outs, out_shadows = evaluate(reading, run, inputs, placed)
    return outs, [s for s in out_shadows if s is not None]


def _entering(reading: Reading, inputs: Sequence[Any], atoms: Sequence[Any], env: Any):
    """The shadows that a body wants of the operands it is given."""
    return [
        _shadow_of(v, x, True, env)
        for v, x, wanted in zip(atoms, inputs, reading.shadowed_inputs, strict=True)
        if wanted
    ]


def _placed(reading: Reading, shadows: Sequence[Array]) -> list[Array | None]:
    slots = iter(shadows)
    return [next(slots) if wanted else None for wanted in reading.shadowed_outputs]


def _call(step: Step, rule: Any, env: _Environment, run: Run) -> Any:
    """A `jit` that is kept: one function for all equations that share its reading."""
    (reading,) = step.bodies
    inputs = [env.read(v) for v in step.main.inputs]
    shadows = _entering(reading, inputs, step.main.inputs, env)
    if run.observe is not None:
        outs, out_shadows = _body(reading, run, inputs, shadows)
        return outs, _placed(reading, out_shadows)
    if id(reading) not in run.jitted:

        def body(composite: Composite, inputs: Any, shadows: Any) -> Any:
            inner = dataclasses.replace(run, composite=composite, jitted={})
            return _body(reading, inner, inputs, shadows)

        run.jitted[id(reading)] = jax.jit(body)
    outs, out_shadows = run.jitted[id(reading)](run.composite, inputs, shadows)
    return outs, _placed(reading, out_shadows)


def _control(step: Step, rule: Any, env: _Environment, run: Run) -> Any:
    """Control flow, emitted again with rewritten bodies."""
    if "branches" in step.main.params:
        return _cond(step, env, run)
    if "length" in step.main.params:
        return _scan(step, env, run)
    return _remat(step, env, run)


def _remat(step: Step, env: _Environment, run: Run) -> Any:
    (reading,) = step.bodies
    params = step.main.params
    inputs = [env.read(v) for v in step.main.inputs]
    shadows = _entering(reading, inputs, step.main.inputs, env)
    body = jax.checkpoint(
        functools.partial(_body, reading, run),
        policy=params["policy"],
        prevent_cse=params["prevent_cse"],
    )
    outs, out_shadows = body(inputs, shadows)
    return outs, _placed(reading, out_shadows)


def _cond(step: Step, env: _Environment, run: Run) -> Any:
    """Every branch is given the shadows that any branch wants, and hands out all."""
    index, *atoms = step.main.inputs
    inputs = [env.read(v) for v in atoms]
    wanted = [any(w) for w in zip(*(b.shadowed_inputs for b in step.bodies), strict=True)]
    shadows = [
        _shadow_of(v, x, w, env) for v, x, w in zip(atoms, inputs, wanted, strict=True)
    ]
    asked = [env.wants_shadow(v) for v in step.outputs]

    def branch(reading: Reading) -> Callable[..., Any]:
        def run_branch(inputs: Any, shadows: Any) -> Any:
            own = [
                s if w else None
                for s, w in zip(shadows, reading.shadowed_inputs, strict=True)
            ]
            outs, given = evaluate(reading, run, inputs, own)
            given = [
                (lax.full_like(y, 0) if s is None else s) if w else None
                for y, s, w in zip(outs, given, asked, strict=True)
            ]
            return _strong(outs), given

        return run_branch

    return lax.switch(
        env.read(index), [branch(b) for b in step.bodies], inputs, shadows
    )


def _strong(outs: Sequence[Any]) -> list[Any]:
    """Results without weak types, so that branches and carries agree."""
    return [lax.convert_element_type(y, jnp.result_type(y)) if _is_float(y) else y
            for y in outs]


def _is_float(y: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(y), jnp.inexact)


def _scan(step: Step, env: _Environment, run: Run) -> Any:
    (reading,) = step.bodies
    params = dict(step.main.params)
    consts, carries = _compat.scan_split(params)
    split = consts + carries
    atoms = step.main.inputs
    inputs = [env.read(v) for v in atoms]
    shadows = [
        _shadow_of(v, x, w, env)
        for v, x, w in zip(atoms, inputs, reading.shadowed_inputs, strict=True)
    ]
    asked = reading.shadowed_outputs
    # A carry that hands out a shadow must also take one, and the other way round.
    for k in range(carries):
        if asked[k] and shadows[consts + k] is None:
            raise AssertionError("the reader makes carries agree")

    def body(carry: Any, x: Any) -> Any:
        (values, value_shadows), (xs, x_shadows) = carry, x
        outs, given = evaluate(
            reading,
            run,
            [*inputs[:consts], *values, *xs],
            [*shadows[:consts], *value_shadows, *x_shadows],
        )
        given = [
            lax.full_like(y, 0) if s is None and wanted else s
            for y, s, wanted in zip(
                outs,
                given,
                [s is not None for s in shadows[consts:split]] + list(asked[carries:]),
                strict=True,
            )
        ]
        return (outs[:carries], given[:carries]), (outs[carries:], given[carries:])

    (values, value_shadows), (ys, y_shadows) = lax.scan(
        body,
        (inputs[consts:split], shadows[consts:split]),
        (inputs[split:], shadows[split:]),
        length=params["length"],
        reverse=params["reverse"],
        unroll=params["unroll"],
    )
    return [*values, *ys], [*value_shadows, *y_shadows]


_HANDLERS: Mapping[str, Callable[[Step, Any, _Environment, Run], Any]] = {
    "dense": _layer,
    "convolution": _layer,
    "average": _layer,
    "sum": _sum,
    "scale": _scale,
    "shift": _scale,
    "activation": _activation,
    "normaliser": _held,
    "quotient": _held,
    "softmax": _plain,
    "bilinear": _product_rule,
    "product": _product_rule,
    "selection": _plain,
    "structural": _plain,
    "linear": _gradient,
    "gradient": _gradient,
    "call": _call,
    "control": _control,
    "custom": _custom,
}
