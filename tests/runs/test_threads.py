"""Threads end with the code that they serve."""

import threading
import time

import pytest

from jaxlrp.runs import _threads


class Gone(Exception):
    pass


def alive():
    return [t for t in threading.enumerate() if t.name.startswith("jaxlrp")]


def test_items_are_made_ahead_and_no_further():
    made = []

    def items():
        for i in range(100):
            made.append(i)
            yield i

    with _threads.ahead(items(), 3) as taken:
        assert next(taken) == 0
        time.sleep(0.2)
        assert len(made) <= 5
    assert not alive()


def test_an_error_of_the_items_arrives_where_they_are_taken():
    def items():
        yield 1
        raise Gone

    with _threads.ahead(items(), 3) as taken:
        assert next(taken) == 1
        with pytest.raises(Gone):
            next(taken)


def test_items_that_nobody_takes_are_closed():
    closed = []

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    with pytest.raises(Gone), _threads.ahead(items(), 1):
        raise Gone
    assert closed and not alive()


def test_what_was_handed_over_is_written_whatever_happens():
    written = []

    def write(item):
        time.sleep(0.05)
        written.append(item)

    with pytest.raises(Gone), _threads.behind(write) as put:
        for i in range(3):
            put(i)
        raise Gone
    assert written == [0, 1, 2] and not alive()


def test_an_error_of_the_writer_is_raised_and_ends_writing():
    written = []

    def write(item):
        written.append(item)
        raise Gone

    with pytest.raises(Gone), _threads.behind(write) as put:
        put(1)
        while True:
            time.sleep(0.01)
            put()
    with pytest.raises(Gone), _threads.behind(write) as put:
        put(2)
    assert written == [1, 2] and not alive()
