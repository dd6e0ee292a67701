"""The code of the page on frameworks runs, where its framework is installed."""

import pathlib

import pytest

from examples import scripts
from examples.frameworks import __main__ as frameworks

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.whole
@pytest.mark.parametrize("name", frameworks.PACKAGES)
def test_three_questions_are_answered(name):
    if absent := scripts.missing(frameworks.PACKAGES, name):
        pytest.skip(f"{', '.join(absent)} is not installed: make zoo runs it")
    frameworks.check(name)


def test_the_page_shows_each_script():
    page = (ROOT / "docs/frameworks.md").read_text()
    scripts = {p.stem for p in (ROOT / "examples/frameworks").glob("[a-z]*.py")}
    assert scripts == set(frameworks.PACKAGES)
    for name in scripts:
        assert f'--8<-- "examples/frameworks/{name}.py"' in page
