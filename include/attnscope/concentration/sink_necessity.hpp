// What forces a sink: an output that the values of the other keys cannot make.
#pragma once

#include <attnscope/bound.hpp>
#include <attnscope/types.hpp>

#include <numeric>
#include <span>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// One row seen along one direction u: the heights <u, v_j> of its visible keys, inside and outside a set S.
template <Real A>
struct SinkHeights {
    A outside = std::numeric_limits<A>::infinity(); ///< least outside S, c; infinity where there is no such key
    A inside = std::numeric_limits<A>::infinity();  ///< least inside S, -b
    A output = 0;                                   ///< <u, o> = sum p_j <u, v_j>
    A size = 0;                                     ///< sum p_j |<u, v_j>|
    A mass = 0;                                     ///< p(S)
    A total = 0;                                    ///< sum p_j
};

/// Heights of a row.
/// Shapes and units. p, heights: of the visible keys; inside: is key i in S?, by position.
/// Cost. O(n).
/// Throws. `invalid_argument` unless the three have one length.
template <Real A>
SinkHeights<A> sink_heights(RowIn<A> p, RowIn<A> heights, std::span<const char> inside) {
    detail::require(p.size() == heights.size() && p.size() == inside.size(), "sink_heights",
                    "weights, heights and set must have one length", p.size(), heights.size(), inside.size());
    SinkHeights<A> row;
    for (std::size_t i = 0; i < p.size(); ++i) {
        A& least = inside[i] ? row.inside : row.outside;
        least = std::min(least, heights[i]);
        row.output += p[i] * heights[i];
        row.size += p[i] * std::abs(heights[i]);
        row.total += p[i];
        if (inside[i]) row.mass += p[i];
    }
    return row;
}

/// The least weight on S that an output of this height allows.
/// Formula. p(S) >= (c sum p - <u,o>)/(c+b), where <u, v_j> >= c outside S and >= -b inside; 0 where c + b <= 0, or
/// where that is negative; sum p where nothing else is seen. Attained when the values stand at two heights.
/// Cost. O(1).
/// Source. arXiv:2603.11487 has a task for which a sink is needed; this is the step for one row.
template <Real A>
A sink_necessity_limit(const SinkHeights<A>& row) {
    if (std::isinf(row.outside)) return std::isinf(row.inside) ? A(0) : row.total;
    if (std::isinf(row.inside)) return A(0);
    const A gap = row.outside - row.inside;
    return gap > A(0) ? std::max(A(0), (row.outside * row.total - row.output) / gap) : A(0);
}

inline constexpr Statement sink_necessity_statement{
    .id = "sink_necessity",
    .form = Form::sharp,
    .provenance = Provenance::derived,
    .text = "p(S) >= (c sum p - <u,o>)/(c+b), <u,v_j> >= c outside S, >= -b inside",
    .conditions = "weights >= 0; S the sinks of a head, u one direction for all its rows",
    .source = "row form of arXiv:2603.11487",
};

/// Bound "sink_necessity" on one row; vacuous where the output does not force any weight on S.
/// Shapes and units. visible: keys behind `row`.
/// Cost. O(1).
/// Source. arXiv:2603.11487.
template <Real A>
Bound<A> sink_necessity_sharp(const SinkHeights<A>& row, Index visible) {
    const A gap = row.outside - row.inside, limit = sink_necessity_limit(row);
    const A unit = std::numeric_limits<A>::epsilon() * static_cast<A>(visible + 8);
    const bool known = gap > A(0) && std::isfinite(gap);
    // Both sums are of the same weights and heights: only their additions are rounded.
    const A error = known ? (row.size + std::abs(row.outside) * row.total) / gap : A(0);
    return lower_bound<A>(
        sink_necessity_statement,
        {.limit = limit, .measured = row.mass, .tolerance = unit * (error + row.total), .trivial = 0});
}

/// A direction along which the outputs of a head force weight on the keys S.
struct SinkDirection {
    Eigen::RowVectorXd direction; ///< u, of length 1; 0 where none was found that separates
    double forced = 0;            ///< the limit of `sink_necessity` for the mean output, all keys seen
};

/// Looks for the u with the largest limit for one output o. The best u of all shows the least weight on S that any
/// weights with this output can have (duality of linear programs); what is found is true, and may be less.
/// Formula. With S drawn together in its lowest value: least <u, o-v_S>/min_j <u, v_j-v_S> over u. Coordinate ascent
/// on the dual of min <u,o-v_S> + eps |u|^2/2 under <u, v_j-v_S> >= 1, eps falling; the best u seen counts.
/// Shapes and units. values [keys, d]; inside: is key j in S?; output [d]: o, such as the mean output of a head.
/// Special rows. No direction where all keys are in S or none is, or where values are not finite.
/// Cost. O(sweeps keys d).
/// Throws. `invalid_argument` when shapes do not fit.
template <Real T>
SinkDirection sink_direction(MatrixView<T> values, std::span<const char> inside,
                             const Eigen::RowVectorXd& output, int sweeps = 200) {
    const Index n = values.rows(), d = values.cols();
    detail::require(static_cast<Index>(inside.size()) == n && output.size() == d, "sink_direction",
                    "set and output must fit the values", inside.size(), n, output.size(), d);
    const Matrix<double> v = values.map().template cast<double>();
    SinkDirection result{Eigen::RowVectorXd::Zero(d), 0};
    std::vector<Index> within, others;
    for (Index j = 0; j < n; ++j) (detail::at(inside, j) ? within : others).push_back(j);
    if (within.empty() || others.empty() || !v.allFinite() || !output.allFinite()) return result;
    Eigen::RowVectorXd centre = Eigen::RowVectorXd::Zero(d);
    for (const Index j : within) centre += v.row(j) / static_cast<double>(within.size());
    Matrix<double> apart(static_cast<Index>(others.size()), d);
    for (Index j = 0; j < apart.rows(); ++j) apart.row(j) = v.row(detail::at(others, j)) - centre;
    const Eigen::RowVectorXd goal = output - centre;
    const double scale = apart.rowwise().norm().maxCoeff();
    if (!(scale > 0)) return result;
    apart /= scale;
    const auto squares = apart.rowwise().squaredNorm().eval();

    const auto meet = [&](const Eigen::RowVectorXd& u) {
        double low = std::numeric_limits<double>::infinity();
        for (const Index j : within) low = std::min(low, (v.row(j) - centre).dot(u));
        const double high = (apart * u.transpose()).minCoeff() * scale, height = goal.dot(u);
        if (!(high > low)) return;
        const double forced = (high - height) / (high - low), length = u.norm();
        if (!(forced > result.forced) || !(length > 0) || !std::isfinite(length)) return;
        result = {u / length, forced};
    };
    meet(apart.colwise().sum());
    Eigen::RowVectorXd multipliers = Eigen::RowVectorXd::Zero(apart.rows());
    const double first = std::max(goal.norm() / scale, 1e-3);
    double eps = first;
    Eigen::RowVectorXd u = -goal / scale / eps;
    int since = 0; // sweeps at this eps
    for (int sweep = 0; sweep < sweeps; ++sweep) {
        double moved = 0;
        for (Index j = 0; j < apart.rows(); ++j) {
            if (!(squares(j) > 0)) continue;
            const double gap = 1 - apart.row(j).dot(u),
                         step = std::max(-multipliers[j], gap * eps / squares(j));
            multipliers[j] += step;
            u += step / eps * apart.row(j);
            if (step != 0) moved = std::max(moved, std::abs(gap));
        }
        meet(u);
        if (++since < sweeps / 12 && moved > 1e-3) continue;
        if (eps < 1e-6 * first) break;
        eps /= 2; // the multipliers of the last eps are where the next begins
        u = (multipliers * apart - goal / scale) / eps;
        since = 0;
    }
    return result;
}

/// The sinks of a head, and how much of their weight its outputs force.
struct ForcedSinks {
    Eigen::RowVectorXd direction; ///< u of `sink_direction` for the mean output; 0 where nothing is forced
    double mass = 0;              ///< mean p(S) over the rows
    double forced = 0;            ///< mean `sink_necessity_limit` over the rows, along u
    Index rows = 0;               ///< that give weight to a key outside S
};

/// Asks of a set of sinks whether it is forced: visit(heights, visible) is called for every row that gives weight to a
/// key outside S. Keys without weight in a row have no part in it.
/// Shapes and units. weights [queries, keys], 0 where masked; values [keys, d]; sinks: the keys S, as of `sinks`.
/// Special rows. Rows with NaN are left out.
/// Cost. O(queries keys + keys d), and that of `sink_direction`.
/// Throws. `invalid_argument` when shapes do not fit or a sink is not in [0, keys).
/// Source. arXiv:2603.11487.
template <Real P, Real T, class Visit>
ForcedSinks forced_sinks(MatrixView<P> weights, MatrixView<T> values, std::span<const Index> sinks,
                         Visit&& visit) {
    const Index keys = weights.cols();
    detail::require(values.rows() == keys, "forced_sinks", "values must have one row for each key",
                    values.rows(), keys);
    std::vector<char> inside(static_cast<std::size_t>(keys), 0);
    for (const Index key : sinks) {
        detail::require(key >= 0 && key < keys, "forced_sinks", "sinks must be in [0, keys)", key, keys);
        detail::at(inside, key) = 1;
    }
    ForcedSinks result{Eigen::RowVectorXd::Zero(values.cols())};
    if (sinks.empty()) return result;
    std::vector<Index> counted;
    Eigen::RowVectorXd mean = Eigen::RowVectorXd::Zero(keys);
    for (Index query = 0; query < weights.rows(); ++query) {
        const auto row = weights.map().row(query);
        bool outside = false;
        for (Index key = 0; key < keys && !outside; ++key) outside = row(key) > 0 && !detail::at(inside, key);
        if (!outside || row.hasNaN()) continue;
        counted.push_back(query);
        mean += row.template cast<double>();
    }
    result.rows = static_cast<Index>(counted.size());
    if (counted.empty()) return result;
    mean /= static_cast<double>(counted.size());
    const Matrix<double> v = values.map().template cast<double>();
    result.direction = sink_direction(MatrixView<double>(v), inside, mean * v).direction;
    const Eigen::VectorXd along = v * result.direction.transpose();
    std::vector<double> p, heights;
    std::vector<char> set;
    for (const Index query : counted) {
        p.clear();
        heights.clear();
        set.clear();
        for (Index key = 0; key < keys; ++key) {
            const double weight = double(weights.map()(query, key));
            if (!(weight > 0)) continue;
            p.push_back(weight);
            heights.push_back(along(key));
            set.push_back(detail::at(inside, key));
        }
        const SinkHeights<double> row =
            sink_heights<double>(RowIn<double>(p), RowIn<double>(heights), std::span<const char>(set));
        result.mass += row.mass / static_cast<double>(counted.size());
        result.forced += sink_necessity_limit(row) / static_cast<double>(counted.size());
        visit(row, static_cast<Index>(p.size()));
    }
    return result;
}

/// As above, the figures alone.
template <Real P, Real T>
ForcedSinks forced_sinks(MatrixView<P> weights, MatrixView<T> values, std::span<const Index> sinks) {
    return forced_sinks(weights, values, sinks, [](const SinkHeights<double>&, Index) {});
}

} // namespace v0_2
} // namespace attnscope
