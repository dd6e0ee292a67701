"""The page for those who come from another package is what the tables say."""

import pathlib
import pkgutil

from jaxlrp import compat

ROOT = pathlib.Path(__file__).parents[2]


def test_page_has_a_section_for_every_peer():
    text = (ROOT / "docs/migrating.md").read_text()
    for module in pkgutil.iter_modules(compat.__path__):
        if not module.name.startswith("_"):
            assert f"jaxlrp.compat.{module.name}`" in text
