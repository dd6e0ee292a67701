"""Text heatmaps: what the HTML says, and that nothing in a token becomes HTML."""

import builtins
import html.parser
import os
import re
from typing import Any

import numpy as np
import pytest

from jaxlrp import text


class Cells(html.parser.HTMLParser):
    """Checks that tags are closed in order; collects coloured elements by tag."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.cells, self.text = [], [], [], [""]
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        given = dict(attrs)
        self.text.append("")
        if "title" in given:
            self.cells.append((tag, given, len(self.text) - 1))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag
        self.text.append("")

    def handle_data(self, data):
        self.text[-1] += data

    def shown(self, tag):
        """(text, colour, tooltip, class) of each coloured element."""
        return [
            (
                # A heading has its text in an element of its own.
                self.text[i] or self.text[i + 1],
                colour(given["style"]),
                given["title"],
                given.get("class", ""),
            )
            for name, given, i in self.cells
            if name == tag
        ]


def colour(style, name="background"):
    """The colour in a style, as three numbers."""
    found = re.search(rf"(?<!\w){name}:#([0-9a-f]+)", style)
    assert found is not None
    code = found[1] if len(found[1]) == 6 else "".join(2 * c for c in found[1])
    return np.array([int(code[i : i + 2], 16) for i in (0, 2, 4)])


def styles(page):
    return re.findall(r"style='(background:#[^']*)'", page)


TOKENS = ["[CLS]", "no", "cat", "[SEP]"]


def test_tokens_have_the_colours_of_their_relevances():
    picture = text.heatmap(TOKENS, [0.0, -1.0, 2.0, 5.0], scale=2.0)
    shown = Cells(text.page(picture)).shown("span")
    assert [token for token, *_ in shown] == TOKENS
    zero, half, most, above = (c for _, c, *_ in shown)
    assert zero.tolist() == [247, 247, 247]
    assert half[2] > half[0] and half[2] > half[1]  # blue
    assert most.tolist() == [103, 0, 31] and above.tolist() == most.tolist()
    assert [kind for *_, kind in shown] == [
        "token special",
        "token",
        "token",
        "token special",
    ]


def test_colours_are_symmetric_and_those_of_matplotlib():
    colormaps = pytest.importorskip("matplotlib").colormaps
    scale = colormaps["RdBu_r"].resampled(2001)
    values = np.linspace(-1, 1, 9)
    page = text.page(text.heatmap([str(v) for v in values], values))
    found = np.array([c for _, c, *_ in Cells(page).shown("span")])
    expected = 255 * scale((values + 1) / 2)[:, :3]
    np.testing.assert_allclose(found, expected, atol=2)


def test_ink_is_readable_on_every_colour():
    def luminance(c):
        c = c / 255
        linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
        return linear @ np.array([0.2126, 0.7152, 0.0722])

    values = np.linspace(-1, 1, 101)
    page = text.page(text.heatmap(["x"] * 101, values))
    for style in styles(page):
        pair = sorted(luminance(colour(style, n)) for n in ("background", "color"))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) > 4.5  # WCAG 2, level AA


def test_tooltips_and_the_printed_scale_have_the_numbers():
    page = text.page(text.heatmap(TOKENS, [0.0, -0.25, 0.5, 0.0]))
    tips = [tip for _, _, tip, _ in Cells(page).shown("span")]
    assert tips[:3] == [
        "[CLS]: 0, 0% of the sum",
        "no: −0.25, -100% of the sum".replace("-", "−"),
        "cat: +0.5, 200% of the sum",
    ]
    assert ">−0.5<" in page and ">+0.5 relevance<" in page and "sum +0.25" in page


def test_rows_share_a_scale_or_have_their_own():
    values = [[1.0, 0.0], [0.0, 10.0]]
    shared = text.heatmap(["a", "b"], values, labels=["one", "two"])
    assert [row.scale for row in shared.rows] == [10.0, 10.0]
    own = text.heatmap(["a", "b"], values, scale="row")
    assert [row.scale for row in own.rows] == [1.0, 10.0]
    assert "±1<" in text.page(own) and "±10<" in text.page(own)
    assert "±" not in text.page(shared)
    nothing = text.heatmap(["a"], [0.0])
    assert nothing.rows[0].scale == 1.0


def test_rows_may_be_several_texts():
    picture = text.heatmap([["a"], ["b", "c"]], [[1.0], [2.0, 3.0]], numbers=True)
    assert [row.tokens for row in picture.rows] == [("a",), ("b", "c")]
    assert "<span class='number'>+3.0</span>" in text.page(picture)


def test_pairs_have_cells_and_margins():
    matrix = np.array([[0.5, -0.25], [0.0, 1.0], [0.0, 0.0]])
    picture = text.pairs(["a", "b", "c"], ["x", "y"], matrix, numbers=True)
    cells = Cells(text.page(picture))
    inside = cells.shown("td")
    assert [tip for _, _, tip, _ in inside] == [
        "a × x: +0.5",
        "a × y: −0.25",
        "b × x: 0",
        "b × y: +1",
        "c × x: 0",
        "c × y: 0",
    ]
    assert [token for token, *_ in inside] == [
        "+0.5",
        "−0.2",
        "0.0",
        "+1.0",
        "0.0",
        "0.0",
    ]
    margins = {token: tip for token, _, tip, _ in cells.shown("th")}
    assert margins == {
        "x": "x: +0.5",
        "y": "y: +0.75",
        "a": "a: +0.25",
        "b": "b: +1",
        "c": "c: 0",
    }
    assert (picture.scale, picture.margin) == (1.0, 1.0)
    assert text.pairs(["a"], ["b"], [[0.5]], scale=2.0).scale == 2.0


def unchecked(value: Any) -> Any:
    """For input that a type checker would refuse."""
    return value


NASTY = [
    "<script>alert(1)</script>",
    "' onmouseover='alert(1)",
    '" onmouseover="alert(1)',
    "</title></style></span>&amp;&#39;",
    "<b>",
    "]]>",
]


@pytest.mark.whole
@pytest.mark.parametrize("picture", ["heatmap", "pairs"])
def test_nothing_in_a_token_or_a_label_becomes_html(picture):
    n = len(NASTY)
    if picture == "heatmap":
        labels, title = [NASTY[0]], NASTY[3]
        made = text.heatmap(NASTY, [1.0] * n, labels=labels, title=title, numbers=True)
        harmless = text.heatmap(
            ["x"] * n, [1.0] * n, labels=["x"], numbers=True, title="x"
        )
    else:
        made = text.pairs(NASTY, NASTY, np.ones((n, n)), title=NASTY[0])
        harmless = text.pairs(["x"] * n, ["x"] * n, np.ones((n, n)), title="x")
    page = text.page(made, title=NASTY[3])
    found, expected = Cells(page), Cells(text.page(harmless))
    assert found.tags == expected.tags  # no element more
    allowed = {"class", "style", "title", "scope"}
    assert all(set(given) <= allowed for _, given, _ in found.cells)
    tag = "span" if picture == "heatmap" else "th"
    assert {shown for shown, *_ in found.shown(tag)} == set(NASTY)
    assert NASTY[3] in "".join(found.text)


def test_tokens_without_ink_are_made_visible():
    page = text.page(text.heatmap(["", " ", "\n", "a\tb"], [1.0] * 4))
    shown = [token for token, *_ in Cells(page).shown("span")]
    assert shown == ["∅", "␣", "⏎", "a⇥b"]


def test_page_needs_no_other_file_and_notebooks_show_pictures(tmp_path):
    pictures = text.heatmap(["a"], [1.0]), text.pairs(["a"], ["b"], [[1.0]])
    path = tmp_path / "page.html"
    text.save(path, *pictures, title="Two")
    page = path.read_text(encoding="utf-8")
    assert page == text.page(*pictures, title="Two")
    assert page.startswith("<!doctype html>") and "<title>Two</title>" in page
    assert "http" not in page and "<script" not in page and "src=" not in page
    for picture in pictures:
        assert picture._repr_html_() == text.fragment(picture)
        assert text.fragment(picture) in page
    assert list(tmp_path.iterdir()) == [path]


def test_save_leaves_the_old_file_when_it_fails(tmp_path, monkeypatch):
    path = tmp_path / "page.html"
    text.save(path, text.heatmap(["a"], [1.0]))
    before = path.read_bytes()

    def fail(*_):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        text.save(path, text.heatmap(["b"], [1.0]))
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_save_writes_half_a_surrogate_pair(tmp_path):
    text.save(tmp_path / "page.html", text.heatmap(["\ud83d"], [1.0]))
    assert "&#55357;" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_pieces_of_words_are_joined_and_added_up():
    pieces = ["[CLS]", "em", "##bed", "##dings", "##", "[SEP]"]
    joined, values = text.words(pieces, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    assert joined == ["[CLS]", "embeddings", "##", "[SEP]"]
    assert values.tolist() == [1.0, 9.0, 5.0, 6.0]
    matrix = np.arange(12.0).reshape(6, 2)
    _, rows = text.words(pieces, matrix, axis=0)
    assert rows.tolist() == [[0, 1], [12, 15], [8, 9], [10, 11]]


@pytest.mark.parametrize("mark", ["▁", "Ġ"])
def test_words_may_be_marked_by_their_beginning(mark):
    pieces = ["<s>", f"{mark}un", "fair", f"{mark}is", "</s>"]
    joined, values = text.words(pieces, [1.0, 2.0, 3.0, 4.0, 5.0], begins=mark)
    assert joined == ["<s>", "unfair", "is", "</s>"]
    assert values.tolist() == [1.0, 5.0, 4.0, 5.0]
    assert text.words([], np.zeros(0))[0] == []


def test_treescope_shows_the_same_tokens_and_numbers():
    treescope = pytest.importorskip("treescope")
    row = text.heatmap(TOKENS, [0.0, -1.0, 2.0, 5.0], labels=["LRP"], title="Cats")
    shown = text.figure(row, text.pairs(["a"], ["b"], [[1.0]]))
    written = treescope.lowering.render_to_text_as_root(shown.treescope_part)
    assert all(token in written for token in (*TOKENS, "LRP", "Cats", "±5"))
    assert len(shown._repr_html_()) > 1000


def test_treescope_shows_a_row_without_a_label_from_its_first_token_on():
    treescope = pytest.importorskip("treescope")
    shown = text.figure(text.heatmap(["cat", "dog"], [1.0, 2.0]))
    written = treescope.lowering.render_to_text_as_root(shown.treescope_part)
    assert written.startswith("cat")


def test_figure_says_what_is_missing(monkeypatch):
    real = builtins.__import__

    def without(name, *args):
        if name.startswith("treescope"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="needs treescope: pip install treescope"):
        text.figure(text.heatmap(["a"], [1.0]))


@pytest.mark.whole
@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: text.heatmap("cat", [1.0]), TypeError, "tokens: got 'cat'"),
        (
            lambda: text.heatmap(unchecked([1, 2]), [1.0, 2.0]),
            TypeError,
            r"tokens\[0\]: got 1",
        ),
        (
            lambda: text.heatmap(unchecked(["a", 2]), [1, 2]),
            TypeError,
            r"tokens: got \['a', 2\]",
        ),
        (
            lambda: text.heatmap(["a"], [1.0, 2.0]),
            ValueError,
            r"relevances: got shape \(2,\), expected \(1,\) or \(rows, 1\)",
        ),
        (
            lambda: text.heatmap(["a", "b"], [0.0, np.nan]),
            ValueError,
            r"relevances: got nan at \[1\], expected finite numbers",
        ),
        (
            lambda: text.heatmap([["a"], ["b"]], [[1.0]]),
            ValueError,
            r"relevances: got \[\[1.0\]\], expected 2 arrays",
        ),
        (
            lambda: text.heatmap([["a"], ["b"]], [[1.0], [1.0, 2.0]]),
            ValueError,
            r"relevances\[1\]: got shape \(2,\), expected \(1,\)",
        ),
        (
            lambda: text.heatmap(["a"], [1.0], labels=["x", "y"]),
            ValueError,
            r"labels: got \['x', 'y'\], expected 1, one for each row",
        ),
        (lambda: text.heatmap(["a"], [1.0], scale=0.0), ValueError, "scale: got 0.0"),
        (lambda: text.heatmap(["a"], [1.0], scale="x"), ValueError, "scale: got 'x'"),
        (
            lambda: text.pairs(["a"], ["b"], [[1.0, 2.0]]),
            ValueError,
            r"matrix: got shape \(1, 2\), expected \(1, 1\)",
        ),
        (lambda: text.pairs("a", ["b"], [[1.0]]), TypeError, "first: got 'a'"),
        (
            lambda: text.words(["a"], [1.0, 2.0]),
            ValueError,
            r"relevances: got shape \(2,\), expected 1 elements along axis -1",
        ),
        (
            lambda: text.page(unchecked("x")),
            TypeError,
            "picture: got str, expected what heatmap",
        ),
        (
            lambda: text.figure(unchecked("x")),
            TypeError,
            "picture: got str, expected what",
        ),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_the_largest_relevance_may_be_negative():
    picture = text.heatmap(["a", "b"], [[-4.0, 1.0], [0.5, -2.0]], scale="row")
    assert [row.scale for row in picture.rows] == [4.0, 2.0]
    assert text.pairs(["a"], ["b", "c"], [[-3.0, 1.0]]).scale == 3.0
    assert text.pairs(["a"], ["b", "c"], [[2.0, 1.0]]).margin == 3.0
