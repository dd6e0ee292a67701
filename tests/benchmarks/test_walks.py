"""The benchmark of walks: its graphs, its network, how orders of nodes are judged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("optax")

from benchmarks import walks  # noqa: E402
from benchmarks.peers import walks as peers  # noqa: E402

GRAPHS = walks.generate(3, 12)


def test_a_graph_is_a_tree_with_a_motif_tied_to_it():
    for bonds, label in zip(GRAPHS.bonds, GRAPHS.labels, strict=True):
        np.testing.assert_array_equal(bonds, bonds.T)
        assert np.linalg.matrix_power(bonds + np.eye(25), 24).all()  # connected
        assert bonds[:20, :20].sum() == 2 * 19 and bonds[:20, 20:].sum() == 1
        motif = bonds[20:, 20:]
        triangles = round(np.trace(np.linalg.matrix_power(motif, 3)) / 6)
        assert (motif.sum() / 2, triangles) == ((5, 0) if label else (6, 1))
    np.testing.assert_array_equal(walks.generate(3, 12).bonds, GRAPHS.bonds)
    assert (walks.generate(4, 12).bonds != GRAPHS.bonds).any()


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_the_network_has_the_published_blocks_and_biases_that_are_not_positive(layers):
    params = walks.initial(jax.random.key(0), layers)
    sizes = [
        [layer["kernel"].shape for layer in block.values()] for block in params.values()
    ]
    wanted = [[(1, 20), (20, 20)], *[[(20, 20)] * 2] * (layers - 2), [(20, 2)]]
    assert sizes == wanted
    # Nothing but biases: no score can be positive.
    dead = jax.tree.map(jnp.zeros_like, params)
    for own, block in zip(dead.values(), params.values(), strict=True):
        for name, layer in block.items():
            own[name]["raw"] = layer["raw"]
    assert (walks.network(dead, jnp.asarray(GRAPHS.bonds[0])) < 0).all()


def test_nodes_pass_on_to_their_neighbours_alone():
    params = walks.initial(jax.random.key(1))
    h = jnp.ones((25, 1))
    mixed = (GRAPHS.bonds[0] + np.eye(25)) / 2
    for i, block in enumerate(params.values()):
        h = mixed @ h
        for layer in block.values():
            h = h @ layer["kernel"] - 0.5 * jnp.log(1 + jnp.exp(-2 * layer["raw"]))
            h = jnp.maximum(h, 0) if i < 2 else h
    found = walks.network(params, jnp.asarray(GRAPHS.bonds[0]))
    np.testing.assert_allclose(found, h.sum(0) / 20**0.5, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("biases", [False, True])
def test_biases_are_trained_where_asked(biases):
    graphs = walks.generate(0, 40)
    params, right = walks.train(graphs, [5, 6], biases=biases, steps=3)
    assert right.shape == (2,) and (right >= 0).all() and (right <= 1).all()
    for number, seed in enumerate((5, 6)):
        start = walks.initial(jax.random.key(seed))
        own = walks.one_of(params, number)
        moved = jax.tree.map(lambda a, b: float(abs(a - b).max()), start, own)
        assert moved["block0"]["first"]["kernel"] > 1e-6
        assert (moved["block0"]["first"]["raw"] > 1e-6) == biases


def test_each_class_has_its_own_question():
    scores, labels = jnp.array([[2.0, -1.0], [5.0, 4.0]]), jnp.array([0, 1])
    p = 1 / (1 + np.exp(-np.asarray(scores)))
    own = -np.log([[p[0, 0], 1 - p[0, 1]], [1 - p[1, 0], p[1, 1]]]).mean()
    np.testing.assert_allclose(walks.LOSSES["each class"](scores, labels), own, 1e-5)
    shifted = walks.LOSSES["softmax"](scores + 3, labels)
    np.testing.assert_allclose(walks.LOSSES["softmax"](scores, labels), shifted, 1e-5)


def test_the_best_order_has_the_motif_first():
    order = np.arange(25)[::-1]
    assert walks.scores_of(order) == (1.0, 1.0)
    assert walks.scores_of(order[::-1]) == (0.6, 0.0)
    swapped = order.copy()
    swapped[[4, 5]] = swapped[[5, 4]]
    accuracy, area = walks.scores_of(swapped)
    np.testing.assert_allclose([accuracy, area], [1 - 2 / 25, 1 - 1 / 100])


def test_the_search_takes_the_node_that_adds_most():
    worth = jnp.asarray(np.random.default_rng(0).permutation(25).astype(np.float32))
    order = walks.greedy(lambda sets: (sets * worth).sum(-1))
    np.testing.assert_array_equal(order, np.argsort(-np.asarray(worth)))


def test_as_many_graphs_of_each_class_are_drawn():
    chosen = walks.drawn(GRAPHS, 8)
    assert len(set(chosen.tolist())) == 8
    assert GRAPHS.labels[chosen].tolist() == [0] * 4 + [1] * 4


def test_kept_weights_are_blocks_again():
    params = walks.initial(jax.random.key(2))
    arrays = {}
    for i, block in enumerate(params.values()):
        for j, layer in enumerate(block.values()):
            arrays |= {f"w{i}{j}": layer["kernel"], f"b{i}{j}": layer["raw"]}
    arrays["bonds"] = GRAPHS.bonds
    found = peers.blocks({k: np.asarray(v) for k, v in arrays.items()})
    assert [len(block) for block in found] == [2, 2, 1]
    np.testing.assert_array_equal(found[1][1][0], params["block1"]["second"]["kernel"])


def test_what_other_packages_explain_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(walks, "KEPT", tmp_path / "out" / "motif.npz")
    monkeypatch.setattr(walks, "SETS", 4)
    params = walks.initial(jax.random.key(2))
    found = walks.side_by_side(GRAPHS, params, count=2)
    assert min(found.values()) > 0
    with np.load(walks.KEPT) as kept:
        assert kept["subgraphs"].shape == (2, 4) and kept["asked"].shape == (2, 2)
        assert len(peers.blocks(dict(kept))) == 3
        # A set with one node more than another is not the same.
        assert len(set(kept["subgraphs"][0].tolist())) > 1


def test_a_line_says_how_far_a_package_is():
    line = peers.measure(("some", lambda: np.array([1.0, 4.4]), np.array([1.0, 4.0])))
    assert line.startswith("| some | 1.0e-01 | ")
