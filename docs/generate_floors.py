"""The picture of the package's floors in docs/design.md, drawn from its imports.

    python docs/generate_floors.py          writes docs/images/floors.svg
    python docs/generate_floors.py --check  fails where the picture is out of date

A floor may import from those below it. The number at an arrow counts the imports; an
import upwards is an error.
"""

from __future__ import annotations

import ast
import collections
import functools
import pathlib
import textwrap
from collections.abc import Iterator

import generated

ROOT = pathlib.Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "images" / "floors.svg"

FLOORS = {
    "transformations": (
        *("_lrp", "_each", "_beside", "_parameters", "_prepare", "_plan", "_audit"),
        *("_check", "concepts", "similarity", "deep_taylor", "patching"),
        "walks",
    ),
    "beginning": ("_trace", "_traps", "_replay"),
    "rewriting": ("_rewriting", "_bounds"),
    "reading": ("_reading",),
    "program": ("_program",),
    "operations": (
        *("_operations", "_compat", "_warn", "_targets", "_sizes", "_files"),
        *("_arguments", "_tables", "_html"),
    ),
}
"""From the top to the bottom: modules, or packages with all that is in them."""

BESIDE = ("composites", "rules", "primitives", "errors", "targets")
"""What every floor may import."""

WIDTH, BOX, LINE, GAP, CHARACTERS = 980, 560, 17, 34, 78


@functools.cache
def modules() -> dict[str, pathlib.Path]:
    """By dotted name, without the package's own."""
    found = {}
    for path in sorted((ROOT / "jaxlrp").rglob("*.py")):
        parts = path.relative_to(ROOT / "jaxlrp").with_suffix("").parts
        found[".".join(p for p in parts if p != "__init__")] = path
    return found


def imports(path: pathlib.Path) -> Iterator[str]:
    """The names of the package's modules that a file imports, once for each name."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            if node.module == "jaxlrp":
                yield from (alias.name for alias in node.names)
            elif node.module.startswith("jaxlrp."):
                inside = node.module.removeprefix("jaxlrp.")
                names = (f"{inside}.{alias.name}" for alias in node.names)
                known = modules()
                yield from (n if n in known else inside for n in names)


def floor_of(module: str) -> str | None:
    """The floor that a module stands on, if any."""
    top = module.split(".")[0]
    return next((name for name, members in FLOORS.items() if top in members), None)


def arrows() -> dict[tuple[str, str], int]:
    """How many imports go from one floor to another.

    Raises:
      ValueError: if one goes upwards.
    """
    order = list(FLOORS)
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    for module, path in modules().items():
        own = floor_of(module)
        for imported in set(imports(path)):
            other = floor_of(imported)
            if own is None or other is None or own == other:
                continue
            if order.index(other) < order.index(own):
                raise ValueError(f"{module} imports {imported}, from a higher floor")
            counts[own, other] += 1
    return dict(counts)


def contents(floor: str) -> list[str]:
    """The modules on a floor, as lines of text."""
    members = [m for m in modules() if floor_of(m) == floor and m not in _PACKAGES]
    names = [m.split(".")[-1] for m in members]
    return textwrap.wrap("  ".join(names), CHARACTERS)


_PACKAGES = ("_program", "_reading", "_rewriting")


def picture() -> str:
    """The picture, as SVG."""
    tops, y = {}, 20
    body = []
    for floor in FLOORS:
        lines = contents(floor)
        height = LINE * (len(lines) + 1) + 14
        tops[floor] = (y, y + height)
        body.append(
            f'<rect x="20" y="{y}" width="{BOX}" height="{height}" rx="6" '
            f'fill="#eef2f7" stroke="#7b8794"/>'
        )
        body.append(f'<text x="32" y="{y + 20}" class="floor">{floor}</text>')
        for i, line in enumerate(lines):
            at = y + 20 + LINE * (i + 1)
            body.append(f'<text x="32" y="{at}" class="module">{line}</text>')
        y += height + GAP
    pairs = sorted(
        arrows().items(), key=lambda a: (tops[a[0][1]][0] - tops[a[0][0]][0], a)
    )
    for i, ((upper, lower), count) in enumerate(pairs):
        x = 20 + BOX + 14 + 26 * i
        start, end = tops[upper][1] - 12, tops[lower][0] + 14
        body.append(
            f'<path d="M{20 + BOX} {start} H{x} V{end} H{20 + BOX + 4}" '
            f'class="arrow" marker-end="url(#head)"/>'
        )
        middle = (start + end) / 2
        body.append(f'<text x="{x + 3}" y="{middle:.0f}" class="count">{count}</text>')
    beside = "next to all floors: " + ", ".join(BESIDE)
    body.append(f'<text x="32" y="{y}" class="floor">{beside}</text>')
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 20}">',
            "<style>text { font-family: sans-serif; } .floor { font-size: 15px; "
            "font-weight: bold; } .module { font-size: 12px; font-family: monospace; } "
            ".count { font-size: 11px; } .arrow { fill: none; stroke: #52606d; }"
            "</style>",
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" '
            'markerWidth="7" markerHeight="7" orient="auto">'
            '<path d="M0 0 L8 4 L0 8 z" fill="#52606d"/></marker></defs>',
            *body,
            "</svg>",
            "",
        ]
    )


if __name__ == "__main__":
    raise SystemExit(generated.write_or_check(PICTURE, picture))
