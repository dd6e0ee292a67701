"""Runs that are killed end with the same bits. `make kills` kills more often."""

import re
import subprocess
import sys

import pytest

from tests.runs import small

ROOT = small.__file__.split("tests")[0]


def kills(*arguments):
    command = [sys.executable, "-m", "tests.runs.kills", *arguments]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("devices", "shards"), [("1", "1"), ("8", "2")])
def test_a_killed_run_goes_on_with_the_same_bits(devices, shards):
    printed = kills("--devices", devices, "--shards", shards, "--kills", "3")
    assert "3 kills" in printed and "same bits" in printed


def test_a_process_ends_soon_after_an_error():
    (seconds,) = re.findall(r"at most ([\d.]+) s", kills("--errors", "1"))
    assert float(seconds) < 5
