"""What a release needs: one version everywhere, links that hold on an index's page."""

import pathlib
import re
import tomllib

import pytest
import yaml

ROOT = pathlib.Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SITE = "https://jaxlrp.github.io/jaxlrp/latest/"
FILES = "https://github.com/jaxlrp/jaxlrp/blob/main/"
RAW = "https://raw.githubusercontent.com/jaxlrp/jaxlrp/main/"
README = (ROOT / "README.md").read_text()
LINKS = dict(re.findall(r"^\[([^\]]+)\]: (\S+)$", README, re.M))
CODE = re.compile(r"```.*?```|`[^`\n]*`", re.DOTALL)


def test_links_of_the_readme_hold_wherever_it_is_shown():
    text = CODE.sub("", README)
    inline = re.findall(r"\]\(([^)]+)\)", text)
    assert all(link.startswith("https://") for link in [*inline, *LINKS.values()])
    used = set(re.findall(r"\]\[([^\]]+)\]", text))
    assert used == set(LINKS)


@pytest.mark.parametrize("name", LINKS)
def test_a_link_of_the_readme_leads_to_what_there_is(name):
    address, _, place = LINKS[name].partition("#")
    for start in (FILES, RAW):
        if address.startswith(start):
            assert (ROOT / address.removeprefix(start)).exists()
            return
    page = ROOT / "docs" / address.removeprefix(SITE).replace(".html", ".md")
    heads = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    slugs = {
        re.sub(r"[^\w\s-]", "", h).strip().lower().replace(" ", "-") for h in heads
    }
    assert not place or place in slugs


def test_one_version_and_date_everywhere():
    version = PROJECT["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == version
    newest = re.search(
        r"^## (\S+) \((\S+)\)$", (ROOT / "CHANGELOG.md").read_text(), re.M
    )
    assert newest and newest[1] == version
    assert newest[2] == citation["date-released"]


def test_nothing_is_published_by_a_password():
    release = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
    jobs = release["jobs"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert set(jobs["publish"]["needs"]) == {"check", "all-tests"}
    assert jobs["publish"]["if"] == "github.ref_type == 'tag'"
    assert "secrets" not in (ROOT / ".github/workflows/release.yml").read_text()
    assert jobs["docs"]["needs"] == "publish"


@pytest.mark.parametrize(
    "path", sorted(ROOT.glob(".github/**/*.yml")), ids=lambda p: p.name
)
def test_workflows_and_templates_are_yaml(path):
    assert isinstance(yaml.safe_load(path.read_text()), dict)


def test_addresses_of_the_project_are_named():
    assert {"Documentation", "Source", "Issues", "Changelog"} <= set(PROJECT["urls"])
