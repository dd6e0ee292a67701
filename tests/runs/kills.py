"""Ends runs with kill -9 and goes on with them; a program, and what a test runs of it.

    python -m tests.runs.kills                    20 kills in each setting
    python -m tests.runs.kills --devices 8 --shards 2 --kills 3
    python -m tests.runs.kills --errors 50        errors instead of kills

The processes are forks of this one, made before JAX starts a backend.
"""

import argparse
import os
import pathlib
import shutil
import signal
import sys
import tempfile
import time
import traceback

import numpy as np

BATCH, BLOCK, ROWS = 4, 8, 365
BLOCKS = -(-ROWS // BLOCK)
SECONDS = 60.0
"""A run that takes longer hangs."""


class Slow:
    """Rows that take their time, and leave a line for each time that they are read."""

    def __init__(self, log=None, seconds=0.0):
        self.log, self.seconds = log, seconds

    def __len__(self):
        return ROWS

    def __getitems__(self, indices):
        from tests.runs import small

        time.sleep(self.seconds)
        if self.log is not None and len(set(indices)) > 1:
            with open(self.log, "a") as file:
                file.write(f"{indices[0]} {len(set(indices))}\n")
        return [small.images(ROWS)[i] for i in indices]

    def __getitem__(self, i):
        return self.__getitems__([i])[0]


def run(out, *, devices=1, shard=(0, 1), source=None, **options):
    """A run of a small network."""
    import jax

    from jaxlrp import runs
    from tests.runs import small

    return runs.attribute(
        small.explainer("mlp"),
        Slow() if source is None else source,
        out,
        batch_size=BATCH,
        block=BLOCK,
        mesh=jax.devices()[:devices],
        shard=shard,
        progress=False,
        reduce={"moments": runs.Moments("relevance")},
        **options,
    )


def forked(work):
    """A process that does this; its number."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


def ended(child, seconds=SECONDS):
    """How a process ended: its exit code, or minus the signal.

    Raises:
      TimeoutError: if it did not.
    """
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise TimeoutError(f"a process took more than {seconds} s")


def markers(out):
    """The blocks that are done, each with the file that says so."""
    found = pathlib.Path(out).glob("done/*.npz")
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


def kill_at(child, out, count):
    """Kills a process once so many markers are there; False if it ended before."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if len(markers(out)) >= count:
            os.kill(child, signal.SIGKILL)
            return ended(child) == -signal.SIGKILL
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            assert not status, f"a process ended with {status}"
            return False
        time.sleep(0.0005)
    raise TimeoutError(f"{count} markers took more than {SECONDS} s")


def lost(log, out):
    """Rows that were read and whose block was not done."""
    done = {int(name[:8]) for name in markers(out)}
    lines = [line.split() for line in pathlib.Path(log).read_text().splitlines()]
    rows = {int(first): int(count) for first, count in lines}
    return sum(n for first, n in rows.items() if first // BLOCK not in done)


def kill(folder, devices, shards, kills):
    """Kills a run so often, goes on, and compares with one that nothing disturbed."""
    folder = pathlib.Path(folder)
    whole, out, log = folder / "whole", folder / "run", folder / "log"
    assert ended(forked(lambda: run(whole))) == 0
    own = len(range(0, BLOCKS, shards))
    others = []
    if shards > 1:
        others = [
            forked(
                lambda i=i: run(
                    out, devices=devices, shard=(i, shards), source=Slow(None, 0.002)
                )
            )
            for i in range(1, shards)
        ]
        # The survivors do not notice what happens to the first shard.
        for child in others:
            assert ended(child) == 0
    elsewhere = len(markers(out))
    counts = np.unique(np.linspace(1, own - 2, kills).round().astype(int))
    happened, most = 0, 0
    for count in counts:
        log.write_text("")
        before = markers(out)
        child = forked(
            lambda: run(
                out, devices=devices, shard=(0, shards), source=Slow(log, 0.004)
            )
        )
        happened += kill_at(child, out, elsewhere + count)
        after = markers(out)
        assert before.items() <= after.items(), "a block was done again"
        most = max(most, lost(log, out))
    # Three blocks, and the calls that are read ahead or on their way.
    ahead = 2
    assert most <= 3 * BLOCK + (ahead * devices + ahead + 3) * BATCH, most
    before = markers(out)
    assert ended(forked(lambda: run(out, devices=devices, shard=(0, shards)))) == 0
    assert before.items() <= markers(out).items()
    child = forked(lambda: compare(whole, out))
    assert ended(child) == 0, "results differ"
    return happened, most


def compare(first, second):
    """Are two runs the same, bit by bit?"""
    from jaxlrp import runs

    a, b = runs.Attributions(first), runs.Attributions(second)
    assert a.complete and b.complete
    assert len(b.done(verify=True)) == BLOCKS
    for name in a.names:
        assert a[name][:].tobytes() == b[name][:].tobytes()
    for x, y in zip(
        a.reduced("moments").values(), b.reduced("moments").values(), strict=True
    ):
        assert x.tobytes() == y.tobytes()


class Broken(Slow):
    """Rows of which one cannot be read."""

    def __getitems__(self, indices):
        if max(indices) >= 60 and len(indices) > 1:
            raise OSError("this row is gone")
        return super().__getitems__(indices)


def fails(kind, out):
    """A run in which something goes wrong."""
    import jax

    from jaxlrp import runs
    from jaxlrp.runs import _store

    if kind == "source":
        run(out, source=Broken())
    elif kind == "explain":
        calls = []

        def explain(x):
            calls.append(x)
            if len(calls) > 9:
                raise ArithmeticError("this batch is bad")
            return x

        runs.attribute(explain, Slow(), out, batch_size=BATCH, block=BLOCK)
    else:

        def write(self, number, values):
            raise jax.errors.JaxRuntimeError("no space")

        _store.Array.write = write
        run(out)


def errors(folder, times):
    """The longest that a process took to end, of so many in which something failed."""
    longest = 0.0
    for i in range(times):
        for kind in ("source", "explain", "writer"):
            start = time.monotonic()
            child = os.fork()
            if not child:
                sys.stderr = open(os.devnull, "w")  # noqa: SIM115
                # Ends as any program does, by an exception that nobody catches.
                return fails(kind, f"{folder}/{kind}{i}")
            code = ended(child)
            assert code == 1, (kind, code)
            longest = max(longest, time.monotonic() - start)
    return longest


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.runs.kills")
    parser.add_argument("--devices", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--errors", type=int, default=0)
    options = parser.parse_args(arguments)
    flag = "--xla_force_host_platform_device_count=8"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jaxlrp  # noqa: F401  imported once, for all processes

    folder, process = tempfile.mkdtemp(), os.getpid()
    try:
        if options.errors:
            longest = errors(folder, options.errors)
            if longest is not None:
                print(
                    f"{3 * options.errors} errors, at most {longest:.1f} s to the end"
                )
            return
        for devices in options.devices:
            for shards in options.shards:
                shutil.rmtree(folder)
                os.mkdir(folder)
                happened, most = kill(folder, devices, shards, options.kills)
                print(
                    f"{devices} devices, {shards} shards: {happened} kills, at most "
                    f"{most} rows lost, the same bits",
                    flush=True,
                )
    finally:
        if os.getpid() == process:
            shutil.rmtree(folder)


if __name__ == "__main__":
    main()
