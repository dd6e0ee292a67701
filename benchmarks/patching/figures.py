"""Pictures of exact against estimated effects, and of circuits' faithfulness."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxlrp import _files

SHOWN = ("gradient", "RelP", "CP-LRP", "gradient, 5 steps", "blend")
KINDS = ("residual", "attention", "mlp", "heads")
STYLES = {"exact": ("black", ":"), "random": ("gray", "--")}
SHARES = (0, 0.01, 0.1, 1)
"""Of nodes or edges that are kept: these are marked."""


def draw(
    task: str, found: Mapping[str, Any], arrays: Mapping[str, Any], folder: Path
) -> None:
    """Writes `{task}-effects.png` and `{task}-circuits.png`."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    true = arrays["exact"]
    shown = [name for name in SHOWN if name in arrays]
    figure = Figure(figsize=(2.2 * len(KINDS), 2.0 * len(shown)), layout="tight")
    axes = figure.subplots(len(shown), len(KINDS), squeeze=False)
    for row, name in zip(axes, shown, strict=True):
        for axis, kind in zip(row, KINDS, strict=True):
            x, y = np.ravel(true[kind]), np.ravel(arrays[name][kind])
            axis.plot(x, y, ".", markersize=2, alpha=0.3)
            axis.axline((0, 0), slope=1, linewidth=0.5, color="gray")
            axis.set_title(f"{name}: {kind}", fontsize=7)
            axis.tick_params(labelsize=6)
        row[0].set_ylabel("estimated", fontsize=7)
    for axis in axes[-1]:
        axis.set_xlabel("exact", fontsize=7)
    _save(figure, folder / f"{task}-effects.png")

    figure = Figure(figsize=(9, 3.6), layout="tight")
    kinds = list(found["circuits"])
    names = [name for name in found["circuits"][kinds[0]] if name not in STYLES]
    colours = {name: colormaps["tab20"](i) for i, name in enumerate(names)}
    axes = figure.subplots(1, len(kinds), squeeze=False)[0]
    for axis, kind in zip(axes, kinds, strict=True):
        for name, line in found["circuits"][kind].items():
            colour, style = STYLES.get(name, (colours.get(name), "-"))
            x, y = found["fractions"], line["signed"]
            axis.plot(x, y, style, color=colour, label=name, linewidth=1)
        axis.axhline(1, linewidth=0.5, color="gray")
        axis.set_xscale("symlog", linthresh=0.005)
        axis.set_xlim(0, 1)
        axis.set_xticks(SHARES, [f"{share:g}" for share in SHARES])
        axis.minorticks_off()
        axis.set_title(f"circuits of {kind}", fontsize=8)
        axis.set_xlabel("fraction kept", fontsize=7)
        axis.tick_params(labelsize=6)
    axes[0].legend(fontsize=6)
    axes[0].set_ylabel("faithfulness", fontsize=7)
    _save(figure, folder / f"{task}-circuits.png")


def _save(figure: Any, path: Path) -> None:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    _files.write(path, stream.getvalue(), folders=True)
