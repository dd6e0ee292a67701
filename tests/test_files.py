"""Files are written whole or not at all."""

import concurrent.futures
import os
import pathlib
import re
import stat
import tempfile
import threading

import pytest

from jaxlrp import _files, text

ROOT = pathlib.Path(__file__).parents[1]
PICTURE = text.heatmap(["a"], [1.0])


@pytest.fixture
def umask():
    """Sets the umask for one test."""
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def save(path):
    """What users call."""
    text.save(path, PICTURE)


def write(path):
    _files.write(path, b"content")


WRITERS = [save, write]
each_writer = pytest.mark.parametrize("writer", WRITERS)


def test_threads_may_write_one_file(tmp_path):
    path, barrier = tmp_path / "page", threading.Barrier(8)
    contents = [bytes([i]) * 10_000 for i in range(8)]

    def writes(content):
        barrier.wait()
        for _ in range(20):
            _files.write(path, content)
            assert path.read_bytes() in contents

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(writes, contents))
    assert list(tmp_path.iterdir()) == [path]


def test_threads_may_save_one_page(tmp_path):
    path = tmp_path / "page.html"
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(save, [path] * 64))
    assert path.read_text() == text.page(PICTURE)
    assert list(tmp_path.iterdir()) == [path]


@each_writer
@pytest.mark.parametrize("given", [0o600, 0o640, 0o644, 0o755])
def test_a_file_keeps_its_mode(tmp_path, writer, given, umask):
    umask(0o077)
    path = tmp_path / "page"
    path.touch()
    path.chmod(given)
    writer(path)
    assert mode(path) == given and path.stat().st_size


@each_writer
@pytest.mark.parametrize(
    ("mask", "expected"), [(0o022, 0o644), (0o077, 0o600), (0o027, 0o640)]
)
def test_the_mode_of_a_new_file_is_what_the_umask_leaves(
    tmp_path, writer, mask, expected, umask
):
    umask(mask)
    writer(tmp_path / "page")
    assert mode(tmp_path / "page") == expected


@each_writer
@pytest.mark.parametrize("there", [True, False])
def test_a_link_stays_one(tmp_path, writer, there):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    file, link, again = folder / "page", tmp_path / "link", tmp_path / "again"
    link.symlink_to("elsewhere/page")
    again.symlink_to(link)
    if there:
        file.write_bytes(b"old")
    writer(again)
    assert link.is_symlink() and again.is_symlink()
    assert file.read_bytes() != b"old"
    assert [p.name for p in folder.iterdir()] == ["page"]
    assert {p.name for p in tmp_path.iterdir()} == {"elsewhere", "link", "again"}


@each_writer
def test_no_name_is_too_long_that_is_not_too_long_itself(tmp_path, writer):
    for path in (tmp_path / ("n" * 255), tmp_path / ("ü" * 127)):
        writer(path)
        writer(path)
        assert path.stat().st_size
    with pytest.raises(OSError, match="too long"):
        writer(tmp_path / ("n" * 256))


def fifo(folder):
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def link_to_fifo(folder):
    os.mkfifo(folder / "pipe")
    (folder / "link").symlink_to("pipe")
    return folder / "link"


def loop(folder):
    (folder / "loop").symlink_to("loop")
    return folder / "loop"


NO_FILES = {
    "fifo": fifo,
    "link to a fifo": link_to_fifo,
    "link to itself": loop,
    "device": lambda _: pathlib.Path(os.devnull),
    "folder": lambda folder: folder,
    "missing folder": lambda folder: folder / "none" / "page",
    "file for a folder": lambda _: pathlib.Path(__file__) / "page",
    "file that is called a folder": lambda folder: f"{folder}/page/",
    "nothing": lambda _: "",
}


@pytest.mark.whole
@each_writer
@pytest.mark.parametrize("name", NO_FILES)
def test_what_is_no_regular_file_is_refused_and_stays(tmp_path, writer, name):
    path = NO_FILES[name](tmp_path)
    before = {p: p.lstat().st_mode for p in tmp_path.iterdir()}
    with pytest.raises(OSError, match=r"path: got|symbolic link|[Nn]ot a directory"):
        writer(path)
    assert {p: p.lstat().st_mode for p in tmp_path.iterdir()} == before


@pytest.mark.whole
@each_writer
@pytest.mark.parametrize("path", [None, 3.0, object(), ["page"]])
def test_what_is_no_path_is_refused(writer, path):
    with pytest.raises(TypeError, match="path: got .*, expected a str"):
        writer(path)


@each_writer
def test_a_null_byte_is_refused(writer):
    with pytest.raises(ValueError, match="path: got .*, expected one without null"):
        writer("a\0b")


@each_writer
def test_a_path_may_be_of_any_kind(tmp_path, writer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / "a", str(tmp_path / "b"), os.fsencode(tmp_path / "c"), "d"):
        writer(path)
    assert sorted(os.listdir()) == ["a", "b", "c", "d"]


@pytest.mark.whole
@each_writer
@pytest.mark.parametrize("call", ["replace", "fsync", "fchmod"])
def test_a_write_that_fails_leaves_all_as_it_was(tmp_path, writer, call, monkeypatch):
    path = tmp_path / "page"
    path.write_bytes(b"old")

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="no space"):
        writer(path)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_the_name_beside_it_cannot_be_guessed(tmp_path, monkeypatch):
    seen = []
    replace = os.replace

    def watched(source, target):
        seen.append(os.path.basename(source))
        assert mode(pathlib.Path(source)) == 0o600  # as the file that it replaces
        replace(source, target)

    path = tmp_path / "page"
    path.touch(0o600)
    monkeypatch.setattr(os, "replace", watched)
    for _ in range(3):
        write(path)
    assert len(set(seen)) == 3
    assert not any("page" in name or str(os.getpid()) == name for name in seen)


def test_folders_are_made_where_they_are_asked_for(tmp_path):
    path = tmp_path / "a" / "b" / "page"
    _files.write(path, b"content", folders=True)
    assert path.read_bytes() == b"content"


OTHERS = re.compile(
    r"\.write_(text|bytes)\(|savefig\(\s*[\"'\w/ ]*path|json\.dump\("
    r"|open\([^)]*[\"'][wax]b?\+?[\"']"
)


@pytest.mark.parametrize(
    "folder", ["jaxlrp", "primitives", "examples", "benchmarks", "docs"]
)
def test_nothing_else_writes_files(folder):
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / folder).rglob("*.py")
        if path.name != "_files.py" and OTHERS.search(path.read_text())
    ]
    assert not found


def test_a_folder_of_the_system_is_left_clean():
    with tempfile.TemporaryDirectory() as folder:
        save(pathlib.Path(folder) / "page")
        assert os.listdir(folder) == ["page"]


def test_a_file_that_is_there_is_left_where_a_new_one_is_wanted(tmp_path):
    path = tmp_path / "page"
    _files.write(path, b"first", new=True)
    with pytest.raises(FileExistsError):
        _files.write(path, b"second", new=True)
    assert path.read_bytes() == b"first" and list(tmp_path.iterdir()) == [path]


def test_of_several_who_want_a_new_file_one_succeeds(tmp_path):
    barrier, path = threading.Barrier(8), tmp_path / "page"

    def writes(i):
        barrier.wait()
        try:
            _files.write(path, bytes([i]), new=True, sync=False)
        except FileExistsError:
            return None
        return bytes([i])

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        (winner,) = filter(None, pool.map(writes, range(1, 9)))
    assert path.read_bytes() == winner and list(tmp_path.iterdir()) == [path]
