"""Slow functions are on the list, and what is on the list exists."""

import ast
from pathlib import Path

from tests import slow

ROOT = Path(__file__).parents[1]
RESULTS = """<testsuites><testsuite>
<testcase classname="tests.a.test_a" name="test_one[x::y [1]]" time="3.0"/>
<testcase classname="tests.a.test_a" name="test_one[z]" time="0.1"/>
<testcase classname="tests.a.test_a" name="test_two" time="0.7"/>
<testcase classname="tests.examples.test_b" name="test_three" time="9"/>
</testsuite></testsuites>"""


def test_a_function_is_slow_if_its_cases_are_on_average(tmp_path):
    (tmp_path / "one.xml").write_text(RESULTS)
    seconds = slow.seconds_of([tmp_path / "one.xml"])
    assert slow.written(seconds) == "1.6 tests/a/test_a.py::test_one\n"
    assert slow.written(seconds, 2.0) == ""


def test_all_cases_of_a_slow_function_are_chosen():
    name = min(slow.listed(slow.LIST.read_text("utf-8")))
    around = slow.AROUND[0] + "test_x.py::test_y"
    names = [name, f"{name}[a]", f"{name}_too", "tests/test_z.py::test_y", around]
    assert slow.chosen(names) == {name, f"{name}[a]", around}


def test_functions_on_the_list_exist():
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        functions = (n for n in tree.body if isinstance(n, ast.FunctionDef))
        found |= {f"{path.relative_to(ROOT).as_posix()}::{f.name}" for f in functions}
    assert slow.listed(slow.LIST.read_text("utf-8")) <= found
