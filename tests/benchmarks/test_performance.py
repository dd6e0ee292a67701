"""What relevance costs: tables, limits, page and picture, with tiny networks."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import (
    compile_time,
    gradient_ratio,
    layers,
    many_targets,
    performance,
    performance_figure,
    performance_limits,
    performance_page,
    profiles,
    side_by_side,
)
from tests.models.usual import DEEP, MODELS

EFFORT = performance.Effort(rounds=1, compiles=1, targets=1, tiny=True)


def cost(run=1.0, temporary=100, trace=1.0, compile=1.0, contractions=4, flops=8.0):
    return gradient_ratio.Cost(run, temporary, trace, compile, contractions, flops)


def row(model, composite, **changed):
    made = gradient_ratio.Row(model, composite, cost(), cost(**changed))
    return dataclasses.asdict(made)


def record(table, rows, device="a processor", backend="cpu"):
    facts = performance.environment(EFFORT)
    facts |= {"device": device, "backend": backend}
    return {"table": table, "environment": facts, "rows": rows}


# ---- what is measured ------------------------------------------------------------


def test_a_layer_is_its_formula():
    apply, params, x = layers.layer(layers.Shape(5, 6, 4), "between ReLUs")
    w, b, weight = (np.asarray(params[k]) for k in ("kernel", "bias", "weight"))
    expected = np.maximum(np.maximum(x, 0) @ w + b, 0) * weight
    np.testing.assert_allclose(apply(params, x), expected, rtol=1e-5, atol=1e-6)


def test_costs_of_layers_name_layer_place_and_rule():
    rows = layers.costs("first", 1, tiny=True)
    assert [r.composite for r in rows] == list(layers.FIRST)
    assert {performance_limits.place_of(r.model) for r in rows} == {"first"}
    assert all(r.gradient.contractions == 2 for r in rows)


def test_dense_layers_are_measured_with_prepared_weights_too():
    rows = layers.costs("both signs", 1, tiny=True)
    prepared = [r for r in rows if r.composite.endswith(gradient_ratio.PREPARED)]
    assert [r.composite for r in prepared] == [
        f"{rule}, prepared" for rule in layers.BETWEEN if rule != "epsilon"
    ]
    assert all(r.model.startswith("dense") for r in prepared)
    whole = {r.composite: r for r in rows if r.model == prepared[0].model}
    for row in prepared:
        usual = whole[row.composite.removesuffix(gradient_ratio.PREPARED)]
        assert row.gradient == usual.gradient
        assert row.relevance.flops < usual.relevance.flops
    checks = list(performance_limits.layers([dataclasses.asdict(r) for r in rows]))
    assert len(checks) == len(rows)


def test_a_loop_over_layers_is_the_layers_one_after_the_other():
    unrolled, params, x = DEEP["unrolled"](True)
    looped, stacked, _ = DEEP["scan"](True)
    blocks = [params["params"][f"LlamaBlock_{i}"] for i in range(3)]
    (scanned,) = (v for k, v in stacked["params"].items() if "LlamaBlock" in k)
    together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *blocks)
    assert jax.tree.structure(together) == jax.tree.structure(scanned)
    (name,) = (k for k in stacked["params"] if "LlamaBlock" in k)
    rest = {k: v for k, v in params["params"].items() if "LlamaBlock" not in k}
    same = {"params": {**rest, name: together}}
    np.testing.assert_allclose(unrolled(params, x), looped(same, x), rtol=1e-5)


@pytest.mark.parametrize("way", many_targets.WAYS)
def test_many_targets_together_are_the_same_as_one_by_one(way):
    apply, params, x = MODELS["vit"](True)
    targets = jnp.array([3, 0, 4])
    together = jax.jit(many_targets.WAYS[way](apply))(params, x, targets)
    single = jax.jit(many_targets.separately(apply))
    each = jnp.stack([single(params, x, t) for t in targets])
    np.testing.assert_allclose(together, each, rtol=1e-4, atol=1e-6)


def test_gradient_and_relevance_side_by_side_are_those_of_each_alone():
    apply, params, x = MODELS["resnet18"](True)
    value, slope, found = jax.jit(side_by_side.both(apply, None))(params, x)
    scores, alone = jax.jit(gradient_ratio.gradient(apply))(params, x)
    _, expected = jax.jit(gradient_ratio.relevance(apply, None))(params, x)
    np.testing.assert_allclose(value, scores, rtol=1e-5)
    np.testing.assert_allclose(slope, alone, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("program", compile_time.PROGRAMS)
def test_long_programs_have_as_many_equations_as_they_say(program):
    f = compile_time.PROGRAMS[program](40)
    assert len(jax.make_jaxpr(f)(jnp.ones(3)).jaxpr.eqns) == 40


def test_lengths_are_timed_for_each_program_and_size():
    found = compile_time.lengths(1, (4, 8))
    assert [(r.program, r.equations) for r in found] == [
        (program, size) for program in compile_time.PROGRAMS for size in (4, 8)
    ]
    assert all(r.gradient > 0 and r.relevance > 0 for r in found)


def test_several_compilations_are_of_functions_made_anew():
    made = []

    def build():
        made.append(None)
        return lambda x: x * 2.0

    found = gradient_ratio.measure({"twice": build}, (jnp.ones(3),), 2, compiles=3)
    assert len(made) == 3
    assert found["twice"].contractions == 0


# ---- limits ----------------------------------------------------------------------


def test_a_row_above_its_limit_is_not_met():
    rows = [
        row("vit", "attnlrp", run=1.05, temporary=120),
        row("vgg16", "epsilon-plus-flat", run=1.5, temporary=129),
    ]
    found = {
        (c.work, c.measure): c.met for c in performance_limits.CHECKS["networks"](rows)
    }
    one = "networks, rules of one pass"
    assert found == {
        (f"{one}: worst", "time"): True,
        (f"{one}: worst", "memory"): False,
        (f"{one}: median", "time"): False,
        (f"{one}: median", "memory"): False,
        ("vgg16, epsilon-plus-flat", "time"): False,
        ("vgg16, epsilon-plus-flat", "memory"): True,
    }


def test_the_median_is_over_rules_of_one_pass_alone():
    rows = [row("vit", "attnlrp", run=v) for v in (0.8, 0.9, 1.3)]
    rows.append(row("vgg16", "epsilon-plus-flat", run=9.0))
    (middle,) = (
        c
        for c in performance_limits.CHECKS["networks"](rows)
        if c.work.endswith("median") and c.measure == "time"
    )
    assert (middle.value, middle.met) == (0.9, True)


def test_limits_of_compiling_loops_lengths_and_targets():
    deep = [row("unrolled", "default", trace=1.3), row("scan", "default", trace=1.3)]
    assert [(c.measure, c.met) for c in performance_limits.CHECKS["deep"](deep)] == [
        ("trace and compile", True),
        ("trace and compile", False),
        ("memory", True),
    ]
    seconds = ((10, 1.0), (20, 2.3), (40, 5.6))
    lengths = [
        {"program": "chain", "equations": n, "gradient": 1.0, "relevance": s}
        for n, s in seconds
    ]
    found = list(performance_limits.CHECKS["lengths"](lengths))
    assert [c.met for c in found] == [True, False]
    rows = [dataclasses.asdict(many_targets.Together("vit", "vmap", 100, 10.0, 6.1))]
    (check,) = performance_limits.CHECKS["targets"](rows)
    assert check.value == pytest.approx(0.61)
    assert not check.met


def test_memory_that_is_not_told_is_not_checked():
    rows = [row("vit", "attnlrp", temporary=None)]
    found = performance_limits.CHECKS["networks"](rows)
    assert {c.measure for c in found} == {"time"}
    ((_, _, _, _, _, memory, *_),) = performance_page.cells("networks", rows)
    assert memory == "–"


# ---- page, picture, command ------------------------------------------------------


def test_the_page_has_each_device_and_marks_what_is_above_its_limit():
    rows = [row("vit", "attnlrp", run=1.05), row("vit", "cplrp", run=1.25)]
    records = [
        record("networks", rows),
        record("networks", rows[:1], "an accelerator", "gpu"),
    ]
    page = performance_page.render(records)
    assert "a processor: 4 of 6 are met." in page
    assert "an accelerator: 3 of 4 are met." in page
    assert "**1.25**" in page
    assert "**1.05**" not in page.split("## Networks")[1]
    assert jax.__version__ in page
    ours = page.split("## Throughput beside peers")[0]
    assert sum(line.startswith("| vit |") for line in ours.splitlines()) == 3


def test_every_line_of_a_table_has_the_columns_of_its_header():
    rows = {
        "networks": [row("vit", "attnlrp")],
        "layers": [row("dense; first", "flat")],
        "deep": [row("scan", "default")],
        "lengths": [
            {"program": "chain", "equations": 8, "gradient": 1.0, "relevance": 1.0}
        ],
        "targets": [
            dataclasses.asdict(many_targets.Together("vit", "vmap", 4, 2.0, 1.0))
        ],
        "side-by-side": [row("vit", "default")],
        "profiles": [
            dataclasses.asdict(
                profiles.Row("vit", "default", *[profiles.Busy(2.0, 1.0)] * 2)
            )
        ],
    }
    assert rows.keys() == performance.TABLES.keys() == performance_limits.CHECKS.keys()
    for name, given in rows.items():
        (cells,) = performance_page.cells(name, given)
        assert len(cells) == len(performance_page.HEADERS[name])


def test_what_falls_short_is_told_where_it_is_written(monkeypatch):
    records = [record("networks", [row("vit", "attnlrp")])]
    title = "## What falls short"
    monkeypatch.setattr(performance_page, "FALLS_SHORT", "")
    assert title not in performance_page.render(records)
    monkeypatch.setattr(performance_page, "FALLS_SHORT", "Memory of BERT.")
    assert f"{title}\n\nMemory of BERT.\n" in performance_page.render(records)


def peer_record():
    rows = [
        ("vgg16", "epsilon-plus-flat", "zennit EpsilonPlusFlat", "zennit", 0.5, 1.5),
        ("vgg16", "epsilon-plus-flat", "jaxlrp EpsilonPlusFlat", "jaxlrp", 0.4, 0.6),
    ]
    fields = ("model", "composite", "method", "package", "gradient", "seconds")
    return record("peers", [dict(zip(fields, r, strict=True)) for r in rows])


def test_peers_are_shown_over_the_gradient_of_their_framework():
    page = performance_page.render([peer_record()])
    line = "| vgg16 | zennit EpsilonPlusFlat | zennit | 500.0 | 1500.0 | 3.00 |"
    assert line in page.splitlines()
    assert "## Peers" in page


def test_a_peer_measured_beside_us_stands_for_what_was_measured_earlier():
    ours = record("networks", [row("vgg16", "epsilon-plus-flat", run=1.3)])
    points = performance_figure.points([ours, peer_record()])
    found = {
        (p.package, p.ratio)
        for p in points
        if (p.model, p.composite) == ("vgg16", "epsilon-plus-flat")
    }
    assert found == {("jaxlrp", 1.3), ("zennit", 3.0)}
    earlier = {p.package for p in points if p.model == "bert"}
    assert earlier == {"lxt", "dynamicLRP"}


def test_there_is_a_picture_where_a_network_and_its_peer_are():
    assert performance_figure.draw([record("networks", [])]) is None
    drawn = performance_figure.draw(
        [
            record("networks", [row("vgg16", "epsilon")]),
            record("networks", [row("vgg16", "epsilon", run=0.9)], "other", "gpu"),
        ]
    )
    assert drawn is not None
    assert drawn.startswith(b"\x89PNG")


def test_the_command_keeps_records_and_writes_the_page(tmp_path, capsys):
    options = ["--tiny", "--rounds", "1", "--records", str(tmp_path / "records")]
    out = tmp_path / "docs" / "performance.md"
    performance.main([*options, "--tables", "layers", "lengths", "--out", str(out)])
    names = sorted(path.name for path in (tmp_path / "records").iterdir())
    assert [name.partition("-")[0] for name in names] == ["layers", "lengths"]
    kept = json.loads((tmp_path / "records" / names[0]).read_text())
    assert kept["environment"]["jax"] == jax.__version__
    assert kept["environment"]["date"]
    page = out.read_text()
    assert "## One layer" in page
    assert "## Networks" not in page
    printed = capsys.readouterr().out
    out.unlink()
    performance.main(["--page", *options, "--out", str(out)])
    assert out.read_text() == page
    assert "z-plus" in printed
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "argv", [["--rounds", "0"], ["--tables", "none"], ["--threads", "0"]]
)
def test_wrong_options_are_refused(argv):
    with pytest.raises(SystemExit):
        performance.arguments(argv)


def test_a_trial_does_not_touch_the_records():
    options = performance.arguments(["--tiny"])
    assert options.records != performance.RECORDS
    assert options.out != performance.PAGE
