"""The run over processes, in a reduced form, against the same run in this process."""

import dataclasses
import os
import sys
import time

import jax
import numpy as np
import pytest

pytest.importorskip("sklearn")

import jaxlrp  # noqa: E402
from examples import multiprocess  # noqa: E402

TINY = "--images 50 --steps 5 --devices 1 --seconds 120".split()


def test_two_processes_find_what_one_finds(tmp_path, capfd):
    out = tmp_path / "new" / "summary.npz"
    multiprocess.main([f"--out={out}", *TINY])
    assert [path.name for path in out.parent.iterdir()] == ["summary.npz"]
    printed = capfd.readouterr().out
    for process in (0, 1):  # has half of the images, and of the relevance
        line = f"process {process}: 25 images, 25 of 50 rows of the relevance"
        assert line in printed
    assert "50 images on 2 devices" in printed

    alone = multiprocess.work(multiprocess.parse(TINY))
    with np.load(out, allow_pickle=False) as file:
        found = dict(file)
    assert found.keys() == alone.keys()
    assert found["heat"].shape == (10, 8, 8)
    for name, expected in alone.items():
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-5)


def test_summary_is_the_mean_over_the_images_of_a_class():
    data = multiprocess.part(0, 1, 8, 50)
    params = multiprocess.first_parameters()
    relevance, summary = multiprocess.explain(params, data)
    explain = jax.jit(jaxlrp.lrp(multiprocess.apply, multiprocess.COMPOSITE))
    expected = np.abs(explain(params, data.images[:50]))[..., 0]
    np.testing.assert_allclose(
        np.abs(relevance[:50, ..., 0]), expected, atol=1e-5 * expected.max()
    )
    for c in range(10):
        mean = expected[data.labels[:50] == c].mean(0)
        np.testing.assert_allclose(summary["heat"][c], mean, atol=1e-5 * mean.max())
    assert summary["count"].sum() == 50


@pytest.mark.parametrize(("processes", "devices"), [(2, 2), (3, 4), (1, 1)])
def test_parts_have_one_shape_and_together_every_image_once(processes, devices):
    parts = [multiprocess.part(i, processes, devices, 50) for i in range(processes)]
    whole = multiprocess.part(0, 1, 1, 50)
    assert len({part.images.shape for part in parts}) == 1
    assert len(parts[0].images) % devices == 0
    images = np.concatenate([p.images[p.weights > 0] for p in parts])
    labels = np.concatenate([p.labels[p.weights > 0] for p in parts])
    order = np.lexsort(images.reshape(len(images), -1).T)
    expected = np.lexsort(whole.images.reshape(50, -1).T)
    np.testing.assert_array_equal(images[order], whole.images[expected])
    np.testing.assert_array_equal(labels[order], whole.labels[expected])


SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]
FAIL = [sys.executable, "-c", "raise SystemExit(3)"]


@pytest.mark.parametrize(
    ("argvs", "seconds", "error"),
    [
        ([SLEEP, FAIL], 60.0, pytest.raises(RuntimeError, match=r"\{1: 3\}")),
        ([SLEEP, SLEEP], 0.2, pytest.raises(TimeoutError, match="after 0.2 s")),
    ],
    ids=["failure", "time"],
)
def test_all_processes_end_with_one_that_fails_and_in_time(
    argvs, seconds, error, monkeypatch
):
    started = []
    popen = multiprocess.subprocess.Popen

    def start(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(multiprocess.subprocess, "Popen", start)
    begin = time.monotonic()
    with error:
        multiprocess.run_together(argvs, dict(os.environ), seconds)
    assert time.monotonic() - begin < 30
    assert all(process.poll() is not None for process in started)


def test_each_process_is_told_its_number_and_where_the_first_is():
    options = multiprocess.parse(["--processes=3", "--steps=2"])
    first, *_, last = multiprocess.commands(options)
    parsed = [multiprocess.parse(argv[3:]) for argv in (first, last)]
    assert [p.process for p in parsed] == [0, 2]
    assert parsed[0].address == parsed[1].address
    assert str(parsed[0].address).startswith("127.0.0.1:")
    expected = dataclasses.replace(
        options,
        out=options.out.absolute(),
        process=0,
        address=parsed[0].address,
    )
    assert parsed[0] == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--process=0", "needs --address"),
        ("--process=2 --address=127.0.0.1:1", "expected a number below 2"),
        ("--images=0", "--images: got 0"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message, capsys):
    with pytest.raises(SystemExit):
        multiprocess.parse(arguments.split())
    assert message in capsys.readouterr().err
