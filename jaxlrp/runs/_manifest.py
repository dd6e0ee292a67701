"""`manifest.json`: what run a folder holds. Whoever comes first writes it."""

from __future__ import annotations

import contextlib
import gzip
import json
import pathlib
from typing import Any

from jaxlrp import _files, errors

NAME = "manifest.json"
FORMAT, VERSION = "jaxlrp.runs", 1
"""What such a file says of itself; the version changes where a reader has to."""

END = "end.json"
"""Holds the number of rows of a stream, once that is known."""


def settle(folder: pathlib.Path, content: dict[str, Any], text: str) -> dict[str, Any]:
    """The manifest of the folder: the one that is there, or this one.

    Args:
      folder: of the run; it is made.
      content: what a new manifest says.
      text: the program, kept so that one that differs can be told apart.
    """
    path = folder / NAME
    if not path.exists():
        program = f"program-{content['identity']['program'][:16]}.txt.gz"
        content = {"format": FORMAT, "version": VERSION, "program": program, **content}
        _files.write(
            folder / program, gzip.compress(text.encode(), mtime=0), folders=True
        )
        as_json = json.dumps(content, indent=1).encode()
        with contextlib.suppress(FileExistsError):
            _files.write(path, as_json, new=True)
    return read(folder)


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
      FileNotFoundError: if there is none.
      StoreError: if it is no manifest, or of a version that is not known.
    """
    path = folder / NAME
    if not path.exists():
        raise FileNotFoundError(f"path: got {str(folder)!r}, which holds no run")
    try:
        found = json.loads(path.read_bytes())
        known = (found["format"], found["version"])
    except (ValueError, KeyError, TypeError) as error:
        raise errors.StoreError(f"{path}: is broken: {error}") from error
    if known != (FORMAT, VERSION):
        raise errors.StoreError(
            f"{path}: is of format {known}, expected {(FORMAT, VERSION)}"
        )
    return found


def program_text(folder: pathlib.Path, manifest: dict[str, Any]) -> str:
    """The program of the run, or nothing where its file is lost."""
    try:
        return gzip.decompress((folder / manifest["program"]).read_bytes()).decode()
    except (OSError, EOFError):
        return ""


def write_end(folder: pathlib.Path, rows: int) -> None:
    """Keeps how long a stream was.

    Raises:
      OtherRunError: if it was of another length before.
    """
    with contextlib.suppress(FileExistsError):
        _files.write(folder / END, json.dumps({"rows": rows}).encode(), new=True)
    if (known := read_end(folder)) != rows:
        raise errors.OtherRunError(
            f"source: has {rows} rows, but had {known} when another process came to "
            "its end"
        )


def read_end(folder: pathlib.Path) -> int | None:
    """How long a stream was, if that is known."""
    try:
        return json.loads((folder / END).read_bytes())["rows"]
    except FileNotFoundError:
        return None
