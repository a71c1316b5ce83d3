// Limits of the library at a point of the search, for those statements that one call answers: they must be the formulas
// that are attacked.
#pragma once

#include "statements.hpp"

#include <attnscope/attnscope.hpp>

namespace attack {

/// Specialised with `static double limit(Point)` where the library is asked.
template <class Statement>
struct Library {};

template <bool Upper, bool Cumulative>
struct Library<Theorem1Fixed<Upper, Cumulative>> {
    static double limit(Point point) {
        const Tokens<double> tokens(point, point.size());
        const auto n = static_cast<attnscope::Index>(tokens.p.size());
        attnscope::Matrix<double> x(n, 2);
        for (attnscope::Index i = 0; i < n; ++i)
            x.row(i) << tokens.x[static_cast<std::size_t>(i)][0], tokens.x[static_cast<std::size_t>(i)][1];
        std::vector<attnscope::Index> keys(tokens.selected);
        std::iota(keys.begin(), keys.end(), attnscope::Index(0));
        attnscope::SelectedSet<double> set;
        set.assign(attnscope::RowIn<double>(tokens.p), attnscope::MatrixView<double>(x), keys);
        const auto range =
            theorem1_fixed_range(set, attnscope::fixed_set_geometry(set),
                                 Cumulative ? attnscope::Reading::cumulative : attnscope::Reading::resultant);
        return Upper ? range.upper : range.lower;
    }
};

/// E d of random sets: the limits of both statements.
template <bool Upper, bool Given>
double random_set_limit(Point point) {
    const Tokens<double> tokens(point, std::min<std::size_t>(point.size(), 6));
    const auto n = static_cast<attnscope::Index>(tokens.p.size());
    attnscope::Matrix<double> x(n, 2);
    for (attnscope::Index i = 0; i < n; ++i)
        x.row(i) << tokens.x[static_cast<std::size_t>(i)][0], tokens.x[static_cast<std::size_t>(i)][1];
    const attnscope::RandomSubsetMoments<double> moments(attnscope::RowIn<double>(tokens.p),
                                                         attnscope::MatrixView<double>(x));
    const auto count = static_cast<attnscope::Index>(tokens.selected);
    if (!Given) return Upper ? moments.expected_distance_cap(count) : moments.expected_distance(count).lower;
    const auto range = attnscope::SubsetDistance<double>(moments)(count);
    return Upper ? range.upper : range.lower;
}
template <bool Upper>
struct Library<Theorem1Random<Upper>> {
    static double limit(Point point) { return random_set_limit<Upper, true>(point); }
};
template <bool Upper>
struct Library<Corollary2<Upper>> {
    static double limit(Point point) { return random_set_limit<Upper, false>(point); }
};

template <bool Upper>
struct Library<LogNPhase<Upper>> {
    static double limit(Point point) {
        const std::vector<double> z = descending(point.reals<double>(point.size()));
        const auto range = attnscope::log_n_phase_range(attnscope::log_n_phase<double>(z));
        return Upper ? range.upper : range.lower;
    }
};

template <bool Upper>
struct Library<SphereKeys<Upper>> {
    static double limit(Point point) {
        const double n = static_cast<double>(point.size());
        const double low = point.share<double>(), high = point.share<double>(), share = point.share<double>();
        const auto range = attnscope::independent_keys_range(n, share * high + (1 - share) * low);
        return Upper ? range.upper : range.lower;
    }
};

template <>
struct Library<TruncationGap> {
    static double limit(Point point) {
        const std::vector<double> z = descending(point.reals<double>(point.size()));
        const int k = point.integer(1, static_cast<int>(z.size()) - 1);
        return attnscope::truncation_mass_by_gap(static_cast<attnscope::Index>(z.size()), k,
                                                 z[static_cast<std::size_t>(k) - 1] -
                                                     z[static_cast<std::size_t>(k)]);
    }
};

template <>
struct Library<SinkNecessity> {
    static double limit(Point point) {
        const std::vector<double> p = point.positives<double>(point.size()),
                                  heights = point.reals<double>(p.size());
        std::vector<char> inside(p.size(), 0);
        inside[0] = 1;
        return attnscope::sink_necessity_limit(attnscope::sink_heights<double>(
            attnscope::RowIn<double>(p), attnscope::RowIn<double>(heights), std::span<const char>(inside)));
    }
};

template <>
struct Library<FiniteDifference> {
    static double limit(Point point) {
        const double temperature = point.positive<double>(), eps = point.positive<double>();
        return attnscope::finite_difference_limit(temperature, eps);
    }
};

template <>
struct Library<LpLipschitz> {
    static double limit(Point point) {
        const double q = 1 + point.positive<double>();
        const std::vector<double> z = point.reals<double>(point.size());
        attnscope::RowMeter meter;
        return attnscope::lp_norm_limit(meter(attnscope::Softmax(), attnscope::RowIn<double>(z)).norms, 1, q);
    }
};

template <>
struct Library<Corollary3> {
    static double limit(Point point) {
        const double temperature = point.positive<double>();
        const std::vector<double> z = point.reals<double>(point.size());
        attnscope::RowMeter meter;
        const auto& row = meter(attnscope::Softmax(temperature), attnscope::RowIn<double>(z));
        return attnscope::weight_gradient_limit<double>(row.p) / temperature;
    }
};

template <>
struct Library<ScoreDeficit> {
    static double limit(Point point) {
        const double temperature = point.positive<double>();
        const std::vector<double> z = point.reals<double>(point.size());
        return attnscope::score_deficit_limit(static_cast<attnscope::Index>(z.size()), range(z), temperature);
    }
};

template <>
struct Library<EntropyFloorRange> {
    static double limit(Point point) {
        const std::vector<double> z = point.reals<double>(point.size());
        return attnscope::entropy_floor_by_range(static_cast<attnscope::Index>(z.size()), range(z));
    }
};

} // namespace attack
