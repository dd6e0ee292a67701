"""What goes wrong is named, loses nothing that is done, and is repaired."""

import os
import resource
import threading
import time

import jax
import numpy as np
import pytest

from jaxlrp import errors, runs
from jaxlrp.runs import _markers
from tests.runs import small

ROWS, BLOCK = small.ROWS, small.BLOCK


def run(out, source=None, explain=None, **options):
    source = small.images() if source is None else source
    usual = {"batch_size": 4, "block": BLOCK, "progress": False}
    options = usual | {"mesh": jax.devices()[:1]} | options
    return runs.attribute(explain or small.explainer(), source, out, **options)


def threads():
    return [t for t in threading.enumerate() if t.name.startswith("jaxlrp")]


def chunk(found, number):
    return found.path / "arrays" / "relevance" / "c" / str(number) / "0" / "0" / "0"


def marker(found, number):
    return _markers.path_of(found.path, number)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 16
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


BREAKS = {
    "flipped bit": lambda found: flip(chunk(found, 2)),
    "truncated chunk": lambda found: cut(chunk(found, 2)),
    "missing chunk": lambda found: chunk(found, 2).unlink(),
    "another block's chunk": lambda found: os.replace(chunk(found, 1), chunk(found, 2)),
    "half a marker": lambda found: cut(marker(found, 2)),
    "empty marker": lambda found: marker(found, 2).write_bytes(b""),
    "flipped marker": lambda found: flip(marker(found, 2)),
}


@pytest.mark.parametrize("fault", BREAKS)
def test_repair_does_again_what_is_broken_and_nothing_else(fault, tmp_path):
    found = run(tmp_path / "run")
    expected = found["relevance"][:]
    BREAKS[fault](found)
    whole = set(range(8)) - ({1, 2} if fault.startswith("another") else {2})
    assert set(found.done(verify=True)) == whole
    before = {n: marker(found, n).stat().st_mtime_ns for n in whole}
    again = run(tmp_path / "run", verify=True)
    assert again.done(verify=True) == tuple(range(8))
    assert (again["relevance"][:] == expected).all()
    assert before == {n: marker(found, n).stat().st_mtime_ns for n in whole}


@pytest.mark.parametrize("fault", ["truncated chunk", "missing chunk", "half a marker"])
def test_what_sizes_tell_is_repaired_without_asking(fault, tmp_path):
    found = run(tmp_path / "run")
    BREAKS[fault](found)
    assert not found.complete
    assert run(tmp_path / "run").complete


def test_a_flipped_bit_is_an_error_where_it_is_read(tmp_path):
    found = run(tmp_path / "run")
    flip(chunk(found, 2))
    with pytest.raises(errors.StoreError, match="rows 0 to 60 of 'relevance'.*c/2/0"):
        found["relevance"][:]
    assert found["relevance"][:16].any()


@pytest.fixture
def full_disk():
    """Files may not grow beyond a size: what a full disk is to a writer."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error_and_room_lets_the_run_go_on(tmp_path, full_disk):
    explain = jax.jit(lambda x: x)
    noise = np.random.default_rng(0).normal(size=(64, 4096)).astype(np.float32)
    noise[:24] = 0  # packs well
    options = {"explain": explain, "batch_size": 8}
    run(tmp_path / "first", noise, **options)  # compiled
    full_disk(2**16)
    with pytest.raises(errors.StoreError, match="block 3 of 'relevance' cannot be"):
        run(tmp_path / "run", noise, **options)
    assert not threads()
    done = runs.Attributions(tmp_path / "run").done(verify=True)
    assert done == (0, 1, 2)
    full_disk(resource.RLIM_INFINITY)
    found = run(tmp_path / "run", noise, **options)
    assert found.complete and (found["relevance"][:] == noise).all()


@pytest.mark.whole
@pytest.mark.parametrize("out", ["/proc/run", "/dev/null/run"])
def test_a_folder_that_cannot_be_written_is_an_error(out):
    if not os.path.exists(os.path.dirname(out)):
        pytest.skip("no such file on this system")
    with pytest.raises(OSError):
        run(out)
    assert not threads()


class Gone(Exception):
    """What goes wrong in the tests below."""


class Rows:
    def __len__(self):
        return ROWS

    def __getitem__(self, i):
        if i == 41:
            raise Gone
        return small.images()[i]


def bad_explain():
    calls = []

    def explain(x):
        calls.append(x)
        if len(calls) > 10:
            raise Gone
        return x

    return explain


class BadReduction(runs.Moments):
    def of(self, arrays, rows):
        if rows[0] >= 40:
            raise Gone
        return super().of(arrays, rows)


def bad_stream():
    yield from small.images()[:40]
    raise Gone


FAILURES = {
    "source": ({"source": Rows()}, "while reading rows 40 to 43 of the source"),
    "stream": ({"source": bad_stream}, "while reading the source behind row 40"),
    "explain": ({"explain": bad_explain()}, "while explaining rows 36 to 39"),
    "writer": ({"reduce": {"a": BadReduction("relevance")}}, ""),
}


@pytest.mark.whole
@pytest.mark.filterwarnings("ignore:.*")
@pytest.mark.parametrize("where", FAILURES)
def test_an_error_ends_the_run_soon_and_keeps_what_is_done(where, tmp_path):
    options, note = FAILURES[where]
    start = time.monotonic()
    with pytest.raises(Gone) as caught:
        run(tmp_path / "run", **options)
    assert time.monotonic() - start < 5
    assert note in "".join(getattr(caught.value, "__notes__", [""]))
    assert not threads()
    done = runs.Attributions(tmp_path / "run").done(verify=True)
    assert done == tuple(range(len(done))) and 3 <= len(done) <= 5


def test_a_file_that_vanishes_is_named(tmp_path):
    image = pytest.importorskip("PIL.Image")
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(20):
        image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(folder / f"{i:02d}.png")

    def vanish(progress):
        (folder / "19.png").unlink(missing_ok=True)

    with pytest.raises(FileNotFoundError, match=r"19\.png"):
        options = {"ahead": 1, "batch_size": 2, "block": 2, "progress": vanish}
        run(tmp_path / "run", folder, jax.jit(lambda x: x), **options)
    assert len(runs.Attributions(tmp_path / "run").done()) >= 1
