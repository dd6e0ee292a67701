"""Explain a dataset that no process has all of: two processes, one relevance.

A dataset of this kind is on many machines. Here the machines are two processes on this
one, with two devices each, which this script starts. Every process loads its own part
of scikit-learn's digits and makes global arrays of it. From there on nothing mentions
processes: training and `jaxlrp.value_and_lrp` are one compiled program each over all
devices, and relevance lies where its image lies. What travels between the processes is
the gradient of the parameters and, at the end, one summary, which pixels matter for
which class: the mean of `|R|`. Process 0 writes it to a file.

Run it from the root of the repository:

    python -m examples.multiprocess

On machines that are apart, start one process on each, with the address of the first:

    python -m examples.multiprocess --process 0 --address 10.0.0.1:1234 --processes 2
"""

import argparse
import dataclasses
import io
import os
import re
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from sklearn.datasets import load_digits

import jaxlrp
from jaxlrp import _files, composites

CLASSES = 10
COMPOSITE = composites.EpsilonPlusFlat()


@dataclasses.dataclass(frozen=True)
class Options:
    """What the command line can change."""

    out: Path = Path("out/multiprocess.npz")
    steps: int = 80
    images: int | None = None  # only the first so many
    processes: int = 2
    devices: int = 2  # of each process
    seconds: float = 300.0  # after which all processes are ended
    process: int | None = None  # which of them this is; None: the one that starts them
    address: str | None = None  # of process 0, "host:port"


Params = dict[str, jax.Array]


# ---- the network -------------------------------------------------------------------


def apply(params: Params, images: jax.Array) -> jax.Array:
    """Two convolutions and a dense layer: images '... 8 8 1' to logits."""
    x = images
    for name, stride in (("conv1", 1), ("conv2", 2)):
        x = jax.lax.conv_general_dilated(
            x,
            params[name],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        x = jax.nn.relu(x + params[f"{name}_bias"])
    return x.reshape(len(x), -1) @ params["logits"] + params["logits_bias"]


def first_parameters() -> dict[str, np.ndarray]:
    """The same in every process."""
    rng = np.random.default_rng(0)

    def kernel(*shape: int) -> np.ndarray:
        scale = np.sqrt(2 / np.prod(shape[:-1]))
        return (scale * rng.normal(size=shape)).astype(np.float32)

    kernels = {
        "conv1": kernel(3, 3, 1, 8),
        "conv2": kernel(3, 3, 8, 16),
        "logits": kernel(4 * 4 * 16, CLASSES),
    }
    biases = {
        f"{name}_bias": np.zeros(w.shape[-1], np.float32) for name, w in kernels.items()
    }
    return kernels | biases


# ---- data --------------------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Data:
    """Images in [-1, 1], 'n 8 8 1', labels, and a weight: 0 where nothing is."""

    images: Any
    labels: Any
    weights: Any


def part(process: int, processes: int, devices: int, images: int | None) -> Data:
    """What one process has: every so manieth digit.

    All parts have one length, a multiple of the devices of a process: what is missing
    is filled up with grey images of weight zero.
    """
    digits: Any = load_digits()
    pixels = (digits.images[:images, ..., None] / 8 - 1).astype(np.float32)
    labels = digits.target[:images].astype(np.int32)
    longest = -(-len(pixels) // processes)
    length = -(-longest // devices) * devices
    own = slice(process, None, processes)
    data = Data(pixels[own], labels[own], np.ones(len(pixels[own]), np.float32))

    def filled(x: np.ndarray) -> np.ndarray:
        return np.pad(x, [(0, length - len(x))] + [(0, 0)] * (x.ndim - 1))

    return jax.tree.map(filled, data)


def global_arrays(local: Any, mesh: jax.sharding.Mesh, *axes: str) -> Any:
    """Arrays over all devices, of the parts that the processes have.

    Without an axis every process has all of it.
    """
    sharding = NamedSharding(mesh, PartitionSpec(*axes))
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, x), local
    )


# ---- programs over all devices -----------------------------------------------------


@jax.jit
def train(params: Params, data: Data, steps: jax.Array) -> Params:
    """Gradient descent with momentum, every step on all images of all processes."""

    def loss(params: Params) -> jax.Array:
        scores = jax.nn.log_softmax(apply(params, data.images))
        right = jnp.take_along_axis(scores, data.labels[:, None], 1)[:, 0]
        return -(data.weights * right).sum() / data.weights.sum()

    def step(_: Any, carry: Any) -> Any:
        params, speed = carry
        slope = jax.grad(loss)(params)
        speed = jax.tree.map(lambda v, g: 0.9 * v - 0.05 * g, speed, slope)
        return jax.tree.map(jnp.add, params, speed), speed

    speed = jax.tree.map(jnp.zeros_like, params)
    return jax.lax.fori_loop(0, steps, step, (params, speed))[0]


@jax.jit
def explain(params: Params, data: Data) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Relevances, each where its image is, and a summary that every process has.

    `heat[c]` is the mean of `|R|` over the images of class `c`.
    """
    logits, relevance = jaxlrp.value_and_lrp(apply, COMPOSITE)(params, data.images)
    member = jax.nn.one_hot(data.labels, CLASSES) * data.weights[:, None]
    count = member.sum(0)
    heat = jnp.einsum("nc,nhw->chw", member, jnp.abs(relevance[..., 0]))
    right = (logits.argmax(-1) == data.labels) * data.weights
    summary = {
        "heat": heat / jnp.maximum(count, 1)[:, None, None],
        "count": count,
        "accuracy": right.sum() / count.sum(),
        # Of the explained logits, the share that arrives at the pixels.
        "conserved": (relevance.sum((1, 2, 3)) * data.weights).sum()
        / (logits.max(-1) * data.weights).sum(),
    }
    return relevance, summary


# ---- one process -------------------------------------------------------------------


def work(options: Options) -> dict[str, np.ndarray]:
    """What every process does; JAX knows of the others already."""
    process, processes = jax.process_index(), jax.process_count()
    mesh = jax.make_mesh((jax.device_count(),), ("data",), axis_types=(AxisType.Auto,))
    local = part(process, processes, jax.local_device_count(), options.images)
    data = global_arrays(local, mesh, "data")
    params = global_arrays(first_parameters(), mesh)

    params = train(params, data, options.steps)
    relevance, summary = explain(params, data)
    assert relevance.sharding.is_equivalent_to(data.images.sharding, relevance.ndim)
    here = sum(shard.data.shape[0] for shard in relevance.addressable_shards)
    print(
        f"process {process}: {int(local.weights.sum())} images, "
        f"{here} of {len(relevance)} rows of the relevance",
        flush=True,
    )
    return {name: np.asarray(value) for name, value in summary.items()}


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """All of the file or nothing: a reader never meets half of it."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    _files.write(path, buffer.getvalue(), folders=True)


def run_process(options: Options) -> None:
    """Joins the other processes, works, and writes if it is the first."""
    assert options.address is not None and options.process is not None
    jax.distributed.initialize(
        options.address,
        options.processes,
        options.process,
        initialization_timeout=int(options.seconds),
        coordinator_bind_address=options.address,  # and no other interface
    )
    try:
        summary = work(options)
        if options.process == 0:
            write(options.out, summary)
            print(
                f"{int(summary['count'].sum())} images on {jax.device_count()} "
                f"devices, accuracy {summary['accuracy']:.3f}, "
                f"conserved {summary['conserved']:.3f}\nwrote {options.out}",
                flush=True,
            )
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # where a process ends as usual, JAX waits for the others
    jax.distributed.shutdown()


# ---- all processes -----------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def commands(options: Options) -> list[list[str]]:
    """The command line of each process."""
    base = [sys.executable, "-m", "examples.multiprocess"]
    shared = {
        "out": options.out.absolute(),
        "steps": options.steps,
        "images": options.images,
        "processes": options.processes,
        "devices": options.devices,
        "seconds": options.seconds,
        "address": options.address or f"127.0.0.1:{free_port()}",
    }
    flags = [f"--{name}={v}" for name, v in shared.items() if v is not None]
    return [[*base, *flags, f"--process={i}"] for i in range(options.processes)]


def environment(devices: int) -> dict[str, str]:
    """Of a process with so many CPU devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", flags)
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "XLA_FLAGS": flags.strip(),
    }


def run_together(
    argvs: Sequence[Sequence[str]], env: dict[str, str], seconds: float
) -> None:
    """Runs commands until all are done; if one fails, or time is up, all are ended.

    Raises:
      RuntimeError: if a command fails.
      TimeoutError: if not all are done in time.
    """
    root = Path(__file__).resolve().parents[1]
    running: list[subprocess.Popen] = []
    codes: list[int | None] = [None]
    end = time.monotonic() + seconds
    try:
        for argv in argvs:
            running.append(subprocess.Popen(argv, env=env, cwd=root))
        while None in codes and not any(codes) and time.monotonic() < end:
            time.sleep(0.05)
            codes = [process.poll() for process in running]
    finally:
        for process in running:
            stop(process)
    failed = {i: code for i, code in enumerate(codes) if code}
    if failed:
        raise RuntimeError(f"processes that failed, and their exit codes: {failed}")
    if None in codes:
        raise TimeoutError(f"not done after {seconds:g} s")


def stop(process: subprocess.Popen, patience: float = 2.0) -> None:
    """Ends a process, if it still runs."""
    process.terminate()
    try:
        process.wait(patience)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def parse(arguments: Sequence[str] | None = None) -> Options:
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="python -m examples.multiprocess",
        description="Explain a dataset that is spread over processes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    about = {
        "out": (Path, "file of the summary"),
        "steps": (int, "of training"),
        "images": (int, "of the dataset, all if unset"),
        "processes": (int, "how many"),
        "devices": (int, "of each process that is started here"),
        "seconds": (float, "after which all are ended"),
        "process": (int, "which one this is; if unset, all are started here"),
        "address": (str, "host:port of process 0; if unset, a free port here"),
    }
    for name, (kind, text) in about.items():
        default = getattr(defaults, name)
        parser.add_argument(f"--{name}", type=kind, default=default, help=text)
    options = Options(**vars(parser.parse_args(arguments)))
    for name in ("steps", "images", "processes", "devices"):
        value = getattr(options, name)
        if value is not None and value < 1:
            parser.error(f"--{name}: got {value}, expected at least 1")
    if options.process is not None:
        if options.address is None:
            parser.error("--process needs --address")
        if not 0 <= options.process < options.processes:
            parser.error(
                f"--process: got {options.process}, expected a number below "
                f"{options.processes}"
            )
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse(arguments)
    if options.process is not None:
        run_process(options)
    else:
        env = environment(options.devices)
        run_together(commands(options), env, options.seconds)


if __name__ == "__main__":
    main()
