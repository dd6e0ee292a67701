"""What the pages and the docstrings show is what happens."""

import doctest
import importlib
import pathlib
import re
import textwrap

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# What these show is run from its sources: `tests/examples/test_notebooks.py`, and
# `test_frameworks.py`, `test_heads.py` and `test_models.py` there.
ELSEWHERE = {
    *(
        ROOT / f"docs/{name}.md"
        for name in ("frameworks", "language-models", "pytorch")
    ),
    ROOT / "docs/howto/heads.md",
    *ROOT.glob("docs/notebooks/*.md"),
}
PAGES = sorted({ROOT / "README.md", *ROOT.glob("docs/**/*.md")} - ELSEWHERE)
SOURCES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path
    for path in [*ROOT.glob("jaxlrp/**/*.py"), *ROOT.glob("primitives/**/*.py")]
}

# ```python, also inside lists and tabs, where the block is indented.
FENCE = re.compile(
    r"^(?P<indent>[ ]*)(?P<fence>`{3,}|~{3,})[ ]*(?P<info>[^\n]*)\n"
    r"(?P<body>.*?)"
    r"^(?P=indent)(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)


def relative(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).as_posix()


# A line of a page that stands for a file.
SNIPPET = re.compile(r'^--8<-- "([^"\n]+)"$', re.MULTILINE)


def fenced(page: pathlib.Path) -> list[tuple[int, str, str]]:
    """(line of the first statement, info string, body) of each block of the page."""
    text = SNIPPET.sub(lambda m: (ROOT / m[1]).read_text().rstrip(), page.read_text())
    return [
        (
            text.count("\n", 0, block.start("body")) + 1,
            block["info"].strip(),
            textwrap.dedent(block["body"]),
        )
        for block in FENCE.finditer(text)
    ]


def module_name(name: str) -> str:
    """The name a source file is imported by: the rule book is part of the package."""
    name = name.removesuffix(".__init__")
    return f"jaxlrp.{name}" if name.split(".")[0] == "primitives" else name


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_page_hides_no_python_from_the_tests(page):
    infos = [info for _, info, _ in fenced(page)]
    hidden = [info for info in infos if re.match(r"py|\{.*py", info, re.IGNORECASE)]
    assert all(info == "python" for info in hidden), hidden


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if any(info == "python" for _, info, _ in fenced(page))],
    ids=relative,
)
def test_page_runs_from_top_to_bottom(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # what a page saves, it saves there
    namespace = {"__name__": "__main__"}
    for line, info, body in fenced(page):
        if info == "python":
            # Empty lines in front: a traceback then names the line of the page.
            code = compile("\n" * (line - 1) + body, str(page), "exec")
            exec(code, namespace)


@pytest.mark.whole
@pytest.mark.parametrize(
    "name", [name for name, path in SOURCES.items() if ">>>" in path.read_text()]
)
def test_docstring_examples_hold(name):
    # Not `pytest --doctest-modules`, which would import `primitives` a second
    # time, under its folder's name.
    result = doctest.testmod(
        importlib.import_module(module_name(name)),
        optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE,
    )
    assert result.attempted and not result.failed
