"""Clusters of relevances are found, the same each time, and shown."""

import numpy as np
import pytest

pytest.importorskip("sklearn")

from jaxlrp import clusters  # noqa: E402


def blobs(sizes, seed=0, features=6):
    rng = np.random.default_rng(seed)
    return np.concatenate(
        [rng.normal(size=(n, features)) + 12 * i for i, n in enumerate(sizes)]
    )


@pytest.mark.parametrize("sizes", [(40, 9), (30, 20, 12), (25, 25, 13, 11)])
@pytest.mark.parametrize("options", [{}, {"eps": 0.4}], ids=["means", "dbscan"])
def test_clusters_that_stand_apart_are_found(sizes, options):
    found = clusters.find(blobs(sizes), neighbours=5, **options)
    assert sorted(found.sizes, reverse=True) == sorted(sizes, reverse=True)
    assert found.sizes.tolist() == sorted(found.sizes, reverse=True)
    assert found.separation > 0.9
    start = 0
    for n in sizes:
        assert len(set(found.labels[start : start + n])) == 1
        start += n


def test_one_cluster_is_one():
    found = clusters.find(blobs((50,)), clusters=1)
    assert found.sizes.tolist() == [50] and found.separation == 0


def test_rows_without_a_cluster_come_last():
    x = np.concatenate([blobs((30, 20)), [[900.0] * 6]])
    found = clusters.find(x, neighbours=3, eps=0.01)
    assert len(found.labels) == 51


def test_large_graphs_are_decomposed_as_small_ones(monkeypatch):
    x = blobs((60, 50), features=3)
    dense = clusters.find(x, dimensions=5)
    monkeypatch.setattr(clusters, "DENSE", 10)
    sparse, again = clusters.find(x, dimensions=5), clusters.find(x, dimensions=5)
    np.testing.assert_allclose(sparse.eigenvalues, dense.eigenvalues, atol=1e-10)
    assert (sparse.embedding == again.embedding).all()
    assert (sparse.labels == dense.labels).all()


def test_eigenvalues_are_those_of_corelay():
    distance = pytest.importorskip("corelay.processor.distance")
    affinity = pytest.importorskip("corelay.processor.affinity")
    laplacian = pytest.importorskip("corelay.processor.laplacian")
    embedding = pytest.importorskip("corelay.processor.embedding")
    x = np.random.default_rng(3).normal(size=(80, 5))
    graph = affinity.SparseKNN(n_neighbors=7)(distance.SciPyPDist()(x))
    walk = laplacian.SymmetricNormalLaplacian()(graph)
    values, _ = embedding.EigenDecomposition(n_eigval=6)(walk)
    found = clusters.find(x, neighbours=7, dimensions=6)
    np.testing.assert_allclose(found.eigenvalues, np.sort(values), atol=1e-10)


def test_only_where_relevance_lies_counts():
    r = np.random.default_rng(0).normal(size=(5, 4, 4, 3))
    found = clusters.prepared(r, channels=-1)
    assert found.shape == (5, 16)
    np.testing.assert_allclose(np.abs(found).sum(1), 1)
    np.testing.assert_allclose(clusters.prepared(7 * r, channels=-1), found)
    assert (clusters.prepared(r, absolute=True) >= 0).all()
    assert not clusters.prepared(np.zeros((2, 3))).any()


def test_classes_are_in_the_order_of_their_separation():
    x = np.concatenate([blobs((40,)), blobs((20, 10)), blobs((3,))])
    classes = np.array([0] * 40 + [1] * 30 + [2] * 3)
    found = clusters.by_class(x, classes, neighbours=4, clusters=2)
    assert list(found) == [1, 0]  # three rows are too few
    assert (found[1].rows == np.arange(40, 70)).all()


def test_a_class_has_clusters_from_four_rows_on():
    features = np.random.default_rng(0).normal(size=(12, 3))
    classes = [0] * 3 + [1] * 4 + [2] * 5
    found = clusters.by_class(features, classes, neighbours=2, dimensions=2)
    assert sorted(found) == [1, 2]


@pytest.mark.whole
@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"neighbours": 0}, "neighbours: got 0"),
        ({"clusters": 1.5}, "clusters: got 1.5"),
        ({"rows": [1, 2]}, "rows: got shape"),
    ],
)
def test_options_that_do_not_fit_are_named(options, match):
    with pytest.raises(ValueError, match=match):
        clusters.find(blobs((9,)), **options)
    with pytest.raises(ValueError, match="at least four"):
        clusters.find(np.ones((3, 2)))
    with pytest.raises(ValueError, match="expected one for each"):
        clusters.by_class(np.ones((9, 2)), [1])


def test_a_page_shows_every_cluster_and_needs_nothing_else(tmp_path):
    pytest.importorskip("PIL")
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(30, 4, 4))
    images = rng.normal(size=(30, 4, 4, 1))
    features = clusters.prepared(maps)
    found = clusters.by_class(features, np.arange(30) % 2, clusters=2)
    content = clusters.page(found, maps, images, names=["<b>", "odd"], examples=3)
    shown = sum(min(3, n) for c in found.values() for n in c.sizes)
    assert content.count("<img") == 2 * shown + 4
    assert content.count("<circle") == 30
    assert "&lt;b&gt;" in content and "<b>" not in content
    assert "http" not in content and "<script" not in content
    clusters.save(tmp_path / "page.html", content)
    assert (tmp_path / "page.html").read_text() == content


def test_a_page_has_the_means_and_the_plane_of_each_class(monkeypatch):
    pytest.importorskip("PIL")
    seen = []
    monkeypatch.setattr(
        clusters._pictures, "maps", lambda r, label: seen.append((label, r)) or ""
    )
    maps = np.random.default_rng(0).normal(size=(30, 4, 4))
    found = clusters.by_class(clusters.prepared(maps), np.arange(30) % 2, clusters=2)
    content = clusters.page(found, maps)
    means = [r for label, r in seen if label == "mean relevance"]
    expected = [
        maps[c.rows[c.labels == k]].mean(0)
        for c in found.values()
        for k in range(len(c.sizes))
    ]
    np.testing.assert_allclose(np.reshape(means, np.shape(expected)), expected)
    for c in found.values():
        x, y = c.embedding[:, 1:3].T
        ends = [(v - v.min()) / (v.max() - v.min()) * 220 + 10 for v in (x, y)]
        assert f"<circle cx='{ends[0][0]:.1f}' cy='{ends[1][0]:.1f}'" in content
