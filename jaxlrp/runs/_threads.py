"""Reading ahead and writing behind, in threads that end with a block of code."""

from __future__ import annotations

import contextlib
import dataclasses
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

PATIENCE = 2.0
"""Seconds that a thread is waited for after an error; then it is left behind."""

_END = object()


@dataclasses.dataclass(frozen=True)
class _Failed:
    error: BaseException


@contextlib.contextmanager
def ahead(items: Generator[Any, None, None], size: int) -> Iterator[Iterator[Any]]:
    """The same items, made in another thread, so many before they are asked for.

    What goes wrong there is raised where the item is asked for.
    """
    waiting: queue.Queue[Any] = queue.Queue(max(1, size))
    stop = threading.Event()

    def put(item: Any) -> bool:
        while not stop.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.1)
                return True
        return False

    def work() -> None:
        try:
            with contextlib.closing(items):
                for item in items:
                    if not put(item):
                        return
            put(_END)
        except BaseException as error:
            put(_Failed(error))

    def taken() -> Iterator[Any]:
        while (item := waiting.get()) is not _END:
            if isinstance(item, _Failed):
                raise item.error
            yield item

    thread = threading.Thread(target=work, name="jaxlrp-runs-read", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stop.set()
        thread.join(PATIENCE)


@contextlib.contextmanager
def behind(write: Callable[[Any], None]) -> Iterator[Callable[..., None]]:
    """A function that hands an item to `write`, in another thread, and goes on.

    One item waits while another is written. Called without an item it only raises what
    has gone wrong there. What was handed over is written, also where an error ends the
    code in between.
    """
    waiting: queue.Queue[Any] = queue.Queue(1)
    failed: list[BaseException] = []

    def work() -> None:
        while (item := waiting.get()) is not _END:
            if not failed:
                try:
                    write(item)
                except BaseException as error:
                    failed.append(error)
            del item

    def put(*items: Any) -> None:
        for item in items:
            waiting.put(item)
        if failed:
            raise failed[0]

    thread = threading.Thread(target=work, name="jaxlrp-runs-write", daemon=True)
    thread.start()
    try:
        yield put
    except BaseException:
        with contextlib.suppress(queue.Full):
            waiting.put(_END, timeout=PATIENCE)
        thread.join(PATIENCE)
        raise
    waiting.put(_END)
    thread.join()
    put()
