#!/usr/bin/env python3
"""Reference values in 40 digits for tests/reference/test_tables.cpp.

    generate_tables.py > tables.hpp      writes the file (python3-mpmath)
    generate_tables.py --check FILE      status 0 if FILE is what would be written, else 1

Everything is computed from the definitions in 240 digits: weights by dividing exponentials, entropy as -sum p log p,
norms from the dense Jacobian, spectral norms from its eigenvalues (rows of up to 17 keys), and every spectral norm
of the softmax Jacobian also from its secular equation, bisected; where both exist they must agree to 50 digits.
All inputs are dyadic with at most 24 significant bits, so that float, double and long double read the same number.
"""
import itertools
import sys

from mpmath import mp, mpf

DIGITS = 40
EIGEN_DIGITS = 60  # of the matrix elements given to the eigenvalue solver
LARGEST_EIGEN = 17
LARGEST_ENUMERATION = 9
mp.dps = 240

INFINITY = float("inf")
MASKED = -INFINITY
ORDERS = [0.5, 1 - 1e-9, 1 + 1e-9, 2.0, 3.0, INFINITY]
TEMPERATURES = [0.25, 1.0, 3.0]


def noise(count, bits, scale):
    """Reproducible multiples of 2^-bits in [-scale, scale)."""
    state, result = 12345, []
    for _ in range(count):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        result.append((state >> 40) % (2 * scale * 2**bits) / 2**bits - scale)
    return result


def softmax_rows():
    yield "one key", [1.5]
    yield "two equal", [0.0, 0.0]
    yield "two, gap 1", [0.0, 1.0]
    yield "two, gap 60", [60.0, 0.0]
    yield "flat, 7", [0.0] * 7
    yield "flat at 1000, 17", [1000.0] * 17
    yield "nearly flat, 16", [i / 1024 for i in range(16)]
    yield "ramp by 1/4, 33", [i / 4 for i in range(33)]
    yield "steep ramp, 8", [7.5 * i for i in range(8)]
    for gap in (0.125, 1.0, 5.0, 16.5, 30.0, 60.0):
        yield "needle, gap %g" % gap, [-gap - (i % 4) / 8 for i in range(11)] + [0.0] + [-gap] * 4
    yield "needle, equal others, gap 20", [-20.0] * 6 + [0.0]
    yield "two on top, 60 below", [-60.0, 0.0, -60.0, 0.0, -60.0]
    yield "three on top, spread below", [0.0, -3.0, 0.0, -12.5, 0.0, -60.0, -0.5]
    yield "top two 2^-12 apart", [-2.0, 0.0, -(2.0**-12), -4.0, -4.0]
    yield "top two 2^-20 apart", [0.0, -(2.0**-20), -1.0]
    yield "needle at offset 1024", [1024.0 + x for x in [0.0, -9.0, -9.25, -10.0, -30.0]]
    yield "masked keys", [MASKED, 2.5, MASKED, MASKED, -1.0, 0.75, MASKED, 2.25, -7.0]
    yield "masked but one", [MASKED, MASKED, -3.0]
    yield "noise, 64", noise(64, 6, 4)
    yield "wide noise, 257", noise(257, 4, 30)


def pointwise_rows():
    yield "one key", [0.5]
    yield "two equal", [0.0, 0.0]
    yield "two apart", [-1.0, 2.0]
    yield "ramp through 0", [i / 2 - 2 for i in range(9)]
    yield "far below", [-30.0, -31.5, -29.75, -60.0]
    yield "far above", [60.0, 3.0, 2.0]
    yield "ties", [1.0, 1.0, -1.0, -1.0, 1.0]
    yield "needle", [0.25, 24.0, -0.5, 0.125, 0.0, -8.0]
    yield "masked keys", [MASKED, 2.5, -1.0, MASKED, 0.75]
    yield "noise, 8", noise(8, 6, 4)


def row_pairs():
    """Rows over the same keys: equal, near, moved as a whole, far apart, with keys that only one of them has."""
    z = noise(64, 6, 4)
    yield "equal", z, z
    for bits in (20, 14, 8, 4, 1):
        yield "noise moved by 2^-%d, 64" % bits, z, [x + s * 2.0**-bits for x, s in zip(z, noise(64, 0, 2))]
    yield "one key moved, 64", z, z[:40] + [z[40] + 0.25] + z[41:]
    yield "offset and a move of 2^-12, 5", [1024.0, 1015.0, 1014.75, 1014.0, 1022.0], [0.0, -9.0, -9.25, -10.0 - 2.0**-12, -2.0]
    yield "needle lower, 8", [0.0] + [-20.0 - i / 4 for i in range(7)], [0.0] + [-19.0 - i / 8 for i in range(7)]
    yield "best key changes", [4.0, 0.0, 1.0, -2.0], [0.0, 4.0, 1.0, -2.0]
    yield "reversed ramp, 33", [i / 4 for i in range(33)], [8 - i / 4 for i in range(33)]
    yield "far apart", [0.0, -60.0, 2.0], [-60.0, 0.0, -61.5]
    yield "wide noise, 64", noise(64, 4, 30), noise(128, 4, 30)[64:]
    yield "flat and needle", [0.0] * 16, [30.0] + [0.0] * 15
    yield "masked in both", [MASKED, 1.0, MASKED, 0.5], [MASKED, 0.75, MASKED, 1.5]
    yield "the second hides a key", [1.0, 0.0, -1.0], [1.0, MASKED, -1.5]
    yield "the first hides the best key", [MASKED, 0.0, -1.0], [3.0, 0.25, -1.0]
    yield "no common key", [1.0, MASKED, 0.5, MASKED], [MASKED, 0.0, MASKED, -2.0]


FUNCTIONS = {
    "exp": (mp.exp, mp.exp),
    "sigmoid": (lambda z: 1 / (1 + mp.exp(-z)), lambda z: mp.exp(-z) / (1 + mp.exp(-z)) ** 2),
    "softplus": (lambda z: mp.log(1 + mp.exp(z)), lambda z: 1 / (1 + mp.exp(-z))),
    "quadratic": (lambda z: z * z + 1, lambda z: 2 * z),
}


def largest_eigenvalue(matrix):
    """Of a symmetric matrix, divided by its largest element first: rows near one-hot are tiny."""
    scale = max(abs(x) for x in matrix)
    if scale == 0:
        return mpf(0)
    with mp.workdps(EIGEN_DIGITS + 20):
        return max(mp.eigsy(matrix / scale, eigvals_only=True)) * scale


def secular_root(p):
    """Largest eigenvalue of diag(p) - p p^T by bisection."""
    s = sorted(p, reverse=True)
    if len(s) == 1:
        return mpf(0)
    if s[0] == s[1]:
        return s[0]
    low, high = s[1], s[0]
    while high - low > high * mpf(10) ** -70:
        x = (low + high) / 2
        if s[0] / (s[0] - x) < mp.fsum(t / (x - t) for t in s[1:]):
            low = x
        else:
            high = x
    return (low + high) / 2


def signs(n):
    return itertools.product((1, -1), repeat=n - 1)  # the last sign is 1: J(-v) = -Jv


def norms(jacobian):
    """max entry, largest column 2-norm, Frobenius, 1->1, inf->inf, inf->1 (0: not enumerated)."""
    n = jacobian.rows
    entries = [[jacobian[i, j] for j in range(n)] for i in range(n)]
    column = max(mp.sqrt(mp.fsum(entries[i][j] ** 2 for i in range(n))) for j in range(n))
    frobenius = mp.sqrt(mp.fsum(x * x for row in entries for x in row))
    one = max(mp.fsum(abs(entries[i][j]) for i in range(n)) for j in range(n))
    infinity = max(mp.fsum(abs(x) for x in row) for row in entries)
    infinity_to_one = mpf(0)
    if n <= LARGEST_ENUMERATION:
        for v in signs(n):
            v = (*v, 1)
            total = mp.fsum(abs(mp.fsum(a * b for a, b in zip(row, v))) for row in entries)
            infinity_to_one = max(infinity_to_one, total)
    return [max(abs(x) for row in entries for x in row), column, frobenius, one, infinity, infinity_to_one]


def renyi(p, order):
    if order == INFINITY:
        return -mp.log(max(p))
    a = mpf(order)
    return mp.log(mp.fsum(x**a for x in p)) / (1 - a)


def text(x):
    if isinstance(x, float):
        if abs(x) == INFINITY:
            return "infinity" if x > 0 else "-infinity"
        return repr(x)
    return mp.nstr(x, DIGITS, strip_zeros=True) + "L"


def numbers(values, indent="    "):
    lines, line = [], indent
    for value in values:
        item = text(value) + ", "
        if len(line) + len(item) > 160:
            lines.append(line.rstrip())
            line = indent
        line += item
    lines.append(line.rstrip().rstrip(","))
    return "\n".join(lines)


def aggregate(items):
    return "{" + ", ".join(items) + "}"


def listing(values):
    return aggregate([text(v) for v in values])


def quoted(s):
    return '"' + s + '"'


def product_vector(n):
    return [1.25 + (i % 3) / 2 for i in range(n)]


def softmax_cases(out):
    cases, logits, weights, products = [], [], [], []
    for name, z in softmax_rows():
        logits_begin = len(logits)
        logits += z
        visible = [x for x in z if x != MASKED]
        for temperature in TEMPERATURES:
            u = [mpf(x) / mpf(temperature) for x in visible]
            total = mp.fsum(mp.exp(x) for x in u)
            p = [mp.exp(x) / total for x in u]
            n = len(p)
            rest = iter(p)
            row = [mpf(0) if x == MASKED else next(rest) for x in z]
            weights_begin = len(weights)
            weights += row
            v = [mpf(x) for x in product_vector(len(z))]
            products += [a * mp.fsum(b * (v[i] - v[j]) for j, b in enumerate(row)) / mpf(temperature)
                         for i, a in enumerate(row)]
            ordered = sorted(p, reverse=True)
            s2, s3 = mp.fsum(x * x for x in p), mp.fsum(x**3 for x in p)
            mean = mp.fsum(a * mpf(b) for a, b in zip(p, visible))
            variance = mp.fsum(a * (mpf(b) - mean) ** 2 for a, b in zip(p, visible))
            jacobian = mp.matrix(n, n)
            for i in range(n):
                for j in range(n):
                    jacobian[i, j] = ((p[i] if i == j else 0) - p[i] * p[j]) / mpf(temperature)
            spectral = secular_root(p) / mpf(temperature)
            if n <= LARGEST_EIGEN:
                eigenvalue = largest_eigenvalue(jacobian)
                assert abs(eigenvalue - spectral) <= spectral * mpf(10) ** -50, (name, temperature)
            average = mp.fsum(u) / n
            centred = mp.sqrt(mp.fsum((x - average) ** 2 for x in u))
            fields = [mp.log(total), -mp.fsum(x * mp.log(x) for x in p), ordered[0],
                      ordered[1] if n > 1 else mpf(0), 1 - ordered[0], s2, 1 - s2, s3, 1 / s2, mean, variance, centred]
            cases.append(aggregate([quoted(name), str(logits_begin), str(weights_begin), str(len(z)), text(temperature)]
                                   + [text(f) for f in fields]
                                   + [listing(renyi(p, a) for a in ORDERS), text(spectral), listing(norms(jacobian))]))
    out.append("inline const double softmax_logits[] = {\n" + numbers(logits) + "};\n")
    out.append("inline const long double softmax_weights[] = {\n" + numbers(weights) + "};\n")
    out.append("/// J v, at the places of the weights, of v_i = 5/4 + (i mod 3)/2.\n"
               "inline const long double softmax_products[] = {\n" + numbers(products) + "};\n")
    out.append("inline const SoftmaxCase softmax_cases[] = {\n    " + ",\n    ".join(cases) + "};\n")


def pointwise_cases(out):
    cases, logits, weights = [], [], []
    for name, z in pointwise_rows():
        logits_begin = len(logits)
        logits += z
        visible = [mpf(x) for x in z if x != MASKED]
        n = len(visible)
        for function, (f, derivative) in FUNCTIONS.items():
            values = [f(x) for x in visible]
            total = mp.fsum(values)
            p = [x / total for x in values]
            g = [derivative(x) / total for x in visible]
            rest = iter(p)
            row = [mpf(0) if x == MASKED else next(rest) for x in z]
            weights_begin = len(weights)
            weights += row
            jacobian = mp.matrix(n, n)
            for i in range(n):
                for j in range(n):
                    jacobian[i, j] = ((1 if i == j else 0) - p[i]) * g[j]
            gram = jacobian.T * jacobian
            spectral = mp.sqrt(largest_eigenvalue(gram))
            cases.append(aggregate([quoted(name), quoted(function), str(logits_begin), str(weights_begin), str(len(z)),
                                    text(mp.log(total)), text(spectral), listing(norms(jacobian))]))
    out.append("inline const double pointwise_logits[] = {\n" + numbers(logits) + "};\n")
    out.append("inline const long double pointwise_weights[] = {\n" + numbers(weights) + "};\n")
    out.append("inline const PointwiseCase pointwise_cases[] = {\n    " + ",\n    ".join(cases) + "};\n")


def diagonal_cases(out):
    """Largest eigenvalue of diag(s) - s s^T/S for vectors that do not sum to 1."""
    vectors = [
        ("pair", [3.0, 1.0]),
        ("powers of 2", [2.0**-i for i in range(12)]),
        ("one and dust", [1.0] + [2.0**-100] * 5),
        ("dust of many sizes", [2.0**-20, 1.0, 2.0**-60, 2.0**-110, 2.0**-60]),
        ("top two adjacent", [1.0, 1.0 - 2.0**-24, 0.5]),
        ("top two 2^-12 apart", [1.0, 1.0 - 2.0**-12, 2.0**-30]),
        ("support of 5", [1.0] * 5 + [0.0] * 3),
        ("zeros and one", [0.0, 2.0, 0.0]),
        ("integers", [float(i) for i in range(1, 18)]),
        ("large", [2.0**90, 2.0**89, 3 * 2.0**70]),
    ]
    cases, elements = [], []
    for name, s in vectors:
        begin = len(elements)
        elements += s
        total = mp.fsum(s)
        matrix = mp.matrix(len(s), len(s))
        for i, a in enumerate(s):
            for j, b in enumerate(s):
                matrix[i, j] = (mpf(a) if i == j else 0) - mpf(a) * mpf(b) / total
        cases.append(aggregate([quoted(name), str(begin), str(len(s)), text(largest_eigenvalue(matrix))]))
    out.append("inline const double diagonal_elements[] = {\n" + numbers(elements) + "};\n")
    out.append("inline const DiagonalCase diagonal_cases[] = {\n    " + ",\n    ".join(cases) + "};\n")


def divergence_cases(out):
    cases, logits = [], []
    for name, a, b in row_pairs():
        begin = len(logits)
        logits += a + b
        for temperature in TEMPERATURES:
            p, q = ([mpf(0) if x == MASKED else mp.exp(mpf(x) / mpf(temperature)) for x in row] for row in (a, b))
            p, q = ([x / mp.fsum(row) for x in row] for row in (p, q))
            m = [(x + y) / 2 for x, y in zip(p, q)]

            def kl(x, y):
                if any(u > 0 and v == 0 for u, v in zip(x, y)):
                    return INFINITY
                return mp.fsum(u * mp.log(u / v) for u, v in zip(x, y) if u > 0)

            cases.append(aggregate([quoted(name), str(begin), str(len(a)), text(temperature),
                                    text(mp.fsum(abs(x - y) for x, y in zip(p, q)) / 2), text(kl(p, q)),
                                    text(kl(q, p)), text((kl(p, m) + kl(q, m)) / 2)]))
    out.append("/// Of each case first the one row, then the other.\n"
               "inline const double divergence_logits[] = {\n" + numbers(logits) + "};\n")
    out.append("inline const DivergenceCase divergence_cases[] = {\n    " + ",\n    ".join(cases) + "};\n")


def write_table(out, kind, name, rows):
    out.append("inline const %s %s[] = {\n    " % (kind, name)
               + ",\n    ".join(aggregate([str(x) if isinstance(x, int) else text(x) for x in row]) for row in rows)
               + "};\n")


def planner_cases(out):
    rows = []
    for n in (1, 2, 7, 1000, 2**20):
        for log_kappa in (0.0, 2.0**-10, 1.0, 8.5, 60.0):
            kappa = mp.exp(mpf(log_kappa))
            rows.append([n, log_kappa, 1 / (kappa * n), kappa / n, 1 / (1 + (n - 1) * kappa), 1 / (1 + (n - 1) / kappa)])
    write_table(out, "WeightRangeCase", "weight_range_cases", rows)

    rows = []
    for n in (1, 2, 3, 17, 256):
        for size in (0.0, 2.0**-6, 1.0, 4.0, 16.0, 60.0):
            s = mpf(size)
            if n == 1:
                by_norm = by_range = mpf(0)
            else:
                b = mp.exp(-s * mp.sqrt(mpf(n) / (n - 1)))
                by_norm = mp.log(1 + (n - 1) * b) + s * mp.sqrt(mpf(n) * (n - 1)) * b / (1 + (n - 1) * b)
                by_range = min(
                    mp.log(k + (n - k) * mp.exp(-s)) + (n - k) * s * mp.exp(-s) / (k + (n - k) * mp.exp(-s))
                    for k in range(1, n))
            rows.append([n, size, by_norm, by_range])
    write_table(out, "EntropyFloorCase", "entropy_floor_cases", rows)

    rows = []
    for n in (2, 3, 1000):
        for remainder in (2.0**-80, 2.0**-30, 2.0**-8, 0.25, 0.5, 0.625):
            if 1 - remainder < 1 / n:
                continue
            x = mpf(remainder)
            most = mp.floor(1 / (1 - x))  # keys that can hold the largest weight; one more holds what is left
            left = 1 - most * (1 - x)
            lower = -most * (1 - x) * mp.log(1 - x) - (left * mp.log(left) if left > 0 else 0)
            upper = -(1 - x) * mp.log(1 - x) - x * mp.log(x) + x * mp.log(n - 1)
            rows.append([n, remainder, lower, upper])
    write_table(out, "EntropyRangeCase", "entropy_range_cases", rows)

    rows = []
    for n in (2, 3, 1024, 2**20):
        for temperature in TEMPERATURES:
            for spread in (0.5, 4.0, 16.0):
                for tau in (0.0625, 0.25, 0.75, 1 - 2.0**-10):
                    d, t, w = mpf(spread), mpf(temperature), mpf(tau)
                    needs = w * n > 1
                    odds = mp.log((n - 1) * w / (1 - w)) if needs else None
                    rows.append([n, temperature, spread, tau, 1 + mp.exp(d / t) * (1 - w) / w,
                                 d / odds if needs else INFINITY, t * odds if needs else mpf(0)])
    write_table(out, "CapacityCase", "capacity_cases", rows)


HEADER = """// Generated by generate_tables.py, which says how. Do not edit.
// clang-format off
#pragma once

#include <array>
#include <limits>

namespace attnscope_reference {

inline constexpr double infinity = std::numeric_limits<double>::infinity();

/// Orders of the Renyi entropies below.
inline constexpr std::array<double, 6> renyi_orders = %s;

/// infinity_to_one is 0 where the row is too long to enumerate.
struct Norms { long double max_entry, column, frobenius, one, infinity, infinity_to_one; };

struct SoftmaxCase {
    const char* name;
    int logits_begin, weights_begin, size;
    double temperature;
    long double log_sum_exp, entropy, max_weight, second_weight, rest, power_sum_2, one_minus_power_sum_2, power_sum_3;
    long double participation_ratio, mean_logit, logit_variance, centred_norm;
    std::array<long double, 6> renyi;
    long double spectral;
    Norms norms;
};

struct PointwiseCase {
    const char* name;
    const char* function;
    int logits_begin, weights_begin, size;
    long double log_sum_exp, spectral;
    Norms norms;
};

struct DivergenceCase {
    const char* name;
    int begin, size;
    double temperature;
    long double total_variation, forward, backward, jensen_shannon;
};

struct DiagonalCase { const char* name; int begin, size; long double largest_eigenvalue; };
struct WeightRangeCase { int n; double log_kappa; long double published_lower, published_upper, lower, upper; };
struct EntropyFloorCase { int n; double size; long double by_norm, by_range; };
struct EntropyRangeCase { int n; double rest; long double lower, upper; };
struct CapacityCase { int n; double temperature, spread, tau; long double context, highest_temperature, needed_spread; };
"""


def tables():
    out = [HEADER % listing(ORDERS)]
    softmax_cases(out)
    pointwise_cases(out)
    diagonal_cases(out)
    divergence_cases(out)
    planner_cases(out)
    out.append("} // namespace attnscope_reference")
    return "\n".join(out) + "\n"


def main(arguments):
    if not arguments:
        sys.stdout.write(tables())
        return 0
    if len(arguments) == 2 and arguments[0] == "--check":
        with open(arguments[1], encoding="ascii") as file:
            same = file.read() == tables()
        if not same:
            print(arguments[1] + " is not what generate_tables.py writes", file=sys.stderr)
        return 0 if same else 1
    print(__doc__, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
