#!/usr/bin/env python3
"""What a file that includes attnscope costs the compiler: seconds of the processor and the most memory, beside <Eigen/Core>.

compile_times.py [--compiler C++] [--eigen FOLDER] [--include FOLDER]... [--each] [--uses] [--all] [--repetitions N]
                 [--most-ratio X] [--most-megabytes M] [--most-megabytes-each M]

Reading alone (-fsyntax-only) of the umbrella and of Eigen/Core; with --uses also compiling what people write (-O2): a row, a
scan, attention, an analysis and a normaliser by name, these two also with what precompiled.hpp compiles once; with --all also
reading every public header; with --each those that no other header includes, so that what they take is a limit on all.
Medians of N, three where nothing is said. With limits: status 1 when reading the umbrella takes more than X times the memory
of Eigen/Core, or more than M MB, or reading another header more than that of --most-megabytes-each. Memory is what is limited
because for one compiler it is the same in every run (to 1 %). Headers whose own libraries are not found are told and left out.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

INCLUDE = Path(__file__).resolve().parent.parent / "include"
USES = {
    "row_statistics": '#include <attnscope/row/row_statistics.hpp>\n'
                      "double use(const std::vector<double>& z) { return attnscope::row_statistics(z).entropy_nats(); }\n",
    "scan": "#include <attnscope/streaming/scan.hpp>\n"
            "auto use(const Eigen::MatrixXf& q, const Eigen::MatrixXf& k) { return attnscope::scan(q, k).rows.size(); }\n",
    "attend": "#include <attnscope/attnscope.hpp>\n"
              "auto use(const Eigen::MatrixXf& q) { return attnscope::attend(q, q, q, attnscope::Softmax()).output; }\n",
    "analyze": "#include <attnscope/analysis/analyze.hpp>\n"
               "auto use(const Eigen::MatrixXd& q) { return attnscope::analyze(q, q, q).queries; }\n",
    "make_normalizer": "#include <attnscope/runtime/registry.hpp>\n"
                       "auto use(const std::string& name) { return attnscope::make_normalizer(name); }\n",
}


def cost(command):
    """Seconds and megabytes of the compiler and of what it starts; stops the script where it fails."""
    child = os.fork()
    if child == 0:
        try:
            os.execvp(command[0], command)
        finally:
            os._exit(127)
    _, status, usage = os.wait4(child, 0)
    if status != 0:
        sys.exit("compile_times.py: failed: " + " ".join(command))
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def median_cost(command, repetitions):
    found = [cost(command) for _ in range(repetitions)]
    return statistics.median(seconds for seconds, _ in found), max(memory for _, memory in found)


def outermost(headers):
    """Those that no other one includes."""
    included = set()
    for header in headers:
        included |= set(re.findall(r"#include <(attnscope/[^>]+)>", header.read_text()))
    return [header for header in headers if header.relative_to(INCLUDE).as_posix() not in included]


def eigen_folder():
    for folder in ("/usr/include/eigen3", "/usr/local/include/eigen3", "/opt/homebrew/include/eigen3"):
        if Path(folder, "Eigen/Core").exists():
            return folder
    sys.exit("compile_times.py: Eigen is not found; name its folder with --eigen")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--compiler", default=os.environ.get("CXX", "c++"))
    parser.add_argument("--eigen", help="the folder that has Eigen/Core")
    parser.add_argument("--include", action="append", default=[], help="a folder of other libraries, asked last")
    parser.add_argument("--each", action="store_true", help="also read the headers that no other includes")
    parser.add_argument("--uses", action="store_true", help="also compile what people write")
    parser.add_argument("--all", action="store_true", help="that, and every public header")
    parser.add_argument("--repetitions", type=int, default=3, help="how often each file is compiled")
    parser.add_argument("--most-ratio", type=float, help="limit on the umbrella's memory over that of Eigen/Core")
    parser.add_argument("--most-megabytes", type=float, help="limit on the umbrella's memory")
    parser.add_argument("--most-megabytes-each", type=float, help="limit on the memory of every other header")
    asked = parser.parse_args()
    flags = [asked.compiler, "-std=c++20", "-I", str(INCLUDE), "-isystem", asked.eigen or eigen_folder()]
    for folder in asked.include:
        flags += ["-idirafter", folder]
    over = []  # headers beyond their limit

    with tempfile.TemporaryDirectory() as work:
        source = Path(work, "use.cpp")

        def row(name, text, *more):
            source.write_text(text)
            seconds, memory = median_cost([*flags, *more, str(source)], max(asked.repetitions, 1))
            print(f"{name:58} {seconds:7.2f} s {memory:6.0f} MB", flush=True)
            return seconds, memory

        print("reading alone")
        eigen, eigen_memory = row("Eigen/Core", "#include <Eigen/Core>\n", "-fsyntax-only")
        umbrella, memory = row("attnscope/attnscope.hpp", "#include <attnscope/attnscope.hpp>\n", "-fsyntax-only")
        print(f"the umbrella: {umbrella / eigen:.2f} x the time of Eigen/Core, {memory / eigen_memory:.2f} x its memory")
        if asked.all or asked.each:
            headers = sorted(INCLUDE.rglob("*.hpp"))
            for header in headers if asked.all else outermost(headers):
                name = header.relative_to(INCLUDE).as_posix()
                if name == "attnscope/attnscope.hpp":
                    continue
                once = "#define ATTNSCOPE_PRECOMPILED\n" if name.endswith("/precompiled.hpp") else ""
                text = f"{once}#include <{name}>\n"
                source.write_text(text)
                found = subprocess.run([*flags, "-M", str(source)], capture_output=True, text=True)
                if missing := re.search(r"fatal error: (\S+): No such file", found.stderr):
                    print(f"{name:58} left out: there is no <{missing[1]}>")
                    continue
                _, header_memory = row(name, text, "-fsyntax-only")
                if asked.most_megabytes_each and header_memory > asked.most_megabytes_each:
                    over.append(f"reading {name} takes {header_memory:.0f} MB, and at most {asked.most_megabytes_each:g} are allowed")
        if asked.uses or asked.all:
            print("compiling, -O2")
            out = str(Path(work, "use.o"))
            for name, text in USES.items():
                row(name, text, "-O2", "-c", "-o", out)
                if name not in ("analyze", "make_normalizer"):
                    continue
                row(name + ", the rest compiled once", text, "-O2", "-DATTNSCOPE_PRECOMPILED", "-c", "-o", out)
            row("precompiled.hpp, once", "#include <attnscope/precompiled.hpp>\n", "-O2", "-DATTNSCOPE_PRECOMPILED", "-c", "-o", out)

    failed = bool(over)
    print(*over, sep="\n", end="\n" if over else "")
    if asked.most_ratio and memory > asked.most_ratio * eigen_memory:
        failed = True
        print(f"reading the umbrella takes {memory / eigen_memory:.2f} x the memory of Eigen/Core, "
              f"and at most {asked.most_ratio:g} is allowed")
    if asked.most_megabytes and memory > asked.most_megabytes:
        failed = True
        print(f"reading the umbrella takes {memory:.0f} MB, and at most {asked.most_megabytes:g} are allowed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
