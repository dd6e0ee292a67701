"""Each script of `examples/howto` is short, and shown by a page that is linked."""

import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SCRIPTS = sorted(p for p in ROOT.glob("examples/howto/*.py") if p.stem != "small")


@pytest.mark.whole
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.stem)
def test_a_page_shows_the_script_and_its_pictures(script):
    # `test_docs.py` runs what the page shows.
    page = (ROOT / f"docs/howto/{script.stem}.md").read_text()
    assert f'--8<-- "examples/howto/{script.name}"' in page
    assert f"howto/{script.stem}.md" in (ROOT / "mkdocs.yml").read_text()
    assert f"({script.stem}.md)" in (ROOT / "docs/howto/index.md").read_text()
    text = script.read_text()
    for line in text.splitlines():
        if 'savefig("' in line:
            picture = line.split('savefig("')[1].split('"')[0]
            assert f"(../images/howto/{picture})" in page
            assert (ROOT / "docs/images/howto" / picture).exists()
    assert len(text.splitlines()) <= 50
