"""Writes `docs/primitives.md` from the rule book, family by family.

    python docs/generate_primitives.py            write the page
    python docs/generate_primitives.py --check    fail if the page is out of date

The order and the grouping are those of the modules in `primitives/`.
"""

import ast
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from generated import table, write_or_check

from jaxlrp import primitives
from jaxlrp.primitives import Entry, Kind

PAGE = Path(__file__).with_name("primitives.md")

FAMILIES = (
    "structural",
    "elementwise",
    "contraction",
    "reduction",
    "selection",
    "indexing",
    "transform",
    "sparse",
    "collective",
    "control",
    "state",
    "kernels",
    "internal",
    "inert",
)

KINDS = {
    Kind.STRUCTURAL: "Copies, moves or drops elements. Relevance follows them. Exact.",
    Kind.ELEMENTWISE: "`out[i] = phi(a[i], b[i], ...)`. Its [role](rules.md#roles) "
    "depends on which operands carry relevance and on the equations around it.",
    Kind.LINEAR: "Linear, without weights. Relevance is shared in proportion. Exact.",
    Kind.CONTRACTION: "Signal times weights: a layer. Signal times signal: a bilinear "
    "product.",
    Kind.SELECTION: "Picks elements by value. The winner takes all. Exact.",
    Kind.HOMOGENEOUS: "Of a degree in its operands, as a product. Gradient times input "
    "over the degree, which is an equal part to each factor, and conserves.",
    Kind.TAYLOR: "Nonlinear and not elementwise. Gradient times input, which need not "
    "conserve.",
    Kind.INERT: "Carries no relevance: integers, comparisons, randomness, barriers.",
    Kind.CALL: "Calls a program once. It is read as if it were in the caller.",
    Kind.CONTROL: "Loops, branches, rematerialisation. Emitted again with their bodies "
    "rewritten.",
    Kind.CUSTOM: "Brings a rule of its own, by `custom_lrp` or `register_rule`.",
    Kind.REFUSED: "Cannot be explained. `lrp` raises `UnexplainedPrimitiveError` where "
    "relevance would have to pass.",
}

CLAIMS = ("linear in", "result >= 0", "remarks")

HEAD = """\
<!-- Written by docs/generate_primitives.py. Change the rule book, not this page. -->

# Primitives

The rule book, the folder `primitives/` of the source tree, has an entry for every
primitive that JAX's public modules register, in each version that is supported. An
entry says what kind of map the primitive is. The rules of LRP follow from that, so most
entries are one line. Where relevance meets a primitive without an entry, one of another
package say, `lrp` raises `UnexplainedPrimitiveError` and says what can be done.

What an entry cannot say is what a primitive is *for*. A `mul` may scale a layer, gate a
signal or normalise one. That is recovered from the equations around it, see
[Design](design.md#reading).

`jaxlrp.plan(f)(*args)` shows the primitives of one program and what each of them does.

## Kinds

{kinds}

## Classes

| class | what becomes of relevance |
| --- | --- |
| structural | It follows the elements. Exact. |
| linear | It is shared in proportion, by JAX's transpose. Exact. |
| selection | The element that was chosen takes all. Exact. |
| nonlinear | A rule that conserves, named next to it. |
| Taylor | Gradient times input, which need not conserve. |
| none | It carries none: integers, comparisons, randomness. |
| of its body | As for the equations in it. |
| refused | An error where relevance would have to pass. |

## Families

A row of a table is an entry. *Rule* is the default of the role that the primitive has
on its own; composites choose others. *Linear in* names the operands, counted from 0, in
which the map is linear: all of them together, or each alone while the others are held.
*Result >= 0* says when the result is known to be nonnegative; rules that split by sign
are cheaper after such a value.
"""

TAIL = """\
## Adding a primitive

Take a primitive that JAX gains and that returns `x * sigmoid(x)`:

    enter("swish", Entry(Kind.ELEMENTWISE))

in `primitives/elementwise.py` is all. It is elementwise and linear in nothing, so it is
an activation and passes its relevance on. The other traits that an entry can have:

{traits}

Then run `python docs/generate_primitives.py`, which writes this page, and test
conservation, and agreement with gradient times input where the map is linear.

A primitive of your own package needs no change here: see [rules of one's
own](rules.md#rules-of-ones-own).
"""


def page() -> str:
    """The whole page."""
    rows = [(str(kind), text) for kind, text in KINDS.items()]
    parts = [HEAD.format(kinds=table(("kind", "what relevance does"), rows))]
    for family in FAMILIES:
        module = importlib.import_module(f"jaxlrp.primitives.{family}")
        words = " ".join(inspect.cleandoc(module.__doc__ or "").split())
        rows = [cells(names) for names in entered(inspect.getsource(module))]
        header = ("primitives", "class", "rule", "kind", *CLAIMS)
        parts.append(f"### {family.capitalize()}\n\n{textwrap.fill(words, 88)}")
        parts.append(table(header, rows))
    parts.append(TAIL.format(traits=traits()))
    return "\n\n".join(part.strip() for part in parts) + "\n"


def entered(source: str) -> Iterator[list[str]]:
    """The names in each `enter(names, entry)` of a module, in order."""
    for node in ast.parse(source).body:
        call = node.value if isinstance(node, ast.Expr) else None
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "enter":
            yield ast.literal_eval(call.args[0]).split()


def cells(names: list[str]) -> tuple[str, ...]:
    """The row of primitives that share an entry."""
    entry = primitives.entries()[names[0]]
    shown = ", ".join(f"`{name}`" for name in names)
    return (
        shown,
        entry.treatment,
        rule(entry),
        str(entry.kind),
        linear_in(entry),
        nonnegative(entry),
        "; ".join(remarks(entry)),
    )


def rule(entry: Entry) -> str:
    """The default rule of the primitive on its own, in words."""
    if entry.treatment in ("of its body", "none", "refused", "custom"):
        return ""
    if entry.treatment in ("structural", "selection"):
        return {"structural": "copies", "selection": "winner takes all"}[
            entry.treatment
        ]
    if entry.kind is Kind.CONTRACTION:
        return "the layer's; half to each of two"
    if entry.kind is Kind.TAYLOR:
        return "gradient x input, does not conserve"
    if entry.role == "product":
        return "an equal part to each factor"
    if entry.kind is Kind.HOMOGENEOUS:
        return "gradient x input over the degree"
    if entry.treatment == "linear":
        divides = entry.held({"const_lengths": (1,)}, [True] * 4)
        solves = "; a matrix is held, and alone of degree -1"
        return "in proportion" + (solves if divides else "")
    if entry.is_product:
        return "half to each"
    if entry.is_quotient:
        return "the divisor is held"
    if entry.degree({}, [True] * 2):
        return "identity; of two, gradient x input"
    parameters = entry.held({}, [True] * 3)
    if parameters and entry.linear([i not in parameters for i in range(3)]):
        return "identity; the coefficients take all where they are active"
    return "identity" + ("; parameters are held" if parameters else "")


def linear_in(entry: Entry, count: int = 4) -> str:
    """In which operands the map is linear, found out by asking."""
    alone = list(entry.linear_in(count))
    together = entry.linear([j in alone for j in range(count)])
    if not alone:
        return ""
    if len(alone) == count:
        return "all" if together else "each alone"
    if alone == list(range(1, count)):
        return "all but 0"
    names = [str(i) for i in alone]
    return (" and " if together else " or ").join(names)


def nonnegative(entry: Entry, count: int = 4) -> str:
    """What the operands' signs say of the result's, found out by asking."""

    def ask(known: set[int], power: int = 3) -> bool:
        signs = [i in known for i in range(count)]
        return entry.nonnegative(signs, {"y": power, "new_dtype": "float32"})

    everyone = set(range(count))
    if not ask(everyone):
        return ""
    if ask(set()):
        return "always"
    if all(ask({i}) for i in everyone):
        return "if one operand is"
    if ask({0}):
        even = ask(set(), power=2)
        return "if operand 0 is" + (", or by an even power" if even else "")
    return "if all are" if not ask(everyone - {0}) else "if all but 0 are"


def remarks(entry: Entry) -> Iterator[str]:
    """What else the entry tells the reader of programs."""
    if entry.role:
        yield f"a layer of the role `{entry.role}`"
    if entry.homogeneous([None, None]):
        yield "piecewise linear through zero"
    elif entry.homogeneous([None, 0.0]):
        yield "piecewise linear through zero where the threshold is zero"
    if entry.exponential:
        yield "an exponential, as in softmax"
    if entry.logarithm:
        yield "a logarithm, as in log-softmax"
    if entry.takes_root({"y": 3}):
        yield "makes a statistic a scale"
    elif entry.takes_root({"y": -1}):
        yield "makes a statistic a scale by a negative power"
    if entry.sums:
        yield "an average, and what a statistic begins with"
    if entry.layout is not None:
        yield "axes can be followed through it"
    if entry.reason:
        yield entry.reason


def traits() -> str:
    """The fields of an entry, as its own docstring lists them."""
    text = inspect.cleandoc(Entry.__doc__ or "").partition("Attributes:\n")[2]
    rows: list[list[str]] = []
    for line in text.splitlines():
        if line.startswith("    "):
            rows[-1][1] += " " + line.strip()
        elif line.strip():
            name, _, words = line.strip().partition(": ")
            rows.append([f"`{name}`", words])
    return table(("field", "what it says"), rows)


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, page))
