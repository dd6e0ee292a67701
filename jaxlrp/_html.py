"""Plans, audits, composites and rules as HTML, which notebooks show.

It needs no script and no other file, and suits light and dark pages. What is long is
folded (`details`).
"""

from __future__ import annotations

import html
import inspect
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxlrp._tables import short_lines

COLOURS = {
    "exact": "#1b7837",
    "proportional": "#2166ac",
    "Taylor": "#e08214",
    "custom": "#762a83",
    "none": "#777777",
}
"""By exactness. What has none keeps relevance, or gets no rule."""

_MEANING = {
    "exact": "there is no choice to make",
    "proportional": "shares by a stated rule",
    "Taylor": "an expansion to first order, which need not conserve",
    "custom": "a rule of the user's",
    "none": "relevance is absorbed, or does not pass",
}

_CSS = """
.jaxlrp{font:13px/1.45 system-ui,sans-serif;margin:.3em 0}
.jaxlrp table{border-collapse:collapse;margin:.3em 0 .6em;font-size:12px}
.jaxlrp th,.jaxlrp td{padding:.15em .7em;text-align:left;vertical-align:top;
background:none;color:inherit}
.jaxlrp th{font-weight:600;border-bottom:1px solid #8888}
.jaxlrp td.number{text-align:right;font-variant-numeric:tabular-nums}
.jaxlrp summary{cursor:pointer}
.jaxlrp code{font-size:12px;background:none;color:inherit}
.jaxlrp .kind{display:inline-block;border-left:.7em solid;padding-left:.35em;
margin-right:.9em;line-height:1}
.jaxlrp .bar{display:inline-block;height:.7em;background:#2166ac}
.jaxlrp .bar.negative{background:#b2182b}
.jaxlrp .faint{opacity:.7}
""".replace("\n", "")


def block(*parts: str) -> str:
    """One `div` with its own style."""
    return f"<div class='jaxlrp'><style>{_CSS}</style>{''.join(parts)}</div>"


def details(summary: str, *content: str, opened: bool = False) -> str:
    """What is folded below a line, which is HTML already."""
    state = " open" if opened else ""
    return f"<details{state}><summary>{summary}</summary>{''.join(content)}</details>"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells that are HTML already."""
    above = "".join(f"<th scope='col'>{html.escape(name)}</th>" for name in head)
    below = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{above}</tr></thead><tbody>{below}</tbody></table>"


def cell(text: str, title: str = "", kind: str = "") -> str:
    """A cell of text, with what a pointer over it shows."""
    tip = f" title='{html.escape(title)}'" if title else ""
    of = f" class='{kind}'" if kind else ""
    return f"<td{of}{tip}>{html.escape(text)}</td>"


def number(value: float) -> str:
    """A cell with a number."""
    return cell(_shown(value), kind="number")


def chip(exactness: str, text: str = "") -> str:
    """A word on the colour of an exactness."""
    colour = COLOURS.get(exactness, COLOURS["none"])
    tip = html.escape(_MEANING.get(exactness, ""))
    shown = html.escape(text or exactness)
    return (
        f"<span class='kind' style='border-color:{colour}' title='{tip}'>{shown}</span>"
    )


def _faint(text: str) -> str:
    return f"<span class='faint'>{html.escape(text)}</span>"


# ---- plans -------------------------------------------------------------------------


def plan(made: Any) -> str:
    """A `Plan`: its rows by scope, each folded, and what may amplify."""
    lines = short_lines(row.line for row in made.rows)
    groups = [
        (scope, list(rows))
        for scope, rows in itertools.groupby(made.rows, lambda row: row.scope)
    ]
    title = (
        f"<b>Plan</b> ({html.escape(made.composite)}): {len(made.rows)} steps, "
        f"coverage {made.coverage:.1%}<br>{_counts(made.rows)}"
    )
    several = len(groups) > 1
    parts = [
        details(
            f"{_layer(scope, rows, lines)} {_counts(rows)}" if several else "steps",
            _steps(rows, lines),
            opened=not several or any(r.role == "unexplained" for r in rows),
        )
        for scope, rows in groups
    ]
    notes = made._notes()
    if notes:
        text = html.escape("\n".join(notes))
        parts.append(details("notes", f"<pre>{text}</pre>"))
    return block(title, *parts)


def _layer(scope: str, rows: Sequence[Any], lines: Mapping[str, str]) -> str:
    """The scope of some rows, else the first one's parameter or line."""
    name = scope or rows[0].parameter or lines[rows[0].line] or "-"
    roles = ", ".join(dict.fromkeys(r.role for r in rows))
    return f"<code>{html.escape(name)}</code> {_faint(roles)}"


def _counts(rows: Sequence[Any]) -> str:
    """How many rows there are of each exactness."""
    found = [row.exactness for row in rows]
    return "".join(
        chip(kind, f"{found.count(kind)} {kind}") for kind in COLOURS if kind in found
    )


def _steps(rows: Sequence[Any], lines: Mapping[str, str]) -> str:
    named = any(row.parameter for row in rows)
    head = ("role", "rule", "exactness", "from", "equations", "result")
    head += ("parameter", "line") if named else ("line",)
    return table(
        head,
        (
            (
                cell("  " * row.depth + row.role),
                cell(row.rule),
                f"<td>{chip(row.exactness)}</td>",
                cell(row.won),
                cell(row.cells()[0].strip(), " ".join(row.primitives)),
                cell(row.shape),
                *((cell(row.parameter),) if named else ()),
                cell(lines[row.line], row.line),
            )
            for row in rows
        ),
    )


# ---- audits ------------------------------------------------------------------------


def audit(made: Any) -> str:
    """An `Audit`: what arrived and what was absorbed, then by layer, then by step."""
    kept = {name: amount for name, amount in made.absorbed.items() if amount}
    sizes = [made.total_out, made.total_in, *kept.values()]
    size = max(map(abs, sizes)) or 1.0
    rows = [
        _amount("score", made.total_out, size),
        _amount("reaches the input", made.total_in, size),
        *(_amount(f"absorbed: {name}", v, size) for name, v in kept.items()),
        _amount("not accounted for", made.residual, size),
    ]
    title = (
        f"<b>Audit</b>: of {_shown(made.total_out)}, {_shown(made.total_in)} reaches "
        f"the input; amplification {_shown(made.amplification)}"
    )
    parts = [table(("", "relevance", ""), rows)]
    if made.culprit:
        parts.append(f"<b>first NaN or infinity:</b> {html.escape(made.culprit)}<br>")
    if made.growth is not None:
        parts.append(details("where it grows most", html.escape(str(made.growth))))
    scopes = {s: a for s, a in made.by_scope().items() if any(a.values())}
    if scopes:
        used = [name for name in kept if any(a[name] for a in scopes.values())]
        by_scope = (
            (cell(scope), *(number(amounts[name]) for name in used))
            for scope, amounts in scopes.items()
        )
        opened = len(scopes) <= 12
        parts.append(
            details("by layer", table(("layer", *used), by_scope), opened=opened)
        )
    if made.steps:
        parts.append(details("by step", _absorptions(made.steps)))
    return block(title, *parts)


def _amount(name: str, value: float, size: float) -> tuple[str, ...]:
    """A row with a bar as long as its number."""
    share = min(abs(value) / size, 1.0) if value == value else 0.0
    kind = "bar negative" if value < 0 else "bar"
    bar = f"<td><span class='{kind}' style='width:{share * 12:.2f}em'></span></td>"
    return cell(name), number(value), bar


def _absorptions(steps: Sequence[Any]) -> str:
    lines = short_lines(step.line for step in steps)
    head = ("layer", "role", "arrived", "passed", "amplification", "absorbed", "line")
    return table(
        head,
        (
            (
                cell(step.layer or "-"),
                cell(step.role),
                number(step.arrived),
                number(step.passed),
                number(step.amplification),
                cell(
                    ", ".join(
                        f"{name} {_shown(amount)}"
                        for name, amount in step.absorbed.items()
                        if amount
                    )
                ),
                cell(lines[step.line], step.line),
            )
            for step in steps
        ),
    )


def _shown(value: float) -> str:
    return f"{value:.4g}".replace("-", "−")


# ---- rules -------------------------------------------------------------------------


def composite(made: Any) -> str:
    """A `Composite`: its lines, the last of which wins."""
    rows = [
        (
            cell(line.role),
            f"<td>{chip(_exactness(line.rule), str(line.rule))}</td>",
            cell(line.condition()),
            cell(_says(line.rule)),
        )
        for line in made.assignments
    ]
    rows += [
        (cell("constant"), cell("-"), cell(f"scope={scope}"), cell(""))
        for scope in made.constants
    ]
    title = f"<b>{html.escape(made.name)}</b>: the last line that matches wins"
    head = ("role", "rule", "where", "")
    return block(details(title, table(head, rows), opened=True))


def rule(made: Any) -> str:
    """A rule: its options, and folded what it says of itself."""
    title = chip(_exactness(made), str(made))
    text = inspect.getdoc(type(made)) or ""
    content = f"<pre>{html.escape(text)}</pre>"
    return block(details(f"{title} {_faint(_says(made))}", content))


def _exactness(made: Any) -> str:
    return getattr(made, "exactness", "custom")


def _says(made: Any) -> str:
    """The first sentence of what a rule says of itself; nothing for a signature."""
    text = (type(made).__doc__ or "").strip()
    name = type(made).__name__
    return (
        "" if text.startswith(f"{name}(") else text.split("\n\n")[0].replace("\n", " ")
    )
