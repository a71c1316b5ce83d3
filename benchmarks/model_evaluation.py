#!/usr/bin/env python3
"""What does it cost to analyse a GGUF model's heads beside llama.cpp's evaluation of the text?

model_evaluation.py BIN MODEL.gguf IDS [THREADS [REPETITIONS]]
BIN: the folder with attnscope-report, built where llama.cpp is. IDS: a file of token numbers. 2 threads, 5 repetitions unless
given. Needs a C++ compiler, pkg-config and llama.cpp's headers.

Compiles llama.cpp's evaluation by itself (peers/llama_evaluation.cpp). Its loss and attnscope-report's must agree, and the weights
of every head with the model's own, before anything is timed. Prints medians of interleaved repetitions: of llama.cpp the
evaluation alone, of attnscope-report the whole process, loading included.
"""

import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time


def output_of(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}: {done.stderr.strip() or 'failed'}")
    return done.stdout


def build_peer(folder):
    source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "peers", "llama_evaluation.cpp")
    flags = output_of(["pkg-config", "--cflags", "--libs", "llama"]).split()
    program = os.path.join(folder, "llama_evaluation")
    output_of([os.environ.get("CXX", "c++"), "-std=c++20", "-O2", source, "-o", program, *flags, "-lggml", "-lggml-base"])
    return program


def evaluate(peer, model, ids, threads):
    return {name: float(value) for name, value in (line.split() for line in output_of([peer, model, ids, threads]).splitlines())}


def main():
    if not 4 <= len(sys.argv) <= 6:
        sys.exit(__doc__)
    program, (model, ids) = os.path.join(sys.argv[1], "attnscope-report"), sys.argv[2:4]
    threads = sys.argv[4] if len(sys.argv) > 4 else "2"
    repetitions = int(sys.argv[5]) if len(sys.argv) > 5 else 5
    report = [program, model, "--tokens", ids, "--threads", threads, "--parts", "statistics"]
    ways = [("loss and the check of every weight", "all", []), ("with the loss", "all", ["--check", "off"]),
            ("neither", "last", ["--check", "off", "--loss", "off"])]

    with tempfile.TemporaryDirectory() as folder:
        peer = build_peer(folder)
        found = json.loads(output_of([*report, "--json", "-"]))
        loss, theirs = found["loss"], evaluate(peer, model, ids, threads)["loss"]
        if not abs(loss - theirs) <= 1e-5 * abs(theirs):
            sys.exit(f"the loss is {loss}, llama.cpp's {theirs}")
        difference = found["max_weight_difference"]
        if not difference <= 1e-4:
            sys.exit(f"weights differ from the model's own by {difference}")
        print(f"loss {loss:.6f}, llama.cpp's {theirs:.6f}; weights differ from the model's own by {difference:.2g}")

        alone, ours = {"last": [], "all": []}, [[] for _ in ways]
        for _ in range(repetitions):
            seconds = evaluate(peer, model, ids, threads)
            for name, list_of in alone.items():
                list_of.append(seconds[name])
            for (_, _, options), list_of in zip(ways, ours):
                begin = time.perf_counter()
                output_of([*report, *options])
                list_of.append(time.perf_counter() - begin)

    median = {name: statistics.median(list_of) for name, list_of in alone.items()}
    print(f"\nseconds, medians of {repetitions}, {threads} threads")
    print(f"llama.cpp, logits of the last token  {median['last']:8.3f}")
    print(f"llama.cpp, logits of every token     {median['all']:8.3f}")
    for (name, of, _), list_of in zip(ways, ours):
        print(f"attnscope-report, {name:36} {statistics.median(list_of):8.3f}   {statistics.median(list_of) / median[of]:.2f} "
              f"times llama.cpp with the logits of {'every token' if of == 'all' else 'the last'}")


if __name__ == "__main__":
    main()
