"""Effects of patching: estimated by one reverse pass, or by running it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from jaxlrp._arguments import function
from jaxlrp._operations import own_settings
from jaxlrp._reading.sites import find_sites
from jaxlrp._trace import as_composite, is_array, positive
from jaxlrp.composites import Composite
from jaxlrp.patching import _program
from jaxlrp.patching._pairs import Pair, read_pair
from jaxlrp.patching._program import Program
from jaxlrp.patching._sites import Group, Site, as_sites

QUOTIENTS = ("between", "blend")
ENDS = ("corrupt", "clean", "both", *QUOTIENTS)


def checked_at(at: Any) -> Any:
    """Where multipliers are taken: an end, both, or a number of steps."""
    if isinstance(at, str):
        if at in ENDS:
            return at
    elif isinstance(at, int | np.integer) and not isinstance(at, bool) and at > 0:
        return int(at)
    raise ValueError(
        f"at: got {at!r}, expected one of {', '.join(map(repr, ENDS))}, or a positive "
        f"number of steps"
    )


def checked_rules(composite: Any) -> Composite | None:
    """A composite; None stays: the gradient."""
    return None if composite is None else as_composite(composite)


def check_together(at: Any, composite: Any) -> None:
    """Refuses rules where difference quotients take their place."""
    if at in QUOTIENTS and composite is not None:
        raise ValueError(
            f"composite: got {composite!r} with at={at!r}, where difference "
            f"quotients take the place of rules: expected None"
        )


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What estimates of effects are made of.

    Attributes:
      differences: clean less corrupt values of sources, by name.
      slopes: multipliers of targets.
      starts: groups of sources.
      ends: groups of targets.
      gradient: the gradient at targets in the corrupt run, to be blended, or None.
      change: of the metric between the runs, with `gradient`.
    """

    differences: dict[str, Array]
    slopes: dict[str, Array]
    starts: dict[str, Group]
    ends: dict[str, Group]
    gradient: dict[str, Array] | None = None
    change: Array | None = None

    def scores(self, find: Callable[[dict[str, Array]], Any]) -> Any:
        """What `find` makes of multipliers.

        Where two are blended, `s**p E + (1 - s**p) E'` of the effect `E` by quotients
        and `E'` by the gradient, with the share `s = min(|E / change|, 1)`.
        """
        large = find(self.slopes)
        if self.gradient is None or self.change is None:
            return large
        none = self.change == 0
        whole = jnp.where(none, 1, jnp.abs(self.change))

        def blended(large: Array, small: Array) -> Array:
            share = jnp.where(none, 1, jnp.minimum(jnp.abs(large) / whole, 1))
            weight = (share**POWER).astype(large.dtype)
            return weight * large + (1 - weight) * small

        return jax.tree.map(blended, large, find(self.gradient))


POWER = 0.5
"""A tenth of the change is weighed as a third of all: see `docs/patching.md`."""


def estimate(
    pair: Pair,
    of_values: Mapping[str, Site],
    of_slopes: Mapping[str, Site],
    metric: Any,
    at: Any,
    along: Site | None,
) -> Estimate:
    """Differences of values, and multipliers.

    Args:
      pair: both runs.
      of_values: the sites whose values are asked for.
      of_slopes: those whose multipliers are.
      metric: of the output.
      at: where multipliers are taken.
      along: the site where the way from corrupt to clean is gone, with `at` a number.
    """
    sources = pair.groups(of_values, "sites")
    targets = pair.groups(of_slopes, "sites")
    if at in QUOTIENTS:
        if pair.clean.traced.reading is not pair.corrupt.traced.reading:
            raise ValueError(
                f"at: got {at!r}, but clean and corrupt differ in what is no array: "
                f"they are two programs, between which there are no quotients"
            )
        return _between(pair, sources[0], targets[0], metric, at == "blend")
    clean_groups, corrupt_groups = ([*g.values()] for g in sources)
    found = {}
    if at in ("clean", "both"):
        found["clean"] = _at(pair.clean, sources[0], targets[0], metric)
    else:
        found["clean"] = _program.values(pair.clean, clean_groups)[1], {}
    if at in ("corrupt", "both"):
        found["corrupt"] = _at(pair.corrupt, sources[1], targets[1], metric)
    else:
        found["corrupt"] = _program.values(pair.corrupt, corrupt_groups)[1], {}
    change = {
        n: _difference(found["clean"][0][n], found["corrupt"][0][n]) for n in of_values
    }
    ends = [slopes for _, slopes in found.values() if slopes]
    slopes: dict[str, Any] = {}
    if not ends:
        slopes = _on_the_way(pair, targets[1], metric, int(at), along)
    else:
        slopes = {n: sum(s[n] for s in ends) / len(ends) for n in of_slopes}
    return Estimate(change, slopes, sources[0], targets[0])


def _difference(clean: Array, corrupt: Array) -> Array:
    """Zero where both are the same infinity, as behind a mask."""
    same = jnp.isinf(clean) & (clean == corrupt)
    return jnp.where(same, 0, clean - corrupt)


def _at(
    program: Program,
    sources: Mapping[str, Group],
    targets: Mapping[str, Group],
    metric: Any,
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Values of sources and multipliers of targets, from one evaluation."""
    once, names = _once(sources, targets)
    _, values, slopes = _program.multipliers(program, [*once.values()], metric)
    return (
        {n: values[names["source", n]] for n in sources},
        {n: slopes[names["target", n]] for n in targets},
    )


def _between(
    pair: Pair,
    sources: dict[str, Group],
    targets: dict[str, Group],
    metric: Any,
    blend: bool,
) -> Estimate:
    """By quotients, with the gradient beside them if they are to be blended."""
    once, names = _once(sources, targets)
    found = _program.quotients(
        pair.clean, pair.corrupt, [*once.values()], metric, blend
    )
    change = {}
    for name in sources:
        same = names["source", name]
        change[name] = _difference(found.clean[same], found.corrupt[same])

    def of_targets(slopes: Mapping[str, Array]) -> dict[str, Array]:
        return {n: slopes[names["target", n]] for n in targets}

    gradient = found.at_corrupt
    return Estimate(
        change,
        of_targets(found.slopes),
        sources,
        targets,
        None if gradient is None else of_targets(gradient),
        found.change,
    )


def _once(
    sources: Mapping[str, Group], targets: Mapping[str, Group]
) -> tuple[dict[Any, Group], dict[tuple[str, str], str]]:
    """Groups of both kinds, each value once, and what they are called among these."""
    both = {("source", n): g for n, g in sources.items()}
    both |= {("target", n): g for n, g in targets.items()}
    once: dict[Any, Group] = {}
    names: dict[tuple[str, str], str] = {}
    for key, group in both.items():
        parts = tuple(part.address for part in group.parts)
        same = once.setdefault(parts, dataclasses.replace(group, name=str(len(once))))
        names[key] = same.name
    return once, names


def _on_the_way(
    pair: Pair,
    targets: Mapping[str, Group],
    metric: Any,
    steps: int,
    along: Site | None,
) -> dict[str, Array]:
    """Mean multipliers in the middles of so many parts of the way."""
    program = pair.corrupt
    places = (jnp.arange(steps) + 0.5) / steps
    groups = [*targets.values()]
    if along is not None:
        ends = []
        places_of = pair.groups({"": along}, "along")
        for run, named in zip((pair.clean, program), places_of, strict=True):
            ends.append(_program.values(run, [named[""]])[1][""])
        place = places_of[1][""]

        def one(share: Array) -> dict[str, Array]:
            value = ends[1] + share.astype(ends[1].dtype) * (ends[0] - ends[1])
            way = (place, value)
            return _program.multipliers(program, groups, metric, way)[2]
    else:
        _check_floating(pair)
        inputs = program.traced.inputs

        def one(share: Array) -> dict[str, Array]:
            moved = list(inputs)
            for i in program.traced.attributed:
                a, b = pair.clean.traced.inputs[i], inputs[i]
                moved[i] = b + share.astype(b.dtype) * (a - b)
            traced = dataclasses.replace(program.traced, inputs=tuple(moved))
            here = Program(traced, program.composite)
            return _program.multipliers(here, groups, metric)[2]

    found = lax.map(one, places)
    return jax.tree.map(lambda a: a.mean(0), found)


def _check_floating(pair: Pair) -> None:
    inputs = pair.clean.traced.inputs
    for i in pair.clean.traced.attributed:
        if not jnp.issubdtype(inputs[i].dtype, jnp.floating):
            raise ValueError(
                f"along: got None, but the input has dtype {inputs[i].dtype}, between "
                f"whose values there is nothing: name the site where the way is gone, "
                f"as along='embedding'"
            )


def effects(
    f: Callable[..., Any],
    sites: Any,
    composite: Composite | None = None,
    metric: Callable[..., Any] | None = None,
    *,
    at: Any = "corrupt",
    along: str | Site | None = None,
) -> Callable[..., dict[str, Array]]:
    """What patching each node would change, estimated for all of them at once.

    The value of a node in the corrupt run is replaced by that in the clean run. To
    first order the metric changes by

        effect = sum (v_clean - v_corrupt) c

    over the node's elements, where `c` is the value's multiplier: the gradient
    (attribution patching), or LRP's coefficient `R / v` (RelP), which is finite where
    the value is zero. It takes two forward passes and one reverse pass.

    With `at="between"` each operation `y = g(x)` passes its multiplier back as the
    difference quotient between both runs, as in DeepLIFT with the corrupt run as the
    reference: `c_x = (y - y0) / (x - x0) c_y` of one variable, the derivative half way
    of a product. So `sum (v_clean - v_corrupt) c` over values that together decide
    about the output is the whole change of the metric. It takes as many passes, no
    rules, and was the best of all in `docs/patching-results.md`: the recommended way.
    Branches, and numbers of steps of `while` loops, are those of the clean run.

    Args:
      f: a function `f(params, x)`. Weights that it closes over instead are compiled
        into the program, which takes minutes for large ones: give them as `params`.
      sites: a name, a `patching.site`, several of these, or a dict of them.
      composite: the rules, as `composites.RelP()`; None for the gradient, or with
        `at="between"` for quotients.
      metric: `metric(out, *aux)` gives a number; it is differentiated as it is,
        behind the rules. None where `f` returns a number.
      at: where multipliers are taken: `"corrupt"`, as in the formula; `"clean"`;
        `"both"`, their mean, with one more reverse pass; `"between"`, see below; or a
        number of steps, the mean over so many points between both, each with a forward
        and a reverse pass (integrated gradients along the inputs).
      along: with steps, the site whose values go from corrupt to clean, as the
        embeddings of tokens. None for `x` itself, if that is floating-point.

    Returns:
      A function `(params, clean, corrupt, *aux)` that returns for each site an array
      over its nodes. It can be compiled, and mapped over pairs.

    Raises:
      TypeError: for arguments of the wrong type.
      ValueError: for inputs of different shapes, names that no value has, axes that do
        not fit, a metric that is no number, values inside of what has one rule, and
        rules that give no multipliers.

    Source: Nanda 2023, "Attribution patching"; Rezaei Jafari et al. 2025, "RelP";
    Hanna et al. 2024, "Have faith in faithfulness" (steps); Shrikumar et al. 2017,
    "Learning important features through propagating activation differences".

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import patching
      >>> def f(w, x):
      ...     return (checkpoint_name(x @ w, "h") ** 2).sum()
      >>> w, one, zero = jnp.eye(2), jnp.array([1.0, 2.0]), jnp.array([1.0, 1.0])
      >>> patching.effects(f, "h")(w, one, zero)["h"].tolist()
      [0.0, 2.0]
      >>> patching.effects(f, "h", at="between")(w, one, zero)["h"].tolist()
      [0.0, 3.0]
      >>> patching.exact(f, "h")(w, one, zero)["h"].tolist()
      [0.0, 3.0]
    """
    function("f", f)
    chosen = as_sites(sites)
    rules, at = checked_rules(composite), checked_at(at)
    check_together(at, rules)
    way = None if along is None else as_sites(along, "along")
    route = None if way is None else next(iter(way.values()))
    score = checked_metric(metric)

    @own_settings()
    def estimated(params: Any, clean: Any, corrupt: Any, *aux: Any) -> dict[str, Array]:
        pair = read_pair(f, params, clean, corrupt, rules)
        of_out = with_aux(score, aux)
        found = estimate(pair, chosen, chosen, of_out, at, route)

        def scores(slopes: Mapping[str, Array]) -> dict[str, Array]:
            return {
                n: g.scores(found.differences[n] * slopes[n])
                for n, g in found.starts.items()
            }

        return found.scores(scores)

    return estimated


def checked_metric(metric: Any) -> Any:
    """A metric, a function or None."""
    return None if metric is None else function("metric", metric)


def with_aux(metric: Any, aux: tuple[Any, ...]) -> Any:
    """The metric as a function of the output alone.

    Raises:
      TypeError: for auxiliary data without a metric.
    """
    if metric is None:
        if aux:
            raise TypeError(
                f"aux: got {len(aux)} more arguments, but there is no metric"
            )
        return None
    return lambda out: metric(out, *aux)


# ---- exact -------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Cost:
    """What exact patching takes.

    Attributes:
      runs: forward passes, with that of the clean and the corrupt run.
      bytes: about what the values of one batch of runs take at once, without the
        parameters. XLA may need less or more.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import patching
      >>> f = lambda w, x: checkpoint_name(x @ w, "h").sum()
      >>> args = jnp.eye(8), jnp.ones((4, 8)), jnp.zeros((4, 8))
      >>> patching.cost(f, "h", batch=16)(*args).runs
      34
    """

    runs: int
    bytes: int


def cost(
    f: Callable[..., Any],
    sites: Any,
    *,
    batch: int = 64,
) -> Callable[..., Cost]:
    """How many runs exact patching takes, and how much memory. Nothing is computed.

    Args:
      f: as for `exact`.
      sites: as for `exact`.
      batch: as for `exact`.

    Returns:
      A function `(params, clean, corrupt, *aux)` that returns a `Cost`; its arguments
      may be `jax.ShapeDtypeStruct`s.

    Raises:
      ValueError: as `exact`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import patching
      >>> def f(w, x):
      ...     return checkpoint_name(x @ w, "h").sum()
      >>> patching.cost(f, "h")(jnp.eye(2), jnp.ones(2), jnp.zeros(2)).runs
      4
    """
    function("f", f)
    chosen, batch = as_sites(sites), positive("batch", batch)

    def counted(params: Any, clean: Any, corrupt: Any, *aux: Any) -> Cost:
        pair = read_pair(f, params, clean, corrupt, None)
        groups, _ = pair.groups(chosen, "sites")
        counts = [math.prod(g.node_shape) for g in groups.values()]
        each = _peak(pair.corrupt.traced.reading)
        return Cost(2 + sum(counts), each * min(batch, max(counts)))

    return counted


def _peak(reading: Any) -> int:
    """The most bytes of values that are made of the input and live at once."""
    program = reading.program
    last = {}
    for i, equation in enumerate(program.equations):
        for v in equation.inputs:
            last[id(v)] = i
    bodies = {s.main: s.bodies for s in reading.steps if s.bodies}
    live: dict[int, int] = {}
    most = 0
    for i, equation in enumerate(program.equations):
        inner = max((_peak(b) for b in bodies.get(equation, ())), default=0)
        for v in equation.outputs:
            if reading.carries(v) and hasattr(v.aval, "dtype"):
                live[id(v)] = math.prod(v.aval.shape) * v.aval.dtype.itemsize
        most = max(most, sum(live.values()) + inner)
        for v in equation.inputs:
            if last[id(v)] == i:
                live.pop(id(v), None)
    return most


def exact(
    f: Callable[..., Any],
    sites: Any,
    metric: Callable[..., Any] | None = None,
    *,
    batch: int = 64,
) -> Callable[..., dict[str, Array]]:
    """What patching each node changes, found by running it: the judge of estimates.

    `metric(f with the node's clean value in the corrupt run) - metric(corrupt run)`,
    one forward pass for each node, `batch` of them at a time.

    Args:
      f: as for `effects`.
      sites: as for `effects`; `only` of a site leaves out nodes that need not be run.
      metric: as for `effects`.
      batch: how many runs are made together. Memory grows with it; `patching.cost`
        says about how much, before anything runs.

    Returns:
      A function `(params, clean, corrupt, *aux)` that returns what `effects` returns.

    Raises:
      TypeError: for arguments of the wrong type.
      ValueError: as `effects`.

    Source: Vig et al. 2020; Meng et al. 2022 (activation patching).

    Examples:
      >>> import jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import patching
      >>> def f(w, x):
      ...     return (checkpoint_name(x @ w, "h") ** 2).sum()
      >>> w, clean, corrupt = jnp.eye(2), jnp.array([1.0, 2.0]), jnp.zeros(2)
      >>> patching.exact(f, "h")(w, clean, corrupt)["h"].tolist()
      [1.0, 4.0]
    """
    function("f", f)
    chosen, batch = as_sites(sites), positive("batch", batch)
    score = checked_metric(metric)

    @own_settings()
    def run(params: Any, clean: Any, corrupt: Any, *aux: Any) -> dict[str, Array]:
        pair = read_pair(f, params, clean, corrupt, None)
        of_out = with_aux(score, aux)
        groups, others = pair.groups(chosen, "sites")
        _, values = _program.values(pair.clean, [*groups.values()])
        out, _ = _program.values(pair.corrupt, [])
        base = _program.scalar(of_out, out)

        def of_group(name: str) -> Array:
            group, value = others[name], values[name]
            count = math.prod(group.node_shape)
            numbers = jnp.arange(count).reshape(group.node_shape)

            def one(number: Array) -> Array:
                mask = group.spread(numbers == number, False)
                new = {name: (mask, value)}
                patched = _program.patched(pair.corrupt, [group], new)
                return _program.scalar(of_out, patched)

            found = lax.map(one, jnp.arange(count), batch_size=batch)
            return found.reshape(group.node_shape) - base

        return {name: of_group(name) for name in groups}

    return run


# ---- values, multipliers, patches --------------------------------------------------


def sites(f: Callable[..., Any]) -> Callable[..., dict[str, jax.ShapeDtypeStruct]]:
    """The names of all values that can be patched, with shape and dtype.

    Args:
      f: a function whose last argument is the input.

    Returns:
      A function of `f`'s arguments, which may be `jax.ShapeDtypeStruct`s, that returns
      for each name the shape and dtype of its value, with a leading axis for each loop
      that it lies in. Nothing is computed.

    Raises:
      TypeError: for what is no function.

    Examples:
      >>> import jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import patching
      >>> f = lambda w, x: checkpoint_name(x @ w, "h").sum()
      >>> patching.sites(f)(jnp.ones((3, 4)), jnp.ones(3))["h"].shape
      (4,)
    """
    function("f", f)

    def named(*args: Any) -> dict[str, jax.ShapeDtypeStruct]:
        reading = _program.read(f, args, None).traced.reading
        return {
            s.name: jax.ShapeDtypeStruct(s.shape, s.value.aval.dtype)
            for s in find_sites(reading)
            if s.problem is None
        }

    return named


def values(
    f: Callable[..., Any], sites: Any
) -> Callable[..., tuple[Any, dict[str, Array]]]:
    """The output of a function, and values inside of it.

    Args:
      f: a function whose last argument is the input: what does not depend on it is no
        site.
      sites: as for `effects`.

    Returns:
      A function of `f`'s arguments that returns `(out, {site: value})`, one forward
      pass. Of a branch that is not taken the values are zero.

    Raises:
      ValueError: for names that no value has, and axes that do not fit.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import patching
      >>> def f(w, x):
      ...     step = lambda x, w: (checkpoint_name(jnp.tanh(w * x), "h"), None)
      ...     return jax.lax.scan(step, x, w)[0].sum()
      >>> out, found = patching.values(f, "h")(jnp.ones(3), jnp.ones(2))
      >>> found["h"].shape
      (3, 2)
    """
    function("f", f)
    chosen = as_sites(sites)

    @own_settings()
    def valued(*args: Any) -> tuple[Any, dict[str, Array]]:
        program = _program.read(f, args, None)
        groups = program.groups(chosen, "sites")
        return _program.values(program, [*groups.values()])

    return valued


def multipliers(
    f: Callable[..., Any],
    sites: Any,
    composite: Composite | None = None,
    metric: Callable[..., Any] | None = None,
) -> Callable[..., tuple[Any, dict[str, Array], dict[str, Array]]]:
    """The output of a function, and values and multipliers inside of it.

    The multiplier `c` of a value is its relevance divided by itself, `R = v c`: the
    gradient's place is taken by LRP's coefficient. It is found without the division,
    and is finite where the value is zero.

    Args:
      f: as for `values`.
      sites: as for `effects`.
      composite: the rules; None for the gradient.
      metric: of the output, `metric(out)`, a number; it is differentiated as it is.

    Returns:
      A function of `f`'s arguments that returns `(out, {site: value}, {site: c})`.

    Raises:
      ValueError: as `effects`.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import composites, patching
      >>> def f(w, x):
      ...     return (jnp.tanh(checkpoint_name(x @ w, "h")) * 3.0).sum()
      >>> w, x = jnp.eye(2), jnp.array([0.0, 2.0])
      >>> slope = patching.multipliers(f, "h")(w, x)[2]["h"]
      >>> of_lrp = patching.multipliers(f, "h", composites.RelP())(w, x)[2]["h"]
      >>> [f"{c:.2f}" for c in (*slope, *of_lrp)]
      ['3.00', '0.21', '3.00', '1.45']
    """
    function("f", f)
    chosen, rules = as_sites(sites), checked_rules(composite)
    score = checked_metric(metric)

    @own_settings()
    def found(*args: Any) -> tuple[Any, dict[str, Array], dict[str, Array]]:
        program = _program.read(f, args, rules)
        groups = program.groups(chosen, "sites")
        return _program.multipliers(program, [*groups.values()], score)

    return found


def patch(f: Callable[..., Any], sites: Any) -> Callable[..., Any]:
    """A function with other values inside of it.

    Args:
      f: as for `values`.
      sites: as for `effects`.

    Returns:
      A function `(new, *args)` of `f`'s arguments that returns what `f` does. `new` has
      for each site a value, which takes the place of its own; a pair `(mask, value)`,
      which does so where the mask, of booleans over elements or of shares between 0 and
      1, says so; or a function from the value to another of its shape and dtype, called
      for each value of a stack. Sites that `new` leaves out stay. It is differentiable
      with respect to values, masks of shares, and the arguments.

    Raises:
      TypeError: for what is none of these, and a value that is no floating-point one.
      ValueError: for a value or mask that does not broadcast to the site's shape, a
        name that is no site, and what `values` raises.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from jax.ad_checkpoint import checkpoint_name
      >>> from jaxlrp import patching
      >>> f = lambda w, x: checkpoint_name(x @ w, "h").sum()
      >>> patched = patching.patch(f, "h")
      >>> args = jnp.eye(2), jnp.array([1.0, 2.0])
      >>> float(patched({"h": (jnp.array([True, False]), 5.0)}, *args))
      7.0
      >>> float(patched({"h": lambda h: 0 * h}, *args))
      0.0
    """
    function("f", f)
    chosen = as_sites(sites)

    @own_settings()
    def patched(new: Any, *args: Any) -> Any:
        if not isinstance(new, Mapping):
            raise TypeError(f"new: got {new!r}, expected a dict from sites to values")
        unknown = [name for name in new if name not in chosen]
        if unknown:
            raise ValueError(
                f"new: got {unknown[0]!r}, expected one of {', '.join(chosen)}"
            )
        program = _program.read(f, args, None)
        wanted = {name: chosen[name] for name in chosen if name in new}
        groups = program.groups(wanted, "sites") if wanted else {}
        given = {
            name: _checked_new(new[name], group)
            for name, group in groups.items()
            if not callable(new[name])
        }

        def edit(name: str, x: Array, value: Any, memory: Any) -> Any:
            if name in given:
                return _program._mixed(x, value), (), memory
            return _called(new[name], name, x), (), memory

        every = [*groups.values()]
        return _program.evaluate(program, every, edit, given)[0]

    return patched


def _called(change: Callable[..., Any], name: str, x: Array) -> Array:
    y = change(x)
    if jnp.shape(y) != x.shape or jnp.result_type(y) != x.dtype:
        raise ValueError(
            f"new[{name!r}]: the function returned shape {jnp.shape(y)} and dtype "
            f"{jnp.result_type(y)}, expected those of what it was given, {x.shape} and "
            f"{x.dtype}"
        )
    return y


def _checked_new(new: Any, group: Group) -> Any:
    if isinstance(new, tuple):
        if len(new) != 2:
            raise TypeError(
                f"new[{group.name!r}]: got a tuple of {len(new)}, expected a pair "
                f"(mask, value)"
            )
        mask = _as_array(new[0], group, "a mask")
        boolean = mask.dtype == bool
        if not boolean and not jnp.issubdtype(mask.dtype, jnp.floating):
            raise TypeError(
                f"new[{group.name!r}]: got a mask of dtype {mask.dtype}, expected "
                f"booleans or shares between 0 and 1"
            )
        return mask, _as_value(new[1], group)
    return _as_value(new, group)


def _as_value(new: Any, group: Group) -> Array:
    value = _as_array(new, group, "a value")
    kinds = jnp.result_type(value), group.value.dtype
    if is_array(new) and not all(jnp.issubdtype(k, jnp.inexact) for k in kinds):
        raise TypeError(
            f"new[{group.name!r}]: got dtype {value.dtype}, expected "
            f"{group.value.dtype}"
        )
    return value.astype(group.value.dtype)


def _as_array(new: Any, group: Group, what: str) -> Array:
    try:
        found = jnp.asarray(new)
    except (TypeError, ValueError):
        raise TypeError(
            f"new[{group.name!r}]: got {new!r}, expected a value, a pair (mask, "
            f"value), or a function of the value"
        ) from None
    try:
        return jnp.broadcast_to(found, group.shape)
    except ValueError:
        raise ValueError(
            f"new[{group.name!r}]: got {what} of shape {found.shape}, expected one "
            f"that broadcasts to {group.shape}"
        ) from None
