"""The page on versions names the pins that CI installs."""

import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "versions.md").read_text()


def pins(name):
    lines = (ROOT / ".ci" / "pins" / f"{name}.txt").read_text().split()
    return dict(line.split("==") for line in lines)


def row(name):
    (cells,) = re.findall(rf"^\| {name} \|(.*)$", PAGE, re.M)
    return [cell.strip() for cell in cells.split("|")]


def test_versions_are_those_that_are_pinned():
    newest, oldest = pins("newest"), pins("oldest")
    assert row("newest")[1] == newest["jax"] == newest["jaxlib"]
    assert row("oldest")[1:3] == [oldest["jax"], oldest["flax"]]
    assert f"Optax {oldest['optax']} and Chex {oldest['chex']}" in PAGE


def test_the_weekly_run_has_the_same_pins():
    weekly = (ROOT / ".github" / "workflows" / "all-tests.yml").read_text()
    for name in ("newest", "oldest"):
        assert f".ci/pins/{name}.txt" in weekly
