// In how few bits may the keys of a head be stored, and in which formats its keys and values?
#pragma once

#include <attnscope/cache/measure_cache.hpp>
#include <attnscope/planner/share.hpp>
#include <attnscope/sensitivity/quantized_keys.hpp>

namespace attnscope {
inline namespace v0_2 {

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

/// Keys in one format, values in another, and what that does to rows.
struct CacheChoice {
    CacheFormat keys, values;
    double bytes = 0;          ///< of a token, keys and values
    std::vector<double> error; ///< |o' - o|/|o| of each row; 0/0 = 0
    std::vector<double> limit; ///< certified: `CachedRow::limit` over |o|
    double argmax_kept = 0;    ///< share of rows
};

namespace detail {

/// `cache_choices` of a head with keys and values, whose diameters are known.
template <Real T>
std::vector<CacheChoice> try_choices(const HeadView<T>& head, const Mask& mask, const Row<double>& diameters,
                                     std::span<const CacheFormat> key_formats,
                                     std::span<const CacheFormat> value_formats,
                                     std::optional<std::span<const Index>> queries) {
    const auto wide = [](const auto& matrix) -> Matrix<double> { return matrix.template cast<double>(); };
    const Matrix<double> q = wide(head.q().map()), k = wide(head.k().map()), v = wide(head.v().map());
    std::vector<Matrix<double>> keys, displacements;
    for (const CacheFormat& format : key_formats) keys.push_back(wide(through_cache(head.k(), format)));
    for (const CacheFormat& format : value_formats)
        displacements.push_back(wide(through_cache(head.v(), format)) - v);
    std::vector<CacheChoice> choices;
    for (const CacheFormat& a : key_formats)
        for (const CacheFormat& b : value_formats)
            choices.push_back(
                {a,
                 b,
                 cache_bytes(a, head.k().cols(), head.keys()) + cache_bytes(b, head.v().cols(), head.keys()),
                 {},
                 {},
                 0});

    std::vector<Index> seen;
    std::vector<double> z, moved, p;
    Matrix<double> weights, change, values, apart;
    std::vector<Perturbation<double>> rows(keys.size());
    double count = 0;
    const double scale = static_cast<double>(head.scale());
    const auto look_at = [&](Index query) {
        require(query >= 0 && query < head.queries(), "cache_choices", "query must be in [0, queries)", query,
                head.queries());
        seen.clear();
        mask.visible(query, head.keys()).for_each([&](Index key) { seen.push_back(key); });
        const Index n = static_cast<Index>(seen.size()), formats = static_cast<Index>(keys.size());
        z.resize(seen.size());
        moved.resize(seen.size());
        p.resize(seen.size());
        const auto logits = [&](const Matrix<double>& of, std::vector<double>& out) {
            for (std::size_t i = 0; i < seen.size(); ++i) out[i] = scale * q.row(query).dot(of.row(seen[i]));
        };
        const auto gather = [&](const Matrix<double>& of, Matrix<double>& out) {
            out.resize(n, of.cols());
            for (std::size_t i = 0; i < seen.size(); ++i) out.row(static_cast<Index>(i)) = of.row(seen[i]);
        };
        logits(k, z);
        Softmax{}.apply<double>(RowIn<double>(z), RowOut<double>(p));
        const Eigen::Map<const Eigen::RowVectorXd> before(p.data(), n);
        gather(v, values);
        const double length = (before * values).stableNorm();
        weights.resize(formats, n);
        for (Index f = 0; f < formats; ++f) {
            logits(at(keys, f), moved);
            at(rows, f) = measure_perturbation(RowIn<double>(z), RowIn<double>(moved), {}, diameters[query]);
            Softmax{}.apply<double>(RowIn<double>(moved),
                                    RowOut<double>(weights.row(f).data(), static_cast<std::size_t>(n)));
        }
        // Changes of weights add up to 0: against one value, what all have in common cancels exactly.
        if (n > 0) values.rowwise() -= Eigen::RowVectorXd(values.row(0));
        change.noalias() = (weights.rowwise() - before) * values;
        const auto relative = [&](double x) { return x == 0 ? 0.0 : x / length; };
        for (Index g = 0; g < static_cast<Index>(displacements.size()); ++g) {
            gather(at(displacements, g), apart);
            const Matrix<double> moves = change + weights * apart;
            double farthest = 0;
            for (Index i = 0; i < n; ++i)
                if (const double norm = apart.row(i).norm(); !(norm <= farthest))
                    farthest = norm; // takes NaN in
            for (Index f = 0; f < formats; ++f) {
                CacheChoice& choice = at(choices, f * static_cast<Index>(displacements.size()) + g);
                CachedRow row;
                row.weights = at(rows, f);
                row.displacement = farthest;
                const double range = row.weights.range; // NaN of a row that is not normal
                choice.error.push_back(range == range ? relative(moves.row(f).stableNorm()) : range);
                choice.limit.push_back(relative(row.limit()));
                choice.argmax_kept += row.argmax_kept() ? 1 : 0;
            }
        }
        count += 1;
    };
    if (queries)
        for (const Index query : *queries) look_at(query);
    else
        for (Index query = 0; query < head.queries(); ++query) look_at(query);
    for (CacheChoice& choice : choices) choice.argmax_kept /= count;
    return choices;
}

} // namespace detail

/// Tries every pair of a format of the keys and one of the values on the `queries` of a head (all, unless given), in
/// double: figures of `measure_cache`, at the cost of each format once and a product a pair.
/// Shapes and units. Result: the pairs of the first format of the keys first.
/// Special rows. As of `measure_cache`.
/// Cost. O(keys^2 d_v), and a row O(formats of keys * keys (d + formats of values * d_v)); memory O(keys (d + d_v)) a
/// format.
/// Throws. `invalid_argument` for a head without values or keys, formats that do not fit d or d_v (`fits_cache`), and
/// queries that are not there.
template <Real T>
std::vector<CacheChoice>
cache_choices(const HeadView<T>& head, const Mask& mask, std::span<const CacheFormat> key_formats,
              std::span<const CacheFormat> value_formats, std::optional<std::span<const Index>> queries = {}) {
    detail::require(head.has_values() && head.keys() > 0 && head.k().cols() > 0 && head.v().cols() > 0,
                    "cache_choices", "there must be keys and values to store", head.keys());
    const Matrix<double> v = head.v().map().template cast<double>();
    return detail::try_choices(head, mask, visible_diameters(MatrixView<double>(v), mask, head.queries()),
                               key_formats, value_formats, queries);
}

/// The same choices of several heads as one: rows one after the other, bytes and argmax_kept as means over heads and rows.
/// Cost. O(rows).
/// Throws. `invalid_argument` unless all heads have tried the same pairs.
inline std::vector<CacheChoice> pooled_choices(const std::vector<const std::vector<CacheChoice>*>& heads) {
    std::vector<CacheChoice> pooled;
    double bytes = 0;
    for (const auto* own : heads) {
        if (pooled.empty())
            for (const CacheChoice& choice : *own) pooled.push_back({choice.keys, choice.values, 0, {}, {}, 0});
        detail::require(own->size() == pooled.size(), "pooled_choices", "heads must have tried the same pairs",
                        own->size(), pooled.size());
        for (std::size_t i = 0; i < pooled.size(); ++i) {
            const CacheChoice& one = (*own)[i];
            CacheChoice& all = pooled[i];
            detail::require(one.keys == all.keys && one.values == all.values, "pooled_choices",
                            "heads must have tried the same pairs");
            all.bytes += one.bytes;
            all.argmax_kept += one.argmax_kept * static_cast<double>(one.error.size());
            all.error.insert(all.error.end(), one.error.begin(), one.error.end());
            all.limit.insert(all.limit.end(), one.limit.begin(), one.limit.end());
        }
        bytes += 1;
    }
    for (CacheChoice& all : pooled) {
        all.bytes /= bytes;
        all.argmax_kept /= static_cast<double>(all.error.size());
    }
    return pooled;
}

/// The choices that no other one beats: none has as few bytes and as small an error, that of the share of the rows.
/// Shapes and units. Result: places of the choices, bytes ascending and errors descending.
/// Special rows. Choices whose error is NaN have no part; of equals the first.
/// Cost. O(choices (rows + log choices)).
/// Throws. `invalid_argument` unless share is in (0,1].
inline std::vector<std::size_t> pareto_line(std::span<const CacheChoice> choices, double share) {
    std::vector<double> errors;
    std::vector<std::size_t> order;
    for (std::size_t i = 0; i < choices.size(); ++i) {
        errors.push_back(need_for_share(choices[i].error, share));
        if (errors[i] == errors[i]) order.push_back(i);
    }
    std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return choices[a].bytes != choices[b].bytes ? choices[a].bytes < choices[b].bytes
                                                    : errors[a] < errors[b];
    });
    std::vector<std::size_t> line;
    for (const std::size_t i : order)
        if (line.empty() || errors[i] < errors[line.back()]) line.push_back(i);
    return line;
}

/// The choice of the fewest bytes that keeps the error (or, `certified`, the limit) of a share of the rows within a
/// tolerance; of several the one of the smallest error. Empty if none does.
/// Cost. O(choices rows).
/// Throws. `invalid_argument` unless tolerance > 0 and share is in (0,1].
inline std::optional<std::size_t> fewest_cache_bytes(std::span<const CacheChoice> choices, double tolerance,
                                                     double share, bool certified = false) {
    detail::require(tolerance > 0, "fewest_cache_bytes", "tolerance must be > 0", tolerance);
    std::optional<std::size_t> best;
    double least = 0;
    for (std::size_t i = 0; i < choices.size(); ++i) {
        const double need = need_for_share(certified ? choices[i].limit : choices[i].error, share);
        if (!(need <= tolerance)) continue;
        if (best && !(choices[i].bytes < choices[*best].bytes ||
                      (choices[i].bytes == choices[*best].bytes && need < least)))
            continue;
        best = i;
        least = need;
    }
    return best;
}

} // namespace v0_2
} // namespace attnscope
