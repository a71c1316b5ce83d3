// What the planner's answers are held against: sorted samples, rows that are really built, every budget, every format.
#pragma once

#include <attnscope/normalizer/adaptors.hpp>
#include <attnscope/planner/budget.hpp>
#include <attnscope/planner/cache_bits.hpp>
#include <attnscope/planner/growth.hpp>
#include <attnscope/planner/length.hpp>
#include <attnscope/planner/share.hpp>
#include <attnscope/planner/temperature.hpp>
#include <attnscope/selection/top_n.hpp>
#include <support/rows.hpp>
#include <support/selection_reference.hpp>

namespace attnscope_test {
namespace planner {

using namespace attnscope;

inline constexpr double infinity = std::numeric_limits<double>::infinity();
inline const double nan_value = std::nan("");
inline const Ref u = unit_roundoff<double> + unit_roundoff<Ref>;

// ---- shares

/// The k-th smallest number of a sample that holds no NaN, k from 1.
inline double kth_smallest(std::vector<double> values, std::size_t k) {
    std::sort(values.begin(), values.end());
    return values[k - 1];
}

/// Smallest k >= 1 with k >= share * count, for shares that are not within rounding of a whole number.
inline std::size_t rank_of(double share, std::size_t count) {
    return static_cast<std::size_t>(std::max(Ref(1), std::ceil(Ref(share) * Ref(count))));
}

// ---- rows that are really built

/// Minus the gap of the best key (0), then of every other visible one `copies` times, changed by `shift`.
template <class T>
inline RefRow built_row(const std::vector<T>& z, std::size_t copies, double shift) {
    const auto top = static_cast<std::size_t>(std::max_element(z.begin(), z.end()) - z.begin());
    RefRow row = {0};
    for (std::size_t i = 0; i < z.size(); ++i)
        if (i != top && z[i] > -std::numeric_limits<T>::infinity())
            row.insert(row.end(), copies, (Ref(z[i]) - Ref(z[top])) - Ref(shift));
    return row;
}

struct Figures {
    Ref weight = 0, entropy = 0, participation = 0;                   // of softmax(beta z), of its first key
    Ref weight_slope = 0, entropy_slope = 0, participation_slope = 0; // |d/dlog beta|
    Ref at(Aim aim) const {
        return aim == Aim::weight ? weight : aim == Aim::entropy ? entropy : participation;
    }
    Ref slope(Aim aim) const {
        return aim == Aim::weight ? weight_slope : aim == Aim::entropy ? entropy_slope : participation_slope;
    }
};

inline Figures figures_of(const RefRow& z, Ref beta) {
    const Ref top = *std::max_element(z.begin(), z.end());
    RefRow p(z.size());
    Ref sum = 0;
    for (std::size_t i = 0; i < z.size(); ++i) sum += p[i] = std::exp(beta * (z[i] - top));
    Ref rest = 0;
    for (std::size_t i = 1; i < z.size(); ++i) rest += p[i];
    const Ref log_first = std::log(p[0]) - std::log1p(p[0] - 1 + rest); // near weight 1 too
    Ref squares = 0, mean = 0, square_mean = 0, sharper_mean = 0;
    Figures f;
    for (std::size_t i = 0; i < z.size(); ++i) {
        const Ref w = p[i] / sum, gap = beta * (z[0] - z[i]);
        if (!(w > 0)) continue;
        f.entropy -= w * (i == 0 ? log_first : std::log(w));
        squares += w * w;
        mean += w * gap;
        square_mean += w * gap * gap;
        sharper_mean += w * w * gap;
    }
    f.weight = p[0] / sum;
    f.participation = 1 / squares;
    f.weight_slope = f.weight * std::abs(mean);
    f.entropy_slope = std::abs(square_mean - mean * mean);
    f.participation_slope = 2 * f.participation * std::abs(mean - sharper_mean / squares);
    return f;
}

/// Forward error of the figures of a grown row: its sums are exact to what `RowStatistics` states, e^{-shift/T}
/// to its exponent's rounding.
struct GrownError {
    Ref weight = 0, entropy = 0, participation = 0;
    /// Keys that count as weight 0 in the sums may count again after so large a fall of the gaps.
    bool lost = false;
    Ref at(Aim aim) const {
        return aim == Aim::weight ? weight : aim == Aim::entropy ? entropy : participation;
    }
};

template <class A>
GrownError grown_error(const RowStatistics<A>& row, const RowGrowth& growth) {
    const Ref moved = std::abs(Ref(growth.shift)) / Ref(row.temperature);
    const Ref once = std::exp(-Ref(growth.shift) / Ref(row.temperature)), factor = Ref(growth.copies) * once;
    const Ref shift_error = u * (2 * moved + 4);
    const Ref error = shift_error + Ref(row.sum_error()) + 4 * u;
    const Ref r = factor * Ref(row.r), q = factor * once * Ref(row.q),
              t = factor * (Ref(row.t) + moved * Ref(row.r));
    const Ref lack = factor * Ref(row.underflow()), square_lack = lack * once;
    const Ref deepest = 720; // gaps over T beyond which every scalar counts 0
    const Ref weight = 1 / (1 + r);
    GrownError result;
    result.weight = weight * ((1 - weight) * error + weight * lack + 4 * u);
    result.entropy = weight * (2 * r * error + 3 * t * error + lack * (deepest + moved + 1)) +
                     4 * u * std::log1p(r) + deepest * Ref(std::numeric_limits<double>::min());
    result.participation = (1 + r) * (1 + r) / (1 + q) *
                           (2 * (1 - weight) * error + q / (1 + q) * (error + shift_error) + 2 * weight * lack +
                            square_lack / (1 + q) + 8 * u);
    result.lost = weight * lack > Ref(0.01) || square_lack / (1 + q) > Ref(0.01);
    return result;
}

/// A row whose n - 1 other keys all lie so far below the best one that r/(n-1) = background, at temperature T.
inline RowStatistics<double> row_with_background(std::size_t n, double log_background, double temperature = 1) {
    std::vector<double> z(n, temperature * log_background);
    z[n / 2] = 0;
    return row_statistics<double>(in(z), temperature);
}

/// Least squares in the centred form, and how far the sums of the uncentred one may be off.
struct Fit {
    Ref slope = 0, slope_error = 0, variance = 0, variance_error = 0;
};

inline Fit reference_fit(const std::vector<RowStatistics<double>>& rows) {
    const Ref m = static_cast<Ref>(rows.size());
    RefRow x, y;
    Ref mean_x = 0, mean_y = 0, sizes_x = 0, sizes_y = 0, y_error = 0;
    for (const auto& row : rows) {
        x.push_back(std::log(Ref(row.visible)));
        y.push_back(std::log(Ref(row.r)) - std::log(Ref(row.visible - 1)));
        mean_x += x.back() / m;
        mean_y += y.back() / m;
        sizes_x += x.back() * x.back();
        sizes_y += y.back() * y.back();
        y_error = std::max(y_error, 2 * u * (std::abs(std::log(Ref(row.r))) + x.back()));
    }
    Ref xx = 0, xy = 0, yy = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        xx += (x[i] - mean_x) * (x[i] - mean_x);
        xy += (x[i] - mean_x) * (y[i] - mean_y);
        yy += (y[i] - mean_y) * (y[i] - mean_y);
    }
    // Sums of m products and the product of two sums, each rounded m times, and the rounding of x and y.
    const Ref units = 2 * (m + 8) * u;
    const Ref xx_error = units * sizes_x,
              xy_error = units * std::sqrt(sizes_x * sizes_y) + y_error * std::sqrt(m * sizes_x),
              yy_error = units * sizes_y + 2 * y_error * std::sqrt(m * sizes_y);
    Fit fit;
    fit.slope = xy / xx;
    fit.slope_error = (xy_error + std::abs(fit.slope) * xx_error) / xx;
    fit.variance = std::max(Ref(0), yy - xy * xy / xx) / (m - 2) / xx;
    fit.variance_error =
        (yy_error + 2 * std::abs(fit.slope) * xy_error + fit.slope * fit.slope * xx_error) / (m - 2) / xx +
        fit.variance * (2 * xx_error / xx + 8 * u);
    return fit;
}

// ---- budgets

/// Every budget k = 1 ... n of one row, by definition: index k - 1.
struct Budgets {
    RefRow error, error_rounding; // |o - o_k| and what double may be off by
    RefRow tail, tail_rounding;   // mass that is left out, of 1
    Ref length = 0, length_rounding = 0;
    Ref spread = 0;     // the largest |x_i - x_j|
    Ref mass_error = 0; // of the weights as given, which should sum to 1
};

template <class T>
Budgets reference_budgets(const Tokens<T>& tokens, std::span<const Index> order) {
    const auto n = static_cast<std::size_t>(tokens.n), d = static_cast<std::size_t>(tokens.d);
    const Ref units = 2 * u * static_cast<Ref>(n + d + 8);
    Budgets b;
    Ref mass = 0, lengths_sum = 0;
    for (std::size_t rank = n; rank-- > 0;) mass += tokens.weight(order[rank]);
    b.mass_error = std::abs(mass - 1);
    RefRow output(d);
    for (std::size_t rank = n; rank-- > 0;) {
        const Ref w = tokens.weight(order[rank]) / mass;
        for (std::size_t c = 0; c < d; ++c) output[c] += w * tokens.at(order[rank], static_cast<Index>(c));
        lengths_sum += w * tokens.length(order[rank]);
    }
    b.length = norm_of(output);
    b.length_rounding = units * lengths_sum;
    for (std::size_t k = 1; k <= n; ++k) {
        RefRow head(d);
        Ref head_mass = 0;
        for (std::size_t rank = k; rank-- > 0;) {
            const Ref w = tokens.weight(order[rank]) / mass;
            head_mass += w;
            for (std::size_t c = 0; c < d; ++c) head[c] += w * tokens.at(order[rank], static_cast<Index>(c));
        }
        for (Ref& x : head) x /= head_mass; // o_k
        // o - o_k = sum over the tail of w (x - o_k)
        RefRow change(d);
        Ref tail = 0, tail_lengths = 0;
        for (std::size_t rank = n; rank-- > k;) {
            const Ref w = tokens.weight(order[rank]) / mass;
            tail += w;
            tail_lengths += w * tokens.length(order[rank]);
            for (std::size_t c = 0; c < d; ++c)
                change[c] += w * (tokens.at(order[rank], static_cast<Index>(c)) - head[c]);
        }
        b.error.push_back(norm_of(change));
        b.error_rounding.push_back(units *
                                   (tail_lengths + tail / head_mass * lengths_sum * (1 + 1 / head_mass)));
        b.tail.push_back(tail);
        b.tail_rounding.push_back(units * tail);
    }
    for (Index i = 0; i < tokens.n; ++i)
        for (Index j = 0; j < i; ++j) b.spread = std::max(b.spread, tokens.apart(i, j));
    return b;
}

template <class T>
std::vector<Index> ranked(const std::vector<T>& p) {
    Ranking<T> ranking;
    ranking.rank(in(p));
    return {ranking.order().begin(), ranking.order().end()};
}

template <class T>
RowBudget budget_of(const Tokens<T>& tokens, std::span<const Index> order, T diameter, double tolerance) {
    return output_budget<T>(tokens.weights(), tokens.vectors(), order, diameter, tolerance);
}

/// At least the largest distance, and not by more than rounding.
template <class T>
T upper_diameter(Ref spread) {
    return std::nextafter(static_cast<T>(spread * (1 + 2 * unit_roundoff<T>)),
                          std::numeric_limits<T>::infinity());
}

struct BudgetWorsts {
    Worst measured, measured_less, certified, certified_less, ordered;
};

/// The error is within the tolerance at this k and at every larger one, and not at the next smaller one.
template <class T>
void check_budget(const Tokens<T>& tokens, const std::vector<Index>& order, const Budgets& b, T diameter,
                  double tolerance, BudgetWorsts& worst) {
    const RowBudget budget = budget_of(tokens, order, diameter, tolerance);
    Where where = tokens.where;
    where.temperature = tolerance;
    const Ref allowed = Ref(tolerance) * b.length, slack = Ref(tolerance) * b.length_rounding + 4 * u * allowed;
    const auto n = static_cast<std::size_t>(tokens.n);
    const bool in_range = budget.visible == tokens.n && budget.measured >= 1 && budget.measured <= tokens.n &&
                          budget.certified >= 1 && budget.certified <= tokens.n;
    worst.ordered.meet(in_range, where);
    if (!in_range) return;
    const auto measured = static_cast<std::size_t>(budget.measured),
               certified = static_cast<std::size_t>(budget.certified);
    for (std::size_t k = measured; k < n; ++k)
        worst.measured.meet(b.error[k - 1] - allowed, slack + b.error_rounding[k - 1], where);
    if (measured > 1)
        worst.measured_less.meet(allowed - b.error[measured - 2], slack + b.error_rounding[measured - 2],
                                 where);
    // The certificate is about weights that sum to 1.
    const Ref certified_slack = slack + b.mass_error * allowed;
    for (std::size_t k = certified; k < n; ++k)
        worst.certified.meet(b.tail[k - 1] * Ref(diameter) - allowed,
                             certified_slack + b.tail_rounding[k - 1] * Ref(diameter), where);
    if (certified > 1)
        worst.certified_less.meet(allowed - b.tail[certified - 2] * Ref(diameter),
                                  certified_slack + b.tail_rounding[certified - 2] * Ref(diameter), where);
    // Only rounding may decide otherwise, where the certificate is attained.
    const bool borderline =
        std::abs(b.error[certified - 1] - allowed) <= certified_slack + b.error_rounding[certified - 1];
    worst.ordered.meet(measured <= certified || borderline, where);
}

// ---- caches

/// One row of a head with its own and with other keys, in long double, and the rounding of its logits in T.
struct CacheRow {
    Ref error = 0; // |o' - o|/|o|
    Ref range = 0, gap = infinity, gap_after = infinity;
    Ref error_rounding = 0, range_rounding = 0;      // of the above
    Ref diameter = 0, limit = 0, limit_rounding = 0; // with the diameter of what is seen
    std::vector<Ref> output;
};

template <class T>
std::vector<CacheRow> reference_cache(const HeadView<T>& head, const Matrix<T>& stored, const Mask& mask) {
    std::vector<CacheRow> rows;
    const auto width = static_cast<std::size_t>(head.v().cols());
    for (Index query = 0; query < head.queries(); ++query) {
        std::vector<Index> seen;
        mask.visible(query, head.keys()).for_each([&](Index key) { seen.push_back(key); });
        RefRow z, moved;
        Ref rounding = 0, low = infinity, high = -infinity;
        for (const Index key : seen) {
            Ref a = 0, b = 0, size = 0;
            for (Index c = 0; c < head.q().cols(); ++c) {
                const Ref q = head.q().map()(query, c), k = head.k().map()(key, c), k2 = stored(key, c);
                a += q * k, b += q * k2;
                size += std::abs(q) * (std::abs(k) + std::abs(k2));
            }
            z.push_back(a * Ref(head.scale()));
            moved.push_back(b * Ref(head.scale()));
            rounding =
                std::max(rounding, unit_roundoff<T> * Ref(head.q().cols() + 2) * size * Ref(head.scale()));
            low = std::min(low, moved.back() - z.back());
            high = std::max(high, moved.back() - z.back());
        }
        CacheRow row;
        row.output.assign(width, 0);
        if (seen.empty()) {
            rows.push_back(row);
            continue;
        }
        const Ref top = *std::max_element(z.begin(), z.end()),
                  new_top = *std::max_element(moved.begin(), moved.end());
        Ref sum = 0, new_sum = 0;
        for (std::size_t i = 0; i < z.size(); ++i)
            sum += std::exp(z[i] - top), new_sum += std::exp(moved[i] - new_top);
        RefRow change(width);
        Ref second = -infinity, rival = -infinity;
        const auto best = static_cast<std::size_t>(std::max_element(z.begin(), z.end()) - z.begin());
        for (std::size_t i = 0; i < z.size(); ++i) {
            const Ref p = std::exp(z[i] - top) / sum, after = std::exp(moved[i] - new_top) / new_sum;
            for (std::size_t c = 0; c < width; ++c) {
                const Ref v = head.v().map()(seen[i], static_cast<Index>(c));
                row.output[c] += p * v;
                change[c] += (after - p) * v;
            }
            if (i != best) second = std::max(second, z[i]), rival = std::max(rival, moved[i]);
            for (std::size_t j = 0; j < i; ++j) {
                Ref apart = 0;
                for (Index c = 0; c < head.v().cols(); ++c) {
                    const Ref x = Ref(head.v().map()(seen[i], c)) - Ref(head.v().map()(seen[j], c));
                    apart += x * x;
                }
                row.diameter = std::max(row.diameter, std::sqrt(apart));
            }
        }
        row.range = high - low;
        row.gap = z[best] - second;
        row.gap_after = moved[best] - rival;
        const Ref length = norm_of(row.output), spread = top - *std::min_element(z.begin(), z.end());
        row.error = norm_of(change) == 0 ? Ref(0) : norm_of(change) / length;
        // Two logits differ by twice the rounding, and a range r moves an output by diam r/4 at most; then the
        // weights are computed in double, at the size of their logarithms.
        row.range_rounding = seen.size() == 1 ? Ref(0) : 2 * rounding + 8 * u * (row.range + rounding);
        const Ref weights = u * (8 * spread + 8 * row.range + 64 + Ref(z.size()) / 4);
        const Ref norm_rounding = unit_roundoff<T> * Ref(head.v().cols() + 4);
        row.error_rounding = seen.size() == 1 ? Ref(0)
                                              : row.diameter * (2 * rounding / 2 + 2 * weights) / length +
                                                    norm_rounding * row.error;
        Ref rest = 0;
        for (std::size_t i = 0; i < z.size(); ++i) rest += i == best ? Ref(0) : std::exp(z[i] - top) / sum;
        const Ref variation =
            rest < 1 / (1 + std::exp(row.range / 2))
                ? rest * (1 - rest) * std::expm1(row.range) / (1 + rest * std::expm1(row.range))
                : std::tanh(row.range / 4);
        row.limit = row.diameter == 0 ? Ref(0) : row.diameter * variation / length;
        // The weight of the others is as exact as its logits: a relative error of the limit.
        row.limit_rounding = row.diameter * row.range_rounding / 4 / length +
                             (4 * norm_rounding + 2 * rounding + 2 * weights) * row.limit;
        rows.push_back(row);
    }
    return rows;
}

template <class T>
struct RandomHead {
    Matrix<T> q, k, v, outputs;
    Mask mask;
    Row<T> diameters;
    HeadView<T> head() const { return {q, k, v}; }
    std::span<const T> widths() const { return {diameters.data(), static_cast<std::size_t>(diameters.size())}; }
    std::vector<CacheRow> rows(const CacheFormat& format) const {
        return reference_cache(head(), through_cache(MatrixView<T>(k), format), mask);
    }
    CacheFigures figures(const CacheFormat& format) const {
        return cache_figures<T>(head(), format, mask, widths(), MatrixView<T>(outputs));
    }
    CacheBits fewest(CacheScale scale, double tolerance, double share) const {
        return fewest_cache_bits<T>(head(), scale, mask, widths(), MatrixView<T>(outputs), tolerance, share);
    }
    void measure() {
        outputs.resize(q.rows(), v.cols());
        const std::vector<CacheRow> all = reference_cache(head(), k, mask);
        for (Index i = 0; i < outputs.rows(); ++i)
            for (Index c = 0; c < outputs.cols(); ++c)
                outputs(i, c) =
                    static_cast<T>(all[static_cast<std::size_t>(i)].output[static_cast<std::size_t>(c)]);
        diameters = visible_diameters(MatrixView<T>(v), mask, q.rows());
    }
};

template <class T>
RandomHead<T> random_head(SplitMix64& random, Index n, double size, int kind) {
    RandomHead<T> made;
    made.mask = kind == 0 ? Mask::none() : kind == 1 ? Mask::causal() : Mask::sliding_window(5);
    for (auto* m : {&made.q, &made.k, &made.v}) {
        m->resize(n, m == &made.v ? 5 : 8);
        for (Index i = 0; i < m->size(); ++i) m->data()[i] = static_cast<T>(size * random.normal());
    }
    made.measure();
    return made;
}

inline Ref need_of(RefRow values, double share) {
    std::sort(values.begin(), values.end());
    return values[rank_of(share, values.size()) - 1];
}

inline std::string message_of(auto&& action) {
    try {
        action();
    } catch (const invalid_argument& error) {
        return error.what();
    }
    return "nothing thrown";
}

/// Of n keys, the best one by a gap above the next.
inline RowStatistics<double> row_of(Index n, double gap) {
    RowStatistics<double> row;
    row.status = attnscope::RowStatus::normal;
    row.visible = n;
    row.max_logit = gap;
    row.second_logit = 0;
    return row;
}

} // namespace planner
} // namespace attnscope_test
