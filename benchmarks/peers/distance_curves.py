"""All cumulative distances d(N), N = 1 ... n, of every causal query of one head, with PyTorch.

Usage: distance_curves.py WEIGHTS.npy VALUES.npy REPETITIONS
weights [queries, keys], values [keys, d]. Prints one line a repetition, "seconds checksum"; the checksum is the sum of
all distances.
"""
import sys
import time

import numpy
import torch

torch.set_num_threads(1)
weights = torch.from_numpy(numpy.load(sys.argv[1]))
values = torch.from_numpy(numpy.load(sys.argv[2]))


def curves():
    result = []
    for query in range(weights.shape[0]):
        n = query + 1
        p, order = torch.sort(weights[query, :n], descending=True, stable=True)
        y = p[:, None] * values[order]
        distances = torch.cdist(torch.cumsum(y, 0), y)
        result.append(torch.triu(distances, diagonal=1).sum(1))
    return result


with torch.no_grad():
    curves()
    for _ in range(int(sys.argv[3])):
        start = time.perf_counter()
        result = curves()
        seconds = time.perf_counter() - start
        print(seconds, sum(float(curve.double().sum()) for curve in result))
