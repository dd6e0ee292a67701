"""The zoo's models have weights that matter, and its rows are well-formed."""

import ast
import types
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import coverage
from benchmarks.zoo import table
from benchmarks.zoo.weights import fill, ids, normal

ZOO = Path(table.__file__).parent


def struct(*shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def test_weights_have_no_zero_bias_and_no_unit_scale():
    shapes = {"norm": {"scale": struct(50), "bias": struct(50)}, "step": struct(50)}
    filled = fill(shapes | {"var": struct(50)})
    for name, mean in ((filled["norm"]["scale"], 1), (filled["var"], 1)):
        assert abs(float(name.mean()) - mean) < 0.1
        assert 0 < float(name.std()) < 0.2
    for value in (filled["norm"]["bias"], filled["step"]):
        assert abs(float(value.mean())) < 0.1
        assert (np.asarray(value) != 0).all()


@pytest.mark.parametrize(
    ("shape", "name", "out_first", "fan_in"),
    [
        ((100, 40), "kernel", False, 100),
        ((40, 100), "kernel", True, 100),
        ((3, 3, 8, 40), "kernel", False, 72 / 2),
        ((3, 3, 200, 1), "depthwise_kernel", False, 9 / 2),
        ((100, 40), "embedding", False, 1),
    ],
)
def test_kernels_have_the_variance_of_their_fan_in(shape, name, out_first, fan_in):
    value = fill({name: struct(*shape)}, out_first=out_first)[name]
    assert float(value.var()) * fan_in == pytest.approx(1.0, abs=0.15)


def test_what_is_no_float_stays_what_it_is():
    shapes = {"count": struct(3, dtype=jnp.int32), "act": jax.nn.relu}
    shapes["key"] = jax.eval_shape(lambda: jax.random.key(1))
    filled = fill(shapes, seed=5)
    assert filled["act"] is jax.nn.relu
    assert filled["count"].tolist() == [0, 0, 0]
    assert filled["count"].dtype == jnp.int32
    key = jax.random.key_data(jax.random.key(5))
    assert (jax.random.key_data(filled["key"]) == key).all()


def test_inputs_repeat_and_tokens_are_not_special():
    assert (normal(2, 3) == normal(2, 3)).all()
    assert (normal(2, 3) != normal(2, 3, seed=4)).all()
    tokens = ids(8, 50)
    assert int(tokens.min()) >= 3
    assert int(tokens.max()) < 99


def layer():
    params = fill({"kernel": struct(3, 4)})
    return lambda params, x: x @ params["kernel"], (params, normal(2, 3))


def broken():
    raise ValueError("no such class")


def attention():
    call = lambda params, x: jax.nn.softmax(x @ params["kernel"]) @ jnp.eye(4, 2)  # noqa: E731
    return call, layer()[1]


LIBRARY = types.SimpleNamespace(
    LIBRARY="plain",
    MODELS={"layers": {"one": layer, "two": layer}, "others": {"none": broken}},
    NOTES={"two": "of this one"},
)


def test_a_softmax_that_keeps_much_is_noted():
    row = table.row(LIBRARY, "layers", "attention", attention, 0)
    assert abs(row.expansions["softmax"]) > 0.05
    assert row.note == table.ATTENTION


def test_rows_are_those_of_the_models_that_run(capsys):
    rows = list(table.rows(LIBRARY, (), 0))
    assert [(r.name, r.library, r.family) for r in rows] == [
        ("one", "plain", "layers"),
        ("two", "plain", "layers"),
    ]
    assert [r.note for r in rows] == ["", "of this one"]
    for row in rows:
        assert row.coverage == 1.0
        assert row.accounted
        assert row.shares["inputs"] == pytest.approx(1.0, abs=1e-5)
    printed = capsys.readouterr()
    assert "plain: none failed" in printed.out
    assert "no such class" in printed.err
    assert sum(line[:1] == "|" for line in printed.out.splitlines()) == 2


def test_models_can_be_chosen_by_name():
    assert [r.name for r in table.rows(LIBRARY, ("two",), 0)] == ["two"]


def _names(module: str) -> list[str]:
    """The keys of a module's tables of models, read without importing it."""
    tree = ast.parse((ZOO / f"{module}.py").read_text())
    tables = [
        node.value
        for node in tree.body
        if isinstance(node, ast.AnnAssign)
        and ast.unparse(node.annotation) == "dict[str, Build]"
    ]
    assert all(isinstance(t, ast.Dict) for t in tables)
    return [key.value for t in tables for key in t.keys]


@pytest.mark.parametrize("module", table.LIBRARIES)
def test_names_are_unique_in_a_library(module):
    names = _names(module)
    assert names
    assert len(names) == len(set(names))


def test_every_module_of_models_is_a_library():
    own = {"__init__", "__main__", "table", "weights"}
    assert {p.stem for p in ZOO.glob("*.py")} - own == set(table.LIBRARIES)


def test_every_requirement_has_one_version():
    files = list(ZOO.glob("requirements-*.txt"))
    assert files
    for path in files:
        lines = [v for v in path.read_text().splitlines() if not v.startswith("#")]
        assert all(line.count("==") == 1 for line in lines)


def test_lines_of_the_page_are_whole_and_name_a_model_once():
    page = coverage.PAGE.read_text()
    for section in page.split("\n## ")[1:]:
        lines = [v for v in section.splitlines() if v.startswith("| ")]
        rows = [[c.strip() for c in v.strip("|").split("|")] for v in lines]
        names = [r[0] for r in rows if r[0] not in ("model", "---")]
        # Where no model was timed there is no column for it.
        assert {len(r) for r in rows} <= {
            len(coverage.HEADER) - 1,
            len(coverage.HEADER),
        }
        assert len({len(r) for r in rows}) <= 1
        assert len(names) == len(set(names))
        assert all(r[5] == "100 %" for r in rows if r[0] in names)
