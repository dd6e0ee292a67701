"""The measure of devices, at small sizes."""

import json

from benchmarks import on_device

SECTION = "## Peers, measured earlier\n\nrows\n"


def test_small_networks_are_measured_and_put_on_the_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(on_device, "CASES", on_device.CASES[3:])
    page = tmp_path / "page.md"
    page.write_text(f"# Performance\n\n{SECTION}")
    arguments = ["--tiny", "--rounds=1", f"--records={tmp_path}", f"--page={page}"]
    on_device.main(arguments)
    on_device.main(arguments)  # in place of the older section
    text = page.read_text()
    assert text.count(on_device.TITLE) == 1 and text.endswith(SECTION)
    assert text.count("| decoder") == 4
    (record,) = (json.loads(p.read_text()) for p in tmp_path.glob("*.json"))
    assert [row["dtype"] for row in record["rows"]] == ["float32"] * 2 + [
        "bfloat16"
    ] * 2
    assert record["left out"] == []


def test_what_has_no_time_left_is_named():
    found = list(on_device.measured(-1.0, 1, True))
    assert len(found) == 8 and all("no time left" in text for text in found)


def test_a_page_without_records_stays_as_it_is(tmp_path):
    assert on_device.section(tmp_path) == ""
    assert on_device.put(SECTION, "") == SECTION
