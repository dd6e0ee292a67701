"""The code of the pages on other libraries' models runs, where these are installed."""

import pathlib

import pytest

from examples import scripts
from examples.models import __main__ as models

ROOT = pathlib.Path(__file__).parents[2]
PAGES = ("language-models", "pytorch")


@pytest.mark.parametrize("name", models.PACKAGES)
def test_each_input_has_a_relevance(name):
    if absent := scripts.missing(models.PACKAGES, name):
        pytest.skip(f"{', '.join(absent)} is not installed: make zoo runs it")
    models.check(name)


def test_each_script_is_shown_on_a_page():
    pages = "".join((ROOT / f"docs/{page}.md").read_text() for page in PAGES)
    scripts = {p.stem for p in (ROOT / "examples/models").glob("[a-z]*.py")}
    assert scripts == set(models.PACKAGES)
    for name in scripts:
        assert f'--8<-- "examples/models/{name}.py"' in pages
