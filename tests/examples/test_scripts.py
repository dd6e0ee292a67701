"""Scripts run where what they need is installed, and are told of where it is not."""

from examples import scripts

PACKAGES = {"first": ("json",), "second": ("json", "nobody")}


def test_variables_of_a_script_are_read(tmp_path):
    (tmp_path / "one.py").write_text("x = 1 + 1\n")
    assert scripts.values(tmp_path, "one")["x"] == 2


def test_what_is_installed_is_checked_and_the_rest_told_of(capsys):
    checked = []
    scripts.check_all(PACKAGES, checked.append, "right")
    assert checked == ["first"]
    assert capsys.readouterr().out == "first: right\nsecond: nobody is not installed\n"
