"""Runs the notebooks of `examples/notebooks`, and writes them as pages.

    python docs/generate_notebooks.py [NAME ...]     docs/notebooks/NAME.md
    python docs/generate_notebooks.py --check        fails where a page's code is old

The sources are in jupytext's percent format. They are run by Jupyter (`pip install
"jaxlrp[notebooks]"`) and written by nbconvert; pictures go to `docs/images/notebooks`.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from typing import Any

from jaxlrp import _files

ROOT = pathlib.Path(__file__).resolve().parents[1]
SOURCES = ROOT / "examples" / "notebooks"
PAGES = ROOT / "docs" / "notebooks"
IMAGES = ROOT / "docs" / "images" / "notebooks"

_CELL = re.compile(r"^# %%(?P<kind> \[markdown\])?\n", re.MULTILINE)


def names() -> list[str]:
    """The notebooks."""
    return sorted(path.stem for path in SOURCES.glob("*.py"))


def cells(source: str) -> list[tuple[bool, str]]:
    """(is it code?, its text) for each cell of a source."""
    parts = _CELL.split(source)[1:]
    found = []
    for kind, body in zip(parts[::2], parts[1::2], strict=True):
        if kind:
            body = re.sub(r"^# ?", "", body, flags=re.MULTILINE)
        found.append((not kind, body.strip()))
    return found


def missing(name: str) -> list[str]:
    """The cells of a source that its page does not have in this order."""
    page, at, lost = (PAGES / f"{name}.md").read_text(), 0, []
    for _, text in cells((SOURCES / f"{name}.py").read_text()):
        found = page.find(text, at)
        if found < 0:
            lost.append(text)
        else:
            at = found + len(text)
    return lost


def executed(name: str) -> Any:
    """The notebook, run from the root of the tree."""
    import nbclient
    import nbformat

    made = [
        nbformat.v4.new_code_cell(text) if code else nbformat.v4.new_markdown_cell(text)
        for code, text in cells((SOURCES / f"{name}.py").read_text())
    ]
    notebook = nbformat.v4.new_notebook(cells=made)
    client = nbclient.NotebookClient(
        notebook, timeout=1800, resources={"metadata": {"path": str(ROOT)}}
    )
    return client.execute()


def page(name: str, notebook: Any) -> tuple[str, dict[str, bytes]]:
    """The page, and its pictures by file."""
    from nbconvert import MarkdownExporter

    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        cell["outputs"] = [o for o in outputs if o.get("name") != "stderr"]
    exporter = MarkdownExporter()
    text, resources = exporter.from_notebook_node(notebook)
    pictures = {}
    for number, (file, content) in enumerate(
        sorted(resources["outputs"].items(), key=_order)
    ):
        new = f"{name}_{number}.png"
        text = text.replace(f"({file})", f"(../images/notebooks/{new})")
        pictures[new] = content
    text = re.sub(r"!\[png\]", "![what the cell above draws]", text)
    text = without_folders(text)
    note = (
        f"<!-- Written by docs/generate_notebooks.py from "
        f"examples/notebooks/{name}.py. -->\n\n"
    )
    return note + re.sub(r"[ \t]+$", "", text, flags=re.M).strip() + "\n", pictures


def without_folders(text: str, root: pathlib.Path = ROOT) -> str:
    """A page's text without the folders of the machine that ran the notebook.

    Files of the tree are told from its root, packages by their own folder, and cells as
    `cell.py`.

    >>> without_folders("/a/tree/b.py /c/site-packages/d.py", pathlib.Path("/a/tree"))
    'b.py d.py'
    """
    text = re.sub(r"[^\s'\"<>]*/site-packages/", "", text)
    text = re.sub(r"[^\s'\"<>]*ipykernel_\d+/\d+\.py", "cell.py", text)
    return text.replace(f"{root}/", "").replace(f"{root}/".lstrip("/"), "")


def _order(item: tuple[str, bytes]) -> list[int]:
    return [int(n) for n in re.findall(r"\d+", item[0])]


def write(name: str) -> None:
    """Runs a notebook and writes its page and pictures."""
    from generate_gallery import small

    text, pictures = page(name, executed(name))
    for old in IMAGES.glob(f"{name}_*.png"):
        old.unlink()
    for file, content in pictures.items():
        _files.write(IMAGES / file, content, folders=True)
        _files.write(IMAGES / file, small(IMAGES / file))
    _files.write(PAGES / f"{name}.md", text.encode(), folders=True)
    print(PAGES / f"{name}.md", flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write docs/notebooks/*.md.")
    parser.add_argument("names", nargs="*", help="notebooks, by default all")
    parser.add_argument("--check", action="store_true", help="compare, do not write")
    options = parser.parse_args(argv)
    os.environ["PYTHONPATH"] = str(ROOT)  # of the kernel: `examples` is there
    chosen = options.names or names()
    if not options.check:
        for name in chosen:
            write(name)
        return 0
    old = [name for name in chosen if missing(name)]
    if old:
        print(f"out of date: {', '.join(old)}; run python docs/generate_notebooks.py")
    return 1 if old else 0


if __name__ == "__main__":
    sys.exit(main())
