"""Writes what `docs/rules.md` measures, and the picture on it.

    python docs/generate_rules.py            write the tables and the picture
    python docs/generate_rules.py --tables   write the tables only
    python docs/generate_rules.py --check    fail if the tables are out of date

The tables are between two marks in the page. They are computed in float64, on arrays
from NumPy's generator, and printed with two decimals, so that they are the same
everywhere. The picture needs the demo's network, which is trained for it.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import jaxlrp
from jaxlrp import _files, composites, rules
from jaxlrp.composites import Composite
from jaxlrp.rules import Rule

PAGE = Path(__file__).with_name("rules.md")
PICTURE = PAGE.parent / "images" / "rules.png"
BEGIN, END = "<!-- measured: begin -->\n", "<!-- measured: end -->\n"

Promise = Literal["conserves", "but for bias", "no"]
TOLERANCE = 1e-3  # what a stabiliser of 1e-6 may take


@dataclasses.dataclass(frozen=True)
class LayerCase:
    """A rule of layers: what it promises, and where in a network it belongs."""

    rule: Rule
    promise: Promise
    first: bool = False


@dataclasses.dataclass(frozen=True)
class RoleCase:
    """A rule of another role on a small function of that role."""

    role: str
    rule: Rule
    conserves: bool
    remark: str = ""


LAYER_CASES = (
    LayerCase(rules.LRP0(), "but for bias"),
    LayerCase(rules.Epsilon(), "but for bias"),
    LayerCase(rules.Epsilon(0.1), "no"),
    LayerCase(rules.Norm(), "but for bias"),
    LayerCase(rules.Gamma(0.25), "but for bias"),
    LayerCase(rules.GeneralizedGamma(0.25), "but for bias"),
    LayerCase(rules.AlphaBeta(2.0, 1.0), "but for bias"),
    LayerCase(rules.ZPlus(), "but for bias"),
    LayerCase(rules.Absolute(), "conserves"),
    LayerCase(rules.WSquare(), "but for bias", first=True),
    LayerCase(rules.Flat(), "conserves", first=True),
    LayerCase(rules.Flat(balanced=True), "conserves", first=True),
    LayerCase(rules.ZBox(-1.0, 1.0), "conserves", first=True),
    LayerCase(rules.TopK(rules.Epsilon(), 0.5), "no"),
    LayerCase(rules.Gradient(), "no"),
)

BIASED = (
    rules.Epsilon,
    rules.Gamma,
    rules.GeneralizedGamma,
    rules.AlphaBeta,
    rules.ZPlus,
    rules.WSquare,
)
WITHOUT_LOSS = ("ignore", "share")  # of `BIASES`, those under which nothing stays

ROLE_CASES = (
    RoleCase("sum", rules.LRP0(), True),
    RoleCase("sum", rules.Norm(), True),
    RoleCase("sum", rules.Absolute(), True),
    RoleCase("sum", rules.Rescaled(), True),
    RoleCase("sum", rules.UniformSplit(), True),
    RoleCase("sum", rules.Pass(), False, "each operand gets all"),
    RoleCase("sum", rules.Gradient(), False, "the same"),
    RoleCase("average", rules.LRP0(), True),
    RoleCase("average", rules.Norm(), True),
    RoleCase("average", rules.Absolute(), True),
    RoleCase("average", rules.AlphaBeta(2.0, 1.0), True),
    RoleCase("average", rules.Flat(), True),
    RoleCase("average", rules.Gradient(), True, "shares evenly"),
    RoleCase("selection", rules.WinnerTakesAll(), True),
    RoleCase("selection", rules.WinnerTakesAll(ties="share"), True),
    RoleCase("selection", rules.Norm(), True),
    RoleCase("selection", rules.Flat(), True),
    RoleCase("activation", rules.Pass(), True),
    RoleCase("activation", rules.Taylor(), False, "gradient times input"),
    RoleCase("activation", rules.Guided(), False, "a gradient"),
    RoleCase("activation", rules.Deconv(), True, "of positive relevance"),
    RoleCase("activation", rules.BetaSmooth(10.0), False, "a gradient"),
    RoleCase("batch_norm", rules.Merge(), False, "its shift is the layer's bias"),
    RoleCase("batch_norm", rules.Pass(), True),
    RoleCase("batch_norm", rules.LRP0(), False, "its shifts take their part"),
    RoleCase("normaliser", rules.Detach(), False, "its shift takes its part"),
    RoleCase("normaliser", rules.Pass(), True),
    RoleCase("normaliser", rules.Taylor(), False, "signal and statistic get all, each"),
    RoleCase("quotient", rules.Detach(), True),
    RoleCase("quotient", rules.Taylor(), False, "the divisor gets the negative"),
    RoleCase("softmax", rules.Taylor(), False, "an expansion"),
    RoleCase("softmax", rules.Pass(), True),
    RoleCase("bilinear", rules.UniformSplit(), True),
    RoleCase("bilinear", rules.Taylor(), False, "each factor gets all"),
    RoleCase("product", rules.UniformSplit(), True),
    RoleCase("product", rules.SignalTakesAll(), True),
    RoleCase("product", rules.Absolute(), True),
    RoleCase("product", rules.Taylor(), False, "each factor gets all"),
    RoleCase("scale", rules.LRP0(), True),
    RoleCase("scale", rules.Absolute(), False, "the constant takes its part"),
    RoleCase("shift", rules.LRP0(), False, "the constant takes its part"),
    RoleCase("shift", rules.Absolute(), False, "the same, by size"),
    RoleCase("shift", rules.Pass(), True),
)


# What is measured on


def draw(seed: int, *shape: int) -> np.ndarray:
    """Float64[ndarray, shape], normally distributed."""
    return np.random.default_rng(seed).standard_normal(shape)


def seeds(y: jax.Array) -> jax.Array:
    """Relevances of the output, from 1 to 2: positive and no two the same."""
    return jnp.linspace(1.0, 2.0, y.size, dtype=y.dtype).reshape(y.shape)


def convolution(x: jax.Array, kernel: Any) -> jax.Array:
    """ "height width channels", padded with zeros to the same height and width."""
    return jax.lax.conv_general_dilated(
        x[None],
        jnp.asarray(kernel),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )[0]


def dense_with_bias(x: jax.Array) -> jax.Array:
    return x @ draw(1, 6, 4) + draw(46, 4) / 4


def dense(x: jax.Array) -> jax.Array:
    return x @ draw(1, 6, 4)


def padded(x: jax.Array) -> jax.Array:
    return convolution(x, draw(4, 3, 3, 2, 3))


def batch_norm(x: jax.Array) -> jax.Array:
    """In inference, after a dense layer."""
    centred = dense(x) - draw(30, 4) / 4
    return centred * (1 + draw(31, 4) / 4) + draw(32, 4) / 4


def layer_norm(x: jax.Array) -> jax.Array:
    mean = x.mean(-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(-1, keepdims=True)
    y = (x - mean) * jax.lax.rsqrt(variance + 1e-3)
    return y * (1 + draw(5, x.shape[-1]) / 4) + draw(6, x.shape[-1]) / 8


def network(x: jax.Array) -> jax.Array:
    """The demo's kind of network: two convolutions, the second one residual."""
    h = layer_norm(convolution(x, draw(7, 3, 3, 2, 3) / 3) + draw(8, 3) / 8)
    h = jax.nn.gelu(h)
    h = h + jax.nn.gelu(convolution(h, draw(9, 3, 3, 3, 3) / 3) + draw(10, 3) / 8)
    window = (2, 2, 1)
    h = jax.lax.reduce_window(h, -jnp.inf, jax.lax.max, window, window, "VALID")
    h = jax.nn.gelu(h.reshape(-1) @ draw(11, 27, 8) / 4 + draw(12, 8) / 8)
    return h @ draw(13, 8, 4) / 2 + draw(14, 4) / 8


Function = tuple[Callable[..., jax.Array], tuple[np.ndarray, ...]]

LAYERS: dict[str, Function] = {
    "dense, bias": (dense_with_bias, (np.tanh(draw(3, 6)),)),
    "dense": (dense, (np.tanh(draw(3, 6)),)),
    "padded convolution": (padded, (np.tanh(draw(15, 6, 6, 2)),)),
}
NETWORK: Function = (network, (np.tanh(draw(15, 6, 6, 2)),))

FUNCTIONS: dict[str, Function] = {
    "sum": (lambda a, b: a + b, (draw(16, 5), draw(17, 5))),
    "average": (lambda x: x.mean(-1), (draw(18, 3, 4),)),
    "selection": (lambda x: x.max(-1), (draw(18, 3, 4),)),
    "activation": (jax.nn.gelu, (draw(19, 6),)),
    "batch_norm": (batch_norm, (np.tanh(draw(3, 6)),)),
    "normaliser": (layer_norm, (draw(20, 2, 5),)),
    "quotient": (lambda x: x[0] / x[1], (draw(21, 2, 4),)),
    "softmax": (lambda x: jax.nn.softmax(x), (draw(23, 2, 4),)),
    "bilinear": (lambda a, b: a @ b, (draw(24, 2, 3), draw(25, 3, 2))),
    "product": (lambda x: x[0] * jax.nn.sigmoid(x[1]), (draw(26, 2, 5),)),
    "scale": (lambda x: x * draw(28, 2, 5), (draw(29, 5),)),
    "shift": (lambda x: x + draw(28, 2, 5) / 4, (draw(29, 5),)),
}


# Measuring


def ratio(f: Callable[..., Any], composite: Composite, *args: Any) -> jax.Array:
    """`sum(R_in) / sum(R_out)` for relevances `seeds` of the output."""
    numbers = tuple(range(len(args)))
    out, pull = jaxlrp.relprop(f, *args, composite=composite, argnums=numbers)
    given = seeds(out)
    return sum(r.sum() for r in jax.tree.leaves(pull(given))) / given.sum()


def ratios(asked: Sequence[tuple[Function, Composite]]) -> list[float]:
    """All of them in one compiled program."""
    inputs = [args for (_, args), _ in asked]

    @jax.jit
    def every(inputs: list[tuple[jax.Array, ...]]) -> list[jax.Array]:
        pairs = zip(asked, inputs, strict=True)
        return [ratio(f, composite, *args) for ((f, _), composite), args in pairs]

    return [float(r) for r in every(inputs)]


def of_layers() -> list[list[float]]:
    """For each of `LAYER_CASES` the ratio on each of `LAYERS`."""
    every = [composites.Uniform(case.rule) for case in LAYER_CASES]
    found = iter(ratios([(f, c) for c in every for f in LAYERS.values()]))
    return [[next(found) for _ in LAYERS] for _ in every]


def of_biases() -> list[list[float]]:
    """For each of `BIASED` the ratio under each of `BIASES`."""
    every = [composites.Uniform(k(bias=b)) for k in BIASED for b in rules.BIASES]
    found = iter(ratios([(LAYERS["dense, bias"], c) for c in every]))
    return [[next(found) for _ in rules.BIASES] for _ in BIASED]


def of_roles() -> list[float]:
    """For each of `ROLE_CASES` the ratio on the role's function."""
    return ratios(
        [(FUNCTIONS[c.role], Composite("one").on(c.role, c.rule)) for c in ROLE_CASES]
    )


def of_network(case: LayerCase) -> dict[str, float]:
    """Where the highest score's relevance goes, in parts of it."""
    f, args = NETWORK
    composite = composites.Uniform(case.rule)
    if case.first:
        composite = composites.Epsilon().on("layer", case.rule, first=True)
    audit = jaxlrp.audit(f, composite)(*map(jnp.asarray, args))
    stays = audit.absorbed
    layers = sum(stays.pop(name) for name in ("bias", "stabiliser", "one-sided"))
    constants = stays.pop("constants")
    parts = [audit.total_in, layers, constants, sum(stays.values())]
    names = ("input", "layers", "constants", "other")
    return {n: p / audit.total_out for n, p in zip(names, parts, strict=True)}


# The page


def number(value: float) -> str:
    """Two decimals; never minus zero."""
    return f"{round(value, 2) + 0.0:.2f}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]], words: int) -> str:
    """A table in markdown; the columns after the first `words` are numbers."""
    marks = ["---"] * words + ["---:"] * (len(header) - words)
    lines = [header, marks, *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(rule: Any) -> str:
    """As one writes it, without options that have their default."""
    parts = []
    for field in dataclasses.fields(rule):
        value = getattr(rule, field.name)
        optional = field.kw_only or field.name in ("epsilon", "root")
        if optional and value == field.default:
            continue
        text = shown(value) if isinstance(value, Rule) else repr(value)
        parts.append(f"{field.name}={text}" if field.kw_only else text)
    return f"{type(rule).__name__}({', '.join(parts)})"


def layer_table() -> str:
    rows = [
        (f"`{shown(case.rule)}`", case.promise, *map(number, found))
        for case, found in zip(LAYER_CASES, of_layers(), strict=True)
    ]
    return table(("rule", "promise", *LAYERS), rows, 2)


def network_table() -> str:
    rows = []
    for case in LAYER_CASES:
        name = f"`{shown(case.rule)}`" + (", first" if case.first else "")
        rows.append((name, *map(number, of_network(case).values())))
    return table(("rule", "input", "layers", "constants", "other"), rows, 1)


def bias_table() -> str:
    rows = [
        (f"`{kind.__name__}`", *map(number, found))
        for kind, found in zip(BIASED, of_biases(), strict=True)
    ]
    return table(("rule", *(f'`"{b}"`' for b in rules.BIASES)), rows, 1)


def role_table() -> str:
    rows = [
        (
            f"`{case.role}`",
            f"`{shown(case.rule)}`",
            ("conserves" if case.conserves else "no")
            + (f": {case.remark}" if case.remark else ""),
            number(found),
        )
        for case, found in zip(ROLE_CASES, of_roles(), strict=True)
    ]
    return table(("role", "rule", "promise", "in / out"), rows, 3)


TEXT = """\
Rules of layers, on a dense layer with a bias, on one without, and on a convolution
without one, padded with zeros:

{layers}

Where the relevance of a network's highest score goes, in parts of it:

{network}

What becomes of the bias's part, on the dense layer with a bias:

{biases}

Rules of other roles, each on a small function of that role:

{roles}
"""


def measured() -> str:
    """The tables, as they are between the marks."""
    with jax.enable_x64(True):
        return TEXT.format(
            layers=layer_table(),
            network=network_table(),
            biases=bias_table(),
            roles=role_table(),
        )


def with_block(page: str, block: str) -> str:
    """The page with the block between its marks."""
    before, found, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not (found and ended):
        raise ValueError(f"{PAGE.name} has no marks {BEGIN.strip()}, {END.strip()}")
    return f"{before}{BEGIN}\n{block}\n{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write what docs/rules.md measures.")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--check", action="store_true", help="compare, do not write")
    choice.add_argument("--tables", action="store_true", help="no picture")
    options = parser.parse_args(arguments)
    page = PAGE.read_text()
    new = with_block(page, measured())
    if options.check:
        if page != new:
            print(f"{PAGE.name} is out of date: run python docs/generate_rules.py")
        return int(page != new)
    _files.write(PAGE, new.encode())
    if not options.tables:
        from rules_picture import picture  # trains a network, which takes a while

        _files.write(PICTURE, picture())
    return 0


if __name__ == "__main__":
    sys.exit(main())
