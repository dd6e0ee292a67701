"""Runs folders of scripts that need packages which may not be there."""

import importlib.util
import runpy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Packages = Mapping[str, Sequence[str]]
"""By script, the modules that it imports beside those of `jaxlrp`."""


def values(folder: Path, name: str) -> dict[str, Any]:
    """Runs the script `name` of a folder; returns its variables."""
    return runpy.run_path(str(folder / f"{name}.py"))


def missing(packages: Packages, name: str) -> list[str]:
    """What a script needs and is not installed."""
    return [p for p in packages[name] if importlib.util.find_spec(p) is None]


def check_all(packages: Packages, check: Callable[[str], None], right: str) -> None:
    """Checks each script that can run; tells of the others."""
    for name in packages:
        if absent := missing(packages, name):
            print(f"{name}: {', '.join(absent)} is not installed")
        else:
            check(name)
            print(f"{name}: {right}")
