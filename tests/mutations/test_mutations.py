"""The tool that changes the code: on a tree of two functions, with a cheap suite."""

import shutil
import subprocess

import pytest

from tests.mutations.run import (
    ROOT,
    TABLE,
    Mutation,
    Options,
    Verdict,
    parse,
    problems,
    report,
    run,
)

SOURCE = """
def largest(values):
    best = values[0]
    for value in values:
        if value > best:
            best = value
    return best


def size(value):
    return abs(value)
"""
TESTS = """
import pytest
from code_under_test import largest, size

@pytest.mark.parametrize("values", [[1, 2], [2, 1], [1, 3, 2], [5], [0, 9], [4, 4]])
def test_largest(values):
    assert largest(values) == max(values)

def test_size():
    assert size(2) == 2
"""
PLUGIN = """
def pytest_addoption(parser):
    parser.addoption("--part")
    parser.addoption("--only")
"""
LIST = """
# a list
@ code_under_test.py
! test_code.py

-value > best
+value < best

-value > best
+value >= best
= among equals any is the largest

-abs(value)
+value
"""


@pytest.fixture
def tree(tmp_path):
    folder = tmp_path / "tree"
    (folder / "tests").mkdir(parents=True)
    (folder / "code_under_test.py").write_text(SOURCE)
    (folder / "tests" / "test_code.py").write_text(TESTS)
    (folder / "conftest.py").write_text(PLUGIN)
    (folder / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    (folder / ".gitignore").write_text("__pycache__\n.jax_cache\n")
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    yield folder
    shutil.rmtree(folder)


def test_noticed_survived_and_equivalent(tree):
    said = []
    before = {p: p.read_bytes() for p in tree.glob("**/*.py")}
    verdicts = run(tree, parse(LIST), Options(workers=1), said.append)
    names = [v.name for v in verdicts]
    assert names == ["noticed", "equivalent", "SURVIVED"]
    assert "test_code.py::test_largest[values0]" in verdicts[0].how
    assert said[0].startswith("noticed") and "value > best" in said[0]
    assert {p: p.read_bytes() for p in tree.glob("**/*.py")} == before
    text, enough = report(verdicts, 1.0)
    assert "SURVIVED: code_under_test.py: abs(value) -> value" in text
    assert "1 of 2 noticed, 50.0%; 1 more are equivalent; 1 seconds" in text
    assert not enough


def test_tests_that_fail_anyhow_notice_nothing(tree):
    (tree / "tests" / "test_code.py").write_text("def test_code(): assert False")
    with pytest.raises(RuntimeError, match="fail without any change"):
        run(tree, parse(LIST), Options(workers=1), print)


def test_what_is_noticed_is_not_equivalent():
    mutation = Mutation("a.py", "x", "y", ("tests/a",), "nothing changes")
    verdict = Verdict(mutation, True, "", 1.0)
    text, enough = report([verdict], 1.0)
    assert "NOT EQUIVALENT: a.py: x -> y" in text and not enough


WRONG = {
    "-value != best\n+value": "value != best -> value: the text occurs 0 times",
    "-best\n+value": "the text occurs 4 times, expected once",
    "-value > best\n+value > best": "changes nothing",
    "-value > best\n+value >": "invalid syntax",
    "-value > best\n+1\n\n-value > best\n+1": "stands twice",
    "! other.py\n-value > best\n+1": "there is no test 'tests/other.py'",
    "! test_code.py::test_largest[0]\n-value > best\n+1": "there is no test",
    "@ other.py\n-value > best\n+1": "other.py: value > best -> 1: the text occurs 0",
}


def test_a_wrong_list_is_an_error_that_names_the_place(tree):
    for block, message in WRONG.items():
        mutations = parse(f"@ code_under_test.py\n! test_code.py\n\n{block}")
        assert any(message in p for p in problems(tree, mutations)), message
        with pytest.raises(RuntimeError):
            run(tree, mutations, Options(workers=1), print)


def test_the_list_fits_the_code():
    mutations = parse(TABLE.read_text("utf-8"))
    assert problems(ROOT, mutations) == []
    assert len(mutations) >= 100
