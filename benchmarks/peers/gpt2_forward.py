"""Forward pass of a GPT-2 model over a prompt, with PyTorch: hidden states of all layers, logits and loss.

Usage: gpt2_forward.py FOLDER IDS THREADS REPETITIONS
FOLDER holds config.json and model.safetensors (F32, names without prefix), IDS token ids separated by white space. Prints
one line a repetition, "seconds checksum"; the checksum is the mean loss of the next token.
"""
import json
import struct
import sys
import time

import numpy
import torch

folder = sys.argv[1]
torch.set_num_threads(int(sys.argv[3]))
config = json.load(open(folder + "/config.json"))
with open(folder + "/model.safetensors", "rb") as file:
    (size,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(size))
data = numpy.memmap(folder + "/model.safetensors", mode="r", offset=8 + size, dtype=numpy.uint8)
tensors = {}
for name, info in header.items():
    if name != "__metadata__":
        begin, end = info["data_offsets"]
        tensors[name] = torch.from_numpy(numpy.array(data[begin:end]).view(numpy.float32).reshape(info["shape"]))
ids = torch.tensor([int(x) for x in open(sys.argv[2]).read().split()])
heads, width, length = config["n_head"], config["n_embd"], len(ids)
hidden = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)
functional = torch.nn.functional


def layer(x, p):
    a = functional.layer_norm(x, (width,), tensors[p + "ln_1.weight"], tensors[p + "ln_1.bias"], 1e-5)
    fused = torch.addmm(tensors[p + "attn.c_attn.bias"], a, tensors[p + "attn.c_attn.weight"])
    q, k, v = (part.view(length, heads, -1).transpose(0, 1) for part in fused.split(width, 1))
    scores = torch.matmul(q, k.transpose(1, 2)) / (width // heads) ** 0.5
    weights = torch.softmax(scores.masked_fill(hidden, float("-inf")), 2)
    out = torch.matmul(weights, v).transpose(0, 1).reshape(length, width)
    x = x + torch.addmm(tensors[p + "attn.c_proj.bias"], out, tensors[p + "attn.c_proj.weight"])
    m = functional.layer_norm(x, (width,), tensors[p + "ln_2.weight"], tensors[p + "ln_2.bias"], 1e-5)
    m = torch.addmm(tensors[p + "mlp.c_fc.bias"], m, tensors[p + "mlp.c_fc.weight"])
    m = functional.gelu(m, approximate="tanh")
    return x + torch.addmm(tensors[p + "mlp.c_proj.bias"], m, tensors[p + "mlp.c_proj.weight"])


def run():
    x = tensors["wte.weight"][ids] + tensors["wpe.weight"][:length]
    for i in range(config["n_layer"]):
        x = layer(x, f"h.{i}.")
    x = functional.layer_norm(x, (width,), tensors["ln_f.weight"], tensors["ln_f.bias"], 1e-5)
    return functional.cross_entropy(torch.matmul(x[:-1], tensors["wte.weight"].T), ids[1:])


with torch.no_grad():
    run()
    for _ in range(int(sys.argv[4])):
        start = time.perf_counter()
        loss = run()
        print(time.perf_counter() - start, float(loss))
