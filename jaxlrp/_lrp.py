"""The transformation: `lrp`, `value_and_lrp` and `relprop`.

`f` is traced to a jaxpr, the jaxpr is read, and its reading is evaluated under
`jax.vjp`: what comes back is the relevance's multiplier, and relevance is input times
multiplier, plus what arrived at the input's shadow.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp

from jaxlrp import _targets
from jaxlrp._operations import own_settings
from jaxlrp._replay import Memories, is_fixed, replayed
from jaxlrp._rewriting.backward import Traced, backward, seed
from jaxlrp._rewriting.capture import ask, backward_at
from jaxlrp._rewriting.difference import difference
from jaxlrp._rewriting.evaluate import Run
from jaxlrp._sizes import warn_large
from jaxlrp._targets import Target
from jaxlrp._trace import ArgNums, checked, policy, positive, trace, wraps
from jaxlrp._traps import Warned, warn_of_program, warn_of_rows
from jaxlrp.composites import Composite, Proportional

P = ParamSpec("P")


def value_and_lrp(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
    baseline: Any = None,
    capture: str | Sequence[str] = (),
    conditions: Mapping[str, Any] | None = None,
    checkpoints: int = 64,
    remat: Any = False,
) -> Callable[P, tuple[Any, Any]]:
    """Like `lrp`, with the value of `f` from the same evaluation.

    Args:
      f: as for `lrp`.
      composite: as for `lrp`.
      argnums: as for `lrp`.
      target: as for `lrp`.
      has_aux: as for `lrp`.
      baseline: as for `lrp`; the value is that at the input.
      capture: as for `lrp`.
      conditions: as for `lrp`.
      checkpoints: as for `lrp`.
      remat: as for `lrp`.

    Returns:
      A function of `f`'s arguments that returns `(value, relevance)`, or with
      `has_aux` `((value, aux), relevance)`. `value` is the whole output of `f`. With
      `capture`, `relevance` is `(relevance, captured)`.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> f = lambda w, x: jax.nn.relu(x @ w)
      >>> value, relevance = jaxlrp.value_and_lrp(f)(w, jnp.array([1.0, 2.0]))
      >>> [round(float(r), 3) for r in relevance]
      [1.0, 4.0]
      >>> bool(jnp.isclose(relevance.sum(), value.max()))
      True
    """
    explain = _explainer(
        f,
        composite,
        argnums,
        target,
        has_aux,
        baseline,
        capture,
        conditions,
        checkpoints,
        remat,
    )

    shown = "(value, aux)" if has_aux else "value"

    @wraps(f, "value_and_lrp", f"`({shown}, relevance)`: {_returns(argnums, capture)}.")
    def explained(*args: P.args, **kwargs: P.kwargs) -> Any:
        return explain(args, kwargs)

    return explained


def _explainer(
    f: Callable[..., Any],
    composite: Composite | None,
    argnums: ArgNums,
    target: Any,
    has_aux: bool,
    baseline: Any,
    capture: str | Sequence[str],
    conditions: Mapping[str, Any] | None,
    checkpoints: int,
    remat: Any,
) -> Callable[[tuple, dict], Any]:
    """`value_and_lrp` on packed arguments; what can be checked at once is."""
    rules = checked(f, composite, argnums, target, has_aux)
    patterns = _patterns(capture)
    masks = _conditions(conditions)
    checkpoints = positive("checkpoints", checkpoints)
    again = policy(remat)
    asked = bool(patterns or masks)
    if baseline is not None:
        _check_alone(composite, patterns, masks, remat)
        return _of_difference(f, baseline, argnums, target, has_aux, checkpoints)
    warned: Warned = set()
    remembers = not asked and isinstance(remat, bool) and is_fixed((rules, target))
    memories = Memories() if remembers else None

    def explain(args: tuple, kwargs: dict) -> Any:
        traced = trace(
            f,
            args,
            kwargs,
            rules,
            argnums,
            has_aux,
            shadow_outputs=_targets.is_plain(target),
            keep_calls=not asked,
            by_scope=asked,
            memories=memories,
        )

        def compute(traced: Traced, run: Run) -> Any:
            question = ask(traced, patterns, masks)
            once, captured = backward_at(traced, run, question)
            seeds = seed(target, traced.out_tree, once.outs)
            leaves, collected = once.relevance(*seeds)
            return once.outs, once.aux, *seeds, leaves, captured(collected)

        run = Run(rules, checkpoints=checkpoints, remat=again)
        outs, aux, multipliers, plain, leaves, captured = replayed(compute, traced, run)
        warn_of_program(traced, target, warned)
        warn_of_rows(traced, target, outs, leaves, warned)
        if "size" not in warned and warn_large(leaves, outs, multipliers, plain, rules):
            warned.add("size")
        out = jax.tree.unflatten(traced.out_tree, outs)
        value = (out, traced.restore_aux(aux)) if has_aux else out
        relevance = traced.restore(leaves)
        return value, (relevance, captured) if patterns else relevance

    return explain


def _of_difference(
    f: Callable[..., Any],
    baseline: Any,
    argnums: ArgNums,
    target: Any,
    has_aux: bool,
    checkpoints: int,
) -> Callable[[tuple, dict], Any]:
    """`_explainer` with a baseline: difference quotients instead of rules."""

    def explain(args: tuple, kwargs: dict) -> Any:
        traced = trace(
            f,
            args,
            kwargs,
            Proportional(),
            argnums,
            has_aux,
            strict=False,
            keep_calls=False,
            floating=True,
        )
        outs, aux, leaves = difference(traced, baseline, target, checkpoints)
        out = jax.tree.unflatten(traced.out_tree, outs)
        value = (out, traced.restore_aux(aux)) if has_aux else out
        return value, traced.restore(leaves)

    return explain


def _check_alone(composite: Any, capture: Any, conditions: Any, remat: Any) -> None:
    """What concerns rules cannot be combined with a baseline."""
    others = {
        "a composite": composite is not None,
        "capture": bool(capture),
        "conditions": bool(conditions),
        "remat": remat is not False,
    }
    for name, is_given in others.items():
        if is_given:
            raise ValueError(
                f"baseline: a baseline and {name} cannot both be given: with a "
                f"baseline, difference quotients replace the rules. Rules "
                f"explain the difference d in lambda d: f(baseline + d)"
            )


def _patterns(capture: Any) -> tuple[str, ...]:
    """`capture` as a tuple of patterns."""
    patterns = (capture,) if isinstance(capture, str) else capture
    if not isinstance(patterns, tuple | list) or not all(
        isinstance(p, str) for p in patterns
    ):
        raise TypeError(
            f"capture: got {capture!r}, expected names or patterns of names"
        )
    return tuple(patterns)


def _conditions(conditions: Any) -> Mapping[str, Any]:
    """`conditions` as a mapping from patterns."""
    masks = {} if conditions is None else conditions
    if not isinstance(masks, Mapping) or not all(isinstance(p, str) for p in masks):
        raise TypeError(
            f"conditions: got {conditions!r}, expected a dict from names to arrays"
        )
    return masks


def lrp(
    f: Callable[P, Any],
    composite: Composite | None = None,
    *,
    argnums: ArgNums = -1,
    target: Target = "max",
    has_aux: bool = False,
    baseline: Any = None,
    capture: str | Sequence[str] = (),
    conditions: Mapping[str, Any] | None = None,
    checkpoints: int = 64,
    remat: Any = False,
) -> Callable[P, Any]:
    """The relevance of `f`'s inputs for its output: Layer-wise Relevance Propagation.

    `R_x` with `sum(R_x) = f(x)[target]`, up to what biases, stabilisers and constants
    absorb (`jaxlrp.audit` tells how much). Like `jax.grad` it does not compile by
    itself: write `jax.jit(jaxlrp.lrp(f))`. Without, keep `explain = jaxlrp.lrp(f)` and
    call that: later calls with arguments of the same shapes take less than the first.

    Where a `baseline` `x0` is known, the relevance is that of the difference to it,

        R_x = (x - x0) c_x,    sum(R_x) = f(x)[target] - f(x0)[target],

    and instead of following rules each operation `y = g(x)` passes its multiplier `c_y`
    back as difference quotients, so that `sum_i c_i (x_i - x0_i) = c_y (y - y0)`:
    DeepLIFT, through every operation, for two forward passes and one backward. It is
    `attribution.deep_lift`, which has the table of them.

    Args:
      f: a function of pytrees that JAX can trace. Keyword arguments are passed on and
        not attributed.
      composite: which rule each role gets, see `jaxlrp.composites`; None is a good
        default for any model.
      argnums: the positional argument to attribute, or several; the last by default.
      target: the output that is explained. `"max"`: the highest along the last axis,
        for each example; `"all"`: the whole output; an int, or an integer array with
        one class for each example; a tuple of ints, or of such arrays, a place along
        the last axes, as `(8, 8, 1)` for class 1 of a pixel, or a list with such a
        tuple for each example; one of `jaxlrp.targets`; or a callable `out -> R_out`.
        For an output of several arrays, these in its structure, None where nothing is
        explained. The seed is the output's own value at the target.
      has_aux: `f` returns `(output, auxiliary data)`.
      baseline: a point at which the network says nothing, such as the mean image: what
        is explained is then the difference to it. A number, an array that broadcasts to
        the attributed one, or for a pytree argument a pytree of such with its structure
        (for several `argnums` a tuple). It may be traced. It excludes rules:
        `composite`, `capture`, `conditions` and `remat` cannot be given, what is
        attributed is floating-point, and a callable target gives the output's
        multipliers, `out -> c_out`, as in `attribution.deep_lift`.
      capture: names of intermediate values whose relevance is also wanted, or globs for
        them: what `jax.ad_checkpoint.checkpoint_name(x, "tag")` tags is called
        `scope/path/tag`, what leaves a `jax.named_scope` or a Flax module is called as
        that, and the result of a softmax that goes into a contraction
        `scope/path/attention_map`. The last part is enough; what shares a name has
        numbers, `name#0`. What a layer gives goes by the path of its kernel in the
        arguments of `f`, too: `conv1` or `conv1.kernel` of a dict or a module,
        `layers[3]` of a list, and of weights that a scan goes over `layers.w[:]` for
        all, with an axis in front, and `layers.w[3]` for one.
      conditions: factors of the relevance that passes at such values, by such names:
        `R_v` becomes `mask * R_v` on its way back. Arrays, booleans or floats, that
        broadcast to the value's shape; for a value in a loop the same factors apply in
        every iteration, or others in each if an axis for the loop comes first.
      checkpoints: how many states of a `lax.while_loop` (or a `lax.fori_loop` with a
        traced bound) are kept on either of two levels in the reverse pass, `K`: memory
        is that of `2 K` states, and loops of up to `K ** 2` steps take the time of some
        three more forward passes. Longer ones take more.
      remat: what is worked out again in the reverse pass, so as not to be kept: True
        for all that lies between cuts where the fewest bytes pass, or one of
        `jax.checkpoint_policies`, which says what of it is kept. It takes one more
        forward pass.

    Returns:
      A function of `f`'s arguments that returns the relevance of the chosen argument,
      with its pytree structure, shapes and dtypes (a tuple for several `argnums`). Of
      integers, such as token ids, it is float32 and that of what they look up; of
      complex numbers it is real. With `capture` it is `(relevance, captured)` instead,
      where `captured` is a dict of names to relevances of the values' shapes, with a
      leading axis for each loop that they lie in (except a `while` loop, over whose
      steps they are sums), zero in a branch that was not taken. With `has_aux`,
      `(relevance, aux)`.

    Warns:
      TrainingWarning: once, for batch normalisation whose running statistics are
        updated, and for random masks, as of dropout.
      TargetWarning: once, for a softmax or sigmoid behind the last layer, and where
        "max" chooses among the examples, since the output has no axis of classes.
      ArgumentWarning: where the last argument is attributed, and a later parameter of
        `f` is given by keyword.
      BoundsWarning: where an input lies outside of the box of a z-box rule. Under `jit`
        there is nothing to compare, and nobody warns.
      RelevanceWarning: once, where `sum(|R|)` is more than a hundred times the
        explained score. Not under `jit` and `vmap`, where `jaxlrp.amplification`
        measures it; `jaxlrp.check` says where it grows. Not with a baseline.

    Raises:
      TypeError: for a composite, target or attributed argument of the wrong type.
      ValueError: for `argnums` or a class out of range, a name that no value has or
        whose value no relevance passes, a mask of the wrong shape, a baseline of the
        wrong structure or shape, and one together with what concerns rules.
      UnexplainedPrimitiveError: where relevance meets a primitive without a rule.

    Source: Bach et al. 2015, "On pixel-wise explanations for non-linear classifier
    decisions by layer-wise relevance propagation". Conditions: Achtibat et al. 2023,
    "From attribution maps to human-understandable explanations through Concept
    Relevance Propagation". Baselines: Shrikumar, Greenside, Kundaje 2017, "Learning
    important features through propagating activation differences".

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> params = {"w": jnp.array([[1.0, -1.0], [2.0, 0.5]]), "b": jnp.zeros(2)}
      >>> f = lambda params, x: jnp.tanh(x @ params["w"] + params["b"])
      >>> relevance = jax.jit(jaxlrp.lrp(f))(params, jnp.array([[1.0, 2.0]]))
      >>> relevance.shape
      (1, 2)

      >>> h = lambda x: jax.nn.relu(x[0] + x[1] - 2.0) * x[2]
      >>> x, x0 = jnp.array([3.0, 1.0, 4.0]), jnp.array([3.0, 1.0, 0.0])
      >>> jaxlrp.lrp(h, baseline=x0)(x)  # adds up to h(x) - h(x0) = 8
      Array([0., 0., 8.], dtype=float32)

      >>> from jax.ad_checkpoint import checkpoint_name
      >>> def g(params, x):
      ...     hidden = checkpoint_name(jnp.tanh(x @ params["w"]), "hidden")
      ...     return hidden @ jnp.ones(2)
      >>> explain = jaxlrp.lrp(g, target="all", capture="hidden")
      >>> _, captured = explain(params, jnp.array([1.0, 2.0]))
      >>> captured["hidden"].shape
      (2,)
      >>> first = jaxlrp.lrp(g, target="all", conditions={"hidden": jnp.eye(2)[0]})
      >>> part = first(params, jnp.array([1.0, 2.0])).sum()
      >>> bool(jnp.isclose(part, captured["hidden"][0]))
      True
    """
    explain = _explainer(
        f,
        composite,
        argnums,
        target,
        has_aux,
        baseline,
        capture,
        conditions,
        checkpoints,
        remat,
    )

    of_aux = "`(relevance, aux)`: " if has_aux else ""

    @wraps(f, "lrp", f"{of_aux}{_returns(argnums, capture)}.")
    def relevance(*args: P.args, **kwargs: P.kwargs) -> Any:
        value, explanation = explain(args, kwargs)
        return (explanation, value[1]) if has_aux else explanation

    return relevance


def _returns(argnums: ArgNums, capture: Any) -> str:
    """What the relevance is of, in words."""
    last = argnums == -1
    which = "the last positional argument" if last else f"argument {argnums}"
    several = "arguments" if isinstance(argnums, tuple | list) else "argument"
    which = which if several == "argument" else f"arguments {argnums}"
    text = f"the relevance of {which}, in its structure, shapes and dtypes"
    return f"{text}, and a dict of captured ones" if capture else text


def relprop(
    f: Callable[..., Any],
    *primals: Any,
    composite: Composite | None = None,
    argnums: ArgNums = -1,
    checkpoints: int = 64,
    remat: Any = False,
) -> tuple[Any, Callable[[Any], Any]]:
    """The output of `f`, and a function from the output's relevance to the inputs'.

    In the shape of `jax.vjp`; the relevance function is linear, can be called many
    times, and can be vmapped over output relevances.

    Args:
      f: as for `lrp`.
      *primals: its positional arguments.
      composite: as for `lrp`.
      argnums: as for `lrp`.
      checkpoints: as for `lrp`.
      remat: as for `lrp`.

    Returns:
      `(out, relprop_fn)`. `relprop_fn(R_out)` takes a pytree like `out`, of relevances,
      and returns the relevance of the chosen argument or arguments.

    Raises:
      ValueError: if `R_out` has another structure or shape than the output.

    Examples:
      >>> import jax, jax.numpy as jnp, jaxlrp
      >>> w = jnp.array([[1.0, -1.0], [2.0, 0.5]])
      >>> out, pull = jaxlrp.relprop(lambda x: x @ w, jnp.array([1.0, 2.0]))
      >>> jax.vmap(pull)(jnp.diag(out)).shape
      (2, 2)
    """
    rules = checked(f, composite, argnums)
    checkpoints = positive("checkpoints", checkpoints)
    run = Run(rules, checkpoints=checkpoints, remat=policy(remat))
    traced = trace(f, primals, {}, rules, argnums, False, shadow_outputs=True)
    once = backward(traced, run)
    out = jax.tree.unflatten(traced.out_tree, once.outs)

    @own_settings()
    def pull(relevance_out: Any) -> Any:
        plain = jax.tree.leaves(_targets.check_like(relevance_out, out, "R_out"))
        nothing = [jnp.zeros_like(y) for y in once.outs]
        return traced.restore(once.relevance(nothing, plain)[0])

    return out, pull
