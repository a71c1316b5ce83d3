// Hill numbers: how many equally weighted keys would be as concentrated, at every order.
#pragma once

#include <attnscope/row/row_statistics.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Renyi entropy of order a of p = softmax(z/T), in nats, non-increasing in a.
/// Formula. H_a = log(sum p^a)/(1-a). a = 0: log of the number of visible keys; a = 1: Shannon's entropy; a =
/// inf: -log p1. Continuous through a = 1: near it the sum is taken as E_p[p^{a-1} - 1] with expm1, so that
/// no digits are lost.
/// Special rows. NaN for rows that are not normal.
/// Cost. O(n) exponentials, no allocation.
/// Throws. `invalid_argument` unless a >= 0, and unless T > 0 and finite.
template <Real T>
Accumulator<T> renyi_entropy_nats(RowIn<T> z, double order, double temperature = 1) {
    using A = Accumulator<T>;
    detail::require(order >= 0, "renyi_entropy_nats", "order must be >= 0", order);
    const auto row = row_statistics<T>(z, temperature);
    if (!row.normal()) return row.nan();
    if (order == 0) return std::log(static_cast<A>(row.visible));
    const auto each = [&](auto&& visit) { // u of every visible key but the first of the largest
        for (Index i = 0; i < detail::size<T>(z); ++i) {
            const A key = static_cast<A>(detail::at(z, i));
            if (i != row.argmax && key != -std::numeric_limits<A>::infinity())
                visit(detail::temperatures_apart(row.max_logit, key, static_cast<A>(temperature)));
        }
    };
    // Sums of its own in A, so that all orders see the same keys, those that vanish in T too.
    A r = 0, t = 0;
    each([&](A u) {
        const A weight = std::exp(-u);
        r += weight;
        t += weight > A(0) ? u * weight : A(0);
    });
    const A log_sum = std::log1p(r); // -log p1
    if (order == 1) return log_sum + t / (1 + r);
    if (std::isinf(order)) return log_sum;
    const A a = static_cast<A>(order), delta = a - 1;
    A sum = 0;
    if (std::abs(delta) >= A(0.5)) {
        each([&](A u) { sum += std::exp(-a * u); });
        // a/delta first: a log_sum would overflow at the largest orders.
        return (a / delta) * log_sum - std::log1p(sum) / delta;
    }
    // p (p^delta - 1), as a difference where it is far from 0 and p^delta may overflow.
    const auto term = [&](A x) {
        return std::abs(delta * x) < A(1) ? std::exp(-x) * std::expm1(-delta * x)
                                          : std::exp(-a * x) - std::exp(-x);
    };
    sum = term(log_sum);
    each([&](A u) { sum += term(u + log_sum); });
    return -std::log1p(sum) / delta;
}

/// As above from any row.
template <RowLike Z>
Accumulator<RowScalar<Z>> renyi_entropy_nats(const Z& z, double order, double temperature = 1) {
    using T = RowScalar<Z>;
    const RowHolder<T> row(z);
    return renyi_entropy_nats<T>(row.get(), order, temperature);
}

/// Hill number of order 0, 1, 2, 3 or inf from the sums of a row, so that it streams.
/// Formula. Visible keys, e^H, 1/S2, S3^{-1/2}, 1/p1, in keys.
/// Special rows. NaN for rows that are not normal.
/// Cost. O(1).
/// Throws. `invalid_argument` for another order.
template <Real A>
A hill_number(const RowStatistics<A>& row, double order) {
    const bool known = order == 0 || order == 1 || order == 2 || order == 3 ||
                       order == std::numeric_limits<double>::infinity();
    detail::require(known, "hill_number", "the order must be 0, 1, 2, 3 or inf where only the sums are known",
                    order);
    if (!row.normal()) return row.nan();
    if (order == 0) return static_cast<A>(row.visible);
    if (order == 1) return std::exp(row.entropy_nats());
    if (order == 2) return row.participation_ratio();
    if (order == 3) return 1 / std::sqrt(row.power_sum_3());
    return 1 + row.r;
}

/// Hill number of order a, in keys, in [1, visible].
/// Formula. exp of the Renyi entropy; special rows, cost and errors as of `renyi_entropy_nats`.
template <RowLike Z>
Accumulator<RowScalar<Z>> hill_number(const Z& z, double order, double temperature = 1) {
    return std::exp(renyi_entropy_nats(z, order, temperature));
}

} // namespace v0_2
} // namespace attnscope
