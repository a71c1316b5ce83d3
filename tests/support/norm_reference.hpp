// Norms of a normaliser's Jacobian against those of its reference's dense matrix.
#pragma once

#include <attnscope/sensitivity/jacobian_norms.hpp>
#include <support/laws.hpp>

#include <Eigen/SVD>

namespace attnscope_test {

/// Norms of J in T against the dense reference on short rows; the spectral one by Eigen's JacobiSVD. Any norm
/// of A and of B differs by at most that norm of A - B, here of the errors of J's entries; the norms' own
/// rounding is taken as 64 u.
template <class T, class N, class R>
void test_norms(const N& normalizer, const R& reference) {
    using Dense = Eigen::Matrix<Ref, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    Worst entries, max_entry, column, spectral, frobenius, one, infinity, bracket;
    std::size_t rows = 0, unknown = 0, unsolved = 0;
    for_each_row<T>(test_seed(), short_lengths, 1, [&](const Where& where, const std::vector<T>& z) {
        const std::size_t n = z.size();
        ++rows;
        const RefRow wide = widen(z);
        const std::vector<T> p = weights_of(normalizer, z);
        const RefMatrix jacobian = reference.jacobian(wide);
        RefMatrix error{n, RefRow(n * n, 0)};
        for (std::size_t j = 0; j < n; ++j) {
            std::vector<T> unit(n, T(0));
            unit[j] = 1;
            const std::vector<T> product = jvp_of(normalizer, z, p, unit);
            const RefRow column_error = reference.template jvp_error<T>(wide, widen(unit));
            for (std::size_t i = 0; i < n; ++i) {
                error(i, j) = column_error[i];
                entries.meet(std::abs(Ref(product[i]) - jacobian(i, j)), column_error[i], where);
            }
        }
        if (std::any_of(error.entries.begin(), error.entries.end(), [](Ref x) { return std::isinf(x); })) {
            ++unknown;
            return;
        }
        ReferenceNorms exact = norms_of(jacobian);
        const ReferenceNorms slack = norms_of(error);
        const Dense dense =
            Eigen::Map<const Dense>(jacobian.entries.data(), static_cast<Index>(n), static_cast<Index>(n));
        exact.spectral = Eigen::JacobiSVD<Dense>(dense).singularValues()(0);
        const auto norms = attnscope::jacobian_norms(normalizer, in(z), in(p));
        const Ref u = 64 * (unit_roundoff<T> + unit_roundoff<Ref>);
        const auto meet = [&](Worst& worst, Ref found, Ref expected, Ref allowed) {
            worst.meet(std::abs(found - expected),
                       allowed + u * expected + 4 * Ref(std::numeric_limits<T>::min()), where);
        };
        meet(max_entry, norms.max_entry, exact.max_entry, slack.max_entry);
        meet(column, norms.column, exact.column, slack.column);
        meet(frobenius, norms.frobenius, exact.frobenius, slack.frobenius);
        meet(one, norms.one, exact.one, slack.one);
        meet(infinity, norms.infinity, exact.infinity, slack.infinity);
        // Of a matrix and of its absolute values, the Frobenius norm is the same.
        const Ref allowed = slack.frobenius + u * exact.spectral + 4 * Ref(std::numeric_limits<T>::min());
        if (norms.spectral.converged)
            spectral.meet(std::abs(Ref(norms.spectral.value) - exact.spectral), allowed, where);
        else if (slack.frobenius <= std::sqrt(unit_roundoff<T>) * exact.spectral)
            ++unsolved; // J is more than rounding
        bracket.meet(std::max(Ref(norms.spectral.bracket.lower) - exact.spectral,
                              exact.spectral - Ref(norms.spectral.bracket.upper)),
                     allowed, where);
    });
    ATTNSCOPE_CHECK_WORST(entries);
    ATTNSCOPE_CHECK_WORST(max_entry);
    ATTNSCOPE_CHECK_WORST(column);
    ATTNSCOPE_CHECK_WORST(spectral);
    ATTNSCOPE_CHECK_WORST(frobenius);
    ATTNSCOPE_CHECK_WORST(one);
    ATTNSCOPE_CHECK_WORST(infinity);
    ATTNSCOPE_CHECK_WORST(bracket);
    CAPTURE(rows, unknown, unsolved);
    CHECK(4 * unknown <= rows);
    CHECK(unsolved == 0);
}

} // namespace attnscope_test
