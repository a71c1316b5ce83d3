// Rows of logits that questions about attention are tried on again and again, and that attain its theorems.
#pragma once

#include <attnscope/detail/lambert_w.hpp>
#include <attnscope/errors.hpp>
#include <attnscope/random.hpp>
#include <attnscope/types.hpp>

#include <numbers>

namespace attnscope {
inline namespace v0_2 {
/// Problems with known answers. Everything drawn comes from a generator that the caller seeds.
namespace problems {

/// n equal logits: weights 1/n. Attains the ends of corollary1 and lemma1 at spread 0, and entropy log n.
/// Throws. `invalid_argument` unless n >= 1.
inline Row<double> flat_row(Index n, double logit = 0) {
    detail::require(n >= 1, "flat_row", "n must be >= 1", n);
    return Row<double>::Constant(n, logit);
}

/// k equal keys `gap` above n-k equal others, or below them where gap < 0.
/// Attains truncation_gap for the top k; with k = 2 and a wide gap corollary3, |J|_2 = 1/(2T).
/// Throws. `invalid_argument` unless 0 <= k <= n and n >= 1.
inline Row<double> two_level_row(Index n, Index k, double gap) {
    detail::require(n >= 1, "two_level_row", "n must be >= 1", n);
    detail::require(k >= 0 && k <= n, "two_level_row", "k must be in [0, n]", k, n);
    Row<double> row = Row<double>::Zero(n);
    row.head(k) = gap;
    return row;
}

/// One key `gap` above n-1 equal others, its needle, at a place of its own.
/// Attains the upper sides of corollary1 and lemma1, with gap < 0 their lower sides.
/// Throws. `invalid_argument` unless 0 <= place < n.
inline Row<double> needle_row(Index n, double gap, Index place = 0) {
    detail::require(place >= 0 && place < n, "needle_row", "place must be in [0, n)", place, n);
    Row<double> row = Row<double>::Zero(n);
    row[place] = gap;
    return row;
}

/// The needle whose mean logit under its own weights lies deepest below its largest: attains score_deficit.
/// Formula. gap T(1 + W0((n-1)/e)).
/// Throws. `invalid_argument` unless n >= 1 and the temperature is > 0 and finite.
inline Row<double> deepest_needle_row(Index n, double temperature = 1) {
    detail::require(n >= 1, "deepest_needle_row", "n must be >= 1", n);
    detail::require(temperature > 0 && std::isfinite(temperature), "deepest_needle_row",
                    "temperature must be > 0 and finite", temperature);
    const double w = detail::lambert_w0(static_cast<double>(n - 1) / std::numbers::e);
    return needle_row(n, temperature * (1 + w));
}

/// n logits evenly from 0 down to -spread.
/// Throws. `invalid_argument` unless n >= 1.
inline Row<double> spread_out_row(Index n, double spread) {
    detail::require(n >= 1, "spread_out_row", "n must be >= 1", n);
    return n == 1 ? flat_row(1) : Row<double>::LinSpaced(n, 0.0, -spread);
}

/// n draws of a normal distribution.
/// Shapes and units. deviation: its standard deviation, in logits.
/// Throws. `invalid_argument` unless n >= 1.
inline Row<double> normal_row(Index n, double deviation, SplitMix64& random) {
    detail::require(n >= 1, "normal_row", "n must be >= 1", n);
    Row<double> row(n);
    for (double& z : row) z = deviation * random.normal();
    return row;
}

/// A needle of logit `height` at a drawn place among n-1 draws of a normal distribution around 0: what a head that
/// retrieves one token sees in a long text.
/// Throws. `invalid_argument` unless n >= 1.
inline Row<double> needle_in_noise_row(Index n, double height, double deviation, SplitMix64& random) {
    Row<double> row = normal_row(n, deviation, random);
    row[random.below(n)] = height;
    return row;
}

/// n logits drawn from few values, so that keys tie.
/// Throws. `invalid_argument` unless n >= 1 and there is a value.
inline Row<double> tied_row(Index n, std::span<const double> values, SplitMix64& random) {
    detail::require(n >= 1, "tied_row", "n must be >= 1", n);
    detail::require(!values.empty(), "tied_row", "there must be a value", values.size());
    Row<double> row(n);
    for (double& z : row) z = detail::at(values, random.below(std::ssize(values)));
    return row;
}

/// A row in a longer text: `copies` of it side by side, each lower by `descent` than the one before. With descent 0 the
/// spread stays and the length grows, and no key keeps its weight.
/// Throws. `invalid_argument` unless copies >= 1.
inline Row<double> grown_row(const Row<double>& row, Index copies, double descent = 0) {
    detail::require(copies >= 1, "grown_row", "copies must be >= 1", copies);
    Row<double> grown(row.size() * copies);
    for (Index copy = 0; copy < copies; ++copy)
        grown.segment(copy * row.size(), row.size()) = row - descent * static_cast<double>(copy);
    return grown;
}

} // namespace problems
} // namespace v0_2
} // namespace attnscope
