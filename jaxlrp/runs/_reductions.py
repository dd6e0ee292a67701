"""What a whole dataset's relevances come to, block by block.

A reduction makes of each block a state of float64 arrays, which is kept in the block's
marker. When results are asked for, states are merged in the order of the blocks. So
they survive whatever the blocks survive, and do not depend on how often a run was
interrupted, nor on how many processes and devices there were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np

from jaxlrp import errors

State = dict[str, np.ndarray]


class Reduction(Protocol):
    """What `attribute` asks of a reduction: a frozen dataclass with these methods.

    Its `repr` is part of the run's identity.

    Examples:
      >>> import dataclasses, numpy as np
      >>> @dataclasses.dataclass(frozen=True)
      ... class Largest:
      ...     name: str
      ...
      ...     def of(self, arrays, rows):
      ...         return {"largest": np.asarray(arrays[self.name].max(), float)}
      ...
      ...     def merge(self, first, second):
      ...         return {"largest": np.maximum(first["largest"], second["largest"])}
      ...
      ...     def result(self, state):
      ...         return state
      >>> Largest("r").of({"r": np.array([3, 7])}, np.arange(2))["largest"].item()
      7.0
    """

    def of(self, arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> State:
        """The state of a block.

        Args:
          arrays: all results of `explain` by name, with the block's rows in front.
          rows: the numbers of these rows, int64 (rows,).
        """
        ...

    def merge(self, first: State, second: State) -> State:
        """The state of two blocks, or of two sets of them, the first ones first."""
        ...

    def result(self, state: State) -> dict[str, np.ndarray]:
        """What users are given."""
        ...


@dataclasses.dataclass(frozen=True)
class ClassMeans:
    """The mean over the rows of each class.

    The result is `{"mean": float64 (classes, ...), "count": int64 (classes,)}`; the
    mean of a class without rows is NaN.

    Attributes:
      of_array: the name of the array.
      by: the name of one of integers, (rows,): each row's class.
      classes: how many there are.

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import runs
      >>> means = runs.ClassMeans("relevance", by="label", classes=2)
      >>> relevance, label = np.array([1.0, 2.0, 6.0]), np.array([0, 1, 1])
      >>> state = means.of({"relevance": relevance, "label": label}, np.arange(3))
      >>> means.result(state)["mean"].tolist()
      [1.0, 4.0]
    """

    of_array: str
    by: str
    classes: int

    def of(self, arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> State:
        """Sums and counts."""
        values, labels = _named(arrays, self.of_array), _named(arrays, self.by)
        outside = (labels < 0) | (labels >= self.classes)
        if labels.shape != rows.shape or outside.any():
            wrong = labels[outside][:1].tolist() if labels.ndim == 1 else labels.shape
            raise ValueError(
                f"by: got {self.by!r} with {wrong}, expected one class below "
                f"{self.classes} for each row"
            )
        total = np.zeros((self.classes, *values.shape[1:]))
        for c in np.unique(labels):
            total[c] = values[labels == c].sum(0, dtype=np.float64)
        return {"sum": total, "count": np.bincount(labels, minlength=self.classes)}

    def merge(self, first: State, second: State) -> State:
        """Sums of both."""
        return {name: first[name] + second[name] for name in first}

    def result(self, state: State) -> dict[str, np.ndarray]:
        """Means and counts."""
        count = state["count"].reshape(-1, *[1] * (state["sum"].ndim - 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            return {"mean": state["sum"] / count, "count": state["count"]}


@dataclasses.dataclass(frozen=True)
class Moments:
    """Mean and variance of each feature over all rows, without cancellation.

    The result is `{"mean", "variance": float64 (...), "count": int64 ()}`; the variance
    is that of the rows, not an estimate for others.

    Attributes:
      of_array: the name of the array.

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import runs
      >>> moments = runs.Moments("relevance")
      >>> state = moments.of({"relevance": np.array([[1.0], [3.0]])}, np.arange(2))
      >>> moments.result(state)["variance"].tolist()
      [1.0]
    """

    of_array: str

    def of(self, arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> State:
        """Count, mean, and the sum of squared deviations."""
        values = _named(arrays, self.of_array)
        mean = values.mean(0, dtype=np.float64)
        return {
            "count": np.array(len(rows)),
            "mean": mean,
            "square": np.square(values - mean).sum(0),
        }

    def merge(self, first: State, second: State) -> State:
        """Chan's formula."""
        count = first["count"] + second["count"]
        step = second["mean"] - first["mean"]
        share = second["count"] / count
        square = first["square"] + second["square"]
        return {
            "count": count,
            "mean": first["mean"] + step * share,
            "square": square + step**2 * first["count"] * share,
        }

    def result(self, state: State) -> dict[str, np.ndarray]:
        """Mean, variance and count."""
        variance = state["square"] / state["count"]
        return {"mean": state["mean"], "variance": variance, "count": state["count"]}


@dataclasses.dataclass(frozen=True)
class Histogram:
    """How many numbers of an array lie between given edges.

    The result is `{"counts": int64 (edges - 1,), "outside": int64 (3,), "edges"}`,
    where `outside` counts what lies below, above, and what is NaN. As with
    `np.histogram` the last interval has both its ends.

    Attributes:
      of_array: the name of the array.
      edges: in ascending order.

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import runs
      >>> histogram = runs.Histogram("relevance", edges=(0, 1, 2))
      >>> state = histogram.of({"relevance": np.array([-1, 0.5, 2])}, np.arange(3))
      >>> histogram.result(state)["counts"].tolist()
      [1, 1]
    """

    of_array: str
    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        edges = tuple(float(e) for e in self.edges)
        if len(edges) < 2 or not (np.diff(edges) > 0).all():
            raise ValueError(f"edges: got {self.edges!r}, expected two, ascending")
        object.__setattr__(self, "edges", edges)

    def of(self, arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> State:
        """Counts."""
        values = _named(arrays, self.of_array).ravel()
        counts, _ = np.histogram(values, self.edges)
        outside = (values < self.edges[0], values > self.edges[-1], np.isnan(values))
        return {"counts": counts, "outside": np.array([o.sum() for o in outside])}

    def merge(self, first: State, second: State) -> State:
        """Sums of both."""
        return {name: first[name] + second[name] for name in first}

    def result(self, state: State) -> dict[str, np.ndarray]:
        """Counts and edges."""
        return {**state, "edges": np.array(self.edges)}


@dataclasses.dataclass(frozen=True)
class Top:
    """For each channel the rows in which it is highest, as `concepts.maximise` has it.

    The result is `{"indices": int64 (channels, k), "scores": float64 (channels, k)}` in
    descending order, of equal scores the first row first; -1 and minus infinity where
    there are too few rows. NaN is below all numbers.

    Attributes:
      of_array: the name of an array (rows, channels).
      k: how many rows are kept for each channel.
      places: the name of an array of integers (rows, channels) that is kept beside the
        scores, such as the place in the row where the channel was highest; the result
        then has `"places"`.

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import runs
      >>> top = runs.Top("channels", k=2)
      >>> channels = np.array([[1.0], [5.0], [3.0]])
      >>> state = top.of({"channels": channels}, np.arange(3))
      >>> top.result(state)["indices"].tolist()
      [[1, 2]]
    """

    of_array: str
    k: int = 8
    places: str | None = None

    def __post_init__(self) -> None:
        if isinstance(self.k, bool) or not isinstance(self.k, int) or self.k < 1:
            raise ValueError(f"k: got {self.k!r}, expected a positive int")

    def of(self, arrays: Mapping[str, np.ndarray], rows: np.ndarray) -> State:
        """The highest of a block."""
        values = _named(arrays, self.of_array).astype(np.float64)
        if values.ndim != 2:
            raise ValueError(
                f"of_array: got {self.of_array!r} of shape {values.shape}, expected "
                "(rows, channels)"
            )
        values = np.where(np.isnan(values), -np.inf, values).T
        indices = np.broadcast_to(rows, values.shape)
        found = {"indices": indices, "scores": values}
        if self.places is not None:
            found["places"] = _named(arrays, self.places).astype(np.int64).T
        short = [(0, 0), (0, max(0, self.k - len(rows)))]
        fill = {"indices": -1, "scores": -np.inf, "places": -1}
        return self._highest(
            {n: np.pad(a, short, constant_values=fill[n]) for n, a in found.items()}
        )

    def _highest(self, state: State) -> State:
        order = np.argsort(-state["scores"], axis=1, kind="stable")[:, : self.k]
        found = {n: np.take_along_axis(a, order, 1) for n, a in state.items()}
        nothing = np.isneginf(found["scores"])
        return {
            n: a if n == "scores" else np.where(nothing, -1, a)
            for n, a in found.items()
        }

    def merge(self, first: State, second: State) -> State:
        """The highest of both."""
        return self._highest(
            {n: np.concatenate([first[n], second[n]], 1) for n in first}
        )

    def result(self, state: State) -> dict[str, np.ndarray]:
        """Indices and scores."""
        return state


KINDS: dict[str, Any] = {
    kind.__name__: kind for kind in (ClassMeans, Moments, Histogram, Top)
}
"""Those that can be told from their description."""


def described(reduction: Any) -> dict[str, Any]:
    """A reduction as JSON, from which `known` makes it again."""
    if not dataclasses.is_dataclass(reduction) or isinstance(reduction, type):
        raise TypeError(
            f"reduce: got {reduction!r}, expected one of {', '.join(KINDS)} or another "
            "frozen dataclass with their methods"
        )
    kind = type(reduction).__name__
    if KINDS.get(kind) is not type(reduction):
        return {"repr": repr(reduction)}
    return {"kind": kind, "options": dataclasses.asdict(reduction)}


def known(name: str, description: Mapping[str, Any]) -> Reduction:
    """The reduction of a description.

    Raises:
      RunError: for one of the user's own.
    """
    if "kind" not in description:
        raise errors.RunError(
            f"name: got {name!r}, which was made by {description['repr']}; give that "
            "as `by`"
        )
    options = description["options"]
    tuples = {n: tuple(v) if isinstance(v, list) else v for n, v in options.items()}
    return KINDS[description["kind"]](**tuples)


def merged(reduction: Reduction, states: Iterable[State]) -> dict[str, np.ndarray]:
    """The result over blocks, in the order given."""
    total: State | None = None
    for state in states:
        total = state if total is None else reduction.merge(total, state)
    if total is None:
        raise errors.RunError("reduced: no block is done yet")
    return reduction.result(total)


def _named(arrays: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in arrays:
        raise ValueError(f"reduce: got {name!r}, expected one of {', '.join(arrays)}")
    return arrays[name]
