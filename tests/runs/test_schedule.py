"""The cut into blocks and calls is arithmetic that leaves nothing out."""

import numpy as np
import pytest

from jaxlrp.runs import _schedule as schedule


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 64])
def test_every_row_is_in_one_block_and_one_call(rows):
    found = []
    for number in range(schedule.blocks(rows, 8)):
        start, stop = schedule.span(number, 8, rows)
        for places in schedule.calls(stop - start, 3):
            assert len(schedule.filled(places, 3)) == 3
            found += (start + places).tolist()
    assert found == list(range(rows))


def test_every_block_belongs_to_one_shard():
    for number in range(20):
        assert sum(schedule.is_own(number, (i, 3)) for i in range(3)) == 1


def test_a_block_of_ones_own_is_a_multiple_of_a_call_and_not_large():
    for rows in (10, 1000, 10**6, None):
        for row_bytes in (4, 10**4, 10**8):
            block = schedule.block_size(rows, 32, row_bytes)
            assert block % 32 == 0
            assert block == 32 or block * row_bytes <= schedule.BYTES
            assert rows is None or block == 32 or rows / block >= schedule.BLOCKS


def test_what_is_filled_up_is_the_last_row():
    assert schedule.filled(np.array([4, 7]), 5).tolist() == [4, 7, 7, 7, 7]


def test_calls_of_a_bucket_keep_the_order_of_rows():
    lengths = np.array([3, 1, 4, 2, 4, 4])
    found = [(b, p.tolist()) for b, p in schedule.bucketed(lengths, (2, 4), 3)]
    assert found == [(2, [1, 3]), (4, [0, 2, 4]), (4, [5])]
