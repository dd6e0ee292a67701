"""The check of the built site's links notices those that lead nowhere."""

import importlib.util
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("links", ROOT / ".ci/web/links.py")
assert SPEC and SPEC.loader
links = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(links)


@pytest.fixture
def site(tmp_path):
    """A page that links in all ways that hold."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/other.html").write_text('<h1 id="place">Other</h1>')
    (tmp_path / "one.css").write_text("a{background:url(one.png)}")
    (tmp_path / "one.png").write_bytes(b"")
    (tmp_path / "index.html").write_text(
        '<link rel="stylesheet" href="one.css"><link rel="canonical" href="https://x.y">'
        '<a href="sub/other.html#place">a</a><a href="https://x.y">b</a>'
        '<a href="#c">c</a>'
        '<p id="c"></p><a href="mailto:a@b.c">d</a><img src="one.png">'
    )
    return tmp_path


def test_a_site_whose_links_hold_has_no_faults(site):
    assert links.faults(site) == []


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ('<a href="gone.html">', "gone.html: does not exist"),
        ('<a href="sub/other.html#gone">', "has no such place"),
        ('<a href="#gone">', "#gone: has no such place"),
        ('<a href="sub">', "is a folder"),
        ('<a href="/index.html">', "is the server's root"),
        ('<img src="https://x.y/z.png">', "is loaded from another site"),
        ('<script src="https://x.y/z.js">', "is loaded from another site"),
        ('<script src="//x.y/z.js">', "is loaded from another site"),
    ],
)
def test_a_link_that_leads_nowhere_is_named_with_its_page(site, written, fault):
    (site / "page.html").write_text(written)
    (found,) = links.faults(site)
    assert found.startswith("page.html: ") and fault in found


def test_what_a_style_sheet_loads_has_to_be_there(site):
    (site / "two.css").write_text("@font-face{src:url('gone.woff2')}")
    (found,) = links.faults(site)
    assert found == "two.css: gone.woff2: does not exist"


def test_the_hooks_name_files_and_load_nothing_from_elsewhere():
    spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
    assert spec and spec.loader
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    given = f'<a href=".."></a><a href="../.."></a><a href="."></a><b>{hooks.SHIM}</b>'
    made = hooks._from_a_folder(given, "../")
    assert made == (
        '<a href="../index.html"></a><a href="../../index.html"></a>'
        '<a href="./index.html"></a><b>../npm/iframe-worker.js</b>'
    )
