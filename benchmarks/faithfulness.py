"""How faithful are explanations, ours and others', on networks trained here?

    python -m benchmarks.faithfulness               all networks, docs/faithfulness.md
    python -m benchmarks.faithfulness --tasks CNN --seeds 1 --examples 40
    python -m benchmarks.faithfulness --page        the page, from the kept record

For each network (`benchmarks.trained`), seed and method:

- ABPC: the area between the curves of flipping units in ascending and in descending
  order of relevance, of the logit of the class that is predicted. It is the mean gap,
  in logits. Units are pixels (CNN), patches (ViT) or tokens; what is removed is
  replaced by the mean image, or by the mean embedding of the words that say nothing.
- evidence: how often the token with the highest relevance is the evidence; the question
  itself does not count.

Means are over all examples of all seeds, with 1.96 standard errors. Half of the
examples choose: the hyper-parameters of the search, and which method of each side is
its best. The other half is what is shown.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import jaxlrp
from benchmarks import gradient_ratio, trained
from jaxlrp import _files, attribution, compat, composites, evaluation, rules
from jaxlrp.composites import Composite

ROOT = Path(__file__).parents[1]
RECORD = ROOT / "out" / "faithfulness.json"
PAGE = ROOT / "docs" / "faithfulness.md"

Explain = Callable[[Any, Array, Array], Array]
"""From parameters, an example and a class to the relevance of the example's units."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """A network, ready to be explained.

    Attributes:
      name: of its task.
      f: from parameters and one example, floats, to the scores of the classes.
      params: the parameters.
      inputs: examples, (n, ...).
      targets: the classes that are predicted.
      units: the size of a unit along each axis of an example.
      baseline: what removed units are replaced by.
      evidence: which units are, or None.
      counts: which units may be removed, or None for all.
      tokens: the shape of the units that attention knows, or None.
      first: how many of its tokens come before these.
      row: the token whose scores are explained.
    """

    name: str
    f: Callable[[Any, Array], Array]
    params: Any
    inputs: Array
    targets: Array
    units: tuple[int, ...]
    baseline: Array
    evidence: Array | None = None
    counts: Array | None = None
    tokens: tuple[int, ...] | None = None
    first: int = 0
    row: int = 0


def setting(name: str, seed: int, examples: int, folder: Path) -> Setting:
    """The network of a task, and the examples that it explains."""
    task = trained.TASKS[name]
    params = trained.trained(name, seed, folder)
    inputs, _, evidence = task.test()
    inputs = jnp.asarray(inputs[:examples])

    def f(params: Any, x: Array) -> Array:
        return task.module.apply(params, x[None])[0]

    common = {"name": name, "f": f, "params": params}
    if name in ("CNN", "ViT"):
        targets = jax.jit(jax.vmap(f, (None, 0)))(params, inputs).argmax(-1)
        mean = jnp.asarray(next(task.batches(0)).inputs).mean(0)
        patches = name == "ViT"
        return Setting(
            **common,
            inputs=inputs,
            targets=targets,
            units=(2, 2, 1) if patches else (1, 1, 1),
            baseline=mean,
            tokens=(4, 4, 1) if patches else None,
            first=1,
        )
    assert evidence is not None
    table = params["params"]["embed"]["table"]["embedding"]
    embedded = jnp.asarray(table)[inputs]
    targets = jax.jit(jax.vmap(f, (None, 0)))(params, embedded).argmax(-1)
    question = trained.LENGTH - 1 if name == "decoder" else 0
    return Setting(
        **common,
        inputs=embedded,
        targets=targets,
        units=(1, embedded.shape[-1]),
        baseline=jnp.asarray(table)[trained.NOTHING : trained.VOCABULARY].mean(0),
        evidence=jnp.asarray(evidence[:examples])[..., None],
        counts=(jnp.arange(trained.LENGTH) != question)[:, None],
        tokens=(trained.LENGTH, 1),
        row=question,
    )


# ---- methods ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Method:
    """A way to explain.

    Attributes:
      name: what it is called.
      side: `jaxlrp`, a peer's name for its rules, or `other` for what is not LRP.
      make: from a setting to the explanation.
    """

    name: str
    side: str
    make: Callable[[Setting], Explain]


def lrp(name: str, composite: Composite, side: str = "jaxlrp") -> Method:
    """LRP under a composite; relevance is summed over a unit."""

    def make(at: Setting) -> Explain:
        def explain(params: Any, x: Array, target: Array) -> Array:
            relevance = jaxlrp.lrp(at.f, composite, target=target)(params, x)
            return evaluation.pool(relevance, at.units)

        return explain

    return Method(name, side, make)


def against(name: str, composite: Composite, nodes: int = 1) -> Method:
    """LRP of the difference to the baseline: of `d` in `f(baseline + d)`.

    What equals the baseline has none. With more nodes `t` it is the mean of `R(t d)/t`
    along the way, a path integral as that of integrated gradients.
    """
    make = functools.partial(_against, composite=composite, nodes=nodes)
    return Method(name, "jaxlrp", make)


def _against(at: Setting, composite: Composite, nodes: int = 1) -> Explain:
    places, weights = np.polynomial.legendre.leggauss(nodes)
    # One node is the input itself.
    way = [(1.0, 1.0)]
    if nodes > 1:
        way = list(zip((places + 1) / 2, weights / 2, strict=True))

    def explain(params: Any, x: Array, target: Array) -> Array:
        base = jnp.broadcast_to(at.baseline, x.shape)
        f = lambda params, d: at.f(params, base + d)  # noqa: E731
        explained = jaxlrp.lrp(f, composite, target=target)
        parts = [w / t * explained(params, t * (x - base)) for t, w in way]
        return evaluation.pool(jnp.stack(parts).sum(0), at.units)

    return explain


def other(
    name: str, attribute: Callable[..., Any], side: str = "other", **options: Any
) -> Method:
    """A method of `jaxlrp.attribution`, with the attribution of the input's shape."""

    def make(at: Setting) -> Explain:
        def explain(params: Any, x: Array, target: Array) -> Array:
            given = {**options}
            if "baseline" in given:
                given["baseline"] = jnp.broadcast_to(at.baseline, x.shape)
            found = attribute(at.f, target=target, **given)(params, x)
            return evaluation.pool(found, at.units)

        return explain

    return Method(name, side, make)


def attended(
    name: str, method: Callable[..., Any], side: str, **options: Any
) -> Method:
    """A method of attention maps, with one value for each token."""

    def make(at: Setting) -> Explain:
        assert at.tokens is not None

        def explain(params: Any, x: Array, target: Array) -> Array:
            given = {"token": at.row, "head_axis": (-4, -3), **options}
            if method is not attribution.attention_rollout:
                given["target"] = target
            row = method(at.f, **given)(params, x)[..., at.first :]
            return row.reshape(at.tokens)

        return explain

    return Method(name, side, make)


def _random(at: Setting) -> Explain:
    def explain(params: Any, x: Array, target: Array) -> Array:
        units = evaluation.pool(x, at.units)
        bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32).sum()
        return jax.random.normal(jax.random.key(bits), units.shape)

    return explain


KEY = jax.random.key(0)
GENERAL = (
    Method("random", "other", _random),
    other("gradient x input", attribution.gradient_x_input),
    other("integrated gradients", attribution.integrated_gradients, baseline=None),
    other("DeepLIFT", attribution.deep_lift, "jaxlrp", baseline=None),
    other(
        "SmoothGrad x input",
        attribution.smoothgrad,
        key=KEY,
        method=attribution.gradient_x_input,
    ),
)
GAMMA = composites.Uniform(rules.GeneralizedGamma(0.25))
CONVOLUTIONAL = (
    lrp("Default", composites.Default()),
    lrp("Proportional", composites.Proportional()),
    against("Proportional, against the baseline", composites.Proportional()),
    against("Proportional, along the path", composites.Proportional(), nodes=6),
    against("gamma, against the baseline", GAMMA),
    lrp("EpsilonPlus", composites.EpsilonPlus()),
    lrp("EpsilonAlpha2Beta1", composites.EpsilonAlpha2Beta1()),
    lrp("EpsilonGammaBox", composites.EpsilonGammaBox(-1.5, 1.5)),
    lrp("generalised gamma", GAMMA),
    lrp("EpsilonPlus", compat.zennit.EpsilonPlus(), "zennit"),
    lrp("EpsilonPlusFlat", compat.zennit.EpsilonPlusFlat(), "zennit"),
    lrp("EpsilonAlpha2Beta1Flat", compat.zennit.EpsilonAlpha2Beta1Flat(), "zennit"),
    lrp("EpsilonGammaBox", compat.zennit.EpsilonGammaBox(-1.5, 1.5), "zennit"),
    lrp("LRP", compat.captum.LRP(), "captum"),
    lrp("gamma", composites.DynamicLRP(gamma=0.25), "dynamicLRP"),
)
ATTENTION = (
    lrp("Default", composites.Default()),
    lrp("Proportional", composites.Proportional()),
    lrp("AttnLRP", composites.AttnLRP()),
    against("AttnLRP, against the baseline", composites.AttnLRP()),
    against("AttnLRP, along the path", composites.AttnLRP(), nodes=6),
    lrp("CPLRP", composites.CPLRP()),
    against("CPLRP, against the baseline", composites.CPLRP()),
    lrp("CPLRP, gates held", composites.CPLRP(hold_gates=True)),
    lrp("AttnLRPGamma", composites.AttnLRPGamma()),
    lrp("CPLRPGamma", composites.CPLRPGamma()),
    lrp("AttnLRP", compat.lxt.AttnLRP(), "LXT"),
    lrp("CP-LRP", compat.lxt.CPLRP(hold_gates=True), "LXT"),
    lrp("plain", composites.DynamicLRP(), "dynamicLRP"),
    lrp("gamma", composites.DynamicLRP(gamma=0.05), "dynamicLRP"),
    attended("attention rollout", attribution.attention_rollout, "other"),
    attended("relevancy", attribution.attention_relevancy, "Chefer"),
    attended(
        "transformer attribution",
        attribution.transformer_attribution,
        "Chefer",
        composite=compat.chefer.RelProp(),
    ),
)


GATED = compat.lxt.CPLRP(hold_gates=True).on("dense", rules.GeneralizedGamma(0.05))
"""LXT's gamma on top of its rules for a decoder of gated units."""


def methods(name: str) -> tuple[Method, ...]:
    """Those that are compared on a network."""
    if name == "CNN":
        return (*GENERAL, *CONVOLUTIONAL)
    gamma = GATED if name == "decoder" else compat.lxt.CPLRPGamma()
    return (*GENERAL, *ATTENTION, lrp("CP-LRP, gamma", gamma, "LXT"))


# ---- measures --------------------------------------------------------------------

Measures = Mapping[str, np.ndarray]
"""Numbers of each example, by what is measured."""


def measured(at: Setting, explain: Explain, batch: int = 25) -> Callable[..., Any]:
    """The measures of examples, as a function of them."""

    def one(x: Array, target: Array, evidence: Array | None) -> dict[str, Array]:
        relevance = explain(at.params, x, target)
        score = evaluation.logit(functools.partial(at.f, at.params), target)
        curves = [
            evaluation.flipping(
                score,
                x,
                relevance,
                baseline=at.baseline,
                order=order,
                steps=16,
                where=at.counts,
                chunk=17,
            )
            for order in ("morf", "lerf")
        ]
        found = {"ABPC": evaluation.abpc(*curves)}
        if evidence is not None:
            found["evidence"] = evaluation.top_k_accuracy(
                relevance, evidence, where=at.counts
            )
        return found

    def run(inputs: Array, targets: Array, evidence: Array | None) -> dict[str, Array]:
        return jax.lax.map(
            lambda each: one(*each), (inputs, targets, evidence), batch_size=batch
        )

    return run


def measure(at: Setting, method: Method) -> tuple[Measures, float]:
    """(the measures of all examples, seconds that took, compilation included)."""
    start = time.perf_counter()
    run = jax.jit(measured(at, method.make(at)))
    found = jax.device_get(run(at.inputs, at.targets, at.evidence))
    return found, time.perf_counter() - start


# ---- search ----------------------------------------------------------------------

DEPTHS = ((0, 1), (1, 2), (2, 4), (4, 100))
"""Layers by how many lie before them."""


def candidate(name: str, gammas: Array) -> Composite:
    """Generalised gamma by depth, on top of what suits the network."""
    base = composites.Proportional() if name == "CNN" else composites.AttnLRP()
    for depth, gamma in zip(DEPTHS, gammas, strict=True):
        base = base.on("layer", rules.GeneralizedGamma(gamma), depth=depth)
    return base.named("searched")


def search(at: Setting, chosen: slice, count: int = 48) -> tuple[Array, float, float]:
    """(the best gammas, their ABPC on the examples that choose, seconds).

    All candidates are one compiled program: the composite's numbers are its input.
    """
    key = jax.random.key(1)
    logs = jax.random.uniform(key, (count, len(DEPTHS)), minval=-3.0, maxval=0.5)
    off = jax.random.bernoulli(jax.random.fold_in(key, 1), 0.25, logs.shape)
    gammas = jnp.where(off, 0.0, 10.0**logs)
    evidence = None if at.evidence is None else at.evidence[chosen]
    inputs, targets = at.inputs[chosen], at.targets[chosen]

    def value(gammas: Array) -> Array:
        explain = _against(at, candidate(at.name, gammas))
        return measured(at, explain)(inputs, targets, evidence)["ABPC"].mean()

    start = time.perf_counter()
    values = jax.jit(lambda all_: jax.lax.map(value, all_, batch_size=4))(gammas)
    best = int(values.argmax())
    return gammas[best], float(values[best]), time.perf_counter() - start


# ---- the table -------------------------------------------------------------------


def compare(
    name: str, seeds: int, examples: int, folder: Path, show: Callable[[str], None]
) -> dict[str, Any]:
    """All methods on one network: a record."""
    measures: dict[tuple[str, str], list[Measures]] = {}
    seconds: dict[tuple[str, str], float] = {}
    searches = []
    accuracies = []
    for seed in range(seeds):
        at = setting(name, seed, examples, folder)
        accuracies.append(trained.accuracy(trained.TASKS[name], at.params))
        gammas, _, cost = search(at, slice(0, None, 2))
        searches.append({"gammas": np.asarray(gammas).tolist(), "seconds": cost})
        found = against("gamma by depth, searched", candidate(name, gammas))
        for method in (*methods(name), found):
            key = (method.side, method.name)
            result, cost = measure(at, method)
            measures.setdefault(key, []).append(result)
            seconds[key] = seconds.get(key, 0.0) + cost
            show(f"{name} {seed} {key}: ABPC {result['ABPC'].mean():.3f}, {cost:.1f} s")
    rows = []
    for (side, method), results in measures.items():
        both = {k: np.stack([r[k] for r in results]) for k in results[0]}
        row: dict[str, Any] = {"side": side, "method": method}
        for k, v in both.items():
            shown = v[:, 1::2].astype(float)
            row[k] = [shown.mean(), 1.96 * shown.std() / np.sqrt(shown.size)]
            row[f"{k}, chooses"] = float(v[:, 0::2].mean())
        row["seconds"] = seconds[side, method]
        row["each"] = both["ABPC"][:, 1::2].astype(float).round(5).tolist()
        rows.append(row)
    return {
        "task": name,
        "accuracies": accuracies,
        "examples": seeds * examples // 2,
        "searches": searches,
        "rows": rows,
        "verdict": verdict(rows),
    }


def verdict(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Our best against the best rules of a peer, and against the best that is not LRP.

    The difference of their ABPC, paired. The examples that choose decide which are the
    best.
    """

    def best(sides: Callable[[str], bool]) -> Mapping[str, Any]:
        mine = [r for r in rows if sides(r["side"])]
        return max(mine, key=lambda r: r["ABPC, chooses"])

    us = best(lambda side: side == "jaxlrp")
    found: dict[str, Any] = {"ours": us["method"]}
    rivals = {
        "peer": best(lambda side: side not in ("jaxlrp", "other")),
        "other": best(lambda side: side == "other"),
    }
    for kind, them in rivals.items():
        gap = np.ravel(us["each"]) - np.ravel(them["each"])
        error = 1.96 * gap.std() / np.sqrt(gap.size)
        found[kind] = f"{them['side']}: {them['method']}"
        found[f"difference to {kind}"] = [float(gap.mean()), float(error)]
    return found


def table(record: Mapping[str, Any]) -> str:
    """The rows of a network, the most faithful first."""
    tokens = "evidence" in record["rows"][0]
    head = ["method", "side", "ABPC", *(["evidence"] if tokens else [])]
    lines = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for row in sorted(record["rows"], key=lambda r: -r["ABPC"][0]):
        mean, error = row["ABPC"]
        line = [row["method"], row["side"], f"{mean:.2f} ± {error:.2f}"]
        if tokens:
            line.append(f"{100 * row['evidence'][0]:.1f} %")
        lines.append(line)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


INTRODUCTION = """<!-- Written by `make faithfulness` (benchmarks/faithfulness.py). -->

# Faithfulness

Which explanations say what a network does? Four small networks are trained here, three
times each: a CNN and a ViT on scikit-learn's digits, and an encoder (like BERT) and a
decoder (like LLaMA) on made-up questions. A question's text has eight facts and eight
words that say nothing; the answer rests on one known token, the evidence.

- *ABPC*: units are replaced in ascending and in descending order of relevance; the area
  between the two curves of the predicted class's logit, the mean gap in logits. Units
  are pixels (CNN), patches of 2 x 2 (ViT) or tokens; the replacement is the mean image,
  or the mean embedding of words that say nothing. See [Evaluation](evaluation.md).
- *evidence*: how often the token of the highest relevance is the evidence. By chance
  it is one in 16.
- *side*: `jaxlrp`; the library whose rules these are, as `jaxlrp.compat` has them; or
  *other*, what is not LRP. `make peers` runs zennit, captum and LXT themselves on these
  networks and examples: relevances of units differ by at most 5e-15 of the largest, and
  by 5e-7 where the peer alone has a stabiliser (captum's max pooling, LXT's gamma).

Means over examples of all three, with 1.96 standard errors. Half of the examples choose
the numbers of the search and the best method of each side. The other half is shown.

*DeepLIFT* is `attribution.deep_lift`: difference quotients to the baseline, step by
step, through attention, gates and normalisers too, at the price of two forward passes
and one backward. *Against the baseline* is LRP of the difference to what units are
replaced by, `d` in `f(baseline + d)`: what equals the baseline has no relevance. *Along
the path* is its mean over six points on the way there, LRP in place of integrated
gradients' gradient. *Searched*: one compiled program tries 48 settings of gamma by
depth, by `vmap`, and takes the one with the highest ABPC.
"""

PICTURES = """## Pictures

`python -m benchmarks.faithfulness_figures` draws them.

![Curves of flipping, four networks](images/faithfulness_curves.png)

*Mean logit of the predicted class over the examples shown; the number is the area.
Hatched: negative. These networks were trained once more, of the same seeds: areas
differ from the tables' by up to 0.1, those of random orders by up to 0.7.*

![Digits under methods of explaining a ViT](images/faithfulness_vit.png)

*Each map on its own scale, printed below it. Above a map of patches is its own ABPC,
above a column the mean over all. Pixels, and their sums over patches, which are what
is removed; rollout and relevancy know patches only. The digits are the first of the
classes in order, and last the one whose two highest classes are closest, explained for
either: rollout shows the same map twice. LRP marks paper around the 6, which the mean
image takes away when it is the baseline. Single maps vary more than the methods' means:
do not rank by eye.*

![Attention and its relevance](images/faithfulness_attention.png)

*First text shown, first seed. Above: attention, mean over heads, dark is the map's
largest. Below: its relevance under AttnLRP, sum over heads, in logits, one scale for
both layers. Framed: where the question looks at the evidence. Attention is spread over
rows that the answer does not use; relevance says which entry of which layer the answer
rests on. The percentages are of all three networks: within the question's own rows
attention finds the evidence, too, less often. (The decoder's 0 % is its first token,
which can see only itself.) Which layer of the encoder looks it up differs among the
three.*

![A question, explained](images/faithfulness_text.png)

*`G=10` is a fact, `G?` the question, a dash a word that says nothing. Each row
on its own scale, without the question, which is not ranked. Next to a method: how often
the evidence comes first. That this text is easy for nearly all says
little; the percentages count.*
"""

TRIED = """## What was tried

- On a network of ReLUs LRP-0 is gradient times input. Its path integral is integrated
  gradients, and so is *along the path*: they agree in the first table. Rules that
  separate signs (z-plus, alpha-beta) lose to both on these small networks, whose scores
  contain much that cancels.
- Most of the gain on images is the baseline's. A pixel that equals the baseline
  changes nothing when it is replaced, and has relevance only in methods that know the
  baseline.
- On the ViT integrated gradients win over every rule of LRP, though the gradient itself
  is next to nothing. Tried in place of AttnLRP's rules, on 50 examples of one network,
  where it has 4.5 against the baseline and integrated gradients have 7.2: a Taylor
  expansion of normalisers (4.3), of activations (4.6), both factors of attention in
  full (4.8), all of it, which is the gradient (1.9), noise (4.6). Along the path
  AttnLRP has 4.6, with Taylor on normalisers 3.3, on activations 4.4, on both 6.5, and
  with both factors of attention in full as well it is integrated gradients. So what
  matters is not attention's rule but that the path from the baseline adds up to the
  difference, which identity on activations and held normalisers give up.
- So the rules were given a reference: `(y - y0) / (x - x0)` at each activation, half of
  the difference to each factor of a product, normalisers and softmax included. That is
  DeepLIFT, through every operation. It has what the path has, at one point, and is the
  best on the ViT; on the other networks it is level with the best. A softmax has to
  subtract the maximum of its own input from the reference, too: with the other's, `exp`
  may have any size there, and the quotients cancel badly. captum's DeepLift, which
  knows modules, has 15.17 on the CNN; it has no rule for products and normalisers.
- The default is chosen for trained networks of another size
  ([Real networks](real-networks.md)). Here it loses 0.2 to LRP-0 on the CNN, where all
  that cancels counts, and nothing elsewhere. Bounds for the shifts of layer norms, like
  those for sums, would cost it 0.4 on the ViT.
- In text all kinds of LRP find the evidence, and the gradient does not: after a
  normalisation it is orthogonal to what it is multiplied with.
"""


def render(records: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    parts = [INTRODUCTION]
    for record in records:
        reached = ", ".join(f"{100 * a:.1f} %" for a in record["accuracies"])
        seconds = ", ".join(f"{s['seconds']:.0f} s" for s in record["searches"])
        parts.append(f"## {record['task']}\n")
        parts.append(
            f"Accuracy {reached}; {record['examples']} examples; the search took "
            f"{seconds}.\n"
        )
        parts.append(table(record))
        parts.append(_words(record["verdict"]))
    return "\n".join([*parts, PICTURES, TRIED])


def _words(found: Mapping[str, Any]) -> str:
    """The verdict as a sentence."""
    said = []
    for kind in ("peer", "other"):
        gap, error = found[f"difference to {kind}"]
        said.append(f"{gap:+.2f} ± {error:.2f} to {found[kind].replace('other: ', '')}")
    return f"Our best, *{found['ours']}*, paired: {said[0]}; {said[1]}.\n"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faithfulness")
    choices = list(trained.TASKS)
    parser.add_argument("--tasks", nargs="+", default=choices, choices=choices)
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--examples", type=int, default=100, help="of each seed")
    parser.add_argument("--trained", type=Path, default=trained.KEPT)
    parser.add_argument("--record", type=Path, default=RECORD)
    parser.add_argument("--page", action="store_true", help="write the page only")
    parser.add_argument("--out", type=Path, default=PAGE, help="default: %(default)s")
    options = parser.parse_args(argv)
    if options.page:
        records = json.loads(options.record.read_text())
        _files.write(options.out, render(records).encode(), folders=True)
        return
    kept = json.loads(options.record.read_text()) if options.record.exists() else []
    records = {record["task"]: record for record in kept}
    for name in options.tasks:
        show = functools.partial(print, flush=True)
        record = compare(name, options.seeds, options.examples, options.trained, show)
        records[name] = record
        print(f"\n{name}\n\n{table(record)}\n{record['verdict']}\n", flush=True)
        inorder = [records[task] for task in choices if task in records]
        gradient_ratio.write(options.record, inorder)
        if len(inorder) == len(choices):
            _files.write(options.out, render(inorder).encode(), folders=True)


if __name__ == "__main__":
    main()
