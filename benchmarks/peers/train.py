"""The model and the steps of attnscope-train in PyTorch: same initial weights, same batches, same optimiser.

    attnscope-train --quick --text TEXT --out FOLDER --steps 0
    attnscope-train --quick --text TEXT --out OURS --steps 20 --every 1
    train.py FOLDER TEXT 20 OURS/loss.csv

prints both losses for each step, fails when they are farther apart than 1e-3, and prints tokens per second.
"""
import json
import math
import struct
import sys
import time

import numpy
import torch
import torch.nn.functional as F

MASK = (1 << 64) - 1


class SplitMix64:
    def __init__(self, seed):
        self.state = seed & MASK

    def __call__(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        x = self.state
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    def below(self, n):
        return int(min(((self() >> 12) + 0.5) * 2.0**-52 * n, n - 1))


def read_safetensors(path):
    with open(path, "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        data = file.read()
    header.pop("__metadata__", None)
    return {
        name: torch.from_numpy(
            numpy.frombuffer(data[slice(*item["data_offsets"])], numpy.float32).reshape(item["shape"]).copy()
        ).requires_grad_()
        for name, item in header.items()
    }


def logits_of(p, config, ids):
    n, heads = ids.shape[1], config["n_head"]
    x = p["wte.weight"][ids] + p["wpe.weight"][:n]
    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], p[name + ".weight"], p[name + ".bias"], config["layer_norm_epsilon"])
    hidden = torch.triu(torch.ones(n, n, dtype=torch.bool), 1)
    for layer in range(config["n_layer"]):
        h = f"h.{layer}."
        fused = norm(x, h + "ln_1") @ p[h + "attn.c_attn.weight"] + p[h + "attn.c_attn.bias"]
        q, k, v = (t.view(*t.shape[:2], heads, -1).transpose(1, 2) for t in fused.split(x.shape[-1], dim=-1))
        z = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
        o = z.masked_fill(hidden, -math.inf).softmax(-1) @ v
        x = x + o.transpose(1, 2).reshape(x.shape) @ p[h + "attn.c_proj.weight"] + p[h + "attn.c_proj.bias"]
        inner = norm(x, h + "ln_2") @ p[h + "mlp.c_fc.weight"] + p[h + "mlp.c_fc.bias"]
        inner = 0.5 * inner * (1 + torch.tanh(math.sqrt(2 / math.pi) * (inner + 0.044715 * inner**3)))
        x = x + inner @ p[h + "mlp.c_proj.weight"] + p[h + "mlp.c_proj.bias"]
    return norm(x, "ln_f") @ p["wte.weight"].T


def main():
    folder, text_file, steps, ours_file = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    threads = int(sys.argv[5]) if len(sys.argv) > 5 else torch.get_num_threads()
    batch_tokens = int(sys.argv[6]) if len(sys.argv) > 6 else 4096
    torch.set_num_threads(threads)
    config = json.load(open(folder + "/config.json"))
    p = read_safetensors(folder + "/model.safetensors")
    text = open(text_file, "rb").read()
    text = numpy.frombuffer(text[: len(text) // 10 * 9], numpy.uint8).astype(numpy.int64)
    decayed = [x for x in p.values() if x.dim() == 2]
    plain = [x for x in p.values() if x.dim() == 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}], betas=(0.9, 0.98), eps=1e-8
    )
    ours = [line.split(",") for line in open(ours_file).read().split("\n")[1:] if line]
    context, warm_up, farthest, seconds = config["n_positions"], max(1, 0.05 * steps), 0.0, []
    for step in range(steps):
        share = step / steps
        length = context // 4 if share < 0.4 else context // 2 if share < 0.7 else context
        random = SplitMix64(SplitMix64(1 + step)())
        starts = [random.below(len(text) - length) for _ in range(max(1, batch_tokens // length))]
        inputs = torch.from_numpy(numpy.stack([text[s : s + length] for s in starts]))
        targets = torch.from_numpy(numpy.stack([text[s + 1 : s + length + 1] for s in starts]))
        begin = time.perf_counter()
        loss = F.cross_entropy(logits_of(p, config, inputs).flatten(0, 1), targets.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(p.values()), 1.0)
        at = step
        rate = (
            0.002 * (at + 1) / warm_up
            if at < warm_up
            else 0.002 * (0.1 + 0.45 * (1 + math.cos(math.pi * min(1, (at - warm_up) / max(1, steps - warm_up)))))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        seconds.append(time.perf_counter() - begin)
        mine, theirs = loss.item(), float(ours[step][2])
        farthest = max(farthest, abs(mine - theirs))
        print(f"step {step + 1:3}  PyTorch {mine:.6f}  attnscope {theirs:.6f}")
    print(f"farthest apart {farthest:.2e}; PyTorch {torch.__version__}, {threads} threads: "
          f"{batch_tokens / sorted(seconds)[len(seconds) // 2]:.0f} tokens/s (median step)")
    sys.exit(farthest > 1e-3)


main()
