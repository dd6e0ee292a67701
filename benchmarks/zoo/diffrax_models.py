"""Differential equations, roots and fixed points: diffrax, optimistix and lineax."""

import functools
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import lineax
import optimistix

from benchmarks.zoo.equinox_models import partitioned
from benchmarks.zoo.weights import Model, normal

LIBRARY = "diffrax, optimistix and lineax"

Build = Callable[[], Model]

KEY = jax.random.key(0)
FIXED = diffrax.ConstantStepSize()
ADAPTIVE = diffrax.PIDController(rtol=1e-3, atol=1e-4)


def _field(inputs: int = 4, outputs: int = 4) -> Any:
    """A small network that is a vector field."""
    return eqx.nn.MLP(inputs, outputs, 16, 2, jnp.tanh, key=KEY)


def _solve(
    term: Any, x: jax.Array, args: Any, solver: Any, controller: Any, adjoint: Any
) -> jax.Array:
    return diffrax.diffeqsolve(
        term,
        solver,
        0.0,
        1.0,
        0.125,
        x,
        args,
        stepsize_controller=controller,
        adjoint=adjoint,
        max_steps=64,
    ).ys[0]


def _ode(solver: Any, controller: Any, adjoint: Any) -> Build:
    """The state that a neural ODE has at time one, of its first state."""

    def call(net: Any, x: jax.Array) -> jax.Array:
        term = diffrax.ODETerm(lambda t, y, net: net(y))
        solve = functools.partial(_solve, term, args=net)
        how = {"solver": solver, "controller": controller, "adjoint": adjoint}
        return jax.vmap(lambda y: solve(y, **how))(x)

    return lambda: partitioned(_field, normal(3, 4), call)


def _cde(net: Any, x: jax.Array) -> jax.Array:
    """A neural controlled differential equation, driven by a path through `x`."""
    times = jnp.linspace(0.0, 1.0, x.shape[1])

    def one(path: jax.Array) -> jax.Array:
        coefficients = diffrax.backward_hermite_coefficients(times, path)
        control = diffrax.CubicInterpolation(times, coefficients)
        term = diffrax.ControlTerm(
            lambda t, y, net: net(y).reshape(4, 3), control
        ).to_ode()
        start = jnp.tanh(path[0] @ jnp.ones((3, 4)))
        adjoint = diffrax.RecursiveCheckpointAdjoint()
        return _solve(term, start, net, diffrax.Heun(), FIXED, adjoint)

    return jax.vmap(one)(x)


def _sde(net: Any, x: jax.Array) -> jax.Array:
    """A neural stochastic differential equation, one path of its noise."""

    def one(y: jax.Array) -> jax.Array:
        noise = diffrax.VirtualBrownianTree(0.0, 1.0, 1e-2, (), KEY)
        drift = diffrax.ODETerm(lambda t, y, net: net(y))
        spread = diffrax.ControlTerm(lambda t, y, net: 0.1 * y, noise)
        term = diffrax.MultiTerm(drift, spread)
        adjoint = diffrax.RecursiveCheckpointAdjoint()
        return _solve(term, y, net, diffrax.Euler(), FIXED, adjoint)

    return jax.vmap(one)(x)


def _implicit(method: str, solver: Any) -> Build:
    """A deep equilibrium layer: `z = tanh(net(z) / 4 + x)`."""

    def call(net: Any, x: jax.Array) -> jax.Array:
        def update(z: jax.Array, x: jax.Array) -> jax.Array:
            return jnp.tanh(net(z) / 4 + x)

        def gap(z: jax.Array, x: jax.Array) -> jax.Array:
            return update(z, x) - z

        def one(x: jax.Array) -> jax.Array:
            function = gap if method == "root_find" else update
            find = getattr(optimistix, method)
            return find(function, solver, jnp.zeros_like(x), x, max_steps=64).value

        return jax.vmap(one)(x)

    return lambda: partitioned(_field, normal(3, 4), call)


def _minimum(net: Any, x: jax.Array) -> jax.Array:
    """The least squares solution of a small problem that `x` sets."""

    def residual(z: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.tanh(z) + 0.1 * net(z) - x

    solver = optimistix.LevenbergMarquardt(1e-5, 1e-5)
    return jax.vmap(
        lambda x: optimistix.least_squares(residual, solver, x, x, max_steps=64).value
    )(0.3 * x)


def _linear(solver: Any) -> Build:
    """A ridge regression on a network's features, solved for `x`."""

    def call(net: Any, x: jax.Array) -> jax.Array:
        features = jax.vmap(net)(normal(8, 4, seed=3))
        gram = features.T @ features + jnp.eye(features.shape[1])
        tags = frozenset([lineax.positive_semidefinite_tag])
        operator = lineax.MatrixLinearOperator(gram, tags)
        return jax.vmap(lambda y: lineax.linear_solve(operator, y, solver).value)(x)

    return lambda: partitioned(_field, normal(3, 4), call)


_CHECKPOINTED = diffrax.RecursiveCheckpointAdjoint()

EQUATIONS: dict[str, Build] = {
    "neural ODE, Euler": _ode(diffrax.Euler(), FIXED, diffrax.DirectAdjoint()),
    "neural ODE, adaptive Tsit5": _ode(diffrax.Tsit5(), ADAPTIVE, _CHECKPOINTED),
    "neural ODE, adaptive, direct": _ode(
        diffrax.Heun(), ADAPTIVE, diffrax.DirectAdjoint()
    ),
    "neural ODE, forward mode": _ode(diffrax.Tsit5(), ADAPTIVE, diffrax.ForwardMode()),
    "neural ODE, implicit Kvaerno3": _ode(diffrax.Kvaerno3(), ADAPTIVE, _CHECKPOINTED),
    "neural ODE, reversible Heun": _ode(diffrax.ReversibleHeun(), FIXED, _CHECKPOINTED),
    "neural CDE": lambda: partitioned(lambda: _field(4, 12), normal(2, 6, 3), _cde),
    "neural SDE": lambda: partitioned(_field, normal(3, 4), _sde),
}

IMPLICIT: dict[str, Build] = {
    "deep equilibrium, iteration": _implicit(
        "fixed_point", optimistix.FixedPointIteration(1e-5, 1e-5)
    ),
    "deep equilibrium, Newton": _implicit("root_find", optimistix.Newton(1e-5, 1e-5)),
    "deep equilibrium, chord": _implicit("root_find", optimistix.Chord(1e-5, 1e-5)),
    "least squares": lambda: partitioned(_field, normal(3, 4), _minimum),
    "linear solve, Cholesky": _linear(lineax.Cholesky()),
    "linear solve, conjugate gradients": _linear(lineax.CG(1e-6, 1e-6)),
}

MODELS: dict[str, dict[str, Build]] = {
    "differential equations": EQUATIONS,
    "implicit layers": IMPLICIT,
}

NOTES = {
    "least squares": "the solver factors its matrix by a kernel that cannot be read, "
    "so the rule is its derivative, by the implicit function theorem: gradient times "
    "input.",
}
