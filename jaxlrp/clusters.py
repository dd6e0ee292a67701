"""Clusters of relevances: the strategies by which a network decides (SpRAy).

A network that is right for a wrong reason gives itself away in its relevances, not in
its scores: on a part of a class they lie elsewhere. Relevances of one class are joined
to their nearest neighbours, embedded by the Laplacian of that graph, and clustered
there. Clusters that stand apart are strategies to be looked at; `page` shows them.

Source: Lapuschkin et al. 2019, "Unmasking Clever Hans predictors and assessing what
machines really learn"; the conventions are CoRelAy's. Needs scikit-learn, and Pillow
for pages: `pip install jaxlrp[clusters]`.
"""

from __future__ import annotations

import dataclasses
import html
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxlrp import _files
from jaxlrp.runs import _pictures

__all__ = ["Clusters", "by_class", "find", "page", "prepared", "save"]

DENSE = 1000
"""Graphs of so many rows at most are decomposed as a whole."""


ROUGH = 1e-3
"""Eigenvalues below this are as good as zero."""


@dataclasses.dataclass(frozen=True)
class Clusters:
    """The clusters of some rows of a dataset.

    Attributes:
      rows: their numbers, int64 (rows,).
      eigenvalues: the smallest of the graph's normalised Laplacian, float64
        (dimensions,) in ascending order. As many are zero as the graph has parts; a gap
        behind the first few says how many strategies there are.
      embedding: the eigenvectors, each row of unit length, float64 (rows, dimensions).
      labels: each row's cluster, int64 (rows,): 0 is the largest.
      separation: how far the clusters are from each other compared to their own size,
        the mean silhouette in [-1, 1]; 0 for a single one. Classes in which it is
        high are to be looked at first.

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import clusters
      >>> corners = np.array([[0, 0], [0, 1], [9, 9], [9, 8], [8, 9]])
      >>> found = clusters.find(corners, neighbours=1, dimensions=2)
      >>> found.rows[found.labels == 0].tolist()
      [2, 3, 4]
    """

    rows: np.ndarray
    eigenvalues: np.ndarray
    embedding: np.ndarray
    labels: np.ndarray
    separation: float

    @property
    def sizes(self) -> np.ndarray:
        """How many rows each cluster has, int64 (clusters,)."""
        return np.bincount(self.labels)


def prepared(
    relevance: Any, *, channels: int | None = None, absolute: bool = False
) -> np.ndarray:
    """Relevances as features: only where they lie counts, not how large they are.

    Args:
      relevance: (rows, ...).
      channels: an axis that is summed over first.
      absolute: whether signs count.

    Returns:
      float64 (rows, features): each row divided by the sum of its absolute values.

    Examples:
      >>> from jaxlrp import clusters
      >>> clusters.prepared([[3, -1], [0, 0]]).tolist()
      [[0.75, -0.25], [0.0, 0.0]]
    """
    values = np.asarray(relevance, np.float64)
    if channels is not None:
        values = values.sum(channels)
    values = values.reshape(len(values), -1)
    values = np.abs(values) if absolute else values
    total = np.abs(values).sum(1, keepdims=True)
    return values / np.where(total > 0, total, 1)


def find(
    features: Any,
    *,
    rows: Any = None,
    neighbours: int = 10,
    dimensions: int = 8,
    clusters: int | None = None,
    eps: float | None = None,
    umap: bool = False,
    seed: int = 0,
) -> Clusters:
    """Embeds rows by the graph of their nearest neighbours, and clusters them there.

    Args:
      features: (rows, features), see `prepared`.
      rows: their numbers in the dataset; counted from 0 by default.
      neighbours: each row is joined to so many, in both directions.
      dimensions: eigenvectors.
      clusters: of k-means. None for as many as there are eigenvalues in front of the
        steepest rise, two at least: `separation` says whether there are so many.
      eps: DBSCAN with this radius instead of k-means; rows without a cluster form the
        last one.
      umap: whether to cluster in a layout of umap-learn's in two dimensions.
      seed: of k-means and UMAP.

    Returns:
      The clusters, the same ones each time.

    Raises:
      ValueError: if there are fewer than four rows, or an argument does not fit.

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import clusters
      >>> rng = np.random.default_rng(0)
      >>> x = np.concatenate([rng.normal(size=(30, 5)), rng.normal(size=(9, 5)) + 9])
      >>> clusters.find(x, neighbours=4).sizes.tolist()
      [30, 9]
    """
    from sklearn import cluster

    labels: Any
    features = np.asarray(features, np.float64)
    if features.ndim != 2 or len(features) < 4:
        raise ValueError(
            f"features: got shape {features.shape}, expected (rows, features) with at "
            "least four rows"
        )
    counts = {"neighbours": neighbours, "dimensions": dimensions}
    if clusters is not None:
        counts["clusters"] = clusters
    for name, value in counts.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name}: got {value!r}, expected a positive int")
    numbers = np.arange(len(features)) if rows is None else np.asarray(rows)
    if numbers.shape != (len(features),):
        raise ValueError(f"rows: got shape {numbers.shape}, expected a number for each")
    values, embedding = _spectral(features, neighbours, dimensions)
    count = min(clusters or _by_gap(values), len(features))
    # In as many dimensions as there are clusters; the others are noise.
    space = _umap(embedding, seed) if umap else _unit(embedding[:, :count])
    if eps is not None:
        labels = cluster.DBSCAN(eps=eps).fit(space).labels_
    else:
        means = cluster.KMeans(count, random_state=seed, n_init=10)  # pyright: ignore
        labels = means.fit(space).labels_
    labels = _by_size(labels)
    return Clusters(numbers, values, embedding, labels, _separation(space, labels))


def by_class(features: Any, classes: Any, **options: Any) -> dict[int, Clusters]:
    """The clusters of each class that has rows enough, the best separated class first.

    Args:
      features: (rows, features), see `prepared`.
      classes: int (rows,).
      **options: of `find`.

    Returns:
      By class the clusters, whose rows are numbers in the whole dataset.

    Raises:
      ValueError: if `classes` is not one for each row, and as `find`.

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import clusters
      >>> x = np.random.default_rng(0).normal(size=(20, 3))
      >>> found = clusters.by_class(x, [0, 1] * 10, neighbours=3, dimensions=3)
      >>> found[1].rows.tolist()
      [1, 3, 5, 7, 9, 11, 13, 15, 17, 19]
    """
    features, classes = np.asarray(features), np.asarray(classes)
    if classes.shape != (len(features),):
        raise ValueError(f"classes: got shape {classes.shape}, expected one for each")
    found = {}
    for c in np.unique(classes):
        (rows,) = np.nonzero(classes == c)
        if len(rows) >= 4:
            found[int(c)] = find(features[rows], rows=rows, **options)
    return dict(sorted(found.items(), key=lambda item: -item[1].separation))


def _affinity(features: np.ndarray, neighbours: int) -> Any:
    """The graph of nearest neighbours, the mean of both directions: sparse."""
    from sklearn import neighbors

    count = min(neighbours, len(features) - 1)
    graph = neighbors.kneighbors_graph(features, count)
    return (graph + graph.T) / 2


def _spectral(
    features: np.ndarray, neighbours: int, dimensions: int
) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues of the normalised Laplacian, and rows of its eigenvectors."""
    import scipy.linalg
    import scipy.sparse
    import scipy.sparse.linalg

    graph = _affinity(features, neighbours)
    scale = scipy.sparse.diags(np.asarray(graph.sum(1)).ravel() ** -0.5)
    walk = scale @ graph @ scale
    rows, count = len(features), min(dimensions, len(features) - 2)
    if rows <= DENSE:
        span = (rows - count, rows - 1)
        values, vectors = scipy.linalg.eigh(walk.toarray(), subset_by_index=span)
    else:
        # Without a start of its own ARPACK draws one, another each time.
        start = np.random.default_rng(0).normal(size=rows)
        values, vectors = scipy.sparse.linalg.eigsh(walk, count, which="LA", v0=start)
    order = np.argsort(-values, kind="stable")
    return 1 - values[order], _unit(vectors[:, order])


def _unit(rows: np.ndarray) -> np.ndarray:
    norm = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norm > 0, norm, 1)


def _umap(embedding: np.ndarray, seed: int) -> np.ndarray:
    import umap  # pyright: ignore[reportMissingImports]

    return umap.UMAP(random_state=seed).fit_transform(embedding)


def _by_gap(values: np.ndarray) -> int:
    """As many clusters as there are eigenvalues in front of the steepest rise.

    The first eigenvalue is zero in any case: two clusters at least.
    """
    if len(values) < 3:
        return min(2, len(values))
    shifted = np.maximum(values, 0) + ROUGH
    return 2 + int(np.argmax(shifted[2:] / shifted[1:-1]))


def _by_size(labels: np.ndarray) -> np.ndarray:
    """Clusters numbered by size; what belongs to none is the last one."""
    known = [c for c in np.unique(labels) if c >= 0]
    order = sorted(known, key=lambda c: (-(labels == c).sum(), np.argmax(labels == c)))
    order += [-1] if (labels < 0).any() else []
    return np.array([order.index(c) for c in labels])


def _separation(space: np.ndarray, labels: np.ndarray) -> float:
    from sklearn import metrics

    if not 1 < len(np.unique(labels)) < len(labels):
        return 0.0
    return float(metrics.silhouette_score(space, labels))


def page(
    found: Mapping[int, Clusters],
    relevance: Any,
    images: Any = None,
    *,
    names: Sequence[str] | None = None,
    examples: int = 8,
    title: str = "Clusters of relevances",
) -> str:
    """A page that shows each cluster: its mean relevance, and some of its examples.

    Args:
      found: by class, in the order in which they are shown.
      relevance: (rows of the dataset, height, width); anything that can be indexed by
        rows, such as an array of a run.
      images: the dataset's images, (rows, height, width) or (..., channels); of floats
        the smallest and largest of each become black and white.
      names: of the classes.
      examples: of each cluster, those nearest to its middle.
      title: of the page.

    Returns:
      HTML that needs nothing else, neither scripts nor a network.

    Raises:
      ModuleNotFoundError: where Pillow is not installed.

    Examples:
      >>> import numpy as np
      >>> from jaxlrp import clusters
      >>> relevance = np.random.default_rng(0).normal(size=(8, 4, 4))
      >>> features = clusters.prepared(relevance)
      >>> found = clusters.by_class(features, [0] * 8, neighbours=3, dimensions=3)
      >>> "class 0" in clusters.page(found, relevance)
      True
    """
    import PIL  # noqa: F401  the error is named

    parts = [
        _of_class(name, c, relevance, images, examples)
        for c, name in (
            (c, names[k] if names else f"class {k}") for k, c in found.items()
        )
    ]
    head = html.escape(title)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{head}</title>"
        f"<style>{_CSS}</style><h1>{head}</h1><p>Red is for the class, blue against it."
        " Each map has a scale of its own.</p>" + "".join(parts) + "</html>"
    )


def save(path: str | os.PathLike[str], content: str) -> None:
    """Writes a page, whole or not at all.

    Args:
      path: the file.
      content: what `page` returned.

    Examples:
      >>> import pathlib, tempfile
      >>> from jaxlrp import clusters
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     path = pathlib.Path(folder, "clusters.html")
      ...     clusters.save(path, "<!doctype html>")
      ...     path.read_text()
      '<!doctype html>'
    """
    _files.write(path, content.encode())


_CSS = (
    "body{font-family:sans-serif;max-width:70em;margin:2em auto;padding:0 1em}"
    "table{border-collapse:collapse}td,th{padding:.4em .8em;text-align:left;"
    "vertical-align:middle;border-top:1px solid #ccc}img{display:block;"
    "image-rendering:pixelated;margin:2px 0}svg{border:1px solid #ccc}"
    "td.example{border:0;padding:1px}"
)
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#777777")


def _of_class(
    name: str, c: Clusters, relevance: Any, images: Any, examples: int
) -> str:
    rows = []
    for k, size in enumerate(c.sizes):
        members = np.nonzero(c.labels == k)[0]
        middle = c.embedding[members].mean(0)
        distance = np.linalg.norm(c.embedding[members] - middle, axis=1)
        nearest = c.rows[members[np.argsort(distance, kind="stable")[:examples]]]
        every = np.asarray(relevance[np.sort(c.rows[members])], np.float64)
        lines = [[_pictures.maps(_map(relevance[i]), f"row {i}") for i in nearest]]
        if images is not None:
            lines.insert(
                0, [_pictures.photograph(images[i], f"row {i}") for i in nearest]
            )
        mean = _pictures.maps(_map(every.mean(0)), "mean relevance")
        pictures = "".join(
            "<tr>" + "".join(f"<td class='example'>{x}" for x in line) for line in lines
        )
        rows.append(
            f"<tr><th style='color:{_COLOURS[k % len(_COLOURS)]}'>cluster {k}"
            f"<td>{size} rows<td>{mean}<td><table>{pictures}</table>"
        )
    return (
        f"<h2>{html.escape(name)}</h2><p>{len(c.rows)} rows, separation "
        f"{c.separation:.2f}, eigenvalues "
        f"{', '.join(f'{v:.3f}' for v in c.eigenvalues[:6])}</p>{_scatter(c)}"
        f"<table><tr><th><th>size<th>mean relevance<th>examples{''.join(rows)}</table>"
    )


def _map(relevance: Any) -> np.ndarray:
    return np.asarray(relevance, np.float64)[None]


def _scatter(c: Clusters, size: int = 240) -> str:
    """The rows in the plane of the second and third eigenvector."""
    plane = np.zeros((len(c.rows), 2))
    taken = c.embedding[:, 1:3]
    plane[:, : taken.shape[1]] = taken
    low, high = plane.min(0), plane.max(0)
    places = 10 + (size - 20) * (plane - low) / np.where(high > low, high - low, 1)
    dots = "".join(
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='3' fill='{_COLOURS[k % len(_COLOURS)]}' "
        f"fill-opacity='.6'><title>row {row}</title></circle>"
        for (x, y), k, row in zip(places, c.labels, c.rows, strict=True)
    )
    return f"<svg width='{size}' height='{size}' role='img'>{dots}</svg>"
