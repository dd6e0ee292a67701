"""Pages that are made from something else are up to date."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["primitives", "migrating", "floors"])
def test_page_is_what_the_rule_book_or_the_tables_say(page):
    # In a process of its own: rules that tests register are not the book's.
    check = subprocess.run(
        [sys.executable, f"docs/generate_{page}.py", "--check"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_changelog_of_the_site_is_the_changelog():
    assert (ROOT / "docs/changelog.md").read_text() == (
        ROOT / "CHANGELOG.md"
    ).read_text()
