#!/usr/bin/env python3
"""How the time and the memory of a scan grow with the length of a head, and with the number of heads: exponents with their
standard errors.

Usage: scaling.py FOLDER [LONGEST [PROGRAM-OPTION...]]
FOLDER holds attnscope-long-context and attnscope-report (build/bin). Causal synthetic heads of width 64, from 8,192 keys to
LONGEST (131072 unless given), doubling, the rows alone, with one thread and with all; of each length the least of three runs,
of the longest two one. Then a head of 2^20 keys with a window of 4,096. What follows LONGEST goes to the program (--output).
Last, 72 to 1,152 heads of 1,024 keys (0.6 GB), doubling: the statistics of every row by attnscope-report, the whole process,
the least of three runs.
"""
import array
import json
import math
import os
import random
import re
import struct
import subprocess
import sys
import tempfile
import time


def run(program, length, threads, *options):
    """Seconds of the rows, and MB at most."""
    text = subprocess.run([program, "--length", str(length), "--threads", str(threads), "--no-sinks", *options],
                          check=True, capture_output=True, text=True).stdout
    ns, threads_used = re.search(r"\(([\d.]+) ns a visible pair\).*?(\d+) threads", text).groups()
    if int(threads_used) != threads:
        sys.exit(f"scaling.py: {program} used {threads_used} threads, not {threads}")
    window = int(options[options.index("--window") + 1]) if "--window" in options else length
    pairs = window * (window + 1) / 2 + (length - window) * window
    return float(ns) * 1e-9 * pairs, float(re.search(r"^memory +(\d+) MB at most", text, re.M).group(1))


def write_heads(file, heads, length=1024, width=64):
    """A capture of random heads. Their numbers repeat in another order: what they are does not matter to the time."""
    numbers = random.Random(1)
    row = array.array("f", [numbers.gauss(0, 1) for _ in range(1 << 16)])
    count = heads * length * width
    tensors, at = {}, 0
    for name in ("q", "k"):
        tensors[name] = {"dtype": "F32", "shape": [heads, length, width], "data_offsets": [at, at + 4 * count]}
        at += 4 * count
    header = json.dumps(tensors).encode()
    header += b" " * (-len(header) % 8)
    with open(file, "wb") as out:
        out.write(struct.pack("<Q", len(header)) + header)
        for part in range(2 * count // len(row)):
            turn = 977 * part % len(row)
            out.write((row[turn:] + row[:turn]).tobytes())


def time_of_heads(program, file, threads):
    begin = time.perf_counter()
    subprocess.run([program, file, "--causal", "--parts", "statistics", "--stream", "--threads", str(threads)],
                   check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def scale_heads(program, all_threads):
    print(f"\n{'heads':>9} " + " ".join(f"{f'{t} threads, s':>14}" for t in (1, all_threads)))
    times = {1: [], all_threads: []}
    with tempfile.TemporaryDirectory() as folder:
        for heads in (72, 144, 288, 576, 1152):
            file = os.path.join(folder, f"{heads}.safetensors")
            write_heads(file, heads)
            for threads in sorted(times):
                times[threads].append((heads, min(time_of_heads(program, file, threads) for _ in range(3))))
            print(f"{heads:>9} " + " ".join(f"{points[-1][1]:>14.3f}" for points in times.values()), flush=True)
    for threads, points in sorted(times.items()):
        slope, error = exponent(points[-3:])  # what a process needs anyway is part of the time of few heads
        print(f"{threads} threads: time of the longest three ~ heads^{slope:.3f} +- {error:.3f}")


def exponent(points):
    """Slope of log y over log x by least squares, and its standard error."""
    x, y = [math.log(a) for a, _ in points], [math.log(b) for _, b in points]
    n, mx, my = len(x), sum(x) / len(x), sum(y) / len(y)
    sxx = sum((a - mx) ** 2 for a in x)
    slope = sum((a - mx) * (b - my) for a, b in zip(x, y)) / sxx
    rest = sum((b - my - slope * (a - mx)) ** 2 for a, b in zip(x, y))
    return slope, math.sqrt(rest / (n - 2) / sxx) if n > 2 else math.nan


def main():
    if len(sys.argv) < 2 or not os.access(program := os.path.join(sys.argv[1], "attnscope-long-context"), os.X_OK):
        sys.exit(__doc__)
    longest, options = int(sys.argv[2]) if len(sys.argv) > 2 else 131072, sys.argv[3:]
    lengths = [8192]
    while 2 * lengths[-1] <= longest:
        lengths.append(2 * lengths[-1])
    if len(lengths) < 3:
        sys.exit("scaling.py: three lengths are needed: LONGEST must be at least 32768")
    all_threads = len(os.sched_getaffinity(0))
    print(f"{'keys':>9} " + " ".join(f"{f'{t} threads, s':>14} {'ns a pair':>10} {'MB':>6}" for t in (1, all_threads)))
    times, memory = {1: [], all_threads: []}, {1: [], all_threads: []}
    for length in lengths:
        line = f"{length:>9} "
        for threads in (1, all_threads):
            runs = [run(program, length, threads, *options) for _ in range(1 if length > longest // 4 else 3)]
            seconds, megabytes = min(r[0] for r in runs), max(r[1] for r in runs)
            times[threads].append((length, seconds))
            memory[threads].append((length, megabytes))
            line += f"{seconds:>14.3f} {seconds * 2e9 / (length * (length + 1)):>10.2f} {megabytes:>6.0f} "
        print(line, flush=True)
    for threads in sorted(times):
        # What a process needs anyway is part of the memory of short heads.
        (a, da), (b, db) = exponent(times[threads]), exponent(memory[threads][-3:])
        print(f"{threads} threads: time ~ keys^{a:.3f} +- {da:.3f}; memory of the longest three ~ keys^{b:.3f} +- {db:.3f}")
    seconds, megabytes = run(program, 1 << 20, all_threads, "--window", "4096", *options)
    print(f"1048576 keys, window of 4096, {all_threads} threads: {seconds:.1f} s, {megabytes:.0f} MB")
    scale_heads(os.path.join(sys.argv[1], "attnscope-report"), all_threads)


main()
