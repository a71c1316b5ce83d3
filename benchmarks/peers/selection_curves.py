"""Figures of all top-N selections, N = 1 ... n, of every causal query of one head, with PyTorch.

Usage: selection_curves.py WEIGHTS.npy VALUES.npy distances|separability REPETITIONS
weights [queries, keys], values [keys, d]. distances: the cumulative distances d(N); separability: precision and recall.
Prints one line a repetition, "seconds checksum"; the checksum is the sum of all figures.
"""
import sys
import time

import numpy
import torch

torch.set_num_threads(1)
weights = torch.from_numpy(numpy.load(sys.argv[1]))
values = torch.from_numpy(numpy.load(sys.argv[2]))


def distances_of(query):
    """[N - 1, rank]: from s_N to the weighted token at that rank."""
    p, order = torch.sort(weights[query, : query + 1], descending=True, stable=True)
    y = p[:, None] * values[order]
    return torch.cdist(torch.cumsum(y, 0), y)


def distances():
    return [torch.triu(distances_of(query), diagonal=1).sum(1) for query in range(weights.shape[0])]


def separability():
    result = []
    for query in range(weights.shape[0]):
        d = distances_of(query)
        n = query + 1
        other = torch.triu(torch.ones(n, n, dtype=torch.bool), diagonal=1)
        counts = torch.arange(1, n + 1)
        nearest = d.masked_fill(~other, float("inf")).amin(1, keepdim=True)
        farthest = d.masked_fill(other, float("-inf")).amax(1, keepdim=True)
        precision = counts / (counts + ((d <= farthest) & other).sum(1))
        recall = ((d < nearest) & ~other).sum(1) / counts
        result.append(precision + recall)
    return result


figures = separability if sys.argv[3] == "separability" else distances
with torch.no_grad():
    figures()
    for _ in range(int(sys.argv[4])):
        start = time.perf_counter()
        result = figures()
        seconds = time.perf_counter() - start
        print(seconds, sum(float(curve.double().sum()) for curve in result))
