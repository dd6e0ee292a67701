"""Writes `docs/migrating.md` from the tables of `jaxlrp.compat`.

python docs/generate_migrating.py            write the page
python docs/generate_migrating.py --check    fail if the page is out of date
"""

import dataclasses
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from generated import table, write_or_check

from jaxlrp.compat import Row

PAGE = Path(__file__).with_name("migrating.md")

HEAD = """\
<!-- Written by docs/generate_migrating.py from the tables of jaxlrp.compat. -->

# Coming from another package

`jaxlrp.compat` has a module for each of the packages below: functions with its names
and defaults that return rules and composites of this one. So the first explanation can
have the numbers you know, and the second one your own rules.

Three things are different whatever you come from:

- **A function, not a model.** `jaxlrp.lrp(f)` is a function like `jax.grad(f)`. It
  compiles under `jax.jit`, and nothing is hooked, patched or changed.
- **Roles, not layer types.** What a rule applies to is recovered from the program:
  `dense`, `convolution`, `sum`, `softmax`, and so on. A functional `x + y` is a sum
  like any other. `jaxlrp.plan(f)(*args)` shows which is which.
- **The seed is the output's value** at the target, the highest score by default, so
  that relevances add up to it. A callable `target` gives another seed.

The examples below explain this network:

```python
import jax
import jax.numpy as jnp
import jaxlrp
from jaxlrp import compat

keys = jax.random.split(jax.random.key(0), 3)
params = {
    "kernel": jax.random.normal(keys[0], (3, 3, 3, 4)) / 5,
    "weights": jax.random.normal(keys[1], (4, 10)) / 2,
}
x = jax.random.uniform(keys[2], (2, 8, 8, 3), minval=-1.0)


def f(params, x):
    h = jax.lax.conv_general_dilated(
        x, params["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jax.nn.relu(h).mean((1, 2)) @ params["weights"]
```

`make peers` runs zennit, captum and LXT themselves alongside this package and prints
how far apart the relevances are: every rule on networks with fresh random weights;
LXT's patches on Hugging Face's GPT-2, Qwen3 and Gemma 3; and on the trained networks of
[Faithfulness](faithfulness.md) (a CNN, a ViT, BERT, LLaMA) the methods of its tables.
"""


@dataclasses.dataclass(frozen=True)
class Section:
    """One package: its module here, its title, its code and ours."""

    module: str
    title: str
    theirs: str
    ours: str
    remarks: str


SECTIONS = (
    Section(
        "zennit",
        "zennit",
        """\
composite = EpsilonPlusFlat(canonizers=[SequentialMergeBatchNorm()])
with Gradient(model, composite) as attributor:
    output, relevance = attributor(data, torch.eye(10)[[3, 5]])""",
        """\
composite = compat.zennit.EpsilonPlusFlat(canonizers=["SequentialMergeBatchNorm"])
explain = jax.jit(jaxlrp.value_and_lrp(f, composite, target=jnp.array([3, 5])))
output, relevance = explain(params, x)""",
        "zennit starts from what `attr_output` returns; `target=lambda out: ...` does "
        "too. Modules that no line of a composite names keep their gradient in zennit; "
        "here every role has a rule.",
    ),
    Section(
        "captum",
        "captum",
        """\
model.conv.rule = GammaRule(gamma=0.25)
relevance, delta = LRP(model).attribute(x, target=3, return_convergence_delta=True)""",
        """\
composite = compat.captum.LRP().on("convolution", compat.captum.GammaRule(0.25))
relevance = jax.jit(jaxlrp.lrp(f, composite, target=3))(params, x)
print(jaxlrp.audit(f, composite, target=3)(params, x))""",
        "The audit says how much relevance every step absorbed, where the "
        "convergence delta is one number.",
    ),
    Section(
        "lxt",
        "LXT",
        """\
monkey_patch(modeling_llama)
embeddings = model.get_input_embeddings()(ids).requires_grad_()
logits = model(inputs_embeds=embeddings).logits
logits[0, -1].max().backward()
relevance = (embeddings * embeddings.grad).sum(-1)""",
        """\
def attend(x):  # from embeddings to scores
    weights = jax.nn.softmax(x @ x.swapaxes(-1, -2))
    return (weights @ x).mean(1)


embeddings = x.reshape(2, 64, 3)
explain = jax.jit(jaxlrp.lrp(attend, compat.lxt.AttnLRP()))
relevance = explain(embeddings).sum(-1)""",
        "No model is patched, so there is no list of supported ones: Flax, Equinox or "
        "plain functions work.",
    ),
    Section(
        "chefer",
        "Transformer-Explainability (Chefer et al.)",
        """\
attribution = LRP(model).generate_LRP(
    x, start_layer=1, method="transformer_attribution"
)""",
        """\
explain = jaxlrp.lrp(
    attend,
    compat.chefer.RelProp(),
    target=compat.chefer.one_hot,
    capture="attention_map",
)
relevance, maps = jax.jit(explain)(embeddings)
print({name: map.shape for name, map in maps.items()})""",
        "The model is an ordinary function, not rewritten with layers that have a "
        "`relprop`. `jaxlrp.attribution` has the rollout.",
    ),
    Section(
        "innvestigate",
        "iNNvestigate",
        """\
analyzer = innvestigate.create_analyzer("lrp.sequential_preset_a", model)
relevance = analyzer.analyze(x)""",
        """\
composite = compat.innvestigate.LRPSequentialPresetA()
relevance = jax.jit(jaxlrp.lrp(f, composite))(params, x)""",
        "Explain scores, not softmax outputs.",
    ),
    Section(
        "lrp_toolbox",
        "LRP toolbox",
        """\
prediction = network.forward(x)
relevance = network.lrp(prediction * mask, "epsilon", 0.01)""",
        """\
composite = compat.lrp_toolbox.lrp("epsilon", 0.01)
relevance = jax.jit(jaxlrp.lrp(f, composite))(params, x)""",
        "The seed of `network.lrp` is any array: `jaxlrp.relprop` takes one, too.",
    ),
    Section(
        "relevancepropagation_jl",
        "RelevancePropagation.jl",
        """\
analyzer = LRP(canonize(model), EpsilonPlusFlat())
expl = analyze(input, analyzer)""",
        """\
composite = compat.relevancepropagation_jl.EpsilonPlusFlat(canonize=True)
relevance = jax.jit(jaxlrp.lrp(f, composite))(params, x)""",
        "The output starts with relevance one there.",
    ),
    Section(
        "dynamiclrp",
        "dynamicLRP",
        """\
engine = LRPEngine(use_gamma=True, conv_gamma=100.0, mm_gamma=1.0)
checkpoints, parameters = engine.run(logits)""",
        """\
composite = compat.dynamiclrp.LRPEngine(use_gamma=True)
explain = jax.jit(jaxlrp.lrp(f, composite, argnums=(0, 1)))
parameters, relevance = explain(params, x)""",
        "A primitive without a rule is refused here where relevance would have to "
        "pass it; the engine passes it on unchanged. By default each example starts "
        "from its own highest score.",
    ),
)


PATCHING = """\
## TransformerLens, nnsight, RelP

These have hooks on torch models; RelP is a fork of the first. [Patching](patching.md)
works on any function that JAX can trace, layers in a scan included.

"""

PATCHING_ROWS = (
    (
        "`model.run_with_cache(tokens)`",
        "a trace with `.output.save()`",
        "`run_with_cache`",
        "`patching.values(f, sites)(params, ids)`",
    ),
    (
        "names as `blocks.3.attn.hook_z`",
        "modules",
        "as TransformerLens",
        "a tag or scope, all layers stacked: `patching.site('z', axes)`",
    ),
    (
        "`run_with_hooks(..., fwd_hooks=[...])`",
        "assignment to `.output`",
        "`run_with_hooks`",
        "`patching.patch(f, sites)(new, params, ids)`",
    ),
    (
        "`patching.get_act_patch_resid_pre` and its kin",
        "a loop of traces",
        "as TransformerLens",
        "`patching.exact(f, sites, metric)`",
    ),
    (
        "gradients by `bwd_hooks`",
        "`.grad` in `with metric.backward():`",
        "`bwd_hooks` with `cfg.use_lrp = True`",
        "`patching.multipliers(f, sites, composite, metric)`",
    ),
    (
        "`tools.analysis.attribution_patching`, or clean less corrupt, times the "
        "gradient",
        "clean less corrupt, times `.grad`",
        "times LRP's coefficient",
        "`patching.effects(f, sites, None, metric)`, or with `composites.RelP()`",
    ),
    (
        "",
        "",
        "`cfg.LRP_rules`: `LN-rule`, `Identity-rule`, `Half-rule`",
        "`composites.RelP()`; others by `Composite.on`",
    ),
    (
        "the same with `granularity='edge'`",
        "",
        "",
        "`patching.edges(f, sources, targets, composite, metric)`; "
        "`patching.graph` prunes them",
    ),
    (
        "ablation by hooks",
        "by assignment",
        "by hooks",
        "`patching.circuit(f, sites, ablate=)`",
    ),
)


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for section in SECTIONS:
        module = importlib.import_module(f"jaxlrp.compat.{section.module}")
        parts.append(f"## {section.title}")
        parts.append(f"```text\n{section.theirs}\n```\n\nbecomes")
        parts.append(f"```python\n{section.ours}\n```")
        parts.append(section.remarks)
        parts.append(names(section.module, module.TABLE))
    header = ("TransformerLens", "nnsight", "RelP", "here")
    parts.append(PATCHING + table(header, PATCHING_ROWS))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def names(module: str, rows: Sequence[Row]) -> str:
    """The peer's names, ours by its name and without it."""
    header = ("there", f"`jaxlrp.compat.{module}`", "that is", "differs")
    lines = [
        (
            code(row.name),
            code(row.call.removeprefix(f"{module}.")),
            code(row.ours),
            row.differs,
        )
        for row in rows
    ]
    return table(header, lines)


def code(text: str) -> str:
    """Between backticks, unless there is nothing."""
    return f"`{text}`" if text else ""


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page))
