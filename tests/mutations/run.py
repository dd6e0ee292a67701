"""Changes a copy of the tree, one change at a time, and runs tests on it."""

from __future__ import annotations

import ast
import collections
import contextlib
import dataclasses
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
TABLE = Path(__file__).with_name("mutations.txt")


@dataclasses.dataclass(frozen=True)
class Mutation:
    """One change of the code.

    Attributes:
      file: the path from the root of the tree.
      old: a piece of its text that occurs once.
      new: what stands there instead.
      tests: what should notice it: files, or `file::function`.
      equivalent: why nothing can notice it, if nothing can.
    """

    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    equivalent: str = ""

    def __str__(self) -> str:
        old, new = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}: {old} -> {new or '(nothing)'}"


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What became of a mutation: did any test notice it, how, and in which time?"""

    mutation: Mutation
    noticed: bool
    how: str
    seconds: float

    @property
    def name(self) -> str:
        """In a word."""
        if self.mutation.equivalent:
            return "NOT EQUIVALENT" if self.noticed else "equivalent"
        return "noticed" if self.noticed else "SURVIVED"


@dataclasses.dataclass(frozen=True)
class Options:
    """How the tests are run.

    Attributes:
      workers: how many mutations are tried at once.
      part: of the cases of each test function, as for `make test`.
      limit: seconds for the tests of one mutation.
    """

    workers: int = 2
    part: str = "1/8"
    limit: float = 300.0


def parse(text: str) -> list[Mutation]:
    """The mutations of a list; `mutations.txt` begins with how one is written.

    >>> (one,) = parse("@ a.py\\n! test_a.py\\n\\n-x = 1\\n+x = 2\\n= why\\n")
    >>> one.file, one.old, one.new, one.tests, one.equivalent
    ('a.py', 'x = 1', 'x = 2', ('tests/test_a.py',), 'why')
    """
    found: list[Mutation] = []
    file, tests = "", ()
    for block in text.split("\n\n"):
        lines: dict[str, list[str]] = collections.defaultdict(list)
        for line in block.splitlines():
            lines[line[:1]].append(line[1:])
        file = "".join(lines["@"]).strip() or file
        if lines["!"]:
            tests = tuple(f"tests/{name}" for name in " ".join(lines["!"]).split())
        if lines["-"]:
            old, new = "\n".join(lines["-"]), "\n".join(lines["+"])
            why = " ".join(line.strip() for line in lines["="])
            found.append(Mutation(file, old, new, tests, why))
    return found


def problems(root: Path, mutations: Sequence[Mutation]) -> list[str]:
    """What is wrong with a list, one line each: no test has to be run for that."""
    found = []
    counts = collections.Counter((m.file, m.old, m.new) for m in mutations)
    for mutation in mutations:
        if counts[mutation.file, mutation.old, mutation.new] > 1:
            found.append(f"{mutation}: stands twice in the list")
        path = root / mutation.file
        text = path.read_text("utf-8") if path.is_file() else ""
        times = text.count(mutation.old)
        if times != 1:
            found.append(f"{mutation}: the text occurs {times} times, expected once")
        elif mutation.old == mutation.new:
            found.append(f"{mutation}: changes nothing")
        else:
            try:
                ast.parse(text.replace(mutation.old, mutation.new))
            except SyntaxError as error:
                found.append(f"{mutation}: {error}")
        if not mutation.tests:
            found.append(f"{mutation}: names no tests")
        for test in mutation.tests:
            if "[" in test or not (root / test.partition("::")[0]).exists():
                found.append(f"{mutation}: there is no test {test!r}")
    return found


def files(root: Path) -> list[str]:
    """The paths in the tree that git knows or would add."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    return [name for name in listed if name and (root / name).exists()]


@contextlib.contextmanager
def copied(root: Path) -> Iterator[Path]:
    """A copy of the tree, links included, that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        for name in files(root):
            target = Path(folder, name)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target, follow_symlinks=False)
        yield Path(folder)


@contextlib.contextmanager
def changed(tree: Path, mutation: Mutation, number: int) -> Iterator[None]:
    """The tree with the change, which is taken back afterwards."""
    path = tree / mutation.file
    before, stat = path.read_bytes(), path.stat()
    text = before.decode("utf-8").replace(mutation.old, mutation.new)
    path.write_bytes(text.encode("utf-8"))
    # Python tells by size and time whether what it compiled is still right.
    os.utime(path, (number + 1, number + 1))
    try:
        yield
    finally:
        path.write_bytes(before)
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def pytest(
    tree: Path, tests: Sequence[str], options: Options, cache: Path, *more: str
) -> tuple[int | None, str]:
    """(exit code, or None if it took too long; the end of what was printed)."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--no-header"]
    command += [
        "--only",
        "quick",
        "--part",
        options.part,
        "-p",
        "no:cacheprovider",
        *more,
        *tests,
    ]
    try:
        done = subprocess.run(
            command,
            cwd=tree,
            env={**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=options.limit,
        )
    except subprocess.TimeoutExpired:
        return None, ""
    return done.returncode, done.stdout[-3000:]


def tried(
    tree: Path, number: int, mutation: Mutation, options: Options, cache: Path
) -> Verdict:
    """Runs the tests of a mutation in a tree that has it.

    Raises:
      RuntimeError: if pytest could not run them.
    """
    start = time.monotonic()
    with changed(tree, mutation, number):
        code, printed = pytest(tree, mutation.tests, options, cache)
    seconds = time.monotonic() - start
    if code == 5:
        return Verdict(mutation, False, "none of its tests is quick", seconds)
    if code in (3, 4):  # an error of its own, of usage
        raise RuntimeError(f"{mutation}: pytest ended with {code}\n{printed}")
    if code is None:
        return Verdict(mutation, False, "too slow to tell, see --limit", seconds)
    lines = [
        line for line in printed.splitlines() if line.startswith(("FAILED", "ERR"))
    ]
    how = lines[0].split(" - ")[0] if lines else ""
    return Verdict(mutation, code != 0, how, seconds)


def run(
    root: Path,
    mutations: Sequence[Mutation],
    options: Options,
    say: Callable[[str], None] = print,
) -> list[Verdict]:
    """The verdicts on some mutations, in their order.

    Raises:
      RuntimeError: if the list has problems, or its tests fail without any change.
    """
    wrong = problems(root, mutations)
    if wrong:
        raise RuntimeError("\n".join(wrong))
    cache = root / ".jax_cache"
    trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
    with contextlib.ExitStack() as stack:
        for _ in range(options.workers):
            trees.put(stack.enter_context(copied(root)))
        unchanged(trees, mutations, options, cache)

        def one(numbered: tuple[int, Mutation]) -> Verdict:
            tree = trees.get()
            try:
                verdict = tried(tree, *numbered, options, cache)
            finally:
                trees.put(tree)
            say(f"{verdict.name:10} {verdict.seconds:5.1f} s  {verdict.mutation}")
            if verdict.how:
                say(f"{'':20}{verdict.how}")
            return verdict

        with ThreadPoolExecutor(options.workers) as pool:
            return list(pool.map(one, enumerate(mutations)))


def unchanged(
    trees: queue.SimpleQueue[Path],
    mutations: Sequence[Mutation],
    options: Options,
    cache: Path,
) -> None:
    """Runs all the tests once: one that fails anyhow would notice everything."""
    tests = list(dict.fromkeys(test for m in mutations for test in m.tests))
    tree = trees.get()
    slow = dataclasses.replace(options, limit=10 * options.limit)
    more = ("-n", str(options.workers)) if options.workers > 1 else ()
    code, printed = pytest(tree, tests, slow, cache, *more)
    trees.put(tree)
    if code != 0:
        raise RuntimeError(f"the tests fail without any change\n{printed}")


LEAST = 0.9
"""The part of the mutations that has to be noticed."""


def report(verdicts: Sequence[Verdict], seconds: float) -> tuple[str, bool]:
    """The end of a run in words, and whether enough was noticed."""
    real = [v for v in verdicts if not v.mutation.equivalent]
    survived = [v for v in real if not v.noticed]
    wrong = [v for v in verdicts if v.mutation.equivalent and v.noticed]
    rate = 1 - len(survived) / max(len(real), 1)
    lines = [f"{v.name}: {v.mutation}" for v in (*survived, *wrong)]
    lines.append(
        f"{len(real) - len(survived)} of {len(real)} noticed, {rate:.1%}; "
        f"{len(verdicts) - len(real)} more are equivalent; {seconds:.0f} seconds"
    )
    return "\n".join(lines), rate >= LEAST and not wrong
