"""Mass and output error of selected keys of every causal query of one head, with PyTorch.

Usage: judge_selectors.py Q.npy K.npy V.npy SELECTED.npy REPETITIONS
q, k, v [n, d]; selected [queries, keys], 1 where a key is selected. Prints one line a repetition, "seconds checksum"; the
checksum is the mean mass that is kept plus the mean of |o - o_I|.
"""
import sys
import time

import numpy
import torch

torch.set_num_threads(1)
q, k, v, selected = (torch.from_numpy(numpy.load(path)) for path in sys.argv[1:5])
hidden = torch.triu(torch.ones(q.shape[0], k.shape[0], dtype=torch.bool), diagonal=1)


def figures():
    weights = torch.softmax((q @ k.T / q.shape[1] ** 0.5).masked_fill(hidden, float("-inf")), -1)
    kept = weights * selected
    mass = kept.sum(-1, keepdim=True)
    error = (weights @ v - kept @ v / mass).norm(dim=-1)
    return mass.double().mean() + error.double().mean()


with torch.no_grad():
    figures()
    for _ in range(int(sys.argv[5])):
        start = time.perf_counter()
        checksum = figures()
        print(time.perf_counter() - start, float(checksum))
