"""One process for each shard; the system ends a lock with its process."""

from __future__ import annotations

import contextlib
import os
import pathlib
import socket
from collections.abc import Iterator

from jaxlrp import errors

FOLDER = "locks"


@contextlib.contextmanager
def held(root: pathlib.Path, shard: tuple[int, int]) -> Iterator[None]:
    """Holds a shard's lock.

    Where the system or its file system has no locks, nothing is held: two processes
    then do the same blocks twice, with the same results.

    Raises:
      BusyError: if another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # not on Windows
        yield
        return
    path = root / FOLDER / f"{shard[0]}-of-{shard[1]}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise errors.BusyError(
                f"out: {path.parent.parent} has a process at work on shard {shard}: "
                f"{os.read(file, 200).decode() or 'an unknown one'}"
            ) from None
        except OSError:
            pass
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(file)
