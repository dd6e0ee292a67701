"""How good is an explanation of a network that reads embedded tokens?

A token's relevance is the sum over its embedding. Of each example:

- ABPC: tokens are replaced in ascending and in descending order of relevance; the area
  between the two curves of the explained logit, the mean gap in logits.
- evidence: whether the token of the highest relevance is one of those that the answer
  is known to rest on; rank: how many others each of these comes after, the best one's.
- size: the sum of the absolute relevances of all entries of the embeddings; tokens:
  that of the tokens' relevances; ratio: the latter over the size of the logit. A rule
  that amplifies shows here.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxlrp
from jaxlrp import attribution, compat, composites, evaluation
from jaxlrp.composites import Composite

F = Callable[[Array], Array]
"""From one example's embedded tokens to logits."""

Explain = Callable[[F, Array, Array, Array], Array]
"""From `f`, the tokens, the explained logit's index and a baseline to relevances.

All but the index are `Float[Array, "tokens width"]`. The baseline is the input without
all tokens that may be removed; most methods do not look at it.
"""

Measures = Mapping[str, np.ndarray]
"""Numbers of each example, by what is measured."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A network with the examples that are explained.

    Attributes:
      name: of the network.
      f: from parameters, one example's tokens, and what else an example has, to logits.
      params: the parameters.
      inputs: `Float[Array, "examples tokens width"]`, padded.
      others: what else the examples have: a pytree, examples first.
      targets: the explained logits, `Int[Array, "examples"]`.
      counts: which tokens are ranked and removed, `Bool[Array, "examples tokens"]`.
      evidence: which the answers are known to rest on, of the same shape.
      baseline: what removed tokens are replaced by, `Float[Array, "width"]`.
      steps: in how many steps all are removed.
      batch: how many examples are explained at once.
      digits: of ABPC that are shown.
    """

    name: str
    f: Callable[[Any, Array, Any], Array]
    params: Any
    inputs: Array
    others: Any
    targets: Array
    counts: Array
    evidence: Array
    baseline: Array
    steps: int = 8
    batch: int = 10
    digits: int = 2


# ---- methods ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to explain.

    Attributes:
      name: what it is called.
      side: `jaxlrp`, a peer's name for its rules, or `other` for what is not LRP.
      explain: the explanation.
    """

    name: str
    side: str
    explain: Explain


def lrp(name: str, composite: Composite | None, side: str = "jaxlrp") -> Method:
    """LRP under a composite."""

    def explain(f: F, x: Array, target: Array, baseline: Array) -> Array:
        return jaxlrp.lrp(f, composite, target=target)(x)

    return Method(name, side, explain)


def other(
    name: str, attribute: Callable[..., Any], side: str = "other", **options: Any
) -> Method:
    """A method of `jaxlrp.attribution`; an option `baseline` is filled in."""

    def explain(f: F, x: Array, target: Array, baseline: Array) -> Array:
        given = {**options}
        if "baseline" in given:
            given["baseline"] = baseline
        return attribute(f, target=target, **given)(x)

    return Method(name, side, explain)


def _random(f: F, x: Array, target: Array, baseline: Array) -> Array:
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32).sum()
    return jax.random.normal(jax.random.key(bits), x.shape)


def general(steps: int = 50, samples: int = 32) -> tuple[Method, ...]:
    """Methods that know no rules.

    Args:
      steps: of integrated gradients.
      samples: of SmoothGrad.
    """
    return (
        Method("random", "other", _random),
        other("gradient x input", attribution.gradient_x_input),
        other(
            "integrated gradients",
            attribution.integrated_gradients,
            baseline=None,
            steps=steps,
        ),
        other("DeepLIFT", attribution.deep_lift, "jaxlrp", baseline=None),
        other(
            "SmoothGrad x input",
            attribution.smoothgrad,
            key=jax.random.key(0),
            method=attribution.gradient_x_input,
            samples=samples,
        ),
    )


def of_transformers() -> tuple[Method, ...]:
    """Presets for networks with attention, this package's and its peers'."""
    return (
        lrp("AttnLRP", composites.AttnLRP()),
        lrp("AttnLRPGamma", composites.AttnLRPGamma()),
        lrp("CPLRP", composites.CPLRP()),
        lrp("CPLRP, gates held", composites.CPLRP(hold_gates=True)),
        lrp("CPLRPGamma", composites.CPLRPGamma()),
        lrp("Epsilon", composites.Epsilon()),
        lrp("EpsilonPlus", composites.EpsilonPlus()),
        lrp("ResLRP", composites.ResLRP()),
        lrp("AttnLRP", compat.lxt.AttnLRP(), "LXT"),
        lrp("CP-LRP", compat.lxt.CPLRP(hold_gates=True), "LXT"),
        lrp("plain", composites.DynamicLRP(), "dynamicLRP"),
        lrp("gamma", composites.DynamicLRP(gamma=0.05), "dynamicLRP"),
        lrp("LRP", compat.captum.LRP(), "captum"),
    )


# ---- measures --------------------------------------------------------------------


def measurer(at: Setting) -> Callable[[Explain], tuple[Measures, float]]:
    """From an explanation to (the measures of all examples, seconds).

    One program explains all examples; another, which serves all explanations, removes
    tokens. The seconds are the first one's, compilation included.
    """

    def score(params: Any, others: Any, target: Array) -> Callable[[Array], Array]:
        return evaluation.logit(lambda x: at.f(params, x, others), target)

    def curves(params: Any, example: Any, relevance: Array) -> dict[str, Array]:
        x, others, target, counts, evidence = example
        logit = score(params, others, target)
        found = [
            evaluation.flipping(
                logit,
                x,
                relevance[:, None],
                baseline=at.baseline,
                order=order,
                steps=at.steps,
                where=counts[:, None],
                chunk=at.steps + 1,
            )
            for order in ("morf", "lerf")
        ]
        best = jnp.where(evidence, relevance, -jnp.inf).max()
        return {
            "ABPC": evaluation.abpc(*found),
            "evidence": evaluation.top_k_accuracy(relevance, evidence, where=counts),
            "rank": (counts & (relevance > best)).sum(),
            "score": found[0].scores[0],
        }

    examples = (at.inputs, at.others, at.targets, at.counts, at.evidence)

    @jax.jit
    def all_curves(params: Any, examples: Any, relevances: Array) -> dict[str, Array]:
        return jax.lax.map(
            lambda each: curves(params, *each), (examples, relevances), batch_size=2
        )

    def measure(explain: Explain) -> tuple[Measures, float]:
        @jax.jit
        def explained(params: Any, examples: Any) -> tuple[Array, Array]:
            def one(example: Any) -> tuple[Array, Array]:
                x, others, target, counts, _ = example
                f = functools.partial(_with, at.f, params, others)
                found = explain(
                    f, x, target, jnp.where(counts[:, None], at.baseline, x)
                )
                return found.sum(-1), jnp.abs(found).sum()

            return jax.lax.map(one, examples, batch_size=at.batch)

        start = time.perf_counter()
        relevances, sizes = jax.block_until_ready(explained(at.params, examples))
        seconds = time.perf_counter() - start
        found = jax.device_get(all_curves(at.params, examples, relevances))
        found["size"] = np.asarray(sizes)
        found["tokens"] = np.abs(np.asarray(relevances)).sum(-1)
        found["ratio"] = found["tokens"] / np.abs(found["score"])
        return found, seconds

    return measure


def _with(f: Callable[..., Array], params: Any, others: Any, x: Array) -> Array:
    return f(params, x, others)


def compare(
    at: Setting, methods: Sequence[Method], show: Callable[[str], None] = print
) -> list[dict[str, Any]]:
    """All methods on one network: a row each, with means and standard errors."""
    measure = measurer(at)
    rows = []
    for method in methods:
        rows.append(row(method, *measure(method.explain)))
        show(line(rows[-1], at.digits))
    return rows


def row(method: Method, found: Measures, seconds: float) -> dict[str, Any]:
    """What the table says of a method."""
    about: dict[str, Any] = {"side": method.side, "method": method.name}
    for name in ("ABPC", "evidence", "rank"):
        values = found[name].astype(float)
        about[name] = [float(values.mean()), float(values.std() / np.sqrt(values.size))]
    about |= {n: float(found[n].max()) for n in ("size", "tokens", "ratio")}
    about["seconds"] = seconds
    about["each"] = found["ABPC"].astype(float).round(5).tolist()
    return about


COLUMNS = (
    *("method", "side", "ABPC", "evidence", "rank"),
    *("largest sum of abs(R)", "of tokens", "over the score", "seconds"),
)


def line(row: Mapping[str, Any], digits: int = 2) -> str:
    """A row of the table."""
    mean, error = row["ABPC"]
    cells = [
        row["method"],
        row["side"],
        f"{mean:.{digits}f} ± {error:.{digits}f}",
        f"{100 * row['evidence'][0]:.0f} %",
        f"{row['rank'][0]:.2f}",
        *(f"{row[name]:.3g}" for name in ("size", "tokens", "ratio")),
        f"{row['seconds']:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def table(rows: Sequence[Mapping[str, Any]], digits: int = 2) -> str:
    """The rows, the most faithful first; errors are one standard error."""
    head = f"| {' | '.join(COLUMNS)} |\n|---|---|{'--:|' * (len(COLUMNS) - 2)}"
    ranked = sorted(rows, key=lambda row: -row["ABPC"][0])
    return "\n".join([head, *(line(row, digits) for row in ranked)])
