"""Which tokens of the context made a language model write each of its own?"""

import jax
import jax.numpy as jnp

import jaxlrp
from examples.howto import small

model = small.writer()
prompt = "paris is in france . rome is in"
tokens = small.ids(prompt)
for _ in range(2):  # the most probable token, twice
    tokens = jnp.append(tokens, model(tokens)[-1].argmax())
start = len(prompt.split())


def steps(model, tokens):
    """The scores from which each written token was chosen."""
    return model(tokens[:-1])[start - 1 :]


# One evaluation for all written tokens: (written, context).
explain = jax.jit(jaxlrp.lrp_each(steps, target=tokens[start:]))
relevance = explain(model, tokens)[:, :-1]

words = [small.WORDS[i] for i in tokens]
figure = jaxlrp.plot.tokens(
    words[:-1], relevance, labels=words[start:], scale="each", numbers=True
)
figure.savefig("generation.png")
