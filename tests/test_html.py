"""What notebooks show of plans, audits, composites and rules."""

import html.parser

import jax
import jax.numpy as jnp
import pytest

import jaxlrp
from jaxlrp import _html, composites, rules

X = jax.ShapeDtypeStruct((2, 6), jnp.float32)
W = jax.ShapeDtypeStruct((6, 6), jnp.float32)


def network(w, x):
    with jax.named_scope("block<1>"):
        x = jax.nn.gelu(x @ w)
    with jax.named_scope("head"):
        return jax.nn.softmax(x @ w)


class Balanced(html.parser.HTMLParser):
    """Fails at a tag that closes another one; keeps texts and tags."""

    def __init__(self, page):
        super().__init__()
        self.stack, self.tags, self.texts = [], [], []
        self.feed(page)
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag != "br":
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def read(made):
    return Balanced(made._repr_html_())


def test_a_plan_is_folded_by_scope_with_a_colour_for_each_exactness():
    plan = jaxlrp.plan(network)(W, X)
    page = read(plan)
    assert page.tags.count("details") >= 2
    for text in ("block<1>", "head", "dense", "softmax"):
        assert text in page.texts
    for kind in ("exact", "Taylor"):
        assert _html.COLOURS[kind] in plan._repr_html_()
    # Nothing is cut; of several primitives the first is shown, all where one points.
    assert [
        text for text in page.texts if "…" in text and not text.endswith(" …")
    ] == []
    for row in plan.rows:
        assert " ".join(row.primitives) in plan._repr_html_()


def test_a_plan_without_scopes_is_one_open_table():
    page = jaxlrp.plan(lambda w, x: jnp.tanh(x @ w))(W, X)._repr_html_()
    assert page.count("<details open>") == 1
    assert page.count("<tr>") == 3


def test_an_audit_has_what_arrives_and_what_each_scope_keeps():
    w = jnp.ones((3, 2))

    def f(x):
        with jax.named_scope("embed"):
            return x @ w + 1.0

    audit = jaxlrp.audit(f)(jnp.arange(3.0))
    page = read(audit)
    for text in ("reaches the input", "absorbed: bias", "embed", "by step"):
        assert text in page.texts
    broken = jaxlrp.audit(lambda x: jnp.log(x - 1.0))(jnp.arange(3.0))
    assert "first NaN or infinity:" in read(broken).texts


def test_a_composite_shows_its_lines_and_conditions():
    made = composites.Epsilon(0.5).on("dense", rules.Gamma(0.25), scope="*<b>*")
    page = read(made.hold("*router*"))
    assert "scope=*<b>*" in page.texts and "scope=*router*" in page.texts
    assert "Gamma(gamma=0.25)" in page.texts


@pytest.mark.parametrize(
    "rule",
    [r() for r in (rules.Epsilon, rules.Pass, rules.Taylor, rules.Detach)],
    ids=lambda r: type(r).__name__,
)
def test_a_rule_shows_its_options_and_its_documentation(rule):
    page = read(rule)
    assert str(rule) in page.texts
    assert _html.COLOURS[rule.exactness] in rule._repr_html_()
    assert any(len(text) > 40 for text in page.texts)


def test_a_rule_under_jit_is_shown():
    shown = []

    @jax.jit
    def f(rule):
        shown.append(rule._repr_html_())
        return rule.epsilon

    f(rules.Epsilon(0.5))
    assert "Epsilon" in shown[0]
