"""alpha-entmax of many rows with PyTorch, by the algorithms of the papers: from the sorted logits for alpha = 2
(arXiv:1602.02068) and 1.5 (arXiv:1905.05702), by 50 bisections of the threshold else.

Usage: entmax.py LOGITS.npy ALPHA REPETITIONS WEIGHTS.npy
logits [rows, keys]. Prints one line a repetition, "seconds checksum"; the checksum is the sum of all weights. The
weights go to WEIGHTS.npy.
"""
import sys
import time

import numpy
import torch

torch.set_num_threads(1)
logits = torch.from_numpy(numpy.load(sys.argv[1]))
alpha = float(sys.argv[2])
keys = logits.shape[-1]


def by_sorting(threshold):
    z = logits - logits.max(-1, keepdim=True).values
    return threshold(z, torch.sort(z, -1, descending=True).values, torch.arange(1, keys + 1, dtype=z.dtype))


def sparsemax(z, ordered, count):
    excess = torch.cumsum(ordered, -1) - 1
    support = (count * ordered > excess).sum(-1, keepdim=True)
    return torch.clamp(z - excess.gather(-1, support - 1) / support, min=0)


def entmax15(z, ordered, count):
    half = ordered / 2
    mean = torch.cumsum(half, -1) / count
    spread = torch.cumsum(half * half, -1) - count * mean * mean
    threshold = mean - torch.sqrt(torch.clamp((1 - spread) / count, min=0))
    support = (threshold <= half).sum(-1, keepdim=True)
    return torch.clamp(z / 2 - threshold.gather(-1, support - 1), min=0) ** 2


def by_bisection():
    z = (alpha - 1) * logits
    top = z.max(-1, keepdim=True).values
    low, width = top - 1, 1 - keys ** (1 - alpha)
    for _ in range(50):
        width /= 2
        middle = low + width
        p = torch.clamp(z - middle, min=0) ** (1 / (alpha - 1))
        low = torch.where(p.sum(-1, keepdim=True) >= 1, middle, low)
    return p / p.sum(-1, keepdim=True)


def weights():
    if alpha == 2:
        return by_sorting(sparsemax)
    return by_sorting(entmax15) if alpha == 1.5 else by_bisection()


with torch.no_grad():
    for _ in range(3):
        weights()
    for _ in range(int(sys.argv[3])):
        start = time.process_time()
        result = weights()
        seconds = time.process_time() - start
        print(seconds, float(result.double().sum()))
numpy.save(sys.argv[4], result.numpy())
