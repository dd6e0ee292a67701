"""The coverage table counts, accounts for and times what it says."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import coverage

W = jnp.asarray(np.linspace(-1.0, 2.0, 12).reshape(3, 4), jnp.float32)
B = jnp.asarray([0.5, 1.0, -0.25, 2.0], jnp.float32)
X = jnp.asarray([1.0, -2.0, 3.0], jnp.float32)


def layer(params, x):
    return x @ params["w"] + params["b"]


@functools.cache
def measured() -> coverage.Row:
    args = ({"w": W, "b": B}, X)
    return coverage.measure("layer", "plain", layer, args, rounds=0, note="a note")


def row(**changes) -> coverage.Row:
    return dataclasses.replace(measured(), **changes)


def test_row_of_a_layer_has_its_numbers():
    made = row()
    highest = int((X @ W + B).argmax())
    out = float((X @ W + B)[highest])
    assert made.parameters == 16
    assert set(made.primitives) >= {"dot_general", "add"}
    assert made.coverage == 1.0
    assert made.shares["inputs"] == pytest.approx(float(X @ W[:, highest]) / out, 1e-5)
    assert made.shares["bias"] == pytest.approx(float(B[highest]) / out, 1e-5)
    assert coverage.kept(made) == pytest.approx(1.0, abs=1e-5)
    assert made.accounted
    assert made.ratio is None


def test_expansions_are_told_by_the_step_that_they_are_of():
    f = lambda w, x: jax.nn.softmax(x @ w) @ W.T  # noqa: E731
    found = coverage.account(f, (W, X), target="all")
    assert set(found["expansions"]) == {"softmax"}
    total = sum(found["expansions"].values())
    assert total == pytest.approx(found["shares"]["Taylor"], rel=1e-5)
    assert abs(total) > 0.01


def test_calls_count_as_often_as_they_are_made_and_loops_once():
    twice = jax.jit(lambda x: jnp.sin(jnp.sin(x)))

    def f(x):
        x = twice(twice(x))
        return jax.lax.scan(lambda c, _: (jnp.cos(c), None), x, None, length=7)[0]

    counted = coverage.count(jax.make_jaxpr(f)(1.0).jaxpr)
    assert counted["sin"] == 4
    assert counted["cos"] == 1
    assert counted["scan"] == 1
    assert not {"jit", "pjit"} & set(counted)


def test_whole_is_read_in_place_of_the_function():
    shapes = ({"w": jax.ShapeDtypeStruct((300, 4), jnp.float32), "b": B}, None)
    whole = (shapes[0], jax.ShapeDtypeStruct((300,), jnp.float32))
    args = ({"w": W, "b": B}, X)
    made = coverage.measure("n", "l", layer, args, whole=(layer, whole), rounds=0)
    assert made.parameters == 1204


def test_time_is_a_ratio_where_there_is_a_gradient():
    assert coverage.time_ratio(layer, ({"w": W, "b": B}, X), rounds=3) > 0
    ids = jnp.array([0, 2])
    assert coverage.time_ratio(lambda p, i: p[i].sum(0), (W, ids), rounds=3) is None


def test_loop_without_a_gradient_has_no_time():
    def f(x):
        return jax.lax.while_loop(lambda c: c.sum() < 9, lambda c: 2 * c, x)

    assert coverage.time_ratio(f, (jnp.ones(2),), rounds=3) is None


def test_records_are_kept_and_read_again(tmp_path):
    rows = [row(), row(name="other", ratio=1.5)]
    coverage.save("plain", rows, tmp_path)
    assert coverage.load(tmp_path) == rows


def test_versions_of_jax_share_a_line():
    rows = [row(jax="0.12.0"), row(jax="0.10.2", coverage=0.5, unaccounted=0.25)]
    page = coverage.render(rows)
    lines = [line for line in page.splitlines() if line.startswith("| layer |")]
    assert len(lines) == 1
    assert "0.10.2, 0.12.0" in lines[0]
    assert "50 %" in lines[0]
    assert "**no**" in lines[0]
    assert "*layer*: a note" in page


def test_lines_have_the_header_s_columns():
    assert len(coverage.cells([row()])) == len(coverage.HEADER)


def test_a_page_without_times_has_no_column_for_them():
    assert "| time |" in coverage.render([row(ratio=1.5), row(name="b", ratio=None)])
    page = coverage.render([row(ratio=None)])
    (line,) = (line for line in page.splitlines() if line.startswith("| layer |"))
    assert "| time |" not in page and "*time*" not in page
    assert line.count("|") == len(coverage.HEADER)


def test_unknown_models_are_refused(capsys):
    with pytest.raises(SystemExit):
        coverage.main(["--models", "none"])
    assert "none" in capsys.readouterr().err
