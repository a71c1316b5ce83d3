#!/usr/bin/env python3
"""How long ranks would take for the heads of a model, and how long they would wait: a simulated schedule.

schedule.py [--heads N --length L [--window W]] [--ranks R[,R...]] [--ns NS] [--query-block Q --key-block K]
            [--merge BYTES_PER_SECOND]

Units of work are begun in their order by whatever rank is free, as attnscope-report-mpi (a unit is a head) and
attnscope-long-context-mpi (a block of a head) do it. A unit takes NS nanoseconds for each pair of a query and a key that it
sees; states of blocks (172 bytes a query) come to rank 0 when all are done. Without --heads: a table of three models.
"""
import argparse
import heapq

STATE = 172  # bytes of a RowState<float, 8>


def causal_pairs(queries, keys, window):
    """Pairs of queries [a, b) and keys [c, d) under a causal mask with a window (0: none)."""
    a, b = queries
    c, d = keys
    total = 0
    # Query i sees keys max(0, i - window + 1) ... i: sums of clipped ends, piece by piece where they are linear.
    cuts = {a, b}
    for x in (c, d) if not window else (c, d, c + window - 1, d + window - 1):
        for y in (x - 1, x, x + 1):
            if a < y < b:
                cuts.add(y)
    cuts = sorted(cuts)

    def seen(i):
        low = max(c, i - window + 1) if window else c
        return max(0, min(d, i + 1) - low)

    for first, last in zip(cuts, cuts[1:]):
        total += (seen(first) + seen(last - 1)) * (last - first) / 2
    return total


def blocks_of(length, window, query_block, key_block):
    units = []
    for q in range(0, length, query_block):
        queries = (q, min(length, q + query_block))
        for k in range(0, length, key_block):
            pairs = causal_pairs(queries, (k, min(length, k + key_block)), window)
            if pairs > 0:
                units.append((pairs, (queries[1] - queries[0]) * STATE))
    return units


def schedule(heads, units, ranks, ns):
    """Seconds until the last rank is done, and the share of all time that ranks wait."""
    free = [0.0] * ranks
    work = 0.0
    for _ in range(heads):
        for pairs, _ in units:
            seconds = pairs * ns * 1e-9
            heapq.heapreplace(free, free[0] + seconds)
            work += seconds
    end = max(free)
    return end, max(0.0, 1 - work / (end * ranks))


def time_text(seconds):
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e3:.3g} ms"


def lines_of(name, heads, length, window, options):
    whole = [(causal_pairs((0, length), (0, length), window), 0)]
    cut = blocks_of(length, window, options.query_block, options.key_block)
    for ranks in options.ranks:
        end, idle = schedule(heads, whole, ranks, options.ns)
        cut_end, cut_idle = schedule(heads, cut, ranks, options.ns)
        gather = heads * sum(size for _, size in cut) / options.merge
        print(f"| {name} | {ranks} | {time_text(end)} | {100 * idle:.0f} % | {len(cut)} | {time_text(cut_end)} | "
              f"{100 * cut_idle:.0f} % | {time_text(gather)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--heads", type=int)
    parser.add_argument("--length", type=int, default=131072)
    parser.add_argument("--window", type=int, default=0)
    parser.add_argument("--ranks", default="64,1024", type=lambda text: [int(x) for x in text.split(",")])
    parser.add_argument("--ns", type=float, default=1.9, help="nanoseconds a pair on one rank")
    parser.add_argument("--query-block", type=int, default=16384)
    parser.add_argument("--key-block", type=int, default=65536)
    parser.add_argument("--merge", type=float, default=1e9, help="bytes of states a second that rank 0 takes")
    options = parser.parse_args()
    for name in ("length", "query_block", "key_block"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if min(options.ranks) < 1 or options.window < 0 or not options.ns > 0 or not options.merge > 0:
        parser.error("--ranks, --ns and --merge must be above 0, --window at least 0")
    print("| model | ranks | heads apart | idle | blocks a head | blocks apart | idle | then rank 0 merges |")
    print("|---|---|---|---|---|---|---|---|")
    if options.heads is not None:
        if options.heads < 1:
            parser.error("--heads must be at least 1")
        return lines_of(f"{options.heads} heads of {options.length}", options.heads, options.length, options.window,
                        options)
    for name, heads, length in (("GPT-2, 1,024 tokens", 144, 1024), ("8B, 131,072 tokens", 1024, 131072),
                                ("70B, 1,048,576 tokens", 5120, 1048576), ("one head, 1,048,576 tokens", 1, 1048576)):
        lines_of(name, heads, length, 0, options)


if __name__ == "__main__":
    main()
