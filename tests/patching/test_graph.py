"""Circuit graphs: what is kept connects, and files say what the graph says."""

import html
import json
import re
import xml.etree.ElementTree as ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name as tag

from jaxlrp import patching

LAYERS, HEADS, PLACES = 2, 2, 3
AXES = ("layer", "position", None)
SOURCES = {
    "embedding": patching.site("embedding", AXES[1:]),
    "heads": patching.site("heads", ("layer", "position", "head", None)),
    "mlp": patching.site("mlp_out", AXES),
}
TARGETS = {
    "heads": patching.site("attention_in", AXES),
    "mlp": patching.site("mlp_in", AXES),
    "final": patching.site("final", AXES[1:]),
}
OWN = {"embedding": (), "heads": (LAYERS, HEADS), "mlp": (LAYERS,), "final": ()}


def there(u, v):
    """The edges of a decoder: attention, then the MLP, in each layer."""
    found = np.zeros((PLACES, *OWN[u], *OWN[v][:1]), bool)
    for index in np.ndindex(*found.shape):
        one = index[1] if OWN[u] else -1
        two = index[-1] if OWN[v] else LAYERS
        found[index] = one < two or (u == "heads" and v == "mlp" and one == two)
    return found


EXISTS = {(u, v): there(u, v) for u in SOURCES for v in TARGETS}


def scored(seed=0):
    rng = np.random.default_rng(seed)
    scores = {k: np.where(e, rng.normal(size=e.shape), 0) for k, e in EXISTS.items()}
    return patching.Edges(scores, EXISTS)


def chosen(*edges):
    """Scores that are zero but for some edges, `(u, v, index) -> score`."""
    scores = {k: np.zeros(e.shape) for k, e in EXISTS.items()}
    for (u, v, index), score in dict(edges).items():
        assert EXISTS[u, v][index]
        scores[u, v][index] = score
    return patching.Edges(scores, EXISTS)


def names(graph):
    return {
        (graph.nodes[k.source].name, graph.nodes[k.target].name) for k in graph.links
    }


# A chain: the first token, an MLP at it, a head of layer 1 that reads it, the end.
CHAIN = chosen(
    (("embedding", "mlp", (0, 0)), 3.0),
    (("mlp", "heads", (0, 0, 1)), -2.0),
    (("heads", "final", (2, 1, 0)), 1.0),
    (("mlp", "final", (1, 1)), 5.0),  # nothing makes it
    (("embedding", "heads", (1, 0)), 4.0),  # nothing reads what it makes
)
LINKS = {
    ("embedding position 0", "mlp layer 0 position 0"),
    ("mlp layer 0 position 0", "heads in layer 1 position 0"),
    ("heads layer 1 head 0 position 2", "final position 2"),
}


def test_what_leads_nowhere_is_left_out():
    made = patching.graph(CHAIN, SOURCES, TARGETS, threshold=0.5, across="heads")
    assert names(made) == LINKS
    assert [k.score for k in made.links] == [3.0, -2.0, 1.0]
    assert made.threshold == 1.0
    kinds = {node.component: node.kind for node in made.nodes}
    assert kinds["embedding"] == "input" and kinds["final"] == "output"
    assert kinds["mlp"] == kinds["heads"] == kinds["heads in"] == "inner"


def test_only_what_carries_leads_to_other_positions():
    """Without attention's leave the chain, which changes its position there, breaks."""
    options = {"threshold": 0.5}
    assert not patching.graph(CHAIN, SOURCES, TARGETS, across=(), **options).links
    assert not patching.graph(CHAIN, SOURCES, TARGETS, across="mlp", **options).links
    # Where nothing is known, everything that is read may lead to all that is given.
    assert names(patching.graph(CHAIN, SOURCES, TARGETS, **options)) == LINKS


def test_where_nothing_is_known_every_component_may_carry():
    edges = chosen((("embedding", "mlp", (0, 0)), 2.0), (("mlp", "final", (1, 0)), 1.0))
    options = {"threshold": 0.5}
    assert len(patching.graph(edges, SOURCES, TARGETS, **options).links) == 2
    assert not patching.graph(edges, SOURCES, TARGETS, across="heads", **options).links


def test_ways_through_components_are_inside():
    made = patching.graph(CHAIN, SOURCES, TARGETS, threshold=0.5, across="heads")
    inside = {(made.nodes[a].name, made.nodes[b].name) for a, b in made.inside}
    assert inside == {
        ("heads in layer 1 position 0", "heads layer 1 head 0 position 2")
    }


def on_a_way(kept):
    """Brute force: edges on a way from an embedding to the end, by enumeration."""
    edges = []
    for (u, v), mask in kept.items():
        for index in map(tuple, np.argwhere(mask)):
            place, own = index[0], index[1 : 1 + len(OWN[u])]
            edges.append(((u, place, *own), (v, place, *index[1 + len(OWN[u]) :])))

    def follows(one, two):
        """Can what edge `one` brings leave by edge `two`?"""
        (v, at, *layer), (u, place, *own) = one[1], two[0]
        return u == v and own[:1] == layer and (u == "heads" or at == place)

    first = {e for e in edges if e[0][0] == "embedding"}
    last = {e for e in edges if e[1][0] == "final"}
    for group, step in ((first, follows), (last, lambda a, b: follows(b, a))):
        while True:
            more = {e for e in edges if any(step(g, e) for g in group)} - group
            if not more:
                break
            group |= more
    return first & last


@pytest.mark.parametrize("count", [1, 4, 9, 25])
def test_the_graph_is_the_largest_that_connects(count):
    edges = scored()
    made = patching.graph(edges, SOURCES, TARGETS, count=count, across="heads")
    assert len(made.links) <= count
    every = np.concatenate([np.abs(edges.scores[k][EXISTS[k]]) for k in EXISTS])
    for taken in range(len(every) + 1):
        least = np.sort(every)[::-1][taken - 1] if taken else np.inf
        kept = {k: EXISTS[k] & (np.abs(edges.scores[k]) >= least) for k in EXISTS}
        if len(on_a_way(kept)) > count:
            break
        best = on_a_way(kept)
    assert len(made.links) == len(best) == sum(m.sum() for m in made.keep.values())
    assert on_a_way(made.keep) == best


def test_depths_follow_the_program():
    made = patching.graph(scored(), SOURCES, TARGETS, count=1000, across="heads")
    depth = {(n.component, dict(n.index).get("layer")): n.depth for n in made.nodes}
    assert [depth["embedding", None], depth["heads in", 0], depth["heads", 0]] == [
        0,
        1,
        2,
    ]
    assert [depth["mlp", 0], depth["heads in", 1]] == [3, 4]
    assert [depth["heads", 1], depth["mlp", 1], depth["final", None]] == [5, 6, 7]
    assert all(
        made.nodes[k.source].depth < made.nodes[k.target].depth for k in made.links
    )


def network(params, x):
    x = tag(x, "embedding")
    for w in params:
        x = x + tag(jnp.tanh(tag(x, "mlp_in") @ w), "mlp_out")
    return tag(x, "final")[0, 0]


def test_a_graph_can_be_run():
    """`keep` is what `circuit` takes: here the whole network's score comes back."""
    params = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 3)), jnp.float32)
    clean, corrupt = jnp.ones((2, 3)), jnp.zeros((2, 3))
    sources = {n: SOURCES[n] for n in ("embedding", "mlp")}
    targets = {n: TARGETS[n] for n in ("mlp", "final")}
    find = patching.edges(network, sources, targets)
    edges = jax.jit(find)(params, clean, corrupt)
    made = patching.graph(edges, sources, targets, threshold=1e-6, across=())
    # The score is of the first position alone.
    assert {n.position for n in made.nodes} == {(("position", 0),)}
    run = jax.jit(patching.circuit(network, edges=(sources, targets)))
    np.testing.assert_allclose(
        run(made.keep, params, clean, corrupt), network(params, clean), rtol=1e-5
    )
    nothing = {k: np.zeros_like(m) for k, m in made.keep.items()}
    assert run(nothing, params, clean, corrupt) == network(params, corrupt)


def test_components_may_read_by_several_targets():
    exists = {("in", "q"): True, ("in", "k"): True, ("a", "out"): True}
    sizes = {("in", "q"): 3.0, ("in", "k"): 0.1, ("a", "out"): 1.0}
    edges = patching.Edges(
        {k: np.array(s) for k, s in sizes.items()},
        {k: np.array(e) for k, e in exists.items()},
    )
    sites = {n: patching.site(n, (None,)) for n in ("in", "a", "q", "k", "out")}
    sources, targets = ({n: sites[n] for n in one} for one in (["in", "a"], "qk"))
    targets["out"] = sites["out"]
    made = patching.graph(
        edges, sources, targets, threshold=0.5, reads={"a": ("q", "k")}
    )
    assert names(made) == {("in", "q"), ("a", "out")}
    # With nothing said, no source reads q: it is an output, and a an input.
    assert len(patching.graph(edges, sources, targets, count=9).links) == 3
    assert made.keep["in", "k"].shape == () and not made.keep["in", "k"]


# ---- files -------------------------------------------------------------------------

TOKENS = ["The", " <b>", ' "cat&'] + [" sat"]


def whole():
    return patching.graph(scored(1), SOURCES, TARGETS, count=20, across="heads")


def test_json_has_what_viewers_read():
    graph = whole()
    made = json.loads(json.dumps(patching.to_json(graph, tokens=TOKENS, scan="m")))
    assert made.keys() == {"metadata", "qParams", "nodes", "links"}
    assert made["metadata"]["prompt_tokens"] == TOKENS
    assert made["metadata"]["scan"] == "m"
    by_id = {node["node_id"]: node for node in made["nodes"]}
    assert len(by_id) == len(graph.nodes)
    assert len({n["jsNodeId"] for n in made["nodes"] if n["ctx_idx"] == 0}) == sum(
        n["ctx_idx"] == 0 for n in made["nodes"]
    )
    for node, one in zip(graph.nodes, made["nodes"], strict=True):
        layer, feature, place = one["node_id"].split("_")
        assert (layer, int(feature), int(place)) == (
            one["layer"],
            one["feature"],
            one["ctx_idx"],
        )
        assert one["ctx_idx"] == dict(node.position)["position"]
        assert one["clerp"] == node.name
        known = {"input": "embedding", "output": "logit"}
        assert one["feature_type"] == known.get(node.kind, "cross layer transcoder")
        assert one["is_target_logit"] == (node.kind == "output")
    weights = {(k["source"], k["target"]): k["weight"] for k in made["links"]}
    assert len(weights) == len(graph.links) + len(graph.inside)
    assert sum(w != 0 for w in weights.values()) == len(graph.links)
    for (source, target), weight in weights.items():
        assert weight == 0 or (by_id[source]["clerp"], by_id[target]["clerp"]) in names(
            graph
        )
    # Viewers drop what lies above a share: the most important node has the smallest.
    sizes = {n["node_id"]: 0.0 for n in made["nodes"]}
    for (source, target), weight in weights.items():
        sizes[source] += abs(weight)
        sizes[target] += abs(weight)
    largest = max(sizes, key=sizes.get)
    shares = [n["influence"] for n in made["nodes"]]
    assert by_id[largest]["influence"] == min(shares)
    np.testing.assert_allclose(
        by_id[largest]["influence"], sizes[largest] / sum(sizes.values())
    )
    np.testing.assert_allclose(max(shares), 1.0)


def picture(page):
    svg = page[page.index("<svg") : page.index("</svg>") + 6]
    return ElementTree.fromstring(svg)


def test_a_page_needs_nothing_else_and_is_well_formed():
    graph = whole()
    page = patching.to_html(graph, tokens=TOKENS, title="a < b")
    assert not re.search(r"https?:|<script|@import|url\(|<link|src=", page)
    assert "<title>a &lt; b</title>" in page and "prefers-color-scheme:dark" in page
    assert "<b>" not in page and html.escape(" <b>") in page
    svg = picture(page)
    links = [p for p in svg.iter("path") if p.get("class", "").startswith("link")]
    assert len(links) == len(graph.links)
    against = [p for p in links if "against" in p.get("class")]
    assert len(against) == sum(k.score < 0 for k in graph.links)
    # Drawn last, above all others, is the widest.
    widths = [float(p.get("stroke-width")) for p in links]
    assert widths == sorted(widths) and widths[-1] == 7
    assert len(list(svg.iter("rect"))) == len(graph.nodes)
    width, height = float(svg.get("width")), float(svg.get("height"))
    for box in svg.iter("rect"):
        x, y, wide, high = (float(box.get(a)) for a in ("x", "y", "width", "height"))
        assert 0 < x and x + wide < width and 0 < y and y + high < height


def test_boxes_do_not_lie_on_each_other():
    boxes = sorted(
        (float(b.get("y")), float(b.get("x")), float(b.get("width")))
        for b in picture(patching.to_html(whole())).iter("rect")
    )
    for (y, x, wide), (other, right, _) in zip(boxes, boxes[1:], strict=False):
        assert y != other or x + wide < right


def test_files_are_written_by_their_ending(tmp_path):
    graph = whole()
    patching.save(tmp_path / "a.html", graph, title="one")
    assert (tmp_path / "a.html").read_text() == patching.to_html(graph, title="one")
    patching.save(tmp_path / "a.json", graph, title="two")
    assert json.loads((tmp_path / "a.json").read_text()) == patching.to_json(
        graph, slug="two"
    )
    with pytest.raises(ValueError, match=r"path: got .*a\.png.*\.html or \.json"):
        patching.save(tmp_path / "a.png", graph)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.html", "a.json"]


# ---- bad input ---------------------------------------------------------------------


@pytest.mark.whole
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"edges": {}}, TypeError, "edges: got dict, expected what patching.edges"),
        ({"count": None}, ValueError, "count: expected either count or threshold"),
        ({"threshold": 1.0}, ValueError, "count: expected either"),
        ({"count": 0}, ValueError, "count: got 0, expected a positive int"),
        ({"count": 2.5}, ValueError, "count: got 2.5"),
        ({"count": None, "threshold": -1}, ValueError, "threshold: got -1"),
        ({"across": "mpl"}, ValueError, "across: got 'mpl', expected one of embedding"),
        ({"reads": {"a": "mlp"}}, ValueError, "reads: got 'a', expected one of"),
        ({"reads": {"mlp": "a"}}, ValueError, r"reads\['mlp'\]: got 'a'"),
        ({"reads": 3}, TypeError, "reads: got 3"),
        (
            {"sources": "embedding"},
            ValueError,
            "sources: got 'embedding' without names",
        ),
        ({"sources": {"mlp": SOURCES["mlp"]}}, ValueError, "edges: got .*whose sites"),
        ({"paired": 3}, TypeError, "paired: got 3"),
    ],
)
def test_what_does_not_fit_is_named(change, error, message):
    given = {
        "edges": CHAIN,
        "sources": SOURCES,
        "targets": TARGETS,
        "count": 3,
    } | change
    with pytest.raises(error, match=message):
        patching.graph(**given)


def test_scores_of_many_pairs_are_refused():
    many = {k: np.stack([s, s]) for k, s in CHAIN.scores.items()}
    with pytest.raises(ValueError, match="of many pairs give a mean"):
        patching.graph(patching.Edges(many, EXISTS), SOURCES, TARGETS, count=1)


def test_scores_that_are_no_numbers_are_refused():
    bad = dict(CHAIN.scores)
    bad["mlp", "final"] = np.full_like(bad["mlp", "final"], np.nan)
    with pytest.raises(ValueError, match=r"\('mlp', 'final'\) that are not finite"):
        patching.graph(patching.Edges(bad, EXISTS), SOURCES, TARGETS, count=1)


def test_traced_scores_are_refused():
    def f(scores):
        return patching.graph(
            patching.Edges(scores, EXISTS), SOURCES, TARGETS, count=1
        ).threshold

    with pytest.raises(TypeError, match="outside jit"):
        jax.jit(f)(CHAIN.scores)


def test_a_network_without_ends_is_refused():
    with pytest.raises(ValueError, match="none of which is an input"):
        patching.graph(CHAIN, SOURCES, TARGETS, count=1, reads={"embedding": "mlp"})


def test_fewer_tokens_than_positions_are_refused():
    with pytest.raises(ValueError, match="tokens: got 1, expected 3"):
        patching.to_html(whole(), tokens=["a"])
    with pytest.raises(TypeError, match="tokens: got 'abc'"):
        patching.to_json(whole(), tokens="abc")
    with pytest.raises(TypeError, match="graph: got dict"):
        patching.to_json({})
