"""Examples a second in batches: our side at small sizes, and the page's section."""

import itertools
import json

import pytest

from benchmarks import rates

FACTS = {
    "device": "a machine",
    "cores": 2,
    "load": 3.25,
    "jax": "0.12",
    "torch": "2.13",
    "rounds": 1,
    "tiny": False,
    "date": "2026-12-01",
}
SECTION = "## Peers, measured earlier\n\nrows\n"


def part(model="bert", batch=32, seconds=8.0):
    rows = [
        ("attnlrp", "LXT AttnLRP", "lxt", 4.0, 4.0),
        ("attnlrp", "LXT slow", "lxt", 4.0, 6.0),
        ("attnlrp", "jaxlrp AttnLRP", "jaxlrp", 5.0, seconds),
        ("epsilon", "jaxlrp epsilon", "jaxlrp", 5.0, 5.0),  # no peer has it
    ]
    fields = ("composite", "method", "package", "gradient", "seconds")
    made = [dict(zip(fields, row, strict=True)) for row in rows]
    return {"environment": FACTS, "model": model, "batch": batch, "rows": made}


def test_ours_are_compared_with_the_fastest_peer():
    (found,) = rates.verdicts(part(seconds=2.0))
    assert found.endswith("AttnLRP: 2.00 times the examples a second of LXT AttnLRP")


def test_where_a_peer_is_faster_the_gradients_are_told():
    (found,) = rates.verdicts(part(seconds=8.0))
    assert ": 0.50 times" in found
    assert found.endswith("gradient takes 1.25 times as long as PyTorch's")


def test_a_line_has_an_examples_time_and_examples_a_second():
    found = rates.line(part(), part()["rows"][2])
    cells = "bert | 32 | jaxlrp AttnLRP | jaxlrp | 156.2 | 250.0 | 1.60 | 4.00"
    assert found == f"| {cells} |"
    assert found.count("|") == rates.HEADER.split("\n")[0].count("|")


def test_a_part_that_is_measured_again_takes_its_place_in_order(tmp_path):
    path = tmp_path / "record.json"
    rates.keep(part("bert", 32, 8.0), path)
    rates.keep(part("resnet18", 32), path)
    rates.keep(part("bert", 128), path)
    rates.keep(part("bert", 32, 2.0), path)
    kept = json.loads(path.read_text())["parts"]
    keys = [(p["model"], p["batch"]) for p in kept]
    assert keys == [("resnet18", 32), ("bert", 32), ("bert", 128)]
    assert kept[1]["rows"][2]["seconds"] == 2.0


def test_the_section_takes_the_place_of_an_older_one(tmp_path):
    path = tmp_path / "record.json"
    rates.keep(part(), path)
    text = rates.section(path)
    page = rates.put(rates.put(f"# Performance\n\n{SECTION}", text), text)
    assert page.count(rates.TITLE) == 1 and page.endswith(SECTION)
    assert "| bert | 32 | LXT AttnLRP |" in page and "1 round; 2026-12-01" in page
    assert "2 cores with a load of 3.2; jax 0.12" in page
    assert rates.put(SECTION, "") == SECTION
    assert rates.section(tmp_path / "none.json") == ""


@pytest.mark.parametrize("model", ["bert", "efficientnet"])
def test_small_networks_are_measured(model):
    found = rates.medians(rates.ours(model, 2, tiny=True), 1)
    rows = rates.rows_of_ours(model, found)
    assert [row.composite for row in rows] == list(rates.COMPOSITES[model])
    assert all(
        row.seconds > 0 and row.gradient == found[rates.GRADIENT] for row in rows
    )


def test_calls_take_turns_and_the_middle_time_counts(monkeypatch):
    called = []
    # A call's start and end: "a" takes 1, 9 and 2 seconds, "b" always 4.
    spans = iter([1, 4, 4, 9, 2, 4])
    ticks = itertools.chain.from_iterable((0.0, s) for s in spans)
    monkeypatch.setattr(rates.time, "perf_counter", lambda: next(ticks))
    calls = {name: lambda name=name: called.append(name) for name in "ab"}
    assert rates.medians(calls, 3) == {"a": 2, "b": 4}
    assert called == ["a", "b", "b", "a", "a", "b"]
