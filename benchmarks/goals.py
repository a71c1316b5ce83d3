"""The goals of the project against the figures of the last run, as a table.

Usage: goals.py FOLDER
FOLDER holds <build>-<program>.json of Google Benchmark, build native or avx2, as run.sh writes them. A goal is a ratio of
two figures of one program, so that the machine cancels, or a time. Figures that are missing, because a peer is not
installed or a filter left them out, give "-".
"""
import json
import pathlib
import sys

def row(kind, length):
    return f"float  {kind:<6} L={length}"


DENSE, MASKED = row("dense", 1024), row("masked", 1024)
CAUSAL, WINDOW = "12 heads, causal, L=1024, d=64", "12 heads, window 128, L=1024, d=64"
SHORT, LONG = "12 heads, L=1024, d=64", "1 head, L=16384, d=64"
DOUBLE, FLOAT = "double, L=2048", "float, L=2048"
FEW, EVERY = "N = 1, 5, 10, 20, 100", "every N"


def ratios(what, program, rows, over, under, limit):
    """The same two contenders in several rows."""
    return [(f"{what}, {name}", program, (row, over), (row, under), "<=", limit) for name, row in rows]


# What; program; row and contender of the figure, and of the one that it is divided by (a number: times that); the limit, and
# that of the build for AVX2 where it is another.
GOALS = [
    *ratios("row softmax / oneDNN's", "row-softmax", [("128", row("dense", 128))], "attnscope", "oneDNN", 0.9),
    *ratios("row softmax / oneDNN's", "row-softmax",
            [("1024", DENSE), ("1024 masked", MASKED), ("16384", row("dense", 16384)),
             ("16384 masked", row("masked", 16384))], "attnscope", "oneDNN", 0.75),
    ("masked rows / dense rows", "row-softmax", (MASKED, "attnscope"), (DENSE, "attnscope"), "<=", 1.15),
    *ratios("7 statistics / our softmax", "row-statistics", [("128", row("dense", 128))],
            "attnscope", "our softmax", 1.6),
    *ratios("7 statistics / our softmax", "row-statistics", [("1024", DENSE), ("1024 masked", MASKED)],
            "attnscope", "our softmax", 1.25),
    ("PyTorch's 7 statistics / ours", "row-statistics", (DENSE, "PyTorch"), (DENSE, "attnscope"), ">=", 10),
    ("scan / (product + one exp)", "scan", (CAUSAL, "scan"), (CAUSAL, "product + exp"), "<=", 1.2, 1.25),
    ("with output / (product + exp)", "scan", (CAUSAL, "with output"), (CAUSAL, "product + exp"), "<=", 1.7),
    ("scan, window / (product + exp)", "scan", (WINDOW, "scan"), (WINDOW, "product + exp"), "<=", 1.3),
    ("PyTorch's whole layer / scan", "scan", (CAUSAL, "PyTorch"), (CAUSAL, "scan"), ">=", 15),
    ("attend / its two products", "attend", ("causal", "attend"), ("causal", "q k^T and p v alone"), "<=", 1.2),
    ("1 thread / 2, 12 heads of 1024", "scan-scaling", (SHORT, "1 thread"), (SHORT, "2 threads"), ">=", 1.8),
    ("1 thread / 2, a head of 16384", "scan-scaling", (LONG, "1 thread"), (LONG, "2 threads"), ">=", 1.8),
    ("eigenvalues / spectral norm", "spectral-norm", (DOUBLE, "dense eigenvalues"), (DOUBLE, "spectral norm"), ">=", 1e5),
    ("norm / softmax, double", "spectral-norm", (DOUBLE, "spectral norm"), (DOUBLE, "softmax of the row"), "<=", 4),
    ("norm / softmax, float", "spectral-norm", (FLOAT, "spectral norm"), (FLOAT, "softmax of the row"), "<=", 2.5),
    ("norms of softplus / softmax", "spectral-norm", (DOUBLE, "all norms, softplus"), (DOUBLE, "softmax of the row"), "<=", 60),
    ("top-k(64) / softmax, 1024", "normalizers", ("softmax|top-k(64)", "1024"), ("softmax", "1024"), "<=", 4),
    ("top-p(0.9) / softmax, 1024", "normalizers", ("softmax|top-p(0.9)", "1024"), ("softmax", "1024"), "<=", 6),
    ("precision, every N, a head: s", "selection-curves", ("precision and recall, L=1024", "all N at once"), 1e-3, "<=", 0.2),
    ("d(N), 5 N, 144 heads: s", "paper-algorithms", (FEW + ", 144 heads", "2 threads"), 0.144, "<=", 60),
    ("d(N), every N, 144 heads: s", "paper-algorithms", (EVERY + ", 144 heads", "2 threads"), 0.144, "<=", 120),
    ("PyTorch's d(N) / ours, 5 N", "paper-algorithms", (FEW + ", 1 head", "PyTorch"), (FEW + ", 1 head", "1 thread"), ">=", 10),
    ("PyTorch's d(N) / ours, every N", "paper-algorithms", (EVERY + ", 1 head", "PyTorch"), (EVERY + ", 1 head", "1 thread"), ">=", 10),
]


def figures(path):
    """{(row, contender): figure}, medians where there are repetitions."""
    result = {}
    if not path.exists() or path.stat().st_size == 0:  # nothing matched the filter
        return result
    for run in json.loads(path.read_text())["benchmarks"]:
        if run.get("aggregate_name", "median") == "median":
            row, _, contender = run["run_name"].partition("/")
            result[row, contender.split("/")[0]] = run["figure"]
    return result


def value(known, over, under):
    if isinstance(under, float):
        return known[over] * under if over in known else None
    return known[over] / known[under] if over in known and under in known else None


def main():
    folder = pathlib.Path(sys.argv[1])
    builds = [build for build in ("native", "avx2") if any(folder.glob(build + "-*.json"))]
    if not builds:
        sys.exit(f"goals.py: no figures in {folder}")
    width = max(len(goal[0]) for goal in GOALS)
    print("\n" + "goal".ljust(width), "to reach".rjust(12), *(build.rjust(16) for build in builds))
    for what, program, over, under, side, *limits in GOALS:
        cells = []
        for build in builds:
            limit = limits[-1 if build == "avx2" else 0]
            found = value(figures(folder / f"{build}-{program}.json"), over, under)
            met = found is not None and (found <= limit if side == "<=" else found >= limit)
            cells.append("-" if found is None else f"{found:.4g} {'reached' if met else 'missed'}")
        wanted = f"{side} {'; '.join(f'{limit:g}' for limit in limits)}"
        print(what.ljust(width), wanted.rjust(12), *(cell.rjust(16) for cell in cells))


main()
