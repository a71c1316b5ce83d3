// How many keys must a row keep?
#pragma once

#include <attnscope/selection/top_n.hpp>

#include <cmath>
#include <limits>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// Smallest top-k budgets of one row; `visible` where only everything will do.
struct RowBudget {
    Index visible = 0;
    Index measured = 0;  ///< the error is within the tolerance at this k and at every larger one
    Index certified = 0; ///< tau diam(x) is: what the certificate allows without looking at the values
    /// For top-p, the smallest set of at least this mass: the share that stands for `measured`. In between what
    /// k - 1 and k keys have, so that rounding does not decide; 1 (everything) where
    /// a tail is too small beside 1 to be told from nothing.
    double share = 1;
};

/// How many keys a row must keep for its output.
/// Formula. The smallest k with |o - o_k|/|o| <= tolerance, o_k the output of the k largest weights,
/// renormalised. Sums are taken from the smallest weight up, so that tiny tails are exact.
/// Shapes and units. p: weights of the visible keys that sum to 1, x [n, d] their vectors, order: the keys by
/// descending weight, diameter: an upper bound on max |x_i - x_j|.
/// Special rows. A row with |o| = 0 keeps everything unless it loses nothing. NaN anywhere: everything.
/// Cost. O(n d), allocates.
/// Throws. `invalid_argument` when sizes differ or the tolerance is not > 0.
template <Real T>
RowBudget output_budget(RowIn<T> p, MatrixView<T> x, std::span<const Index> order,
                        std::type_identity_t<T> diameter, double tolerance) {
    detail::require(x.rows() == detail::size<T>(p) && order.size() == p.size(), "output_budget",
                    "there must be one vector and one rank for each weight", x.rows(), order.size(), p.size());
    detail::require(tolerance > 0, "output_budget", "tolerance must be > 0", tolerance);
    using Vector = Eigen::Matrix<double, 1, Eigen::Dynamic>;
    const std::size_t n = p.size();
    RowBudget budget{static_cast<Index>(n), static_cast<Index>(n), static_cast<Index>(n), 1};
    const auto weight = [&](std::size_t rank) { return static_cast<double>(detail::at(p, order[rank])); };
    Vector output = Vector::Zero(x.cols());
    double mass = 0;
    for (std::size_t rank = n; rank-- > 0;) {
        output += weight(rank) * x.map().row(order[rank]).template cast<double>();
        mass += weight(rank);
    }
    const double allowed = tolerance * output.stableNorm();
    // o - o_k = tail mass (mean of the tail - mean of the head) = tail - head tail_mass/head_mass.
    Vector tail = Vector::Zero(x.cols());
    double tail_mass = 0, last_tail = 0;
    bool measuring = true, certifying = true;
    for (std::size_t k = n; k-- > 1 && (measuring || certifying);) { // keeps k of them
        tail += weight(k) * x.map().row(order[k]).template cast<double>();
        tail_mass += weight(k);
        const double head_mass = mass - tail_mass;
        if (measuring) {
            const double error = (tail - (output - tail) * (tail_mass / head_mass)).stableNorm();
            if (error <= allowed) {
                budget.measured = static_cast<Index>(k);
                last_tail = tail_mass;
            } else {
                measuring = false;
                budget.share = 1 - (last_tail + tail_mass) / 2 / mass;
            }
        }
        if (certifying) {
            if (tail_mass * static_cast<double>(diameter) <= allowed)
                budget.certified = static_cast<Index>(k);
            else
                certifying = false;
        }
    }
    if (measuring) budget.share = (1 - last_tail / mass) / 2;       // one key is enough
    if (!(budget.share > 0 && budget.share <= 1)) budget.share = 1; // NaN, or no mass at all
    return budget;
}

/// As above from any row and matrix; the order is that of `top_n`.
template <RowLike P, MatrixExpr X>
requires std::same_as<RowScalar<P>, ScalarOf<X>>
RowBudget output_budget(const P& p, const X& x, RowScalar<P> diameter, double tolerance) {
    using T = RowScalar<P>;
    const RowHolder<T> row(p);
    const MatrixHolder<T> vectors(x);
    const std::vector<Index> order = top_n(p, row.size());
    return output_budget<T>(row.get(), vectors.get(), order, diameter, tolerance);
}

/// How many keys a row must keep for its mass.
/// Formula. The smallest k whose weights have at least `share` of all. Certified and measured are the same.
/// Shapes and units. p [n], order: the keys by descending weight.
/// Special rows. NaN: everything.
/// Cost. O(n), no allocation.
/// Throws. `invalid_argument` when sizes differ or share is not in (0,1].
template <Real T>
RowBudget mass_budget(RowIn<T> p, std::span<const Index> order, double share) {
    detail::require(order.size() == p.size(), "mass_budget", "there must be one rank for each weight",
                    order.size(), p.size());
    detail::require(share > 0 && share <= 1, "mass_budget", "share must be in (0,1]", share);
    const std::size_t n = p.size();
    double mass = 0, tail = 0;
    for (std::size_t rank = n; rank-- > 0;) mass += static_cast<double>(detail::at(p, order[rank]));
    Index keep = static_cast<Index>(n);
    for (std::size_t k = n; k-- > 1;) {
        tail += static_cast<double>(detail::at(p, order[k]));
        if (!(tail <= (1 - share) * mass)) break;
        keep = static_cast<Index>(k);
    }
    return {static_cast<Index>(n), keep, keep, share};
}

/// As above from any row; the order is that of `top_n`.
template <RowLike P>
RowBudget mass_budget(const P& p, double share) {
    using T = RowScalar<P>;
    const RowHolder<T> row(p);
    return mass_budget<T>(row.get(), top_n(p, row.size()), share);
}

} // namespace v0_2
} // namespace attnscope
