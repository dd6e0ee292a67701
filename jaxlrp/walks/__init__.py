"""Walks: which nodes relevance passes, layer after layer, and what they say together.

A network with nodes, the atoms of a graph or the tokens of a sentence, hands relevance
back from layer to layer. With a node `w_l` at each of some values of the network, its
*levels*, the relevance of the walk `w_0, w_1, ..., w_L` is what passes exactly there:

    R_w = 1' T_1[w_0, w_1] T_2[w_1, w_2] ... T_L[w_{L-1}, w_L] R_L[w_L]

`T_l` is the matrix by which relevance at level `l` becomes relevance at level `l - 1`
under the composite's rules, in blocks of a node's features. All walks together are the
relevance. What passes any set of them that is a product, as all walks inside of a
sub-graph, is one reverse pass with masks, and its time is linear in the depth:

    R_S = 1' M T_1 M T_2 ... M T_L M R_L,     M = 1 on S, 0 (or alpha) off it

A level is a value that has a name (a *site*, see `capture` of `jaxlrp.lrp`) and an
axis of nodes. All relevance has to pass it: of a transformer the residual stream behind
a block, not the attention inside. Levels are in the order of the program, and each
iteration of a `lax.scan` is one. Where the first is the input itself, give it a name
inside the function: `x = jax.ad_checkpoint.checkpoint_name(x, "nodes")`.

Source: Schnake et al. 2022, "Higher-order explanations of graph neural networks via
relevant walks" (GNN-LRP); Xiong et al. 2022, "Efficient computation of higher-order
subgraph attribution via message passing"; Xiong et al. 2023, "Relevant walk search for
explaining graph neural networks"; Schnake et al. 2025, "Towards symbolic XAI".
"""

from jaxlrp.walks._paths import Top, every, levels, relevance, top
from jaxlrp.walks._sets import Dividends, bodies, harsanyi, query, subgraph

__all__ = [
    "Dividends",
    "Top",
    "bodies",
    "every",
    "harsanyi",
    "levels",
    "query",
    "relevance",
    "subgraph",
    "top",
]
