// The keys among which the needle lies: their distribution, and rows drawn from it.
#pragma once

#include <attnscope/random.hpp>

#include <string_view>
#include <vector>

namespace scaling {

using attnscope::Index;

enum class Shape {
    gaussian, ///< standard normal
    student,  ///< Student's t with 4 degrees of freedom, scaled to standard deviation 1
    measured  ///< as measured on a trained model, `measured_quantiles.hpp`
};
inline constexpr std::array<std::string_view, 3> shape_names = {"gaussian", "student", "measured"};

/// Logits of mean 0 and standard deviation `spread`. Every shape is a rising function of a standard normal
/// score, so that one generator and one quadrature serve all.
class Background {
public:
    Background(Shape shape, double spread) : shape_(shape), spread_(spread) {}

    Shape shape() const { return shape_; }
    double spread() const { return spread_; }

    /// The logit whose quantile is that of the standard normal score x.
    double at_score(double x) const;
    /// The score of a logit, within +-38 (beyond which no double has a normal tail).
    double score_of(double logit) const;

    /// Logits of keys 0, 1, ... of row `row`: key j is the same whatever the length is, so that a longer row is
    /// the shorter one with more keys.
    void fill(std::uint64_t seed, std::uint64_t row, std::span<float> logits) const;

private:
    Shape shape_;
    double spread_;
};

/// P(X > x) of the standard normal distribution.
double upper_tail(double x);
/// The x with P(X > x) = u, 0 < u < 1.
double score_of_upper_tail(double u);

/// A generator of its own for each (seed, stream, block): what is drawn does not depend on who draws it.
attnscope::SplitMix64 generator(std::uint64_t seed, std::uint64_t stream, std::uint64_t block);

/// Keys drawn by one generator.
inline constexpr std::size_t block_size = 4096;

} // namespace scaling
