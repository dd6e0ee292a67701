"""Networks of `benchmarks.trained` and `tests.models.architectures` in PyTorch.

With the same weights, in float64. Transformers are Hugging Face's own classes, found
when they are built: LXT puts others in their place.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers.models.bert import modeling_bert
from transformers.models.gemma3 import modeling_gemma3
from transformers.models.gpt2 import modeling_gpt2
from transformers.models.llama import modeling_llama
from transformers.models.qwen3 import configuration_qwen3, modeling_qwen3
from transformers.models.vit import modeling_vit

from tests.models.architectures.transformers import Language, Stack, Text, Vision

Params = Mapping[str, Any]
State = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Port:
    """A network in PyTorch.

    Attributes:
      module: the network.
      scores: from inputs in the layout of the JAX network to its scores.
    """

    module: nn.Module
    scores: Callable[[torch.Tensor], torch.Tensor]


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(np.asarray(values, np.float64))


def loaded(module: nn.Module, state: State) -> nn.Module:
    """In float64 and evaluation mode, with all of these weights and no other."""
    module = module.double().eval()
    module.load_state_dict({name: tensor(value) for name, value in state.items()})
    return module.requires_grad_(False)


def dense(name: str, node: Params) -> State:
    """A layer's weights under PyTorch's names."""
    state = {f"{name}.weight": np.asarray(node["kernel"]).T}
    if "bias" in node:
        state[f"{name}.bias"] = node["bias"]
    return state


def convolution(name: str, node: Params) -> State:
    kernel = np.asarray(node["kernel"]).transpose(3, 2, 0, 1)
    return {f"{name}.weight": kernel, f"{name}.bias": node["bias"]}


def norm(name: str, node: Params) -> State:
    state = {f"{name}.weight": node["scale"] if "scale" in node else node["weight"]}
    if "bias" in node:
        state[f"{name}.bias"] = node["bias"]
    return state


# ---- images ----------------------------------------------------------------------


class CNN(nn.Module):
    """`benchmarks.trained.CNN`: images with channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Sequential(nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x.movedim(-1, 1)).movedim(1, -1).flatten(1))


def cnn(params: Params) -> Port:
    state = dense("head.0", params["Dense_0"]) | dense("head.2", params["Dense_1"])
    for place, name in ((0, "Conv_0"), (2, "Conv_1"), (5, "Conv_2")):
        state |= convolution(f"features.{place}", params[name])
    module = loaded(CNN(), state)
    return Port(module, module)


def vit(params: Params, config: Vision) -> Port:
    """`transformers.ViT` as Hugging Face's."""
    s = config.stack
    module = modeling_vit.ViTForImageClassification(
        transformers.ViTConfig(
            hidden_size=s.width,
            num_hidden_layers=s.layers,
            num_attention_heads=s.heads,
            intermediate_size=s.hidden,
            layer_norm_eps=1e-6,
            image_size=config.size,
            patch_size=config.patch,
            num_channels=1,
            num_labels=config.classes,
            attn_implementation="eager",
        )
    )
    state = {
        "vit.embeddings.cls_token": params["cls"],
        "vit.embeddings.position_embeddings": params["positions"][None],
        **convolution("vit.embeddings.patch_embeddings.projection", params["patches"]),
        **norm("vit.layernorm", params["blocks"]["final_norm"]),
        **dense("classifier", params["head"]),
    }
    for i in range(s.layers):
        at, node = f"vit.encoder.layer.{i}", params["blocks"][f"block{i}"]
        for part in ("query", "key", "value"):
            name = f"{at}.attention.attention.{part}"
            state |= dense(name, node["attention"][part])
        state |= dense(f"{at}.attention.output.dense", node["attention"]["out"])
        state |= dense(f"{at}.intermediate.dense", node["mlp"]["up"])
        state |= dense(f"{at}.output.dense", node["mlp"]["down"])
        state |= norm(f"{at}.layernorm_before", node["attention_norm"])
        state |= norm(f"{at}.layernorm_after", node["mlp_norm"])
    loaded(module, state)
    return Port(module, lambda x: module(x.movedim(-1, 1)).logits)


class Block(nn.Module):
    """As torchvision has it: one module for all of attention."""

    def __init__(self, s: Stack) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(s.width, eps=1e-6)
        self.attention = nn.MultiheadAttention(s.width, s.heads, batch_first=True)
        self.norm2 = nn.LayerNorm(s.width, eps=1e-6)
        self.mlp = nn.Sequential(
            nn.Linear(s.width, s.hidden), nn.GELU(), nn.Linear(s.hidden, s.width)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.norm1(x)
        x = x + self.attention(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class VisionTransformer(nn.Module):
    """torchvision's, which has no build for every PyTorch."""

    def __init__(self, config: Vision) -> None:
        super().__init__()
        s, p = config.stack, config.patch
        self.patches = nn.Conv2d(1, s.width, p, stride=p)
        self.cls = nn.Parameter(torch.zeros(1, 1, s.width))
        tokens = (config.size // p) ** 2 + 1
        self.positions = nn.Parameter(torch.zeros(tokens, s.width))
        self.blocks = nn.Sequential(*(Block(s) for _ in range(s.layers)))
        self.norm = nn.LayerNorm(s.width, eps=1e-6)
        self.head = nn.Linear(s.width, config.classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.blocks(x))[:, 0])


def vision_transformer(params: Params, config: Vision) -> Port:
    """`transformers.ViT` as torchvision's."""
    state = {
        "cls": params["cls"],
        "positions": params["positions"],
        **convolution("patches", params["patches"]),
        **norm("norm", params["blocks"]["final_norm"]),
        **dense("head", params["head"]),
    }
    for i in range(config.stack.layers):
        at, node = f"blocks.{i}", params["blocks"][f"block{i}"]
        parts = [node["attention"][part] for part in ("query", "key", "value")]
        joined = {
            name: np.concatenate([part[name] for part in parts], -1)
            for name in ("kernel", "bias")
        }
        state[f"{at}.attention.in_proj_weight"] = joined["kernel"].T
        state[f"{at}.attention.in_proj_bias"] = joined["bias"]
        state |= dense(f"{at}.attention.out_proj", node["attention"]["out"])
        state |= dense(f"{at}.mlp.0", node["mlp"]["up"])
        state |= dense(f"{at}.mlp.2", node["mlp"]["down"])
        state |= norm(f"{at}.norm1", node["attention_norm"])
        state |= norm(f"{at}.norm2", node["mlp_norm"])
    module = loaded(VisionTransformer(config), state)
    return Port(module, lambda x: module(x.movedim(-1, 1)))


# ---- texts -----------------------------------------------------------------------


def bert(params: Params, config: Text) -> Port:
    """`transformers.TextEncoder`, from embeddings."""
    s = config.stack
    module = modeling_bert.BertForSequenceClassification(
        transformers.BertConfig(
            vocab_size=config.vocabulary,
            hidden_size=s.width,
            num_hidden_layers=s.layers,
            num_attention_heads=s.heads,
            intermediate_size=s.hidden,
            layer_norm_eps=1e-6,
            max_position_embeddings=config.positions,
            type_vocab_size=1,
            num_labels=config.classes,
            attn_implementation="eager",
        )
    )
    at = "bert.embeddings"
    state = {
        f"{at}.word_embeddings.weight": params["embed"]["table"]["embedding"],
        f"{at}.position_embeddings.weight": params["positions"],
        f"{at}.token_type_embeddings.weight": params["kind"],
        **norm(f"{at}.LayerNorm", params["LayerNorm_0"]),
        **dense("bert.pooler.dense", params["pool"]),
        **dense("classifier", params["head"]),
    }
    for i in range(s.layers):
        at, node = f"bert.encoder.layer.{i}", params["blocks"][f"block{i}"]
        for part in ("query", "key", "value"):
            state |= dense(f"{at}.attention.self.{part}", node["attention"][part])
        state |= dense(f"{at}.attention.output.dense", node["attention"]["out"])
        state |= dense(f"{at}.intermediate.dense", node["mlp"]["up"])
        state |= dense(f"{at}.output.dense", node["mlp"]["down"])
        state |= norm(f"{at}.attention.output.LayerNorm", node["attention_norm"])
        state |= norm(f"{at}.output.LayerNorm", node["mlp_norm"])
    loaded(module, state)
    return Port(module, lambda x: module(inputs_embeds=x).logits)


def llama_like(
    params: Params, config: Language, made: nn.Module, norms: Mapping[str, str]
) -> Port:
    """A decoder whose layers have LLaMA's names.

    Args:
      params: the weights.
      config: of the JAX network.
      made: the network.
      norms: names of the norms, from ours.
    """
    table = params["embed"]["table"]["embedding"]
    state = {
        "model.embed_tokens.weight": table,
        "lm_head.weight": table,
        **norm("model.norm", params["blocks"]["final_norm"]),
    }
    parts = {"query": "q", "key": "k", "value": "v", "out": "o"}
    # What the activation is applied to is the gate there.
    layers = {"up": "gate", "gate": "up", "down": "down"}
    for i in range(config.stack.layers):
        at, node = f"model.layers.{i}", params["blocks"][f"block{i}"]
        for ours, theirs in parts.items():
            state |= dense(f"{at}.self_attn.{theirs}_proj", node["attention"][ours])
        for ours, theirs in layers.items():
            state |= dense(f"{at}.mlp.{theirs}_proj", node["mlp"][ours])
        for ours, theirs in norms.items():
            state |= norm(f"{at}.{theirs}", node[ours])
        for ours, theirs in (("query_norm", "q_norm"), ("key_norm", "k_norm")):
            if ours in node["attention"]:
                state |= norm(f"{at}.self_attn.{theirs}", node["attention"][ours])
    module = loaded(made, state)
    scale = config.stack.width**0.5 if config.scaled else 1.0

    def scores(x: torch.Tensor) -> torch.Tensor:
        return module(inputs_embeds=scale * x, use_cache=False).logits[:, -1]

    return Port(module, scores)


def _common(config: Language) -> dict[str, Any]:
    """What all of the configurations call the same."""
    s = config.stack
    return {
        "vocab_size": config.vocabulary,
        "hidden_size": s.width,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.groups or s.heads,
        "head_dim": s.dim or s.width // s.heads,
        "intermediate_size": s.hidden,
        "rms_norm_eps": 1e-6,
        "rope_theta": s.theta,
        "max_position_embeddings": config.length,
        "tie_word_embeddings": True,
        "pad_token_id": None,
        "attn_implementation": "eager",
    }


_PRE = {
    "attention_norm": "input_layernorm",
    "mlp_norm": "post_attention_layernorm",
}
_BOTH = {
    "attention_norm": "input_layernorm",
    "attention_post_norm": "post_attention_layernorm",
    "mlp_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}


def llama(params: Params, config: Language) -> Port:
    given = transformers.LlamaConfig(**_common(config))
    made = modeling_llama.LlamaForCausalLM(given)
    return llama_like(params, config, made, _PRE)


def qwen3(params: Params, config: Language) -> Port:
    given = configuration_qwen3.Qwen3Config(**_common(config))
    given.update({"sliding_window": None})
    made = modeling_qwen3.Qwen3ForCausalLM(given)
    return llama_like(params, config, made, _PRE)


def gemma3(params: Params, config: Language) -> Port:
    s = config.stack
    given = transformers.Gemma3TextConfig(
        **_common(config),
        hidden_activation="gelu_pytorch_tanh",
        query_pre_attn_scalar=s.dim or s.width // s.heads,
        sliding_window=s.window,
        sliding_window_pattern=s.period,
        rope_local_base_freq=s.local,
    )
    made = modeling_gemma3.Gemma3ForCausalLM(given)
    return llama_like(params, config, made, _BOTH)


def gpt2(params: Params, config: Language) -> Port:
    """Its dense layers hold their kernels as JAX does."""
    s = config.stack
    made = modeling_gpt2.GPT2LMHeadModel(
        transformers.GPT2Config(
            vocab_size=config.vocabulary,
            n_positions=config.positions,
            n_embd=s.width,
            n_layer=s.layers,
            n_head=s.heads,
            n_inner=s.hidden,
            layer_norm_epsilon=1e-6,
            bos_token_id=0,
            eos_token_id=0,
            attn_implementation="eager",
        )
    )
    table = params["embed"]["table"]["embedding"]
    state = {
        "transformer.wte.weight": table,
        "lm_head.weight": table,
        "transformer.wpe.weight": params["positions"],
        **norm("transformer.ln_f", params["blocks"]["final_norm"]),
    }
    for i in range(s.layers):
        at, node = f"transformer.h.{i}", params["blocks"][f"block{i}"]
        parts = [node["attention"][part] for part in ("query", "key", "value")]
        for ours, theirs in (("kernel", "weight"), ("bias", "bias")):
            joined = np.concatenate([part[ours] for part in parts], -1)
            state[f"{at}.attn.c_attn.{theirs}"] = joined
            state[f"{at}.attn.c_proj.{theirs}"] = node["attention"]["out"][ours]
            state[f"{at}.mlp.c_fc.{theirs}"] = node["mlp"]["up"][ours]
            state[f"{at}.mlp.c_proj.{theirs}"] = node["mlp"]["down"][ours]
        state |= norm(f"{at}.ln_1", node["attention_norm"])
        state |= norm(f"{at}.ln_2", node["mlp_norm"])
    module = loaded(made, state)

    def scores(x: torch.Tensor) -> torch.Tensor:
        return module(inputs_embeds=x, use_cache=False).logits[:, -1]

    return Port(module, scores)
