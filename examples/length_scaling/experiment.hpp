// A needle among more and more keys: what every normaliser makes of the same rows.
#pragma once

#include "background.hpp"
#include "figures.hpp"
#include "loss_length.hpp"

#include <functional>
#include <string>

namespace scaling {

struct Settings {
    std::vector<std::string> normalizers; ///< canonical names
    Background background{Shape::gaussian, 2};
    double margin = 5; ///< the needle's logit, in standard deviations of the background
    Index shortest = 64, longest = Index(1) << 20; ///< powers of two
    Index dimension = 16;                          ///< of the values
    Index select = 16;                             ///< N of the selection
    Index trials = 31;
    std::uint64_t seed = 1;
    unsigned threads = 1;

    double needle_logit() const { return margin * background.spread(); }
    std::size_t lengths() const;
    Index length(std::size_t i) const { return shortest << i; }
    /// Rows whose values and derivatives are looked at, which costs many times as much as the weights: all of
    /// the short ones, a few of the long ones.
    Index detailed_trials(Index length) const;
};

/// One normaliser at one length, over the rows.
struct Point {
    Figures middle;                            ///< medians; of the geometric recall the mean
    double lower_weight = 0, upper_weight = 0; ///< quartiles of the needle's weight
};

/// What is measured of one normaliser.
struct Measurement {
    std::vector<Point> points; ///< by length
    LossLength loss;
};

/// Every row under every normaliser; `step` is called after each of the `pieces`, by one thread at a time.
/// Memory O(longest (dimension + trials)). Nothing depends on the number of threads.
std::vector<Measurement> measure(const Settings& settings, const std::function<void()>& step);
std::size_t pieces(const Settings& settings);

/// The library's own spelling of a normaliser's name. Throws `attnscope::invalid_argument` if there is none.
std::string canonical_name(std::string_view normalizer);

} // namespace scaling
