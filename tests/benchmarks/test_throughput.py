"""The measure of what runs cost, at a small size."""

import numpy as np

from benchmarks import throughput


def test_the_bare_loop_and_the_run_do_the_same(capsys):
    throughput.main(["--rows=512", "--rounds=1", "--width=16"])
    assert "us of CPU for each row" in capsys.readouterr().out


def test_rows_of_any_length_take_no_memory():
    rows = throughput.Rows(np.arange(6).reshape(3, 2), 10**6)
    assert len(rows) == 10**6 and rows[4].tolist() == [2, 3]
