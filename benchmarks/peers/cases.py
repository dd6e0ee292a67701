"""What is compared, and how far apart it is. Without any of the peers."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

LIMIT = 1e-9

HEAD = ("peer", "network", "rule", "difference", "limit", "")


@dataclasses.dataclass(frozen=True)
class Case:
    """One rule of a peer, and ours.

    Attributes:
      peer: the package.
      network: which network.
      name: the rule or composite.
      theirs: computes the peer's relevance.
      ours: computes ours; None where there is none.
      limit: how large the relative difference may be.
      reason: why, where that is not `LIMIT`.
      note: what else to say about the peer's relevance.
    """

    peer: str
    network: str
    name: str
    theirs: Callable[[], np.ndarray]
    ours: Callable[[], np.ndarray] | None
    limit: float = LIMIT
    reason: str = ""
    note: Callable[[np.ndarray], str] | None = None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Attributes:
      case: which.
      theirs: the peer's relevance.
      difference: the largest, relative to the peer's largest relevance; None where
        there is nothing to compare with.
    """

    case: Case
    theirs: np.ndarray
    difference: float | None

    @property
    def within(self) -> bool:
        """Is the difference below its limit? What is not a number is not."""
        return self.difference is None or self.difference <= self.case.limit

    @property
    def row(self) -> str:
        """A row of the table."""
        case, found = self.case, self.difference
        notes = ["" if self.within else "TOO LARGE", case.reason]
        notes.append(case.note(self.theirs) if case.note else "")
        return line(
            case.peer,
            case.network,
            f"`{case.name}`",
            "" if found is None else f"{found:.1e}",
            "" if found is None else f"{case.limit:.0e}",
            "; ".join(note for note in notes if note),
        )


def compare(case: Case) -> Outcome:
    """Runs both: `max |theirs - ours| / max |theirs|`.

    Raises:
      AssertionError: their shapes differ.
    """
    theirs = case.theirs()
    if case.ours is None:
        return Outcome(case, theirs, None)
    ours = case.ours()
    if theirs.shape != ours.shape:
        raise AssertionError(f"{case.name}: shapes {theirs.shape} and {ours.shape}")
    return Outcome(case, theirs, float(relative(theirs, ours)))


def relative(theirs: np.ndarray, ours: np.ndarray) -> np.floating:
    """`max |theirs - ours| / max |theirs|`."""
    return np.abs(theirs - ours).max() / np.abs(theirs).max()


def line(*cells: str) -> str:
    """A line of a table in markdown."""
    return "".join(f"| {cell} ".replace("  ", " ") for cell in cells) + "|"


def head() -> str:
    """The first two lines of the table."""
    return f"{line(*HEAD)}\n{line(*['---'] * len(HEAD))}"


def run(cases: Iterable[Case], show: Callable[[str], None]) -> Iterator[Outcome]:
    """Runs one after the other and shows their rows."""
    for case in cases:
        outcome = compare(case)
        show(outcome.row)
        yield outcome
