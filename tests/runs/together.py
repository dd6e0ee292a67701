"""One of two processes under `jax.distributed`; a program that a test starts.

python -m tests.runs.together OUT ADDRESS PROCESS {mesh,shards,dies}
"""

import os
import signal
import sys

import jax
from jax.sharding import AxisType

BATCH, BLOCK = 1, 8


def run(out, **options):
    from jaxlrp import runs
    from tests.runs import small

    options = {"batch_size": BATCH, "block": BLOCK, "progress": False} | options
    return runs.attribute(small.explainer(), small.images(), out, **options)


def main(out, address, process, how):
    beat = {"heartbeat_timeout_seconds": 10} if how == "dies" else {}
    jax.distributed.initialize(address, 2, int(process), **beat)
    options = {}
    if how != "shards":
        shape = (jax.device_count(),)
        axes = (AxisType.Auto,)
        options["mesh"] = jax.make_mesh(shape, ("data",), axis_types=axes)
    if how == "dies" and process == "1":
        options["progress"] = lambda state: os.kill(os.getpid(), signal.SIGKILL)
    run(out, **options)
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
