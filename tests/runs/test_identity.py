"""A run does not go on with something else."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxlrp
from jaxlrp import composites, errors, runs
from jaxlrp.runs import _identity, _manifest
from tests.runs import small

W = small.weights(36, 3)
X = small.images().reshape(small.ROWS, 36)


def explainer(w=W, composite=None, target="max", inner=False, scale=None):
    def scores(w, x):
        out = jax.nn.relu(x @ w)
        return out if scale is None else scale * out

    relevance = jaxlrp.lrp(scores, composite, target=target)
    if inner:  # the weights belong to a program in the program
        called = jax.jit(lambda x: relevance(jnp.asarray(w), x))
        return jax.jit(lambda x: called(x))
    return jax.jit(lambda x: relevance(w, x))


def run(out, explain=None, source=X, **options):
    options = {"batch_size": 4, "block": 8, "progress": False} | options
    return runs.attribute(explain or explainer(), source, out, **options)


def one_ulp():
    w = W.copy()
    w[7, 1] = np.nextafter(w[7, 1], np.float32(9))
    return w


OTHERS = {
    "weight": (lambda: {"explain": explainer(one_ulp())}, "constants"),
    "composite": (lambda: {"explain": explainer(W, composites.EpsilonPlus())}, "prog"),
    "epsilon": (
        lambda: {"explain": explainer(W, composites.Epsilon(1e-3))},
        "`program` differs: there it has .*now .*",
    ),
    "target": (lambda: {"explain": explainer(target=1)}, "program"),
    "row": (lambda: {"source": np.concatenate([X[:-1], X[:1]])}, "data"),
    "rows": (lambda: {"source": X[:-1]}, "rows"),
    "batch_size": (lambda: {"batch_size": 8}, "`batch_size` .* there it is 4, now 8"),
    "block": (lambda: {"block": 16}, "block"),
    "dtype": (lambda: {"dtype": "float16"}, "arrays"),
    "write": (lambda: {"write": []}, "arrays"),
    "reduce": (lambda: {"reduce": {"a": runs.Moments("relevance")}}, "reduce"),
}


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run")).path


@pytest.mark.whole
@pytest.mark.parametrize("other", OTHERS)
def test_another_run_is_refused_by_the_name_of_what_differs(other, known):
    options, match = OTHERS[other]
    before = sorted(known.rglob("*"))
    with pytest.raises(errors.OtherRunError, match=match):
        run(known, **options())
    assert sorted(known.rglob("*")) == before


def test_another_version_is_refused(known, monkeypatch):
    monkeypatch.setattr(jaxlrp, "__version__", "0.0.9")
    with pytest.raises(errors.OtherRunError, match="jaxlrp.*now '0.0.9'"):
        run(known)


def test_double_precision_is_refused(known):
    jax.config.update("jax_enable_x64", True)
    with pytest.raises(errors.OtherRunError, match="`x64` differs"):
        run(known)


def test_inner_weights_count(tmp_path):
    run(tmp_path, explainer(inner=True))
    assert run(tmp_path, explainer(inner=True)).complete
    with pytest.raises(errors.OtherRunError, match=r"constants.*float32\[36, ?3\]"):
        run(tmp_path, explainer(one_ulp(), inner=True))


def test_a_number_in_the_program_counts_to_its_last_bit(tmp_path):
    number = np.float32(0.1)
    run(tmp_path, explainer(scale=number))
    with pytest.raises(errors.OtherRunError):
        run(tmp_path, explainer(scale=np.nextafter(number, np.float32(1))))


def with_jvp(f):
    g = jax.custom_jvp(f)
    g.defjvp(lambda xs, ts: (f(*xs), f(*ts)))
    return g


@pytest.mark.parametrize(
    "hold",
    [
        lambda w: lambda x: x @ w,
        lambda w: jax.checkpoint(lambda x: x @ w),
        lambda w: lambda x: jax.lax.cond(x.sum() > 0, lambda: x @ w, lambda: x),
        lambda w: lambda x: jax.lax.fori_loop(0, 3, lambda i, x: x @ w, x),
        lambda w: lambda x: jax.lax.scan(lambda c, _: (c @ w, None), x, None, 2)[0],
        lambda w: (
            lambda x: jax.lax.while_loop(lambda x: x.sum() > 9, lambda x: x @ w, x)
        ),
        lambda w: with_jvp(lambda x: x @ w),
        lambda w: jax.vmap(lambda x: x @ w),
    ],
)
def test_a_constant_is_found_wherever_it_is(hold):
    def constants(w):
        f = jax.jit(hold(jnp.asarray(w)))
        return _identity.read(
            f, [jax.ShapeDtypeStruct((4, 3), np.float32)], 4
        ).constants

    w = small.weights(3, 3)
    changed = w.copy()
    changed[2, 1] = np.nextafter(w[2, 1], np.float32(9))
    assert constants(w) == constants(w.copy()) != constants(changed)


SAME = """
import sys, numpy as np
sys.path.insert(0, "")
from tests.runs import small
from jaxlrp.runs import _identity
import jax
for name in small.NETWORKS:
    x = jax.ShapeDtypeStruct((4, 6, 6, 1), np.float32)
    program = _identity.read(small.explainer(name), [x], 4)
    print(_identity.identity(program, jax.devices()[0]))
"""


def test_another_process_finds_the_same_identity():
    root = small.__file__.split("tests")[0]

    env = os.environ | {"PYTHONHASHSEED": "7", "PYTHONPATH": root}
    command = [sys.executable, "-c", SAME]
    done = subprocess.run(
        command, cwd=root, env=env, capture_output=True, text=True, check=True
    )
    for name, printed in zip(small.NETWORKS, done.stdout.splitlines(), strict=True):
        x = jax.ShapeDtypeStruct((4, 6, 6, 1), np.float32)
        program = _identity.read(small.explainer(name), [x], 4)
        assert str(_identity.identity(program, jax.devices()[0])) == printed


def test_who_comes_first_writes_the_manifest(tmp_path):
    content = {"identity": {"program": "a" * 64}, "rows": 3}
    first = _manifest.settle(tmp_path, content, "text")
    assert _manifest.settle(tmp_path, {**content, "rows": 4}, "other") == first
    assert _manifest.program_text(tmp_path, first) == "text"


def test_a_format_that_is_not_known_is_refused(tmp_path):
    (tmp_path / "manifest.json").write_text('{"format": "jaxlrp.runs", "version": 99}')
    with pytest.raises(errors.StoreError, match="99"):
        runs.Attributions(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(errors.StoreError, match="broken"):
        runs.Attributions(tmp_path)
