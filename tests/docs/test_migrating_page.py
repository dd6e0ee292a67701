"""The page for those who come from another package is what the tables say."""

import os
import pathlib
import pkgutil
import subprocess
import sys

from jaxlrp import compat

ROOT = pathlib.Path(__file__).parents[2]


def test_page_is_what_the_tables_say():
    check = subprocess.run(
        [sys.executable, "docs/generate_migrating.py", "--check"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert check.returncode == 0, check.stdout + check.stderr


def test_page_has_a_section_for_every_peer():
    text = (ROOT / "docs/migrating.md").read_text()
    for module in pkgutil.iter_modules(compat.__path__):
        if not module.name.startswith("_"):
            assert f"jaxlrp.compat.{module.name}`" in text
