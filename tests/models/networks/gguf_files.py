"""A tiny language model in a GGUF file, its weights and its tokenizer random."""

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from tokenizers import pre_tokenizers

WIDTH, HIDDEN, HEADS, KEY_HEADS, LAYERS = 32, 64, 2, 1, 2
BASE, EPSILON = 100.0, 1e-5
MERGES = ("h e", "t he", "Ġ the", "Ġ c", "a t", "Ġc at", "1 2")
ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
TOKENS = ("<|end|>", *ALPHABET, *(merge.replace(" ", "") for merge in MERGES))


def blocks(kind, count, random):
    """(random bytes of `count` weights, what they mean by the format's formula)."""
    if kind == "F32":
        values = random.standard_normal(count).astype("<f4")
        return values.view(np.uint8), values
    if kind == "F16":
        values = random.standard_normal(count).astype("<f2")
        return values.view(np.uint8), values.astype(np.float32)
    if kind == "BF16":
        upper = random.standard_normal(count).astype("<f4").view(np.uint32) >> 16
        values = (upper << 16).view(np.float32)
        return upper.astype("<u2").view(np.uint8), values
    data, values = [], []
    for _ in range(count // 32):
        scale, least = random.uniform(0.01, 0.1, 2).astype("<f2")
        if kind == "Q8_0":
            whole = random.integers(-127, 128, 32).astype(np.int8)
            data += [scale.tobytes(), whole.tobytes()]
            values.append(np.float32(scale) * whole)
        else:
            # The first half of a block are the lower four bits.
            whole = random.integers(0, 16, 32).astype(np.uint8)
            least = np.float16(-8 * scale + 0.01 * least)
            packed = whole[:16] | whole[16:] << 4
            data += [scale.tobytes(), least.tobytes(), packed.tobytes()]
            values.append(np.float32(scale) * whole + np.float32(least))
    return np.frombuffer(b"".join(data), np.uint8), np.concatenate(values)


def shapes():
    """Of all tensors, rows are outputs; with the type that each has in the file."""
    key = WIDTH // HEADS * KEY_HEADS
    found = {
        "token_embd": ((len(TOKENS), WIDTH), "Q8_0"),
        "output_norm": ((WIDTH,), "F32"),
    }
    for i in range(LAYERS):
        found |= {
            f"blk.{i}.attn_norm": ((WIDTH,), "F32"),
            f"blk.{i}.attn_q": ((WIDTH, WIDTH), "Q4_1"),
            f"blk.{i}.attn_k": ((key, WIDTH), "F16"),
            f"blk.{i}.attn_v": ((key, WIDTH), "BF16"),
            f"blk.{i}.attn_output": ((WIDTH, WIDTH), "F32"),
            f"blk.{i}.ffn_norm": ((WIDTH,), "F32"),
            f"blk.{i}.ffn_gate": ((HIDDEN, WIDTH), "Q4_1"),
            f"blk.{i}.ffn_up": ((HIDDEN, WIDTH), "Q8_0"),
            f"blk.{i}.ffn_down": ((WIDTH, HIDDEN), "Q8_0"),
        }
    return found


def write(path, seed=0):
    """Writes the file; the weights by the names of `shapes`."""
    random = np.random.default_rng(seed)
    writer = GGUFWriter(path, "llama")
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_rope_freq_base(BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(list(TOKENS))
    writer.add_token_types([3] + [1] * (len(TOKENS) - 1))
    writer.add_token_merges(list(MERGES))
    found = {}
    for name, (shape, kind) in shapes().items():
        data, values = blocks(kind, int(np.prod(shape)), random)
        found[name] = values.reshape(shape)
        rows = data.reshape(*shape[:-1], -1)
        if kind == "F32":
            rows = rows.view(np.float32)
        writer.add_tensor(f"{name}.weight", rows, raw_dtype=Kind[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return found
