// A point of the search, read as the numbers that a statement is about, in any precision.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <span>
#include <vector>

namespace attack {

/// Coordinates of the search in order, within +-1000; beyond the last they are 0. So are those whose fourth powers
/// would leave the range of double: the library squares its lengths, the formulas are held against it.
class Point {
public:
    Point(std::span<const double> x, std::size_t size) : x_(x), size_(size) {}

    /// Keys, or what a statement calls its length.
    std::size_t size() const { return size_; }
    double next() {
        const double x = at_ < x_.size() ? std::clamp(x_[at_++], -1e3, 1e3) : 0;
        return std::abs(x) < 1e-75 ? 0 : x;
    }
    template <class S>
    S real() {
        return S(next());
    }
    template <class S>
    S positive() {
        using std::exp;
        return exp(S(std::clamp(next(), -40.0, 40.0)));
    }
    template <class S>
    S share() {
        return S(std::clamp(next(), 0.0, 1.0));
    }
    int integer(int low, int high) {
        const double x = std::abs(next());
        return low + static_cast<int>(std::fmod(std::min(x, 1e6) * 7, static_cast<double>(high - low + 1)));
    }
    template <class S>
    std::vector<S> reals(std::size_t n) {
        std::vector<S> values;
        for (std::size_t i = 0; i < n; ++i) values.push_back(real<S>());
        return values;
    }
    template <class S>
    std::vector<S> positives(std::size_t n) {
        std::vector<S> values;
        for (std::size_t i = 0; i < n; ++i) values.push_back(positive<S>());
        return values;
    }

private:
    std::span<const double> x_;
    std::size_t size_, at_ = 0;
};

/// One side of a statement at a point.
template <class S>
struct Sides {
    S measured, limit;
    bool upper; ///< measured <= limit, else >=
    S size;     ///< of the numbers that both sides are made of: rounding is counted in units of it

    /// Above 1 where it is violated by more than rounding, 0 where it says nothing. factor: moves the limit.
    S ratio(S factor = S(1)) const {
        const S small = upper ? measured : limit / factor, large = upper ? limit * factor : measured;
        const bool rounded = std::numeric_limits<S>::digits10 < 40;
        if (small > large && small - large <= (rounded ? S(1e-15) : S(1e-40)) * size) return S(1);
        if (small == large) return S(small > 0 ? 1 : 0);
        if (!(large > 0)) return S(small > large ? 2 : 0);
        return small > 0 ? S(small / large) : S(0);
    }
};

template <class S>
Sides<S> at_most(const S& measured, const S& limit, const S& size = S(1)) {
    return {measured, limit, true, size};
}
template <class S>
Sides<S> at_least(const S& measured, const S& limit, const S& size = S(1)) {
    return {measured, limit, false, size};
}

// ---- what statements are made of ------------------------------------------------------------------------

template <class S>
S sum(const std::vector<S>& x) {
    S total(0);
    for (const S& value : x) total += value;
    return total;
}
template <class S>
S largest(const std::vector<S>& x) {
    return *std::max_element(x.begin(), x.end());
}
template <class S>
S smallest(const std::vector<S>& x) {
    return *std::min_element(x.begin(), x.end());
}
template <class S>
S range(const std::vector<S>& x) {
    return largest(x) - smallest(x);
}
template <class S>
S length(const std::vector<S>& x) {
    using std::sqrt;
    S total(0);
    for (const S& value : x) total += value * value;
    return sqrt(total);
}
template <class S>
std::vector<S> softmax(std::vector<S> z) {
    using std::exp;
    const S top = largest(z);
    for (S& value : z) value = exp(S(value - top));
    const S total = sum(z);
    for (S& value : z) value /= total;
    return z;
}
template <class S>
std::vector<S> descending(std::vector<S> x) {
    std::sort(x.begin(), x.end(), [](const S& a, const S& b) { return a > b; });
    return x;
}
template <class S>
S total_variation(const std::vector<S>& p, const std::vector<S>& q) {
    using std::abs;
    S total(0);
    for (std::size_t i = 0; i < p.size(); ++i) total += abs(S(p[i] - q[i]));
    return total / 2;
}
/// The sum of all but the largest, so that little keeps its digits beside much.
template <class S>
S rest_of(const std::vector<S>& x) {
    const std::vector<S> sorted = descending(x);
    S total(0);
    for (std::size_t i = sorted.size(); i-- > 1;) total += sorted[i];
    return total;
}
template <class S>
S longest(const std::vector<std::vector<S>>& vectors) {
    S most(0);
    for (const auto& vector : vectors) most = std::max(most, length(vector));
    return most;
}
template <class S>
S entropy(const std::vector<S>& p) {
    using std::log;
    S total(0);
    for (const S& w : p)
        if (w > 0) total -= w * log(w);
    return total;
}

/// Largest eigenvalue of diag(s) - s s^T/sum s by bisection of its secular equation.
template <class S>
S diagonal_norm(const std::vector<S>& unsorted) {
    const std::vector<S> s = descending(unsorted);
    if (s.size() < 2) return S(0);
    S low = s[1], high = s[0];
    for (int step = 0; step < 4 * std::numeric_limits<S>::digits && low < high; ++step) {
        const S x = (low + high) / 2;
        if (x == low || x == high) break;
        S others(0);
        for (std::size_t j = 1; j < s.size(); ++j) others += s[j] / (x - s[j]);
        (s[0] / (s[0] - x) < others ? low : high) = x;
    }
    return low;
}

/// A matrix by rows.
template <class S>
using Rows = std::vector<std::vector<S>>;

template <class S>
std::vector<S> times(const Rows<S>& a, const std::vector<S>& x) {
    std::vector<S> y;
    for (const auto& row : a) {
        S total(0);
        for (std::size_t j = 0; j < x.size(); ++j) total += row[j] * x[j];
        y.push_back(total);
    }
    return y;
}
template <class S>
Rows<S> transposed(const Rows<S>& a) {
    Rows<S> b(a.front().size(), std::vector<S>(a.size(), S(0)));
    for (std::size_t i = 0; i < a.size(); ++i)
        for (std::size_t j = 0; j < b.size(); ++j) b[j][i] = a[i][j];
    return b;
}

/// Spectral norm from below, by power steps.
template <class S>
S spectral_norm(const Rows<S>& a, int steps = 40) {
    const Rows<S> b = transposed(a);
    std::vector<S> x;
    for (std::size_t j = 0; j < b.size(); ++j) x.push_back(S(j + 1) / S(b.size()) - S(j % 2 == 0 ? 1 : 2));
    S best(0);
    for (int step = 0; step < steps; ++step) {
        const S size = length(x);
        if (!(size > 0)) break;
        for (S& value : x) value /= size;
        const std::vector<S> y = times(a, x);
        best = std::max(best, length(y));
        x = times(b, y);
    }
    return best;
}

/// Spectral norm of a matrix of entries >= 0 from above: max_j (A^T A w)_j / w_j for any w > 0.
template <class S>
S nonnegative_norm(const Rows<S>& a, int steps = 40) {
    using std::sqrt;
    const Rows<S> b = transposed(a);
    std::vector<S> w(b.size(), S(1));
    S best(std::numeric_limits<double>::max());
    for (int step = 0; step < steps; ++step) {
        const std::vector<S> next = times(b, times(a, w));
        S most(0), top(0);
        for (std::size_t j = 0; j < w.size(); ++j) {
            most = std::max(most, S(next[j] / w[j]));
            top = std::max(top, next[j]);
        }
        best = std::min(best, most);
        if (!(top > 0)) break;
        for (std::size_t j = 0; j < w.size(); ++j) w[j] = next[j] / top + S(1e-9);
    }
    return sqrt(best);
}

} // namespace attack
