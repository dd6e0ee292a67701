"""Tables of a bounded width, and lines without their folders."""

from jaxlrp import _tables

HEAD = ("name", "kind", "line")


def test_a_table_that_fits_is_not_cut():
    lines = _tables.table(HEAD, [("a", "dense", "f.py:1")], width=40)
    assert lines == ["name  kind   line", "----  -----  ------", "a     dense  f.py:1"]


def test_the_widest_cells_are_cut_where_they_say_least():
    row = ("n" * 50, "k" * 9, "scope/" * 9 + "last")
    head, rule, line = _tables.table(HEAD, [row], ("kind",), ("line",), width=50)
    assert len(rule) == len(line) == 50
    name, kind, where = line.split()
    assert name.endswith("…") and where.startswith("…") and where.endswith("e/last")
    assert kind == "k" * 9


def test_a_column_keeps_what_it_needs():
    row = ("n" * 30, "k" * 30, "l" * 30)
    least = {"name": 20, "kind": 5, "line": 5}
    *_, line = _tables.table(HEAD, [row], least=least, width=32)
    assert [len(cell) for cell in line.split()] == [20, 5, 5]


def test_of_a_file_the_folder_goes_first():
    row = ("n", "k", "folder/" * 9 + "f.py:1")
    *_, line = _tables.table(HEAD, [row], ends=("line",), width=30)
    assert line.split()[-1] == "f.py:1"


def test_columns_stand_closer_before_any_cell_is_cut():
    *_, line = _tables.table(HEAD, [("n" * 9, "k" * 9, "l" * 9)], width=29)
    assert line == " ".join(["n" * 9, "k" * 9, "l" * 9])


def test_columns_are_never_narrower_than_their_heads():
    head, *_ = _tables.table(HEAD, [("n" * 9, "k" * 9, "l" * 9)], width=5)
    assert head == "name kind line"


def test_a_column_without_text_is_left_out():
    lines = _tables.table(HEAD, [("a", "", "f.py:1"), ("b", "", "f.py:2")])
    assert lines[0] == "name  line"


def test_lines_lose_the_folder_that_they_share_and_their_column():
    lines = [
        "/home/me/project/net/model.py:12:4 (call)",
        "/home/me/project/net/blocks/mlp.py:3 (f.<locals>.g)",
        "/opt/lib/python3.13/site-packages/flax/nnx/nn/linear.py:7:1 (Linear.__call__)",
        "",
    ]
    assert list(_tables.short_lines(lines).values()) == [
        "model.py:12 (call)",
        "blocks/mlp.py:3 (f.<locals>.g)",
        "flax/nnx/nn/linear.py:7 (Linear.__call__)",
        "",
    ]


def test_lines_of_a_prompt_stay():
    lines = ["<stdin>:1:4 (f)", "/x/ipykernel_7/123.py:2 (g)"]
    assert list(_tables.short_lines(lines).values()) == [
        "<stdin>:1 (f)",
        "123.py:2 (g)",
    ]


def test_a_cell_of_a_notebook_shares_no_folder_with_files():
    lines = ["/home/tree/a.py:1:4 (f)", "/home/tree/b/c.py:3", "/x/ipykernel_7/1.py:2"]
    assert list(_tables.short_lines(lines).values()) == [
        "a.py:1 (f)",
        "b/c.py:3",
        "1.py:2",
    ]
