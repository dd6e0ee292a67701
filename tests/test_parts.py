"""A part has every test function, and all parts together have every case."""

import argparse

import pytest

from tests import parts

COUNTS = {"a.py::few": 2, "a.py::alone": 1, "b.py::many": 31}
NAMES = [f"{f}[{i}]" if n > 1 else f for f, n in COUNTS.items() for i in range(n)]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_parts_together_have_every_case(count):
    found = [parts.chosen(NAMES, k, count) for k in range(1, count + 1)]
    assert set().union(*found) == set(NAMES)
    many = [[n for n in part if "many" in n] for part in found]
    assert sum(map(len, many)) == COUNTS["b.py::many"]
    assert max(map(len, many)) - min(map(len, many)) <= 1


@pytest.mark.parametrize("part", [1, 2, 3])
def test_a_part_has_every_function(part):
    found = parts.chosen(NAMES, part, 3)
    assert {name.partition("[")[0] for name in found} == set(COUNTS)
    assert found == parts.chosen(NAMES, part, 3)


@pytest.mark.whole
@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "1/3/5", "a/b", "-1/3"])
def test_what_is_no_part_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="K/N"):
        parts.of_text(text)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_turns_deal_out_whole_files(count):
    names = [f"{letter}.py::{f}" for letter in "abcdefg" for f in ("one[1]", "two")]
    found = [parts.turn(names, k, count) for k in range(1, count + 1)]
    assert sorted(name for turn in found for name in turn) == names
    for turn in found:
        files = {name.partition("::")[0] for name in turn}
        assert turn == {name for name in names if name.partition("::")[0] in files}
        assert 7 // count <= len(files) <= 7 // count + 1
