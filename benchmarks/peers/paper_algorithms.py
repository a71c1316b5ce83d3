"""Cumulative distances d(N) of the top-N selections of every causal query, with PyTorch, from q, k and v.

Usage: paper_algorithms.py Q.npy K.npy V.npy few|all REPETITIONS
Tensors [heads, n, d]. few: N = 1, 5, 10, 20, 100, all queries at once; all: every N, query by query. Prints one line a
repetition, "seconds checksum"; the checksum is the sum of all distances with somebody left out.
"""
import sys
import time

import numpy
import torch

torch.set_num_threads(1)
q, k, v = (torch.from_numpy(numpy.load(path)) for path in sys.argv[1:4])
length = q.shape[1]
hidden = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)


def weights_of(head):
    scores = torch.matmul(q[head], k[head].T) / q.shape[2] ** 0.5
    return torch.softmax(scores.masked_fill(hidden, float("-inf")), 1)


def some(head):
    weights, x = weights_of(head), v[head]
    ranked, order = torch.topk(weights, 100, 1)
    squares = (x * x).sum(1)
    own = weights * weights * squares
    total = 0.0
    for n in (1, 5, 10, 20, 100):
        s = (ranked[:, :n, None] * x[order[:, :n]]).sum(1)
        distances = (s * s).sum(1, keepdim=True) - 2 * weights * torch.matmul(s, x.T) + own
        distances = distances.clamp_min(0).sqrt().masked_fill(hidden, 0)
        distances.scatter_(1, order[:, :n], 0)
        total += float(distances[n:].double().sum())
    return total


def every(head):
    weights, x = weights_of(head), v[head]
    total = 0.0
    for query in range(length):
        p, order = torch.sort(weights[query, : query + 1], descending=True, stable=True)
        y = p[:, None] * x[order]
        distances = torch.cdist(torch.cumsum(y, 0), y)
        total += float(torch.triu(distances, diagonal=1).double().sum())
    return total


algorithm = every if sys.argv[4] == "all" else some
with torch.no_grad():
    algorithm(0)
    for _ in range(int(sys.argv[5])):
        start = time.perf_counter()
        checksum = sum(algorithm(head) for head in range(q.shape[0]))
        print(time.perf_counter() - start, checksum)
