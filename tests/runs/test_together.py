"""Runs of two processes under `jax.distributed`."""

import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn")

from examples import multiprocess  # noqa: E402
from jaxlrp import runs  # noqa: E402
from tests.runs import small, together  # noqa: E402

ROOT = small.__file__.split("tests")[0]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("JAXLRP_LONG" not in os.environ, reason="part of `make kills`"),
]


def start(out, how):
    address = f"127.0.0.1:{multiprocess.free_port()}"
    env = multiprocess.environment(2) | {"PYTHONPATH": ROOT}
    return [
        subprocess.Popen(
            [sys.executable, "-m", "tests.runs.together", out, address, str(i), how],
            cwd=ROOT,
            env=env,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]


@pytest.mark.parametrize("how", ["mesh", "shards"])
def test_two_processes_write_what_one_does_and_one_goes_on(how, tmp_path):
    for process in start(tmp_path / "run", how):
        _, error = process.communicate(timeout=120)
        assert process.returncode == 0, error
    found = runs.Attributions(tmp_path / "run")
    expected = np.asarray(
        jax.vmap(lambda x: small.explainer()(x[None])[0])(small.images())
    )
    assert found.complete
    np.testing.assert_allclose(
        found["relevance"][:], expected, atol=5e-4 * abs(expected).max()
    )
    # What two began one may finish.
    found.path.joinpath("done", "00000003.npz").unlink()
    assert together.run(found.path, mesh=jax.devices()[:1]).complete


def test_a_process_whose_peer_dies_ends_with_an_error(tmp_path):
    survivor, dead = start(tmp_path / "run", "dies")
    began = time.monotonic()
    survivor.communicate(timeout=120)
    dead.communicate(timeout=120)
    assert dead.returncode == -9 and survivor.returncode not in (0, None)
    assert time.monotonic() - began < 60
