// In how few bits may the keys of a head be stored?
#pragma once

#include <attnscope/cache/format.hpp>
#include <attnscope/planner/share.hpp>
#include <attnscope/sensitivity/quantized_keys.hpp>

namespace attnscope {
inline namespace v0_1 {

/// What storing the keys in a format does to the rows of a head.
struct CacheFigures {
    std::vector<double> error; ///< |o' - o|/|o| of each row; 0/0 = 0
    std::vector<double> limit; ///< certified: diam(V) times `Perturbation::variation_limit` over |o|
    /// Certified on average: diam(V) min(s/2, 1)/|o|, if the rounding errors of a key are uniform over their quanta
    /// and independent between channels, so that every logit has an s-sub-Gaussian error.
    std::vector<double> expected;
    double argmax_kept = 0; ///< share of rows in which no key is above the (first) one that was the largest
    double argmax_sure = 0; ///< share for which gap > r promises it
};

/// Measures a format of the key cache on the `queries` of a head with values (all, unless given), in double.
/// Shapes and units. diameters [queries]: from `visible_diameters`; outputs [queries, d_v]: o of every query.
/// Special rows. NaN in a row gives NaN.
/// Cost. O(queries keys (d + d_v)), memory O(keys (d + d_v)).
/// Throws. `invalid_argument` when shapes do not fit.
template <Real T, RowLike D>
requires std::same_as<RowScalar<D>, T>
CacheFigures cache_figures(const HeadView<T>& head, const CacheFormat& format, const Mask& mask,
                           const D& diameters, MatrixView<std::type_identity_t<T>> outputs,
                           std::optional<std::span<const Index>> queries = {}) {
    const RowHolder<T> widths(diameters);
    detail::require(widths.size() == head.queries(), "cache_figures",
                    "there must be one diameter for each query", widths.size(), head.queries());
    detail::require(head.has_values() && outputs.rows() == head.queries() && outputs.cols() == head.v().cols(),
                    "cache_figures", "there must be values and one output for each query", outputs.rows(),
                    head.queries());
    const Matrix<T> stored = through_cache(head.k(), format);
    // A uniform error over a quantum is sub-Gaussian of its own variance, quantum^2/12.
    const Matrix<double> variances = cache_quanta(head.k(), format).template cast<double>().cwiseAbs2() / 12;
    Matrix<T> measured = head.q().map(); // against what is stored
    if (format.rotation) measured = hadamard_rotate(head.q(), *format.rotation);
    const auto error_size = [&](Index query) {
        const Eigen::VectorXd all =
            variances * measured.row(query).template cast<double>().cwiseAbs2().transpose();
        double largest = 0;
        mask.visible(query, head.keys()).for_each([&](Index key) {
            if (!(all[key] <= largest)) largest = all[key]; // takes NaN in
        });
        return std::abs(static_cast<double>(head.scale())) * std::sqrt(largest);
    };
    CacheFigures figures;
    double rows = 0;
    const auto look_at = [&](Index query, const Perturbation<double>& row) {
        const double length =
            static_cast<double>(outputs.map().row(query).template cast<double>().stableNorm());
        const auto relative = [&](double x) { return x == 0 ? 0.0 : x / length; };
        figures.error.push_back(relative(row.output_change));
        figures.limit.push_back(relative(row.diameter * row.variation_limit()));
        // NaN stays: nothing is known of such a row.
        const double average = std::min(1.0, row.range + error_size(query) / 2 - row.range);
        figures.expected.push_back(relative(row.diameter * average));
        figures.argmax_kept += row.gap_after >= 0 ? 1 : 0;
        figures.argmax_sure += row.gap > row.range ? 1 : 0;
        rows += 1;
    };
    for_each_key_perturbation(head, MatrixView<T>(stored), mask, widths.get(), look_at, queries);
    figures.argmax_kept /= rows;
    figures.argmax_sure /= rows;
    return figures;
}

/// Fewest bits of integers (2 to 16) that keep the error, the certified limit, and the one on average, of a share of
/// the rows within a tolerance; 17 if not even 16 do.
struct CacheBits {
    int measured = 17;
    int certified = 17;
    Index left_out = 0; ///< rows that no format was asked about, because their error or limit is NaN
    int expected = 17;  ///< as `CacheFigures::expected`
};

/// The fewest bits that serve a share of the rows, from 16 bits down, as long as they do.
/// Cost. That of `cache_figures`, for each number of bits.
/// Throws. `invalid_argument` as `cache_figures` does, and unless tolerance > 0 and share is in (0,1].
template <Real T, RowLike D>
requires std::same_as<RowScalar<D>, T>
CacheBits fewest_cache_bits(const HeadView<T>& head, CacheScale scale, const Mask& mask, const D& diameters,
                            MatrixView<std::type_identity_t<T>> outputs, double tolerance, double share,
                            std::optional<std::span<const Index>> queries = {}) {
    detail::require(tolerance > 0, "fewest_cache_bits", "tolerance must be > 0", tolerance);
    CacheBits bits;
    bool measuring = true, certifying = true, expecting = true;
    for (int count = 16; count >= 2 && (measuring || certifying || expecting); --count) {
        const CacheFigures figures =
            cache_figures(head, {CacheNumber::integer, count, scale}, mask, diameters, outputs, queries);
        Index left_out = 0;
        for (std::size_t i = 0; i < figures.error.size(); ++i)
            left_out += std::isnan(figures.error[i]) || std::isnan(figures.limit[i]);
        bits.left_out = std::max(bits.left_out, left_out);
        measuring = measuring && need_for_share(figures.error, share) <= tolerance;
        certifying = certifying && need_for_share(figures.limit, share) <= tolerance;
        expecting = expecting && need_for_share(figures.expected, share) <= tolerance;
        if (measuring) bits.measured = count;
        if (certifying) bits.certified = count;
        if (expecting) bits.expected = count;
    }
    return bits;
}

} // namespace v0_1
} // namespace attnscope
