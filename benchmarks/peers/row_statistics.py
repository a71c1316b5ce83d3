"""Seven statistics of every row of a matrix of logits, with PyTorch: log-sum-exp, entropy, the two largest weights, sums
of squared and cubed weights, spread of the logits.

Usage: row_statistics.py LOGITS.npy REPETITIONS
Prints one line a repetition, "seconds checksum"; the checksum is the sum of all entropies.
"""
import sys
import time

import numpy
import torch

torch.set_num_threads(1)
logits = torch.from_numpy(numpy.load(sys.argv[1]))
masked = bool(torch.isinf(logits).any())


def statistics():
    weights = torch.softmax(logits, 1)
    total = torch.logsumexp(logits, 1)
    products = weights * logits
    if masked:
        products = torch.nan_to_num(products, nan=0.0)
    entropy = total - products.sum(1)
    largest = torch.topk(weights, 2, 1).values
    squares = weights * weights
    least = logits.masked_fill(torch.isinf(logits), float("inf")).amin(1) if masked else logits.amin(1)
    return total, entropy, largest, squares.sum(1), (squares * weights).sum(1), logits.amax(1) - least


with torch.no_grad():
    statistics()
    for _ in range(int(sys.argv[2])):
        start = time.perf_counter()
        result = statistics()
        seconds = time.perf_counter() - start
        print(seconds, float(result[1].double().sum()))
