"""The page on rules: what it measures is so now, and what it promises holds."""

import contextlib
import importlib.util
import io
import pathlib
import re
import sys
import textwrap

import jax
import pytest

from jaxlrp import rules

DOCS = pathlib.Path(__file__).parents[2] / "docs"
FENCED = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NUMBER = re.compile(r"-?\d+\.\d\d")


@pytest.fixture(scope="module")
def generator():
    """`docs/generate_rules.py`, which is no part of a package."""
    path = DOCS / "generate_rules.py"
    spec = importlib.util.spec_from_file_location("generate_rules", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def measured(generator):
    """The tables, measured now."""
    return generator.measured()


def test_tables_of_the_page_are_up_to_date(generator, measured):
    page = generator.PAGE.read_text()
    now = generator.with_block(page, measured)
    assert NUMBER.sub("", page) == NUMBER.sub("", now)
    # What lies between two roundings may be printed as either.
    for old, new in zip(NUMBER.findall(page), NUMBER.findall(now), strict=True):
        assert abs(float(old) - float(new)) < 0.011


def test_layers_keep_their_promises(generator):
    with jax.enable_x64(True):
        found = generator.of_layers()
    for case, ratios in zip(generator.LAYER_CASES, found, strict=True):
        biased, plain, padded = ratios
        held = {
            "conserves": ratios,
            "but for bias": [plain, padded],
            "no": [],
        }[case.promise]
        assert all(abs(r - 1) < generator.TOLERANCE for r in held), case
        if case.promise != "conserves":  # and what is not promised, is not so
            assert abs(biased - 1) > generator.TOLERANCE, case


def test_biases_keep_what_their_option_says(generator):
    with jax.enable_x64(True):
        found = generator.of_biases()
    for ratios in found:
        for bias, ratio in zip(rules.BIASES, ratios, strict=True):
            lossless = bias in generator.WITHOUT_LOSS
            assert (abs(ratio - 1) < generator.TOLERANCE) == lossless


def test_other_roles_keep_their_promises(generator):
    with jax.enable_x64(True):
        found = generator.of_roles()
    for case, ratio in zip(generator.ROLE_CASES, found, strict=True):
        assert (abs(ratio - 1) < generator.TOLERANCE) == case.conserves, case


def test_parts_of_the_network_add_up(generator, measured):
    table = measured.partition("| other |")[2].partition("\n\n")[0]
    rows = [
        [float(cell) for cell in line.split("|")[2:-1]]
        for line in table.splitlines()
        if NUMBER.search(line)
    ]
    assert len(rows) == len(generator.LAYER_CASES)
    for row in rows:
        assert abs(sum(row) - 1) < 0.03  # each part is rounded


def test_every_rule_is_on_the_page():
    page = (DOCS / "rules.md").read_text()
    every = [
        name
        for name in rules.__all__
        if isinstance(kind := getattr(rules, name), type)
        and issubclass(kind, rules.Rule)
        and kind not in (rules.Rule, rules.LayerRule, rules.RelevanceRule)
    ]
    assert len(every) > 20
    assert [name for name in every if f"`{name}" not in page] == []


def test_page_shows_what_its_code_prints():
    """An indented block behind a block of code that prints is what it prints."""
    page = (DOCS / "rules.md").read_text()
    namespace = {"__name__": "__main__"}
    shown = 0
    for block in FENCED.finditer(page):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(block[1], "rules.md", "exec"), namespace)
        if printed.getvalue():
            behind = page[block.end() :].lstrip("\n")
            expected = textwrap.indent(printed.getvalue(), "    ")
            assert behind.startswith(expected)
            shown += 1
    assert shown == 2
