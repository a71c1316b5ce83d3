// Largest eigenvalue of A = diag(s) - s s^T / S in O(n): the spectral norm of the Jacobian of softmax and its
// kin.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/detail/lanes.hpp>

namespace attnscope {
inline namespace v0_2 {

/// A norm with what is certain about it. `bracket` holds without iteration; `value` lies in it.
template <Real A>
struct SpectralNorm {
    A value = std::numeric_limits<A>::quiet_NaN();
    Interval<A> bracket{std::numeric_limits<A>::quiet_NaN(), std::numeric_limits<A>::quiet_NaN()};
    int steps = 0;         ///< iterations taken
    bool converged = true; ///< false: the iteration stopped at its limit; `bracket` still holds
    A residual = 0;        ///< |J^T J v - sigma^2 v|/sigma^2 where v was iterated; 0 where the value is a root
};

/// Bracket of lambda_max(diag(s) - s s^T/S) from sums. It streams and merges.
/// Formula. (s1/S)(R+m) <= lambda <= min((s1/S)(R+s2), s1), lambda >= s2.
/// Shapes and units. s1 >= s2 the largest entries, `others`: R = sum_{j>=2} s_j (added up, not subtracted),
/// `mean`: m = sum_{j>=2} s_j^2/R.
/// Special rows. 0 where R is 0 or NaN.
/// Cost. O(1).
template <Number X, Number Y, Number R, Number M, Real A = Promoted<X, Y, R, M>>
Interval<A> spectral_norm_bracket(X largest, Y second, R others, M mean) {
    const A s1(largest), s2(second), rest(others), rest_mean(mean);
    if (!(rest > A(0))) return {A(0), A(0)};
    const A share = s1 / (s1 + rest);
    const A lower = std::max(share * (rest + rest_mean), s2);
    return {lower, std::max(lower, std::min(share * (rest + s2), s1))};
}

/// lambda_max of diag(s) - s s^T/S for s >= 0: T |J|_2 of softmax where s = p.
/// Formula. S = extra + sum s; `extra` >= 0 is the mass of a sink that is no key. The root of s1/(s1-x) =
/// sum_{j>=2} s_j/(x-s_j) on (s2, s1) by the one-pole iteration from below: monotone, a few steps. Relative
/// error a few units of T, near one-hot rows included.
/// Shapes and units. `tolerance`: stop as soon as the bracket is relatively narrower.
/// Special rows. Zero for n < 2 or a single positive entry, unless there is extra mass; NaN if an entry is
/// NaN.
/// Cost. O(n) a step, no allocation.
template <Real T>
SpectralNorm<T> diagonal_minus_rank_one_norm(RowIn<T> s, T tolerance = T(0), T extra = T(0)) {
    using A = Accumulator<T>;
    using P = detail::Packet<T>;
    constexpr int max_steps = 100;
    SpectralNorm<T> result;
    const T s1 = detail::row_max<T>(s);
    const std::size_t index = detail::first_not_below<T>(s, s1);
    if (index == s.size()) { // empty, or NaN
        if (s.empty()) result.value = T(0), result.bracket = {T(0), T(0)};
        return result;
    }
    const std::array<RowIn<T>, 2> others = {s.subspan(0, index), s.subspan(index + 1)};
    T s2 = T(0);
    for (const RowIn<T> part : others)
        if (!part.empty()) s2 = std::max(s2, detail::row_max<T>(part));
    // Squares are taken relative to s2: those of a sharp row underflow.
    const P unit = s2 > T(0) ? std::min(1 / s2, std::numeric_limits<T>::max()) : T(0);
    A rest = A(extra), squares = 0;
    for (const RowIn<T> part : others) {
        const auto sums = detail::sum_lanes<T, 2>(detail::size<T>(part), [&](const auto& lane) {
            const P x = lane(part.data(), T(0));
            return detail::Packets<T, 2>{{x, x * (x * unit)}};
        });
        rest += sums[0];
        squares += sums[1];
    }
    if (!(rest == rest)) return result;
    const auto mean = rest > 0 ? A(s2) * (squares / rest) : rest;
    result.bracket = spectral_norm_bracket<T>(s1, s2, static_cast<T>(rest), static_cast<T>(mean));
    result.value = result.bracket.lower;
    if (!(rest > 0)) return result;

    T x = std::max(result.bracket.lower, s2 > T(0) ? 2 * s1 * (s2 / (s1 + s2)) : T(0));
    result.value = std::min(x, result.bracket.upper);
    // The next number above s2 is already a root to rounding when s1 and s2 meet.
    if (s1 - s2 <= 4 * std::numeric_limits<T>::epsilon() * s1) {
        result.value = s1 > result.bracket.upper ? result.bracket.upper : s1;
        return result;
    }
    if (result.bracket.upper - result.bracket.lower <= tolerance * result.bracket.upper) return result;
    result.converged = false;
    const T small_step = std::sqrt(std::numeric_limits<T>::epsilon() / 2);
    while (result.steps < max_steps) {
        ++result.steps;
        // phi = sum s_j/(x - s_j) and chi = -x phi' = sum s_j x/(x - s_j)^2, one division a key.
        const P at_x = x, inverse = 1 / x;
        // The extra mass has its pole at 0.
        A phi = A(extra / x), chi = phi;
        for (const RowIn<T> part : others) {
            const auto sums = detail::sum_lanes<T, 2>(detail::size<T>(part), [&](const auto& lane) {
                const P entry = lane(part.data(), T(0));
                const P ratio = at_x / (at_x - entry);
                const P term = (entry * inverse) * ratio;
                return detail::Packets<T, 2>{{term, term * ratio}};
            });
            phi += sums[0];
            chi += sums[1];
        }
        // Model phi(x) ~ R/(x - c) through value and slope; its crossing with s1/(s1-x) is the next x.
        const A w = A(x) * (phi / chi);
        const A r = phi * w;
        const T next = static_cast<T>(A(s1) * (r + (A(x) - w)) / (A(s1) + r));
        if (!(next > x)) {
            result.converged = true;
            break;
        }
        // The model is wrong by phi (step/(x - s2))^2/4 at most, what it leaves of x by as much.
        const bool last = next - x <= small_step * (x - s2);
        x = next;
        if (last) {
            result.converged = true;
            break;
        }
    }
    result.value = std::clamp(x, result.bracket.lower, result.bracket.upper);
    return result;
}

/// As above from any row.
template <RowLike S>
SpectralNorm<RowScalar<S>> diagonal_minus_rank_one_norm(const S& s, RowScalar<S> tolerance = 0,
                                                        RowScalar<S> extra = 0) {
    using T = RowScalar<S>;
    const RowHolder<T> row(s);
    return diagonal_minus_rank_one_norm<T>(row.get(), tolerance, extra);
}

} // namespace v0_2
} // namespace attnscope
