#!/usr/bin/env python3
"""Writes a small GGUF model of random weights with attention of an uncommon form, for tests/programs/gguf.sh.

tiny_gguf.py FAMILY OUT.gguf [LAYERS]
FAMILY: bloom      position biases (ALiBi) in place of positions
        deepseek2  latent attention, one key and value for all heads
        lfm2       every second layer has no attention
        deci       layers of different shapes, one without attention
        bert       queries see keys behind them, and there are no logits of a next token
        mamba      no attention at all
Names and shapes are those that llama.cpp asks for (GGUF lists a shape fastest axis first).
"""

import array
import math
import random
import struct
import sys

WIDTH, HEADS, HIDDEN, VOCABULARY = 64, 4, 96, 300
KIND = {int: 4, float: 6, bool: 7, str: 8}
PACK = {4: "<I", 5: "<i", 6: "<f", 7: "<?"}


def packed_text(text):
    return struct.pack("<Q", len(text.encode())) + text.encode()


class Gguf:
    def __init__(self, family, layers):
        self.family, self.keys, self.tensors, self.layers = family, [], {}, layers
        self.put("general.architecture", family)
        self.put("general.name", "random weights")
        self.own(context_length=512, embedding_length=WIDTH, block_count=layers, feed_forward_length=HIDDEN, vocab_size=VOCABULARY)
        words = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
        words += [f"word{i}" for i in range(len(words), VOCABULARY)]
        self.put("tokenizer.ggml.model", "llama")
        self.put("tokenizer.ggml.tokens", words)
        self.put("tokenizer.ggml.scores", [0.0] * VOCABULARY)
        self.put("tokenizer.ggml.token_type", [2, 3, 3] + [6] * 256 + [1] * (VOCABULARY - 259))
        for name, number in (("bos", 1), ("eos", 2), ("unknown", 0)):
            self.put(f"tokenizer.ggml.{name}_token_id", number)

    def put(self, key, value):
        if isinstance(value, list):
            kind = 5 if isinstance(value[0], int) else KIND[type(value[0])]
            body = b"".join(packed_text(x) if kind == 8 else struct.pack(PACK[kind], x) for x in value)
            body, kind = struct.pack("<IQ", kind, len(value)) + body, 9
        else:
            kind = KIND[type(value)]
            body = packed_text(value) if kind == 8 else struct.pack(PACK[kind], value)
        self.keys = [(own, k, b) for own, k, b in self.keys if own != key] + [(key, kind, body)]

    def own(self, prefix="", **values):
        for key, value in values.items():
            self.put(f"{self.family}.{prefix}{key}", value)

    def tensor(self, name, *shape, sd=None, mean=0.0):
        sd = 1 / math.sqrt(shape[0]) if sd is None else sd
        self.tensors[name] = (array.array("f", [random.gauss(mean, sd) for _ in range(math.prod(shape))]), shape)

    def gain(self, name, width, bias=False):
        self.tensor(name + ".weight", width, sd=0.1, mean=1.0)
        if bias:
            self.tensor(name + ".bias", width, sd=0.1)

    def linear(self, name, inputs, outputs, bias=False, sd=None):
        self.tensor(name + ".weight", inputs, outputs, sd=sd)
        if bias:
            self.tensor(name + ".bias", outputs, sd=0.1)

    def ends(self, bias=False):
        self.tensor("token_embd.weight", WIDTH, VOCABULARY, sd=1)
        self.gain("output_norm", WIDTH, bias)
        self.tensor("output.weight", WIDTH, VOCABULARY)

    def projections(self, block, heads, key_heads, width):
        self.linear(block + "attn_q", WIDTH, heads * width, sd=0.4)
        self.linear(block + "attn_k", WIDTH, key_heads * width, sd=0.4)
        self.linear(block + "attn_v", WIDTH, key_heads * width)
        self.linear(block + "attn_output", heads * width, WIDTH)

    def gated(self, block):
        for name, shape in (("gate", (WIDTH, HIDDEN)), ("up", (WIDTH, HIDDEN)), ("down", (HIDDEN, WIDTH))):
            self.linear(block + "ffn_" + name, *shape)

    def write(self, path):
        infos, blobs, offset = [], [], 0
        for name, (values, shape) in self.tensors.items():
            infos.append(packed_text(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *shape) + struct.pack("<IQ", 0, offset))
            if sys.byteorder == "big":
                values.byteswap()
            blob = values.tobytes()
            blobs.append(blob + b"\0" * (-len(blob) % 32))
            offset += len(blobs[-1])
        keys = [packed_text(key) + struct.pack("<I", kind) + body for key, kind, body in self.keys]
        head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys)) + b"".join(keys) + b"".join(infos)
        with open(path, "wb") as file:
            file.write(head + b"\0" * (-len(head) % 32) + b"".join(blobs))


def bloom(model):
    model.own("attention.", head_count=HEADS, head_count_kv=HEADS, layer_norm_epsilon=1e-5)
    model.ends(bias=True)
    model.gain("token_embd_norm", WIDTH, True)
    for layer in range(model.layers):
        block = f"blk.{layer}."
        model.gain(block + "attn_norm", WIDTH, True)
        model.gain(block + "ffn_norm", WIDTH, True)
        model.linear(block + "attn_qkv", WIDTH, 3 * WIDTH, True, sd=0.3)
        model.linear(block + "attn_output", WIDTH, WIDTH, True)
        model.linear(block + "ffn_up", WIDTH, HIDDEN, True)
        model.linear(block + "ffn_down", HIDDEN, WIDTH, True)


def deepseek2(model):
    nope, rope, value, latent, query = 32, 16, 24, 48, 40
    model.own("attention.", head_count=HEADS, head_count_kv=1, layer_norm_rms_epsilon=1e-6, q_lora_rank=query,
              kv_lora_rank=latent, key_length=latent + rope, value_length=latent, key_length_mla=nope + rope, value_length_mla=value)
    model.own("rope.", dimension_count=rope, freq_base=1e4)
    model.own(leading_dense_block_count=model.layers, expert_feed_forward_length=32, expert_count=4, expert_used_count=2,
              expert_shared_count=1, expert_weights_scale=1.0, expert_gating_func=1)
    model.ends()
    for layer in range(model.layers):
        block = f"blk.{layer}."
        model.gain(block + "attn_norm", WIDTH)
        model.gain(block + "ffn_norm", WIDTH)
        model.linear(block + "attn_q_a", WIDTH, query)
        model.gain(block + "attn_q_a_norm", query)
        model.linear(block + "attn_q_b", query, HEADS * (nope + rope), sd=0.4)
        model.linear(block + "attn_kv_a_mqa", WIDTH, latent + rope, sd=0.3)
        model.gain(block + "attn_kv_a_norm", latent)
        model.tensor(block + "attn_k_b.weight", nope, latent, HEADS)
        model.tensor(block + "attn_v_b.weight", latent, value, HEADS)
        model.linear(block + "attn_output", HEADS * value, WIDTH)
        model.gated(block)


def lfm2(model):
    key_heads, width = [2 * (layer % 2) for layer in range(model.layers)], WIDTH // HEADS
    model.own("attention.", head_count=HEADS, head_count_kv=key_heads, layer_norm_rms_epsilon=1e-6)
    model.own(**{"shortconv.l_cache": 3, "rope.freq_base": 1e6})
    model.tensor("token_embd.weight", WIDTH, VOCABULARY, sd=0.5)
    model.gain("token_embd_norm", WIDTH)
    for layer in range(model.layers):
        block = f"blk.{layer}."
        model.gain(block + "attn_norm", WIDTH)
        model.gain(block + "ffn_norm", WIDTH)
        model.gated(block)
        if key_heads[layer] > 0:
            model.gain(block + "attn_q_norm", width)
            model.gain(block + "attn_k_norm", width)
            model.projections(block, HEADS, key_heads[layer], width)
        else:
            model.tensor(block + "shortconv.conv.weight", 3, WIDTH)
            model.linear(block + "shortconv.in_proj", WIDTH, 3 * WIDTH)
            model.linear(block + "shortconv.out_proj", WIDTH, WIDTH)


def deci(model):
    heads, key_heads, width = [4, 0, 4, 2], [2, 0, 1, 2], 32
    model.own("attention.", head_count=heads, head_count_kv=key_heads, layer_norm_rms_epsilon=1e-6, key_length=width,
              value_length=width)
    model.own("rope.", dimension_count=width, freq_base=1e4)
    model.own(feed_forward_length=[HIDDEN] * model.layers)
    model.ends()
    for layer in range(model.layers):
        block = f"blk.{layer}."
        model.gain(block + "ffn_norm", WIDTH)
        model.gated(block)
        if heads[layer] > 0:
            model.gain(block + "attn_norm", WIDTH)
            model.projections(block, heads[layer], key_heads[layer], width)


def bert(model):
    model.own("attention.", head_count=HEADS, head_count_kv=HEADS, layer_norm_epsilon=1e-12, causal=False)
    model.own(pooling_type=1)
    model.put("tokenizer.ggml.token_type_count", 2)
    model.tensor("token_embd.weight", WIDTH, VOCABULARY, sd=1)
    model.tensor("position_embd.weight", WIDTH, 512, sd=0.5)
    model.tensor("token_types.weight", WIDTH, 2)
    model.gain("token_embd_norm", WIDTH, True)
    for layer in range(model.layers):
        block = f"blk.{layer}."
        for name in "qkv":
            model.linear(block + "attn_" + name, WIDTH, WIDTH, True, sd=0.3)
        model.linear(block + "attn_output", WIDTH, WIDTH, True)
        model.gain(block + "attn_output_norm", WIDTH, True)
        model.gain(block + "layer_output_norm", WIDTH, True)
        model.linear(block + "ffn_up", WIDTH, HIDDEN, True)
        model.linear(block + "ffn_down", HIDDEN, WIDTH, True)


def mamba(model):
    inner, state, rank = 2 * WIDTH, 8, 4
    model.own("attention.", head_count=0, head_count_kv=0, layer_norm_rms_epsilon=1e-6)
    model.own("ssm.", conv_kernel=4, inner_size=inner, state_size=state, time_step_rank=rank)
    model.ends()
    for layer in range(model.layers):
        block = f"blk.{layer}."
        model.gain(block + "attn_norm", WIDTH)
        model.linear(block + "ssm_in", WIDTH, 2 * inner)
        model.linear(block + "ssm_conv1d", 4, inner, True)
        model.linear(block + "ssm_x", inner, rank + 2 * state)
        model.linear(block + "ssm_dt", rank, inner, True)
        model.tensor(block + "ssm_a", state, inner, sd=0.1, mean=-1.0)
        model.tensor(block + "ssm_d", inner)
        model.linear(block + "ssm_out", inner, WIDTH)


def main():
    families = {f.__name__: f for f in (bloom, deepseek2, lfm2, deci, bert, mamba)}
    if not 3 <= len(sys.argv) <= 4 or sys.argv[1] not in families:
        sys.exit(__doc__)
    random.seed(1)
    model = Gguf(sys.argv[1], int(sys.argv[3]) if len(sys.argv) > 3 else 4)
    families[sys.argv[1]](model)
    model.write(sys.argv[2])


if __name__ == "__main__":
    main()
