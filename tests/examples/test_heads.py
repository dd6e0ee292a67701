"""The recipes for the relevance of heads run, where their framework is installed."""

import pathlib

import pytest

from examples import scripts
from examples.heads import __main__ as heads

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.whole
@pytest.mark.parametrize("name", heads.PACKAGES)
def test_heads_add_up_to_their_map(name):
    if absent := scripts.missing(heads.PACKAGES, name):
        pytest.skip(f"{', '.join(absent)} is not installed: make zoo runs it")
    heads.check(name)


def test_the_page_shows_each_recipe():
    page = (ROOT / "docs/howto/heads.md").read_text()
    scripts = {p.stem for p in (ROOT / "examples/heads").glob("[a-z]*.py")}
    assert scripts == set(heads.PACKAGES)
    for name in scripts:
        assert f'--8<-- "examples/heads/{name}.py"' in page
