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
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise errors.BusyError(
                f"out: {path.parent.parent} has a process at work on shard {shard}: "
                f"{file.read() or 'an unknown one'}"
            ) from None
        except OSError:
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
