"""The page about real networks says what the record has."""

import json

import pytest

pytest.importorskip("gguf")
pytest.importorskip("matplotlib")
pytest.importorskip("safetensors")
pytest.importorskip("tokenizers")

from benchmarks.real import __main__ as real  # noqa: E402
from benchmarks.real import page  # noqa: E402


def row(side, method, each):
    mean = sum(each) / len(each)
    about = {"side": side, "method": method, "ABPC": [mean, 0.1], "each": each}
    about |= dict.fromkeys(("half", "same", "size", "kept", "ratio", "seconds"), 1.0)
    return about | {"evidence": [0.5, 0.1], "rank": [1.0, 0.1]}


@pytest.fixture
def record():
    rows = [
        row("other", "gradient x input", [1.0, 1.0, 0.0]),
        row("zennit", "EpsilonPlus", [2.0, 3.0, 4.0]),
        row("jaxlrp", "Default", [2.0, 4.0, 6.0]),
    ]
    tokens = {"examples": 3, "rows": rows}
    cases = [
        ["tanh, 4 steps, norm 1", 3.5, 1e-7],
        ["GRU, 8 steps, scale 1", None, None],
    ]
    recurrences = [
        {"side": "jaxlrp", "method": "Default", "cases": cases, "seconds": 1}
    ]
    return {
        "images": {"groups": [0, 1, 2], "photographs": 4, "montages": 1, "rows": rows},
        **dict.fromkeys(("phonemes", "phonemes, zero", "prompts"), tokens),
        "pairs": {"examples": 6, "digits": 3, "rows": rows},
        "recurrences": {"seeds": 4, "rows": recurrences},
    }


def test_the_page_is_written_from_the_record(record, tmp_path):
    path = tmp_path / "record.json"
    path.write_text(json.dumps(record))
    out = tmp_path / "page.md"
    real.main(["--page", "--record", str(path), "--out", str(out)])
    text = out.read_text()
    assert "3 crops of 3 of 4 photographs" in text
    assert text.count("| **Default** | jaxlrp | 4.00 ± 0.10 |") == 3
    # Differences of 0, 1 and 2: the error is one over the root of three.
    assert text.count("| +1.00 ± 0.58 (zennit EpsilonPlus) |") == 4
    # Similarities are small: they have a digit more.
    assert "both directions of 3 pairs" in text
    assert text.count("| **Default** | jaxlrp | 4.000 ± 0.100 |") == 1
    (verdict,) = (x for x in text.splitlines() if x.startswith("| all-MiniLM-L6-v2 |"))
    assert "| +1.000 ± 0.577 (zennit EpsilonPlus) |" in verdict
    assert "| tanh, 4 steps, norm 1 | 3.5 | 1.0e-07 |" in text
    assert "| GRU, 8 steps, scale 1 | fails | fails |" in text and page.FAILS in text


def test_rows_are_said_with_their_parts_digits(record):
    said = page.said(record["pairs"]["rows"][1], page.digits_of(record["pairs"]))
    assert said == "zennit EpsilonPlus: 3.000 ± 0.100"
    said = page.said(record["prompts"]["rows"][1], page.digits_of(record["prompts"]))
    assert said == "zennit EpsilonPlus: 3.00 ± 0.10"


def test_variants_of_the_default_are_no_presets(record):
    part = record["pairs"]
    variant = row("jaxlrp", "Default, residual sums in proportion", [9.0] * 3)
    found = page.rivals({**part, "rows": [*part["rows"], variant]})["the best preset"]
    assert found == part["rows"][1]


def test_a_method_that_is_measured_again_takes_its_place(record):
    rows = record["prompts"]["rows"]
    again = row("zennit", "EpsilonPlus", [9.0] * 3)
    assert real.replaced(rows, again) == [rows[0], again, rows[2]]
    other = row("captum", "EpsilonPlus", [9.0] * 3)
    assert real.replaced(rows, other) == [*rows, other]


def test_what_is_chosen_exists():
    for part in ("images", "phonemes", "prompts", "pairs"):
        methods = getattr(real, part).METHODS
        for name in real.CHOSEN[part]:
            assert real.named([name], methods), name
