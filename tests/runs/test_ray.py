"""Workers of Ray write the same store."""

import os

import numpy as np
import pytest

pytest.importorskip("ray.data")

from jaxlrp import runs  # noqa: E402
from jaxlrp.runs import ray as on_ray  # noqa: E402
from tests.runs import small  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("JAXLRP_LONG" not in os.environ, reason="part of `make kills`"),
]


def make():
    return small.explainer(), small.images()


@pytest.fixture(scope="module")
def cluster():
    import ray

    root = small.__file__.split("tests")[0]
    env = {"PYTHONPATH": root, "XLA_FLAGS": os.environ["XLA_FLAGS"]}
    ray.init(num_cpus=2, include_dashboard=False, runtime_env={"env_vars": env})
    yield
    ray.shutdown()


@pytest.mark.filterwarnings("ignore")
def test_two_workers_write_what_one_process_writes(cluster, tmp_path):
    options = {"batch_size": 4, "block": 8}
    found = on_ray.attribute(make, tmp_path / "ray", workers=2, options=options)
    alone = runs.attribute(*make(), tmp_path / "alone", progress=False, **options)
    assert found.complete
    assert (np.asarray(found["relevance"]) == np.asarray(alone["relevance"])).all()


def test_workers_are_counted():
    with pytest.raises(ValueError, match="workers: got 0"):
        on_ray.attribute(make, "run", workers=0)
