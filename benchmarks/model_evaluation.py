#!/usr/bin/env python3
"""What does it cost to analyse a GGUF model's heads beside llama.cpp's evaluation of the text?

model_evaluation.py [--folder FOLDER] [--threads N] [--repetitions N] BIN MODEL.gguf IDS
BIN: the folder with attnscope-report, built where llama.cpp is. IDS: a file of token numbers. FOLDER: the same model as config.json
and model.safetensors, for attnscope's own forward pass. Needs a C++ compiler, pkg-config and llama.cpp's headers.

Compiles llama.cpp's evaluation by itself (peers/llama_evaluation.cpp). All losses must agree, and the weights of every head with
the model's own, before anything is timed. Prints medians of interleaved repetitions: of llama.cpp the evaluation alone, of
attnscope-report the whole process, loading included; of the own pass what attnscope-capture tells, reading of the weights included.
"""

import argparse
import json
import os
import re
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


def own_pass(command):
    text = output_of(command)
    return tuple(float(re.search(rf"^{name} +([\d.]+)", text, re.MULTILINE).group(1)) for name in ("loss", "time"))


def require_equal(loss, theirs, tolerance):
    if not abs(loss - theirs) <= tolerance * abs(theirs):
        sys.exit(f"the loss is {loss}, llama.cpp's {theirs}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--repetitions", type=int, default=5)
    for name in ("bin", "model", "ids"):
        parser.add_argument(name)
    asked = parser.parse_args()
    model, ids, threads, repetitions = asked.model, asked.ids, asked.threads, asked.repetitions
    own = asked.folder and [os.path.join(asked.bin, "attnscope-capture"), asked.folder, "--tokens", ids, "--threads", threads]
    report = [os.path.join(asked.bin, "attnscope-report"), model, "--tokens", ids, "--threads", threads, "--parts", "statistics"]
    ways = [("loss and the check of every weight", "all", []), ("with the loss", "all", ["--check", "off"]),
            ("neither", "last", ["--check", "off", "--loss", "off"])]

    with tempfile.TemporaryDirectory() as folder:
        peer = build_peer(folder)
        found = json.loads(output_of([*report, "--json", "-"]))
        loss, theirs = found["loss"], evaluate(peer, model, ids, threads)["loss"]
        require_equal(loss, theirs, 1e-5)
        if own:
            require_equal(own_pass(own)[0], theirs, 1e-4)  # it prints four digits
        difference = found["max_weight_difference"]
        if not difference <= 1e-4:
            sys.exit(f"weights differ from the model's own by {difference}")
        print(f"loss {loss:.6f}, llama.cpp's {theirs:.6f}; weights differ from the model's own by {difference:.2g}")

        alone, ours, passes = {"last": [], "all": []}, [[] for _ in ways], []
        for _ in range(repetitions):
            seconds = evaluate(peer, model, ids, threads)
            for name, list_of in alone.items():
                list_of.append(seconds[name])
            for (_, _, options), list_of in zip(ways, ours):
                begin = time.perf_counter()
                output_of([*report, *options])
                list_of.append(time.perf_counter() - begin)
            if own:
                passes.append(own_pass(own)[1])

    median = {name: statistics.median(list_of) for name, list_of in alone.items()}
    print(f"\nseconds, medians of {repetitions}, {threads} threads")
    print(f"llama.cpp, logits of the last token  {median['last']:8.3f}")
    print(f"llama.cpp, logits of every token     {median['all']:8.3f}")
    for (name, of, _), list_of in zip(ways, ours):
        print(f"attnscope-report, {name:36} {statistics.median(list_of):8.3f}   {statistics.median(list_of) / median[of]:.2f} "
              f"times llama.cpp with the logits of {'every token' if of == 'all' else 'the last'}")
    if own:
        seconds = statistics.median(passes)
        print(f"attnscope's own forward pass, with the loss            {seconds:8.3f}   {seconds / median['all']:.2f} "
              "times llama.cpp with the logits of every token")


if __name__ == "__main__":
    main()
