"""What is left of networks if units go, on tiny ones."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.patching import induction
from benchmarks.units import __main__ as command
from benchmarks.units import artefact, digits, language, texts
from examples import smollm


@pytest.fixture
def tiny(monkeypatch):
    """A decoder with random weights, whose words are numbers."""

    @dataclasses.dataclass(frozen=True)
    class Words(smollm.Loaded):
        def ids(self, prompt, tokens=None):
            return np.frombuffer(prompt.encode(), np.uint8) % induction.WORDS

    monkeypatch.setattr(language, "TOKENS", 6)
    monkeypatch.setattr(language, "SHARES", (0.0, 1.0))
    some = {n: language.CRITERIA[n] for n in ("RelP, token by token",)}
    monkeypatch.setattr(language, "CRITERIA", some)
    params = induction.fresh(jax.random.key(0))
    return Words(induction.CONFIG, params, None)  # pyright: ignore[reportArgumentType]


def test_perplexities_begin_at_that_of_the_whole_network(tiny):
    whole, found = language.perplexities(tiny)
    ids = language.rows(tiny, texts.HELD_OUT)
    logits = jax.vmap(language.network(tiny), (None, 0))(tiny.params, ids)
    each = jax.vmap(language.likelihood)(logits, ids)
    np.testing.assert_allclose(whole, np.exp(-each.sum() / 20), rtol=1e-4)
    rows = [row for how in found.values() for s in how.values() for row in s.values()]
    assert len(rows) == 2 * 2 * 4
    np.testing.assert_allclose([row[0] for row in rows], whole, rtol=1e-4)
    # Without any unit it does not matter which went first.
    for site in language.SITES:
        gone = [row[1] for how in found.values() for row in how[site].values()]
        np.testing.assert_allclose(gone, gone[0], rtol=1e-4)


def test_the_mark_is_found_where_it_is():
    found = artefact.corrected(60)
    assert set(found) == {"features", "hidden"}
    before = found["features"]["nothing"]["0"]
    behind = found["features"]["difference of two datasets"]["16"]
    random = found["features"]["random"]["16"]
    assert behind[2] < before[2] / 2 < random[2]
    assert abs(behind[0] - before[0]) < 0.02


def test_tagged_digits_are_the_network_of_the_example():
    apply, params = digits.build(0)
    plain, again = digits.digits.build(0)
    image = jnp.linspace(-1, 1, 64).reshape(8, 8, 1)
    np.testing.assert_allclose(apply(params, image), plain(again, image), atol=1e-5)


def test_the_command_keeps_what_it_measures(tmp_path, monkeypatch, capsys):
    row = [0.5] * len(digits.SHARES)
    monkeypatch.setattr(digits, "accuracies", lambda *_: (0.75, {"random": row}))
    lines = {"random": {"4": [0.5, 0.25, 1.5]}}
    monkeypatch.setattr(artefact, "corrected", lambda _: {"hidden": lines})
    sites = {site: {"random": [2.0, 200.0, 2e4, 2e5]} for site in language.SITES}
    monkeypatch.setattr(
        command, "of_language", lambda: {"whole": 1.5, "perplexity": {"alone": sites}}
    )
    record = tmp_path / "units.json"
    command.main(["--record", str(record), "--networks", "2"])
    shown = capsys.readouterr().out
    assert "accuracy, 75.0 % of the whole network, mean of 2" in shown
    assert "| hidden | random | 4 | 50.0 | 25.0 | 1.50 |" in shown
    assert "| random | 2.0 | 200 | > 10,000 | > 10,000 | 2.0 |" in shown
    assert set(json.loads(record.read_text())) == {"digits", "artefact", "language"}
