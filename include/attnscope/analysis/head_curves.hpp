// What is asked of the curves of a head, and what they tell: the paper's Algorithms 1 to 5.
#pragma once

#include <attnscope/attention/mask.hpp>
#include <attnscope/bound.hpp>

#include <array>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// The figures of every selection. All of them have a mean over the rows of a head for each N and length.
enum class CurveFigure {
    distance,         ///< d(N) = sum over the others of |s - y_i|
    resultant,        ///< d'(N) = |sum over the others of y_i - s|
    theorem1,         ///< Theorem 1(1), sharp, for d
    random_lower,     ///< main sum of Theorem 1(2): lower limit of E d of N random keys
    random_upper,     ///< upper limit of it
    random_resultant, ///< sqrt(E d'^2) of N random keys
    lost,             ///< |o - o_N|
    mass,             ///< A_N
    separable,        ///< N_s/N, which is the recall R_N
    precision,        ///< P_N
    f_score           ///< F_N
};
inline constexpr std::size_t curve_figure_count = 11;
inline constexpr std::array<std::string_view, curve_figure_count> curve_figure_names = {
    "distance",    "resultant", "theorem1_limit", "random_lower", "random_upper", "random_resultant",
    "output_lost", "mass",      "separable",      "precision",    "f_score"};
/// Is it a distance between what a selection keeps and what it leaves?
constexpr bool is_distance(CurveFigure figure) { return figure < CurveFigure::lost; }

/// What a row with no more than N visible keys, whose selection leaves nobody, adds to the mean of a head.
enum class ShortRows {
    exclude, ///< nothing
    zero     ///< a distance of 0; figures that are not distances leave it out
};

/// Where token vectors are divided by their length.
enum class UnitVectors {
    nowhere,
    separability, ///< in Algorithm 4, precision, recall and F
    everywhere
};

/// What is asked of `head_curves`. What the paper leaves open is a choice here.
/// Example: `head_curves(head, {.mask = Mask::causal(), .lengths = {64, 256, 1024}, .counts = {1, 5, 20, 100}})`.
struct CurveOptions {
    Mask mask = {};
    std::vector<Index> lengths = {}; ///< L, ascending; the number of queries unless given
    std::vector<Index> counts = {1, 2, 5, 10, 20, 50, 100}; ///< N, ascending
    ShortRows short_rows = ShortRows::exclude;
    UnitVectors unit_vectors = UnitVectors::separability;
    std::optional<double> radius = {}; ///< of Algorithm 4's ball; up to the nearest other token unless given
    std::vector<Index> ball_counts = {}, ball_queries = {}; ///< N and queries of its bounds, ascending
    std::vector<double> temperatures = {1}, steps = {1e-3}; ///< T and eps of Algorithm 5
    std::uint64_t seed = 1;                                 ///< of its directions, one for each row
};

/// Means over the rows of a head, for the first L tokens of the text.
struct LengthCurves {
    Matrix<double> mean;     ///< [figures, counts]; NaN where no row counts
    std::vector<Index> rows; ///< [counts]: those with more than N visible keys
    Index normal_rows = 0;   ///< rows that have weights
    double entropy_nats = 0, participation_ratio = 0, max_weight = 0; ///< over the normal rows

    double at(CurveFigure figure, std::size_t count) const {
        return mean(static_cast<Index>(figure), static_cast<Index>(count));
    }
};

/// Algorithm 5 at one temperature.
struct TemperatureCurve {
    std::vector<double> mean, largest; ///< [steps]: of g = |p(z + eps v) - p(z)|/eps over the rows
    std::vector<Index> above;          ///< [steps]: rows above the published limit by more than rounding
    double spectral = 0;               ///< mean |J|_2
    double spectral_largest = 0;
    double random_direction = 0; ///< mean of |J|_F/sqrt(n), the root mean square of |J v| over random v
};

/// Algorithm 4 on one selection, and what Theorem 2 says of it.
struct SeparabilityBall {
    Index query = 0, visible = 0, count = 0;
    double radius = 0;
    double separable = 0; ///< N_s/N as measured
    Interval<double> published, valid;
    double expected = 0; ///< E N_s/N on the spherical model; NaN where the radius is given
};

/// What `head_curves` tells of one head.
struct HeadCurves {
    std::vector<LengthCurves> at_length;          ///< by `lengths`
    std::vector<TemperatureCurve> at_temperature; ///< by `temperatures`
    std::vector<SeparabilityBall> balls;          ///< by query, then N
};

} // namespace v0_2
} // namespace attnscope
