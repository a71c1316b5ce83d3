// What an error of the logits does to the weights, at most: from its range alone.
//
// delta_i = (z'_i - z_i)/T over the visible keys, r = max delta - min delta. A shift of all logits changes
// nothing, so that only r counts.
#pragma once

#include <attnscope/bound.hpp>

#include <array>
#include <cmath>

namespace attnscope {
inline namespace v0_1 {

/// Largest total variation distance of softmax weights whose logits differ by a range r >= 0: tanh(r/4).
/// Attained by two keys with gap r/2 that change places. Throws `invalid_argument` unless r >= 0.
template <Real A>
A total_variation_limit(A range) {
    detail::require(range >= A(0), "total_variation_limit", "range must be >= 0", range);
    return std::tanh(range / 4);
}

/// Largest KL(p|p') = log E_p e^delta - E_p delta, in nats, and by symmetry KL(p'|p): with h = r/2
///     log(sinh h/h) + h coth h - 1 <= r^2/8.
/// For a given mean of delta the two levels min and max are worst, and the worst share of the upper one is
/// theta =
/// ((e^r - 1)/r - 1)/(e^r - 1), where it is attained. The form r^2/8 that is usually quoted is its limit for
/// small r and far too large for large ones (r - log r - 1). Relative error a few units; +inf for r = +inf.
/// Throws `invalid_argument` unless r >= 0.
template <Real A>
A kl_limit(A range) {
    detail::require(range >= A(0), "kl_limit", "range must be >= 0", range);
    const A h = range / 2;
    if (h < A(0.5)) {
        // sum_k (2k+1)/(2k) 2^{2k} B_{2k} h^{2k}/(2k)!: what cancels in the closed form is left out.
        constexpr std::array<long double, 12> bernoulli = {
            1.0L / 6, -1.0L / 30,     1.0L / 42,      -1.0L / 30,       5.0L / 66,       -691.0L / 2730,
            7.0L / 6, -3617.0L / 510, 43867.0L / 798, -174611.0L / 330, 854513.0L / 138, -236364091.0L / 2730};
        A sum = 0, power = 1; // (2h)^{2k}/(2k)!
        for (std::size_t k = 1; k <= bernoulli.size(); ++k) {
            const A twice = static_cast<A>(2 * k);
            power *= 4 * h * h / (twice * (twice - 1));
            sum += (twice + 1) / twice * static_cast<A>(bernoulli[k - 1]) * power;
        }
        return sum;
    }
    if (std::isinf(h)) return h;
    // log sinh h = h + log((1 - e^{-2h})/2), h coth h = h + 2h/(e^{2h} - 1).
    const A tail = -std::expm1(-2 * h);
    return 2 * h - 1 + std::log(tail / (2 * h)) + 2 * h * std::exp(-2 * h) / tail;
}

/// Share of the upper of two levels r apart at which `kl_limit` is attained: 1/2 as r -> 0, about 1/r for large
/// r.
template <Real A>
A kl_worst_share(A range) {
    detail::require(range >= A(0), "kl_worst_share", "range must be >= 0", range);
    if (range < A(1e-4)) return A(0.5) - range / 12; // 1/r - 1/(e^r - 1), to r^3/720
    return 1 / range - 1 / std::expm1(range);
}

/// What a logit error of range r = `range` did to a softmax row, and what it may do at most.
template <Real A>
struct Perturbation {
    A range = 0;
    A total_variation = 0; ///< measured, in weights
    A kl = 0;              ///< measured, in nats: the larger of KL(p|p') and KL(p'|p)
    A output_change = 0;   ///< measured |o' - o|, 0 without values
    A diameter = 0;        ///< of the visible values, or an upper bound on it
    A gap = 0;             ///< (z_(1) - z_(2))/T before; +inf for one key
    A gap_after = 0; ///< (z'_a - max_{j != a} z'_j)/T of the same key a: < 0 if it is no longer the largest
};

/// Bound "perturbation_tv": TV(p, p') <= tanh(r/4). error: absolute, of the measured figure; range_error:
/// absolute, of r.
template <Real A>
Bound<A> perturbation_tv_sharp(const Perturbation<A>& row, A error, A range_error) {
    const A limit = total_variation_limit(row.range);
    return {"perturbation_tv",
            Side::upper,
            limit,
            row.total_variation,
            error + range_error / 4 + 4 * std::numeric_limits<A>::epsilon() * limit,
            A(1)};
}

/// Bound "perturbation_kl": both directions <= `kl_limit`. d kl_limit/dr <= min(r/4, 1).
template <Real A>
Bound<A> perturbation_kl_sharp(const Perturbation<A>& row, A error, A range_error) {
    const A limit = kl_limit(row.range);
    return {"perturbation_kl",
            Side::upper,
            limit,
            row.kl,
            error + range_error * std::min(A(1), (row.range + range_error) / 4) +
                16 * std::numeric_limits<A>::epsilon() * (limit + row.kl),
            row.range}; // |log p'/p| <= r
}

/// Bound "perturbation_output": |o' - o| <= diam(V) tanh(r/4).
template <Real A>
Bound<A> perturbation_output_sharp(const Perturbation<A>& row, A error, A range_error) {
    const A limit = row.diameter * total_variation_limit(row.range);
    return {"perturbation_output",
            Side::upper,
            limit,
            row.output_change,
            error + row.diameter * range_error / 4 + 8 * std::numeric_limits<A>::epsilon() * limit,
            row.diameter};
}

/// Bound "perturbation_gap": the gap between the largest logit and the next falls by at most r, so that a gap >
/// r keeps the key where the row points. The limit is gap - r and may be negative, where it promises nothing
/// (`vacuous`).
template <Real A>
Bound<A> perturbation_gap_sharp(const Perturbation<A>& row, A error) {
    const A limit = row.gap - row.range;
    return {"perturbation_gap", Side::lower, limit, row.gap_after, error, A(0)};
}

} // namespace v0_1
} // namespace attnscope
