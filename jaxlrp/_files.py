"""Files are written whole or not at all, whoever else writes them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from typing import Any

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
"""How a file is opened that must not be there, nor a link in its place."""


def write(
    path: Any,
    content: bytes,
    *,
    folders: bool = False,
    new: bool = False,
    sync: bool = True,
) -> None:
    """Writes a file: all of it or nothing, so that a reader never meets half of it.

    The content goes to a new file in the same folder, which then takes the old one's
    place and has its mode. A new file may be read by all, as far as the umask allows.
    Of a link the file that it points to is written.

    Args:
      path: the file, a `str`, `bytes` or `os.PathLike`.
      content: what is to be in it.
      folders: whether folders that are missing are made.
      new: whether a file that is there already is left as it is, an error. Of several
        who write at once one succeeds.
      sync: whether the content is on the disk when this returns; without, a loss of
        power may take it, the end of the process may not.

    Raises:
      FileExistsError: with `new`, for a file that is there.
      TypeError: for a path that is none.
      ValueError: for a path with a null byte in it.
      OSError: for a path that is there and is no regular file, or whose folder is
        missing, and where the system refuses.
    """
    name = _name(path)
    mode = _mode(name)
    target = os.path.realpath(name)
    folder = os.path.dirname(target)
    if folders:
        os.makedirs(folder, exist_ok=True)
    elif not os.path.isdir(folder):
        raise FileNotFoundError(
            errno.ENOENT, "path: got one in a folder that is not there", name
        )
    # The name owes nothing to the target's, which may be as long as names can be, and
    # nobody can guess it. What is there already is private until it has its content.
    part = os.path.join(folder, f".{secrets.token_hex(16)}.part")
    file = os.open(part, _NEW, 0o644 if mode is None else 0o600)
    try:
        with os.fdopen(file, "wb") as stream:
            if mode is not None and hasattr(os, "fchmod"):
                os.fchmod(stream.fileno(), mode)
            stream.write(content)
            stream.flush()
            if sync:
                os.fsync(stream.fileno())
        if new:
            os.link(part, target)
            os.unlink(part)
        else:
            os.replace(part, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part)
        raise


def _name(path: Any) -> str:
    """A path as text; one that ends in a separator is of a folder."""
    try:
        name = os.fsdecode(path)
    except TypeError:
        raise TypeError(
            f"path: got {path!r}, expected a str, bytes or os.PathLike"
        ) from None
    if "\0" in name:
        raise ValueError(f"path: got {path!r}, expected one without null bytes")
    separators = (os.sep, os.altsep or os.sep)
    if not name or name.endswith(separators) or os.path.isdir(name):
        raise IsADirectoryError(
            errno.EISDIR, "path: got a folder, expected a regular file", name
        )
    return name


def _mode(name: str) -> int | None:
    """The mode of the file that is there, or None where there is none."""
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        raise FileExistsError(
            errno.EEXIST, "path: got no regular file, but a pipe or device", name
        )
    return stat.S_IMODE(found.st_mode)
