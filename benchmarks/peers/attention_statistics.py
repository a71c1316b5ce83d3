"""Statistics of every causal row of some heads, with PyTorch: scores, mask, softmax, then log-sum-exp, entropy, the two
largest weights, sums of squared and cubed weights, spread of the logits.

Usage: attention_statistics.py Q.npy K.npy REPETITIONS layer|heads
q and k [heads, n, d]; all heads at once, as it is usually written, or one after the other, whose temporaries are smaller. Prints one line a repetition, "seconds checksum"; the checksum is the sum of all entropies.
"""
import sys
import time

import numpy
import torch

torch.set_num_threads(1)
q = torch.from_numpy(numpy.load(sys.argv[1]))
k = torch.from_numpy(numpy.load(sys.argv[2]))
length = q.shape[1]
hidden = torch.triu(torch.ones(length, length, dtype=torch.bool), diagonal=1)


def statistics(q, k):
    scores = torch.matmul(q, k.transpose(-1, -2)) / q.shape[-1] ** 0.5
    least = scores.masked_fill(hidden, float("inf")).amin(-1)
    scores = scores.masked_fill(hidden, float("-inf"))
    weights = torch.softmax(scores, -1)
    total = torch.logsumexp(scores, -1)
    entropy = total - torch.nan_to_num(weights * scores, nan=0.0).sum(-1)
    largest = torch.topk(weights, 2, -1).values
    squares = weights * weights
    return total, entropy, largest, squares.sum(-1), (squares * weights).sum(-1), scores.amax(-1) - least


def run():
    if sys.argv[4] == "layer":
        return [statistics(q, k)]
    return [statistics(q[head], k[head]) for head in range(q.shape[0])]


with torch.no_grad():
    run()
    for _ in range(int(sys.argv[3])):
        start = time.perf_counter()
        result = run()
        seconds = time.perf_counter() - start
        print(seconds, sum(float(part[1].double().sum()) for part in result))
