// The planner against its promises: sorting, rows that are really built, every budget tried, quantised heads.
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

using namespace attnscope_test;
using namespace attnscope;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
const double nan_value = std::nan("");
const Ref u = unit_roundoff<double> + unit_roundoff<Ref>;

// ---- shares

/// The k-th smallest number of a sample that holds no NaN, k from 1.
double kth_smallest(std::vector<double> values, std::size_t k) {
    std::sort(values.begin(), values.end());
    return values[k - 1];
}

/// Smallest k >= 1 with k >= share * count, for shares that are not within rounding of a whole number.
std::size_t rank_of(double share, std::size_t count) {
    return static_cast<std::size_t>(std::max(Ref(1), std::ceil(Ref(share) * Ref(count))));
}

// ---- rows that are really built

/// Minus the gap of the best key (0), then of every other visible one `copies` times, changed by `shift`.
template <class T>
RefRow built_row(const std::vector<T>& z, std::size_t copies, double shift) {
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

Figures figures_of(const RefRow& z, Ref beta) {
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
RowStatistics<double> row_with_background(std::size_t n, double log_background, double temperature = 1) {
    std::vector<double> z(n, temperature * log_background);
    z[n / 2] = 0;
    return row_statistics<double>(in(z), temperature);
}

/// Least squares in the centred form, and how far the sums of the uncentred one may be off.
struct Fit {
    Ref slope = 0, slope_error = 0, variance = 0, variance_error = 0;
};

Fit reference_fit(const std::vector<RowStatistics<double>>& rows) {
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
        row.limit = row.diameter == 0 ? Ref(0) : row.diameter * std::tanh(row.range / 4) / length;
        row.limit_rounding = row.diameter * row.range_rounding / 4 / length + 4 * norm_rounding * row.limit;
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

Ref need_of(RefRow values, double share) {
    std::sort(values.begin(), values.end());
    return values[rank_of(share, values.size()) - 1];
}

std::string message_of(auto&& action) {
    try {
        action();
    } catch (const invalid_argument& error) {
        return error.what();
    }
    return "nothing thrown";
}

} // namespace

// ---- share.hpp

TEST_CASE("what serves a share of the rows is what sorting gives", "[planner][share]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst need, reach, between, definition, counted;
    for (const std::size_t n : {1u, 2u, 3u, 7u, 10u, 17u, 49u, 100u, 257u, 1000u})
        for (const int kind : {0, 1, 2, 3}) {
            SplitMix64 random = generator(seed, n, kind, 11);
            std::vector<double> values = normal_row<double>(random, n);
            if (kind == 1)
                for (double& x : values) x = std::round(2 * x); // ties
            if (kind >= 2)
                for (double& x : values)
                    if (random.below(4) == 0) x = random.below(2) == 0 ? infinity : -infinity;
            std::vector<double> given = values;
            if (kind != 0)
                for (std::size_t i = 0; i < 1 + n / 3; ++i)
                    given.insert(given.begin() + random.below(static_cast<Index>(given.size()) + 1),
                                 i % 2 == 0 ? nan_value : -nan_value);
            const Where where{"values", n, static_cast<double>(kind), seed};
            for (std::size_t k = 1; k <= n; ++k) {
                if (n > 300 && k % 7 != 0 && k != n) continue;
                const double share = static_cast<double>(k) / static_cast<double>(n);
                const double low = kth_smallest(values, k), high = kth_smallest(values, n + 1 - k);
                need.meet(need_for_share(given, share) == low, where);
                reach.meet(reach_for_share(given, share) == high, where);
                const double inside = (static_cast<double>(k) - 0.5) / static_cast<double>(n);
                between.meet(need_for_share(given, inside) == low, where);
                between.meet(reach_for_share(given, inside) == high, where);
                // The definition: at least k of the values reach it, fewer than k any smaller one.
                std::size_t covered = 0, below = 0;
                for (const double x : values) covered += x <= low, below += x < low;
                definition.meet(covered >= k && below < k, where);
                const double met = share_of(given, [&](double x) {
                    counted.meet(x == x, where); // it is not asked about NaN
                    return x <= low;
                });
                counted.meet(met == static_cast<double>(covered) / static_cast<double>(n), where);
            }
        }
    ATTNSCOPE_CHECK_WORST(need);
    ATTNSCOPE_CHECK_WORST(reach);
    ATTNSCOPE_CHECK_WORST(between);
    ATTNSCOPE_CHECK_WORST(definition);
    ATTNSCOPE_CHECK_WORST(counted);
}

TEST_CASE("shares of special samples", "[planner][share]") {
    const std::vector<double> none, only_nan = {nan_value, nan_value},
                                    never = {1, infinity, infinity, infinity};
    for (const double share : {5e-324, 0.25, 1.0}) {
        CHECK(std::isnan(need_for_share(none, share)));
        CHECK(std::isnan(reach_for_share(none, share)));
        CHECK(std::isnan(need_for_share(only_nan, share)));
        CHECK(std::isnan(reach_for_share(only_nan, share)));
    }
    CHECK(need_for_share(never, 0.25) == 1);
    CHECK(need_for_share(never, 0.26) == infinity);
    CHECK(need_for_share(never, 5e-324) == 1);
    CHECK(reach_for_share(never, 0.75) == infinity);
    CHECK(reach_for_share(never, 1) == 1);
    CHECK(need_for_share({2, 1, -infinity}, 1e-9) == -infinity);
    const auto always = [](double) { return true; };
    CHECK(std::isnan(share_of(none, always)));
    CHECK(std::isnan(share_of(only_nan, always)));
    CHECK(share_of({infinity, -infinity, nan_value}, always) == 1);
    CHECK(share_of(never, [](double x) { return x < infinity; }) == 0.25);
    for (const double bad : {0.0, -0.5, 1.0 + 0x1p-52, 2.0, infinity, -infinity, nan_value})
        for (const auto& values : {none, never}) {
            CAPTURE(bad);
            CHECK_THROWS_AS(need_for_share(values, bad), invalid_argument);
            CHECK_THROWS_AS(reach_for_share(values, bad), invalid_argument);
        }
    CHECK(message_of([&] { need_for_share(none, 2); }) == "need_for_share: share must be in (0,1], got 2");
}

// ---- growth.hpp

TEST_CASE("the exponent that was put in comes out", "[planner][growth]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst exact, fitted, spread, scaled;
    for (const double exponent : {-1.5, -0.3, 0.0, 0.2, 1.0})
        for (const double noise : {0.0, 1e-3, 0.3}) {
            SplitMix64 random =
                generator(seed, static_cast<int>(exponent * 10), static_cast<int>(noise * 1000), 21);
            std::vector<RowStatistics<double>> rows, colder;
            Ref size = 0;
            for (int i = 0; i < 60; ++i) {
                const auto n = static_cast<std::size_t>(8 + random.below(2000));
                // A gap is where the background can be put, and it may not be negative.
                const double background =
                    exponent * std::log(static_cast<double>(n)) - 12 + noise * random.normal();
                rows.push_back(row_with_background(n, background));
                colder.push_back(row_with_background(n, background, 0.125));
                size = std::max(size, 12 + std::abs(Ref(exponent)) * 8);
            }
            const Where where{"rows", 60, exponent, seed};
            const BackgroundGrowth growth = background_growth<double>(rows);
            const Fit fit = reference_fit(rows);
            CHECK(growth.rows == 60);
            fitted.meet(std::abs(Ref(growth.exponent) - fit.slope), fit.slope_error, where);
            spread.meet(std::abs(Ref(growth.standard_error) * Ref(growth.standard_error) - fit.variance),
                        fit.variance_error, where);
            // The logits are rounded at their size, and the sums of equal terms as the statistics say.
            if (noise == 0)
                exact.meet(std::abs(fit.slope - Ref(exponent)),
                           fit.slope_error +
                               4 * (u * size + Ref(rows.front().sum_error()) + 60 * unit_roundoff<double>),
                           where);
            // At the temperature of the statistics: T times the gaps at T tell the same.
            scaled.meet(std::abs(Ref(background_growth<double>(colder).exponent) - Ref(growth.exponent)),
                        2 * fit.slope_error +
                            4 * (u * size + 2 * Ref(rows.front().sum_error()) + 120 * unit_roundoff<double>),
                        where);
        }
    ATTNSCOPE_CHECK_WORST(exact);
    ATTNSCOPE_CHECK_WORST(fitted);
    ATTNSCOPE_CHECK_WORST(spread);
    ATTNSCOPE_CHECK_WORST(scaled);
}

TEST_CASE("the standard error is that of the exponent", "[planner][growth]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    // (exponent found - put in)/error follows Student's t with m - 2 degrees of freedom.
    const int trials = 300;
    for (const int m : {12, 40}) {
        double sum = 0;
        SplitMix64 random = generator(seed, m, 31);
        for (int trial = 0; trial < trials; ++trial) {
            std::vector<RowStatistics<double>> rows;
            for (int i = 0; i < m; ++i) {
                const auto n = static_cast<std::size_t>(8 << random.below(7));
                rows.push_back(
                    row_with_background(n, 0.4 * std::log(static_cast<double>(n)) - 9 + 0.5 * random.normal()));
            }
            const BackgroundGrowth growth = background_growth<double>(rows);
            const double t = (growth.exponent - 0.4) / growth.standard_error;
            sum += t * t;
        }
        const double nu = m - 2, mean = nu / (nu - 2),
                     variance = 3 * nu * nu / ((nu - 2) * (nu - 4)) - mean * mean;
        CAPTURE(m, sum / trials, mean);
        CHECK(std::abs(sum / trials - mean) <= 5 * std::sqrt(variance / trials));
    }
}

TEST_CASE("rows that tell nothing about growth", "[planner][growth]") {
    const std::vector<RowStatistics<double>> good = {row_with_background(8, -3), row_with_background(16, -3.5),
                                                     row_with_background(100, -5),
                                                     row_with_background(300, -4)};
    const BackgroundGrowth expected = background_growth<double>(good);
    CHECK(expected.rows == 4);
    CHECK(expected.standard_error < infinity);
    const auto of = [](std::vector<double> z) { return row_statistics<double>(in(z)); };
    std::vector<RowStatistics<double>> mixed = good;
    mixed.insert(mixed.begin(), row_with_background(7, 0)); // too short
    mixed.push_back(of(std::vector<double>(20, nan_value)));
    mixed.push_back(of(std::vector<double>(20, infinity)));
    mixed.push_back(of(std::vector<double>(20, -infinity)));
    mixed.push_back(of({}));
    mixed.push_back(of({1}));
    mixed.push_back(row_with_background(9, -5000)); // log 0 would be the end of the fit
    std::vector<double> masked(20, -infinity);
    std::fill(masked.begin(), masked.begin() + 7, 0.0); // seven visible keys
    mixed.push_back(of(masked));
    const BackgroundGrowth found = background_growth<double>(mixed);
    CHECK(found.rows == expected.rows);
    CHECK(found.exponent == expected.exponent);
    CHECK(found.standard_error == expected.standard_error);
    CHECK(background_growth<double>(mixed, 7).rows == 6);
    CHECK(background_growth<double>(mixed, 2).rows == 6);
    CHECK(background_growth<double>(mixed, 9).rows == 3);
    // Masked keys do not count: as if they were not there.
    std::vector<double> hidden(40, -infinity), seen(16, -3.5);
    std::fill(hidden.begin(), hidden.begin() + 16, -3.5);
    hidden[3] = seen[3] = 0;
    std::vector<RowStatistics<double>> swapped = good;
    swapped[1] = of(hidden);
    CHECK(background_growth<double>(swapped).exponent == expected.exponent);
    // Fewer than three rows, or one length.
    for (const std::size_t count : {0u, 1u, 2u}) {
        const BackgroundGrowth few =
            background_growth<double>(std::span<const RowStatistics<double>>(good.data(), count));
        CHECK(few.rows == static_cast<Index>(count));
        CHECK(few.standard_error == infinity);
        if (count < 2) CHECK(few.exponent == 0);
    }
    std::vector<RowStatistics<double>> same;
    for (const double background : {-1.0, -2.0, -7.0, -3.0, -2.5})
        same.push_back(row_with_background(100, background));
    CHECK(background_growth<double>(same).exponent == 0);
    CHECK(background_growth<double>(same).standard_error == infinity);
    CHECK(background_growth<double>(same).rows == 5);
    CHECK(background_growth<long double>(std::span<const RowStatistics<long double>>()).rows == 0);
    for (const Index bad : {Index(1), Index(0), Index(-3)})
        CHECK_THROWS_AS(background_growth<double>(good, bad), invalid_argument);
}

/// Of n keys, the best one by a gap above the next.
RowStatistics<double> row_of(Index n, double gap) {
    RowStatistics<double> row;
    row.status = attnscope::RowStatus::normal;
    row.visible = n;
    row.max_logit = gap;
    row.second_logit = 0;
    return row;
}

TEST_CASE("how a row is taken to a length", "[planner][growth]") {
    Worst copies, shift, whole;
    for (const Index n : {Index(2), Index(3), Index(17), Index(1000)})
        for (const double length : {2.0, 2.5, 17.0, 1000.0, 1e6, 1e18})
            for (const double exponent : {-1.0, -0.2, 0.0, 0.3, 4.0})
                for (const double gap : {0.0, 0.5, 20.0, infinity}) {
                    const Where where{"growth", static_cast<std::size_t>(n), exponent};
                    const RowGrowth growth = row_growth(row_of(n, gap), length, exponent);
                    const Ref exact = (Ref(length) - 1) / Ref(n - 1);
                    copies.meet(std::abs(Ref(growth.copies) - exact), 2 * u * exact, where);
                    const Ref grown = -Ref(exponent) * std::log(Ref(length) / Ref(n));
                    shift.meet(std::abs(Ref(growth.shift) - std::max(grown, -Ref(gap))),
                               2 * u * std::abs(grown) + std::abs(Ref(exponent)) * u, where);
                    shift.meet(growth.shift >= -gap, where); // never beyond the best key
                    if (length == static_cast<double>(n)) {
                        copies.meet(growth.copies == 1, where);
                        shift.meet(growth.shift == 0, where);
                    }
                }
    for (const Index n : {Index(2), Index(3), Index(17), Index(1000)})
        for (const double c : {1.0, 2.0, 3.0, 7.0, 1024.0})
            whole.meet(row_growth(row_of(n, 1), 1 + c * static_cast<double>(n - 1)).copies == c,
                       Where{"whole", static_cast<std::size_t>(n), c});
    ATTNSCOPE_CHECK_WORST(copies);
    ATTNSCOPE_CHECK_WORST(shift);
    ATTNSCOPE_CHECK_WORST(whole);
    for (const Index bad : {Index(1), Index(0), Index(-1)})
        CHECK_THROWS_AS(row_growth(row_of(bad, 1), 10), invalid_argument);
    for (const double bad : {1.999, 1.0, 0.0, -5.0, -infinity, nan_value})
        CHECK_THROWS_AS(row_growth(row_of(3, 1), bad), invalid_argument);
}

TEMPLATE_TEST_CASE("a grown row has the figures of the row that is really built", "[planner][growth]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::size_t, 6> few = {2, 3, 8, 17, 64, 257};
    Worst weight, entropy, participation, level;
    std::size_t lost = 0;
    for_each_row<T>(seed, few, 1, [&](Where where, const std::vector<T>& z) {
        for (const double temperature : temperatures) {
            where.temperature = temperature;
            const auto row = row_statistics<T>(in(z), temperature);
            if (!row.normal() || row.visible < 2) continue;
            const double gap = static_cast<double>(row.logit_gap()),
                         spread = static_cast<double>(row.logit_spread());
            for (const std::size_t copies : {1u, 2u, 5u})
                for (const double shift :
                     {0.0, 0.25 * spread, 0.7 * temperature, 40 * temperature, -gap / 2, -0.9 * gap, -gap}) {
                    const RowGrowth growth{static_cast<double>(copies), shift};
                    const GrownRow grown = grown_row(row, growth);
                    const RefRow built = built_row(z, copies, shift);
                    const Figures exact = figures_of(built, 1 / Ref(temperature));
                    const GrownError error = grown_error(row, growth);
                    if (error.lost) {
                        ++lost;
                        continue;
                    }
                    weight.meet(std::abs(Ref(grown.best_weight) - exact.weight), error.weight, where);
                    entropy.meet(std::abs(Ref(grown.entropy_nats) - exact.entropy), error.entropy, where);
                    participation.meet(std::abs(Ref(grown.participation_ratio) - exact.participation),
                                       error.participation, where);
                    // Where the gap is used up, the second key shares the weight of the best one.
                    if (shift == -gap)
                        level.meet(Ref(grown.best_weight) - 1 / Ref(1 + copies), error.weight, where);
                }
        }
    });
    CHECK(weight.met() > 10 * lost);
    ATTNSCOPE_CHECK_WORST(weight);
    ATTNSCOPE_CHECK_WORST(entropy);
    ATTNSCOPE_CHECK_WORST(participation);
    ATTNSCOPE_CHECK_WORST(level);
}

TEST_CASE("the background of a grown row follows the exponent", "[planner][growth]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst follows;
    SplitMix64 random = generator(seed, 41);
    for (int i = 0; i < 50; ++i) {
        std::vector<double> z = normal_row<double>(random, static_cast<std::size_t>(8 + random.below(200)));
        z[0] += 8;
        const auto row = row_statistics<double>(in(z));
        const double n = static_cast<double>(row.visible);
        for (const double exponent : {-1.2, -0.3, 0.0, 0.1, 0.4})
            for (const double length : {n / 2, n, 3.7 * n, 100 * n}) {
                const RowGrowth growth = row_growth(row, length, exponent);
                if (growth.shift == -row.logit_gap()) continue;
                const Ref rest = 1 / Ref(grown_row(row, growth).best_weight) - 1; // of the grown row
                const Ref expected = (Ref(length) - 1) / (Ref(n) - 1) * Ref(row.r) *
                                     std::pow(Ref(length) / Ref(n), Ref(exponent));
                follows.meet(
                    std::abs(rest - expected),
                    2 * u * (1 + expected) +
                        expected * u *
                            (8 + 4 * std::abs(Ref(exponent)) * (2 + std::abs(std::log(Ref(length) / Ref(n))))),
                    Where{"normal", z.size(), exponent, seed});
            }
    }
    ATTNSCOPE_CHECK_WORST(follows);
}

TEST_CASE("special rows do not grow", "[planner][growth]") {
    for (const std::vector<double>& z : {std::vector<double>{}, std::vector<double>{-infinity, -infinity},
                                         std::vector<double>{0, nan_value}, std::vector<double>{0, infinity}}) {
        const GrownRow grown = grown_row(row_statistics<double>(in(z)), {3, 0.5});
        CHECK(std::isnan(grown.best_weight));
        CHECK(std::isnan(grown.entropy_nats));
        CHECK(std::isnan(grown.participation_ratio));
    }
    for (const std::vector<double>& z :
         {std::vector<double>{7}, std::vector<double>{-infinity, 7}, std::vector<double>{0, -2000, -3000}}) {
        const GrownRow grown = grown_row(row_statistics<double>(in(z)), {1000, 0.5});
        CHECK(grown.best_weight == 1);
        CHECK(grown.entropy_nats == 0);
        CHECK(grown.participation_ratio == 1);
    }
}

// ---- length.hpp

namespace {

/// Weight of the best key when the row of others with gaps/T `u_i` has become `length` keys long, by the model.
template <class T>
Ref weight_at(const std::vector<T>& z, Ref temperature, Ref length, Ref exponent) {
    const auto top = static_cast<std::size_t>(std::max_element(z.begin(), z.end()) - z.begin());
    Ref keys = 1, gap = infinity;
    for (std::size_t i = 0; i < z.size(); ++i)
        if (i != top && z[i] > -std::numeric_limits<T>::infinity())
            keys += 1, gap = std::min(gap, Ref(z[top]) - Ref(z[i]));
    const Ref shift = std::max(-exponent * std::log(length / keys), -gap);
    Ref sum = 0;
    for (std::size_t i = 0; i < z.size(); ++i)
        if (i != top) sum += std::exp(-(Ref(z[top]) - Ref(z[i]) + shift) / temperature);
    return 1 / (1 + (length - 1) / (keys - 1) * sum);
}

constexpr std::array<double, 6> aims_for_length = {0.001, 0.1, 0.3, 0.5, 0.9, 0.99};

} // namespace

TEMPLATE_TEST_CASE("expected lengths solve their equation, between what is guaranteed and what is possible",
                   "[planner][length]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::size_t, 6> few = {2, 3, 8, 17, 64, 257};
    Worst ordered, solved, grown, beyond, before, own_length, ends, formula;
    std::size_t finite = 0, gave = 0, gave_not = 0;
    for_each_row<T>(seed, few, 1, [&](Where where, const std::vector<T>& z) {
        for (const double temperature : temperatures) {
            where.temperature = temperature;
            const auto row = row_statistics<T>(in(z), temperature);
            if (!row.normal() || row.visible < 2) continue;
            const Ref n = static_cast<Ref>(row.visible), over = 1 / Ref(temperature);
            const Ref gap = Ref(row.logit_gap()), spread = Ref(row.logit_spread());
            const Ref sums = Ref(row.sum_error()) + (row.r > 0 ? Ref(row.underflow()) / Ref(row.r) : Ref(0));
            const Ref now = weight_at(z, Ref(temperature), n, 0);
            for (const double tau : aims_for_length) {
                const Ref odds = (1 - Ref(tau)) / Ref(tau), logs = u * (spread * over * 3 + 8);
                const LengthLimits still = length_limits(row, tau);
                const Ref least = 1 + std::exp(gap * over) * odds, most = 1 + std::exp(spread * over) * odds;
                formula.meet(still.guaranteed < infinity ? std::abs(Ref(still.guaranteed) - least) : Ref(0),
                             logs * least, where);
                formula.meet(still.possible < infinity ? std::abs(Ref(still.possible) - most) : Ref(0),
                             logs * most, where);
                if (now >= Ref(tau) * (1 + sums + logs))
                    formula.meet(n - Ref(still.possible), logs * most, where); // else no row had the weight
                if (row.r == 0) {
                    // The nearest key stands for all: no more than what is guaranteed, which it is.
                    ends.meet(still.expected >= still.guaranteed && still.expected <= still.possible &&
                                  still.guaranteed > Ref(1e30),
                              where);
                    continue;
                }
                if (most < std::exp(Ref(699))) { // what a search up to e^700 can tell
                    const Ref error = (sums + logs + 16 * u * (1 + std::log(most))) * 2;
                    ordered.meet(Ref(still.guaranteed) - Ref(still.expected), error * Ref(still.expected),
                                 where);
                    ordered.meet(Ref(still.expected) - Ref(still.possible), error * most, where);
                }
                for (const double relative : {-0.9, -0.5, 0.0, 0.25, 2.0}) {
                    const double exponent = relative * temperature;
                    const LengthLimits limits = length_limits(row, tau, exponent);
                    formula.meet(limits.guaranteed == still.guaranteed && limits.possible == still.possible,
                                 where);
                    const Ref length = limits.expected;
                    (now >= Ref(tau) ? gave : gave_not) += 1;
                    if (now < Ref(tau) * (1 - sums - logs)) own_length.meet(length < n, where);
                    if (now > Ref(tau) * (1 + sums + logs))
                        own_length.meet(n - length, n * 64 * u * (1 + std::log(n)) / (1 - 0.9L), where);
                    const auto at = [&](Ref keys) {
                        return weight_at(z, Ref(temperature), keys, Ref(exponent));
                    };
                    if (limits.expected == infinity) {
                        ends.meet(at(std::exp(Ref(699))) > Ref(tau), where);
                        continue;
                    }
                    if (limits.expected == 1) {
                        ends.meet(at(1 + Ref(2e-9)) < Ref(tau), where);
                        continue;
                    }
                    ++finite;
                    // log R moves by at most (L/(L-1) + |c|/T) for each relative unit of the length, which is
                    // the exponential of a double of size log L; its own terms are rounded at their sizes.
                    const Ref log_length = std::log(length), log_ratio = std::abs(log_length - std::log(n));
                    const Ref steep = length / (length - 1) + std::abs(Ref(exponent)) * over;
                    const Ref odds_error =
                        steep * u * (4 + 2 * log_length) + sums +
                        4 * u *
                            (8 + std::abs(std::log(length - 1)) + std::log(n) + std::abs(std::log(odds)) +
                             2 * std::abs(Ref(exponent)) * over * (log_ratio + 2) +
                             std::abs(std::log(Ref(row.r))) + gap * over);
                    const Ref weight_error = Ref(tau) * (1 - Ref(tau)) * odds_error + 4 * u * Ref(tau);
                    solved.meet(std::abs(at(length) - Ref(tau)), weight_error, where);
                    // One percent of the length moves R by a tenth of that at least.
                    if (odds_error < Ref(5e-4)) {
                        beyond.meet(at(length * Ref(1.01)) < Ref(tau), where);
                        before.meet(at(1 + (length - 1) * Ref(0.99)) > Ref(tau), where);
                    }
                    if (length < 2) continue;
                    const RowGrowth growth = row_growth(row, limits.expected, exponent);
                    auto as_given = row; // both start from the same sums
                    as_given.unit_roundoff = std::numeric_limits<double>::epsilon() / 2;
                    const GrownError of_grown = grown_error(as_given, growth);
                    if (!of_grown.lost)
                        grown.meet(std::abs(Ref(grown_row(row, growth).best_weight) - Ref(tau)),
                                   // Without growth the length is held between the outer two, which the sums do
                                   // not enter.
                                   Ref(tau) * ((1 - Ref(tau)) * (odds_error - (exponent == 0 ? Ref(0) : sums)) +
                                               4 * u) +
                                       of_grown.weight,
                                   where);
                }
            }
        }
    });
    CHECK(finite > 5000);
    CHECK(gave > 1000);
    CHECK(gave_not > 1000);
    ATTNSCOPE_CHECK_WORST(ordered);
    ATTNSCOPE_CHECK_WORST(solved);
    ATTNSCOPE_CHECK_WORST(grown);
    ATTNSCOPE_CHECK_WORST(beyond);
    ATTNSCOPE_CHECK_WORST(before);
    ATTNSCOPE_CHECK_WORST(own_length);
    ATTNSCOPE_CHECK_WORST(ends);
    ATTNSCOPE_CHECK_WORST(formula);
}

TEST_CASE("a lead that grows as fast as the number of keys never ends", "[planner][length]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::size_t, 5> few = {3, 8, 17, 64, 257};
    Worst for_ever, stays, not_now;
    for_each_row<double>(seed, few, 2, [&](Where where, const std::vector<double>& z) {
        for (const double temperature : temperatures) {
            where.temperature = temperature;
            const auto row = row_statistics<double>(in(z), temperature);
            if (!row.normal() || row.visible < 2) continue;
            const Ref n = static_cast<Ref>(row.visible), now = weight_at(z, Ref(temperature), n, 0);
            const Ref error = Ref(row.sum_error()) + u * (Ref(row.logit_spread()) / Ref(temperature) * 3 + 8);
            for (const double relative : {-1.0, -1.1, -3.0})
                for (const double tau : aims_for_length) {
                    const double exponent = relative * temperature;
                    const Ref length = length_limits(row, tau, exponent).expected;
                    // With room for (L-1)/L to rise from (n-1)/n to 1, every longer row has the weight.
                    const Ref odds = (1 - Ref(tau)) / Ref(tau);
                    if ((1 / now - 1) * n / (n - 1) < odds * (1 - error)) {
                        for_ever.meet(length == infinity, where);
                        for (const Ref times : {Ref(1), Ref(1.5), Ref(2), Ref(10), Ref(1e6), Ref(1e30)})
                            stays.meet(weight_at(z, Ref(temperature), n * times, Ref(exponent)) >=
                                           Ref(tau) * (1 - error),
                                       where);
                    }
                    if (now < Ref(tau) * (1 - error)) not_now.meet(length < n, where);
                }
        }
    });
    ATTNSCOPE_CHECK_WORST(for_ever);
    ATTNSCOPE_CHECK_WORST(stays);
    ATTNSCOPE_CHECK_WORST(not_now);
}

TEST_CASE("the guaranteed and the possible length are attained, and one key more is too many",
          "[planner][length]") {
    Worst reached, deeper, lost, same;
    std::size_t rows = 0;
    for (const double temperature : {0.5, 1.0, 2.0})
        for (const double tau : {0.01, 0.1, 0.3, 0.5, 0.9, 0.99})
            for (const double lead : {0.0, 0.3, 1.0, 3.0, 7.0}) {
                const double gap = lead * temperature;
                const Where where{"equal others", 3, temperature};
                const std::vector<double> z = {-gap - 1, 0, -gap};
                const double guaranteed =
                    length_limits(row_statistics<double>(in(z), temperature), tau).guaranteed;
                const std::vector<double> wide = {0, -gap / 3, -gap};
                const double possible =
                    length_limits(row_statistics<double>(in(wide), temperature), tau).possible;
                same.meet(guaranteed == possible, where); // one formula for gap and spread
                // Rows of equal others, and the row that is one key longer than allowed.
                const auto weight = [&](double keys, double below) {
                    RefRow row(static_cast<std::size_t>(keys), -Ref(gap) - Ref(below));
                    row[0] = 0;
                    return figures_of(row, 1 / Ref(temperature)).weight;
                };
                const double longest = std::floor(guaranteed);
                const Ref error = Ref(tau) * u * (8 * Ref(lead) + 16);
                if (longest >= 2) {
                    reached.meet(Ref(tau) - weight(longest, 0), error, where);
                    deeper.meet(weight(longest, 0.01) > Ref(tau), where);
                }
                if (guaranteed > 1 + 1e-6 && guaranteed - longest < 1 - 1e-6)
                    lost.meet(weight(longest + 1, 0) < Ref(tau), where);
                // Equal others make the weight exactly: 1/(1 + (n-1) e^{-gap/T}) with n = guaranteed.
                reached.meet(std::abs(1 / (1 + (Ref(guaranteed) - 1) * std::exp(-Ref(gap) / Ref(temperature))) -
                                      Ref(tau)),
                             error, where);
                ++rows;
            }
    CHECK(rows == 90);
    ATTNSCOPE_CHECK_WORST(reached);
    ATTNSCOPE_CHECK_WORST(deeper);
    ATTNSCOPE_CHECK_WORST(lost);
    ATTNSCOPE_CHECK_WORST(same);
}

TEST_CASE("lengths of special rows", "[planner][length]") {
    const auto limits = [](std::vector<double> z, double tau, double exponent = 0, double temperature = 1) {
        return length_limits(row_statistics<double>(in(z), temperature), tau, exponent);
    };
    const auto equal = [](const LengthLimits& l, double a, double b, double c) {
        return l.guaranteed == a && l.expected == b && l.possible == c;
    };
    for (const double exponent : {0.0, 0.5, -2.0}) {
        CHECK(equal(limits({3}, 0.5, exponent), infinity, infinity, infinity));
        CHECK(equal(limits({-infinity, 3, -infinity}, 0.999, exponent), infinity, infinity, infinity));
        CHECK(equal(limits({3}, 1, exponent), 1, 1, 1));
        CHECK(equal(limits({3, 2, 1}, 1, exponent), 1, 1, 1));
        CHECK(equal(limits({0, -5000}, 1, exponent), 1, 1, 1));
    }
    // All others infinitely far, to rounding.
    CHECK(equal(limits({0, -5000, -6000}, 0.5), infinity, infinity, infinity));
    CHECK(equal(limits({0, -50}, 0.5, 0, 1e-3), infinity, infinity, infinity));
    CHECK(equal(limits({0, -5000, -6000}, 0.5, -0.5), infinity, infinity, infinity));
    // Ties of the best key, alone and among others: 1/tau keys can have tau each, whoever stands behind.
    for (const double tau : {0.01, 0.25, 0.5, 0.75}) {
        CAPTURE(tau);
        const LengthLimits all = limits({2, 2, 2, 2}, tau);
        CHECK(std::abs(all.guaranteed - 1 / tau) <= 8 * 0x1p-53 / tau);
        CHECK(std::abs(all.expected - 1 / tau) <= 64 * 0x1p-53 / tau * (1 + std::abs(std::log(tau))));
        CHECK(std::abs(all.possible - 1 / tau) <= 8 * 0x1p-53 / tau);
        const LengthLimits some = limits({2, 2, 0, -1}, tau);
        CHECK(std::abs(some.guaranteed - 1 / tau) <= 8 * 0x1p-53 / tau);
        CHECK(some.expected > all.expected);
        CHECK(some.possible > some.expected);
    }
    for (const std::vector<double>& z : {std::vector<double>{}, std::vector<double>{-infinity},
                                         std::vector<double>{0, nan_value}, std::vector<double>{0, infinity}}) {
        const LengthLimits none = limits(z, 0.5);
        CHECK(std::isnan(none.guaranteed));
        CHECK(std::isnan(none.expected));
        CHECK(std::isnan(none.possible));
    }
    for (const double bad : {0.0, -0.5, 1.0 + 0x1p-52, infinity, nan_value}) {
        CHECK_THROWS_AS(limits({1, 0}, bad), invalid_argument);
        CHECK_THROWS_AS(limits({3}, bad), invalid_argument);
    }
    CHECK(message_of([&] { limits({1, 0}, 2); }) == "length_limits: tau must be in (0,1], got 2");
}

// ---- temperature.hpp

TEMPLATE_TEST_CASE("a planned temperature gives what is wanted", "[planner][temperature]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::size_t, 6> few = {2, 3, 8, 17, 64, 200};
    const std::vector<std::pair<Aim, double>> wishes = {
        {Aim::weight, 0.004},        {Aim::weight, 0.1},         {Aim::weight, 0.4},
        {Aim::weight, 0.9},          {Aim::weight, 0.99},        {Aim::weight, 0.999999},
        {Aim::entropy, 0.0},         {Aim::entropy, 0.01},       {Aim::entropy, 0.6},
        {Aim::entropy, 2.0},         {Aim::entropy, 6.0},        {Aim::participation, 1.0},
        {Aim::participation, 1.001}, {Aim::participation, 1.7},  {Aim::participation, 6.5},
        {Aim::participation, 90},    {Aim::participation, 4000},
    };
    Worst met, best, at_least, smallest, too_much, too_sharp;
    std::array<std::size_t, 3> reachable{};
    std::size_t flat = 0, sharp = 0, lost = 0;
    for_each_row<T>(seed, few, 1, [&](Where where, const std::vector<T>& z) {
        const auto row = row_statistics<T>(in(z));
        if (!row.normal() || row.visible < 2) return;
        const double gap = static_cast<double>(row.logit_gap()),
                     spread = static_cast<double>(row.logit_spread());
        for (const std::size_t copies : {1u, 3u})
            for (const double shift : {0.0, 0.25 * spread, -gap / 2, -gap}) {
                const RowGrowth growth{static_cast<double>(copies), shift};
                const RefRow built = built_row(z, copies, shift);
                const Ref others = static_cast<Ref>(built.size() - 1);
                Ref ties = 0; // keys that no temperature can tell from the best one
                for (std::size_t i = 1; i < built.size(); ++i)
                    ties += built[0] - built[i] <= 4 * u * Ref(gap) ? 1 : 0;
                for (const auto& wish : wishes) {
                    const Aim aim = wish.first;
                    const double value = wish.second;
                    where.normalizer = std::string(name_of(aim));
                    where.temperature = value;
                    const PlannedTemperature plan = planned_temperature<T>(in(z), growth, aim, value);
                    const auto limit = [&](Ref count) {
                        return aim == Aim::weight    ? 1 / (1 + count)
                               : aim == Aim::entropy ? std::log1p(count)
                                                     : 1 + count;
                    };
                    const Ref even = limit(others), alone = limit(ties), sign = aim == Aim::weight ? 1 : -1;
                    const Ref end_error = 8 * u * (1 + even + alone);
                    // No concentration at all is enough, or too much of it.
                    if (sign * (Ref(value) - even) < -end_error) {
                        ++flat;
                        too_much.meet(plan.inverse_temperature == 0 && plan.reachable == (aim == Aim::weight),
                                      where);
                        too_much.meet(std::abs(Ref(plan.best) - even), end_error, where);
                        continue;
                    }
                    // What even beta = infinity does not give; what it just gives is not reached either.
                    if (sign * (Ref(value) - alone) > end_error || (ties == 0 && Ref(value) == alone)) {
                        ++sharp;
                        too_sharp.meet(plan.inverse_temperature == infinity && !plan.reachable, where);
                        too_sharp.meet(std::abs(Ref(plan.best) - alone), end_error, where);
                        continue;
                    }
                    if (std::abs(Ref(value) - even) <= end_error || std::abs(Ref(value) - alone) <= end_error)
                        continue;
                    const Ref beta = plan.inverse_temperature;
                    const bool some = plan.reachable && beta > 0 && beta < infinity;
                    met.meet(some, where);
                    if (!some) continue;
                    const auto there = row_statistics<T>(in(z), static_cast<double>(1 / beta));
                    const GrownError error = grown_error(there, growth);
                    if (error.lost) {
                        ++lost;
                        continue;
                    }
                    ++reachable[static_cast<std::size_t>(aim)];
                    const Figures exact = figures_of(built, beta);
                    // log beta is halved down to 1e-13 of its size, and both e^x are rounded at the size of x.
                    const Ref log_beta = std::abs(std::log(beta)),
                              step = Ref(1e-13) * (1 + log_beta) + 4 * u * (2 + log_beta);
                    const Ref figure_error = error.at(aim) + 4 * u * (aim == Aim::weight ? 1 : 0);
                    const Ref tolerance = exact.slope(aim) * step + figure_error;
                    met.meet(std::abs(exact.at(aim) - Ref(value)), tolerance, where);
                    best.meet(std::abs(Ref(plan.best) - exact.at(aim)),
                              figure_error + exact.slope(aim) * 4 * u * (2 + log_beta), where);
                    if (aim != Aim::weight) continue;
                    at_least.meet(Ref(value) - Ref(plan.best), u, where);
                    // The smallest: a little less has less, by more than all rounding.
                    const Ref less = 4 * tolerance / exact.weight_slope;
                    if (less < Ref(0.1))
                        smallest.meet(figures_of(built, beta * (1 - less)).weight < value, where);
                }
            }
    });
    CAPTURE(flat, sharp, lost);
    for (const std::size_t count : reachable) CHECK(count > 500);
    CHECK(flat > 200);
    CHECK(sharp > 200);
    CHECK(lost < met.met() / 20);
    ATTNSCOPE_CHECK_WORST(met);
    ATTNSCOPE_CHECK_WORST(best);
    ATTNSCOPE_CHECK_WORST(at_least);
    ATTNSCOPE_CHECK_WORST(smallest);
    ATTNSCOPE_CHECK_WORST(too_much);
    ATTNSCOPE_CHECK_WORST(too_sharp);
}

TEST_CASE("two levels: planned temperatures by their closed forms", "[planner][temperature]") {
    Worst weight, participation, applied;
    for (const std::size_t n : {2u, 3u, 100u})
        for (const double copies : {1.0, 2.5, 1e6})
            for (const double gap : {1e-3, 0.7, 40.0})
                for (const double moved : {-0.75, 0.0, 2.0}) {
                    std::vector<double> z(n, 0.25);
                    z[n / 2] += gap;
                    const RowGrowth growth{copies, moved * gap};
                    const Ref real_gap = Ref(z[n / 2]) - Ref(0.25), others = Ref(copies) * Ref(n - 1);
                    const Ref whole_gap = real_gap + Ref(growth.shift);
                    for (const double value : {0.1, 0.5, 0.9, 0.999}) {
                        const Where where{"two levels", n, value};
                        const Ref units = std::log(others * Ref(value) / (1 - Ref(value)));
                        if (units < Ref(0.01)) continue;
                        const PlannedTemperature plan =
                            planned_temperature<double>(in(z), growth, Aim::weight, value);
                        const Ref beta = units / whole_gap, log_beta = std::abs(std::log(beta));
                        // The weight is computed to 4u of 1, its odds to the sum's units; the gap is changed
                        // by a number of its own rounding.
                        const Ref error =
                            Ref(1e-13) * (1 + log_beta) + 4 * u * (2 + log_beta) +
                            (4 * u / (Ref(value) * (1 - Ref(value))) + u * (100 + 4 * units * 4)) / units;
                        weight.meet(std::abs(Ref(plan.inverse_temperature) - beta), error * beta, where);
                        // Softmax itself, on a row with so many keys.
                        if (copies != 1 || moved != 0) continue;
                        std::vector<double> p(n);
                        Softmax(1 / plan.inverse_temperature).apply<double>(in(z), out(p));
                        applied.meet(std::abs(Ref(p[n / 2]) - Ref(value)),
                                     Ref(value) * ((1 - Ref(value)) * units * (error + 4 * u) +
                                                   u * (3 * units + 8 + Ref(n))),
                                     where);
                    }
                    // (1 + R)^2/(1 + R^2/m) = k with R = m e^{-u}.
                    for (const double keys : {1.01, 1.6, 50.0}) {
                        if (keys >= 0.99 * (1 + static_cast<double>(others))) continue;
                        const Where where{"two levels", n, keys};
                        // (m - k) R^2 + 2 m R - m (k - 1) = 0
                        const Ref m = others, k = keys;
                        const Ref r = m * (k - 1) / (m + std::sqrt(m * m + (m - k) * m * (k - 1)));
                        const Ref units = std::log(m / r),
                                  slope = std::abs(2 * r / (1 + r) - 2 * r * r / (m + r * r));
                        if (units < Ref(0.01)) continue;
                        const PlannedTemperature plan =
                            planned_temperature<double>(in(z), growth, Aim::participation, keys);
                        const Ref beta = units / whole_gap, log_beta = std::abs(std::log(beta));
                        const Ref error = Ref(1e-13) * (1 + log_beta) + 4 * u * (2 + log_beta) +
                                          u * (200 + 32 * units) * (1 + 2 / slope) / units;
                        participation.meet(std::abs(Ref(plan.inverse_temperature) - beta), error * beta, where);
                    }
                }
    ATTNSCOPE_CHECK_WORST(weight);
    ATTNSCOPE_CHECK_WORST(participation);
    ATTNSCOPE_CHECK_WORST(applied);
}

TEST_CASE("wishes that no temperature fulfils, and special rows", "[planner][temperature]") {
    const auto plan = [](std::vector<double> z, RowGrowth growth, Aim aim, double value) {
        return planned_temperature<double>(in(z), growth, aim, value);
    };
    // Ties with the best key share its weight.
    const std::vector<double> tied = {1, 3, 3, 0, 3};
    PlannedTemperature answer = plan(tied, {}, Aim::weight, 0.5);
    CHECK(answer.inverse_temperature == infinity);
    CHECK_FALSE(answer.reachable);
    CHECK(std::abs(answer.best - 1.0 / 3) <= 0x1p-53);
    CHECK(plan(tied, {}, Aim::weight, 0.33).reachable);
    CHECK(std::abs(plan(tied, {}, Aim::entropy, 1).best - std::log(3.0)) <= 0x1p-52);
    CHECK(plan(tied, {}, Aim::participation, 2.9).best == 3);
    CHECK(plan(tied, {}, Aim::participation, 3.1).reachable);
    // Two copies each, and ties that only the growth makes: cut off where the second key is level.
    CHECK(std::abs(plan(tied, {2, 0}, Aim::weight, 0.5).best - 1.0 / 5) <= 0x1p-53);
    const std::vector<double> close = {5, 4.5, 4.5, 1};
    const RowGrowth level = row_growth(row_statistics<double>(in(close)), 10, 3);
    CHECK(level.shift == -0.5);
    CHECK(level.copies == 3);
    answer = plan(close, level, Aim::weight, 0.2);
    CHECK_FALSE(answer.reachable);
    CHECK(std::abs(answer.best - 1.0 / 7) <= 0x1p-53);
    CHECK(plan(close, level, Aim::participation, 6.9).best == 7);
    CHECK(plan(close, level, Aim::participation, 7.1).reachable);
    CHECK(plan(close, {3, -0.49}, Aim::weight, 0.5).reachable);
    // Everybody alike: nothing but the even weights.
    const std::vector<double> even(4, 2);
    answer = plan(even, {}, Aim::weight, 0.25);
    CHECK(answer.inverse_temperature == 0);
    CHECK(answer.reachable);
    CHECK(answer.best == 0.25);
    answer = plan(even, {}, Aim::weight, 0.26);
    CHECK(answer.inverse_temperature == infinity);
    CHECK_FALSE(answer.reachable);
    CHECK(answer.best == 0.25);
    CHECK_FALSE(plan(even, {}, Aim::entropy, 1).reachable);
    // More entropy or more keys than there are; masked keys do not count.
    answer = plan({0, 1, -infinity, 2}, {}, Aim::entropy, 1.1);
    CHECK(answer.inverse_temperature == 0);
    CHECK_FALSE(answer.reachable);
    CHECK(std::abs(answer.best - std::log(3.0)) <= 0x1p-52);
    CHECK(plan({0, 1, -infinity, 2}, {5, 0}, Aim::participation, 11.5).best == 11);
    CHECK(plan({0, 1, -infinity, 2}, {5, 0}, Aim::participation, 10.5).reachable);
    answer = plan({0, 1, -infinity, 2}, {}, Aim::weight, 0.3);
    CHECK(answer.inverse_temperature == 0);
    CHECK(answer.reachable);
    CHECK(std::abs(answer.best - 1.0 / 3) <= 0x1p-53);

    for (const std::vector<double>& z :
         {std::vector<double>{}, std::vector<double>{-infinity, -infinity}, std::vector<double>{0, nan_value},
          std::vector<double>{0, infinity}, std::vector<double>{4}, std::vector<double>{-infinity, 4}})
        for (const Aim aim : {Aim::weight, Aim::entropy, Aim::participation}) {
            answer = plan(z, {}, aim, aim == Aim::participation ? 1.5 : 0.5);
            CHECK(std::isnan(answer.inverse_temperature));
            CHECK(std::isnan(answer.best));
            CHECK_FALSE(answer.reachable);
        }
    for (const double bad : {0.0, 1.0, -0.1, 1.5, infinity, nan_value}) {
        CHECK_THROWS_AS(plan({1, 0}, {}, Aim::weight, bad), invalid_argument);
        CHECK_THROWS_AS(plan({}, {}, Aim::weight, bad), invalid_argument);
    }
    for (const double bad : {-5e-324, -1.0, -infinity, nan_value})
        CHECK_THROWS_AS(plan({1, 0}, {}, Aim::entropy, bad), invalid_argument);
    for (const double bad : {1 - 0x1p-53, 0.0, -1.0, -infinity, nan_value})
        CHECK_THROWS_AS(plan({1, 0}, {}, Aim::participation, bad), invalid_argument);
    CHECK(name_of(Aim::weight) == "weight");
    CHECK(name_of(Aim::entropy) == "entropy");
    CHECK(name_of(Aim::participation) == "participation ratio");
}

// ---- budget.hpp

TEMPLATE_TEST_CASE("budgets agree with every budget tried", "[planner][budget]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::pair<Index, Index>, 6> shapes = {
        {{1, 3}, {2, 3}, {3, 1}, {8, 4}, {17, 3}, {130, 4}}};
    BudgetWorsts worst;
    for_each_tokens<T>(seed, shapes, [&](const Tokens<T>& tokens, SplitMix64& random) {
        const std::vector<Index> order = ranked(tokens.p);
        const Budgets b = reference_budgets(tokens, order);
        const T diameter = upper_diameter<T>(b.spread);
        for (const double tolerance : {1e-9, 1e-4, 0.01, 0.1, 0.5, 1.0, 3.0})
            check_budget(tokens, order, b, diameter, tolerance, worst);
        // Too large a diameter stays right.
        check_budget(tokens, order, b, T(3) * diameter, std::exp(-8 * random.uniform()), worst);
    });
    ATTNSCOPE_CHECK_WORST(worst.measured);
    ATTNSCOPE_CHECK_WORST(worst.measured_less);
    ATTNSCOPE_CHECK_WORST(worst.certified);
    ATTNSCOPE_CHECK_WORST(worst.certified_less);
    ATTNSCOPE_CHECK_WORST(worst.ordered);
}

TEMPLATE_TEST_CASE("budgets of tiny tails", "[planner][budget]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    BudgetWorsts worst;
    Worst mass, mass_less;
    std::size_t between = 0;
    for (int i = 0; i < 60; ++i) {
        SplitMix64 random = generator(seed, i, 51);
        const Index n = 2 + random.below(40), d = 1 + random.below(4);
        const double depth = std::is_same_v<T, float> ? 80 : 320; // squares of errors are normal numbers
        std::vector<double> z(static_cast<std::size_t>(n)), x(static_cast<std::size_t>(n * d));
        for (double& at : z) at = depth * random.uniform();
        for (double& at : x) at = random.normal();
        const std::vector<T> logits = narrow<T>(z);
        Tokens<T> tokens{n, d, std::vector<T>(logits.size()), narrow<T>(x),
                         Where{"tiny tails", z.size(), 1, seed, scalar_name<T>()}};
        Softmax{}.apply<T>(in(logits), out(tokens.p));
        const std::vector<Index> order = ranked(tokens.p);
        const Budgets b = reference_budgets(tokens, order);
        const T diameter = upper_diameter<T>(b.spread);
        for (const double tolerance : {1e-3, 1e-10, 1e-20, 1e-30, 1e-60, 1e-110}) {
            check_budget(tokens, order, b, diameter, tolerance, worst);
            const RowBudget budget = budget_of(tokens, order, diameter, tolerance);
            between += budget.measured > 1 && budget.measured < n;
        }
        // A share that leaves next to nothing out.
        for (const double share : {0x1p-60, 0.3, 0.9, 1 - 1e-9, 1 - 0x1p-53, 1.0}) {
            const auto k = static_cast<std::size_t>(
                mass_budget<T>(tokens.weights(), std::span<const Index>(order), share).measured);
            const Ref rest = 1 - Ref(share), slack = 2 * u * rest * static_cast<Ref>(n + 4);
            mass.meet(b.tail[k - 1] - rest, slack + b.tail_rounding[k - 1], tokens.where);
            if (k > 1) mass_less.meet(rest - b.tail[k - 2], slack + b.tail_rounding[k - 2], tokens.where);
        }
    }
    CHECK(between > 50);
    ATTNSCOPE_CHECK_WORST(worst.measured);
    ATTNSCOPE_CHECK_WORST(worst.measured_less);
    ATTNSCOPE_CHECK_WORST(worst.certified);
    ATTNSCOPE_CHECK_WORST(worst.certified_less);
    ATTNSCOPE_CHECK_WORST(worst.ordered);
    ATTNSCOPE_CHECK_WORST(mass);
    ATTNSCOPE_CHECK_WORST(mass_less);
}

TEMPLATE_TEST_CASE("the share of a budget is what top-p needs to keep as many keys", "[planner][budget]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst count, which, best;
    std::size_t inside = 0;
    constexpr std::array<std::size_t, 9> few = {1, 2, 3, 7, 8, 17, 64, 257, 1000};
    for_each_row<T>(seed, few, 2, [&](const Where& where, const std::vector<T>& z) {
        if (visible_count(z) == 0) return;
        SplitMix64 random = generator(seed, z.size(), 61);
        const auto n = static_cast<Index>(z.size());
        Tokens<T> tokens{n, 3, std::vector<T>(z.size()), normal_row<T>(random, 3 * z.size()), where};
        Softmax{}.apply<T>(in(z), out(tokens.p));
        const std::vector<Index> order = ranked(tokens.p);
        for (const double tolerance : {1e-6, 1e-3, 0.05, 0.3, 1.0, 10.0}) {
            const RowBudget budget = budget_of(tokens, order, T(100), tolerance);
            const auto k = static_cast<std::size_t>(budget.measured);
            // What rounding of sums near 1 may take from a share must not be what the last key has.
            const Ref last = tokens.weight(order[k - 1]);
            if (last / 2 <= 8 * u * static_cast<Ref>(n + 4)) continue;
            std::vector<T> kept(z.size());
            (Softmax() | top_p(budget.share)).template apply<T>(in(z), out(kept));
            const auto number = std::count_if(kept.begin(), kept.end(), [](T x) { return x > 0; });
            count.meet(number == budget.measured, where);
            inside += budget.measured > 1 && budget.measured < n;
            // A tie with the first key that is left out may go either way.
            if (budget.measured < n && last == tokens.weight(order[k])) continue;
            bool same = true;
            for (std::size_t rank = 0; rank < z.size(); ++rank)
                same = same && (kept[static_cast<std::size_t>(order[rank])] > 0) == (rank < k);
            which.meet(same, where);
            best.meet(budget.share > 0 && budget.share <= 1, where);
        }
    });
    CHECK(inside > 100);
    ATTNSCOPE_CHECK_WORST(count);
    ATTNSCOPE_CHECK_WORST(which);
    ATTNSCOPE_CHECK_WORST(best);
}

TEST_CASE("the certificate of a budget is attained, and a smaller diameter is found out", "[planner][budget]") {
    // The head at one place, the tail at another: |o - o_k| = tail mass times diameter.
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    for (const Index head : {Index(1), Index(3), Index(6)}) {
        const Index n = 9;
        std::vector<double> p(9), x(18);
        SplitMix64 random = generator(seed, head, 71);
        for (double& w : p) w = 0.5 + random.uniform();
        std::sort(p.begin(), p.end(), std::greater<>());
        families::normalise(p);
        for (Index i = 0; i < n; ++i) {
            x[static_cast<std::size_t>(2 * i)] = i < head ? 3 : 0;
            x[static_cast<std::size_t>(2 * i + 1)] = i < head ? 0 : 4;
        }
        const Tokens<double> tokens{n, 2, p, x, Where{"two places", 9}};
        const std::vector<Index> order = ranked(p);
        const Budgets b = reference_budgets(tokens, order);
        CHECK(b.spread == 5);
        const auto at = static_cast<std::size_t>(head);
        CHECK(std::abs(b.error[at - 1] - 5 * b.tail[at - 1]) <= 2 * b.error_rounding[at - 1]);
        const auto tolerance = [&](Ref part) { return static_cast<double>(part * b.error[at - 1] / b.length); };
        RowBudget budget = budget_of(tokens, order, 5.0, tolerance(1.001L));
        CHECK(budget.measured <= head);
        CHECK(budget.certified == head);
        budget = budget_of(tokens, order, 5.0, tolerance(0.995L));
        CHECK(budget.measured == head + 1);
        CHECK(budget.certified == head + 1);
        budget = budget_of(tokens, order, 0.99 * 5.0, tolerance(0.995L));
        CHECK(budget.certified == head); // which is one key too few
        CHECK(budget.measured == head + 1);
    }
}

TEST_CASE("budgets of special rows", "[planner][budget]") {
    const auto budget = [](std::vector<double> p, std::vector<double> x, double diameter, double tolerance) {
        const Tokens<double> tokens = tokens_of(p, x);
        const std::vector<Index> order = ranked(p);
        return budget_of(tokens, order, diameter, tolerance);
    };
    const auto equal = [](const RowBudget& b, Index visible, Index measured, Index certified) {
        return b.visible == visible && b.measured == measured && b.certified == certified;
    };
    CHECK(equal(budget({1}, {3, 4}, 0, 1e-300), 1, 1, 1));
    // No output: everything, unless nothing is lost.
    CHECK(equal(budget({0.5, 0.5}, {1, -1}, 2, 10), 2, 2, 2));
    CHECK(equal(budget({0.375, 0.375, 0.25}, {1, -1, 0}, 2, 10), 3, 2, 3));
    CHECK(equal(budget({0.5, 0.25, 0.25}, {0, 0, 0}, 0, 0.01), 3, 1, 1));
    // Filled by hand: for AVX-512 g++ 12.2 makes four halves of the literal {0.5, 0.5, 0, 0}.
    std::vector<double> halves(4, 0.0);
    halves[0] = halves[1] = std::strtod("0.5", nullptr);
    CHECK(equal(budget(halves, {1, -1, 7, 8}, 9, 0.01), 4, 2, 2));
    // Keys without weight cost nothing, whatever their vectors are.
    CHECK(equal(budget({0, 0.75, 0, 0.25}, {1e300, 1, -1e300, -1}, 1e301, 1e-6), 4, 2, 2));
    // NaN: everything.
    CHECK(equal(budget({0.75, nan_value}, {1, 1}, 1, 0.5), 2, 2, 2));
    CHECK(equal(budget({nan_value, 0.75, 0.25}, {1, 1, 1}, 1, 0.5), 3, 3, 3));
    CHECK(equal(budget({0.75, 0.125, 0.125}, {nan_value, 1, 1}, 1, 0.5), 3, 3, 3));
    CHECK(equal(budget({0.75, 0.125, 0.125}, {1, 1, nan_value}, 1, 0.5), 3, 3, 3));
    CHECK(budget({0.75, 0.25}, {1, 1}, nan_value, 0.5).certified == 2);
    CHECK(budget({0.75, 0.25}, {1, 1}, infinity, 0.5).certified == 2);
    // "At this k and at every larger one": two keys would do by chance, three do not.
    CHECK(equal(budget({0.4, 0.3, 0.2, 0.1}, {1, 1, 3, -3}, 6, 0.2), 4, 4, 4));
    const std::vector<double> p = {0.5, 0.5}, x = {1, 2};
    const std::vector<Index> order = {0, 1}, one = {0};
    const MatrixView<double> vectors(x.data(), 2, 1), single(x.data(), 1, 1);
    const std::span<const Index> both(order);
    for (const double bad : {0.0, -1.0, -infinity, nan_value})
        CHECK_THROWS_AS(output_budget<double>(in(p), vectors, both, 1.0, bad), invalid_argument);
    CHECK_THROWS_AS(output_budget<double>(in(p), single, both, 1.0, 0.1), invalid_argument);
    CHECK_THROWS_AS(output_budget<double>(in(p), vectors, std::span<const Index>(one), 1.0, 0.1),
                    invalid_argument);
    CHECK_THROWS_AS(mass_budget<double>(in(p), std::span<const Index>(one), 0.5), invalid_argument);
    for (const double bad : {0.0, -0.5, 1.0 + 0x1p-52, infinity, nan_value})
        CHECK_THROWS_AS(mass_budget<double>(in(p), both, bad), invalid_argument);
}

TEMPLATE_TEST_CASE("budgets of mass agree with every budget tried", "[planner][budget]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::pair<Index, Index>, 5> shapes = {{{1, 1}, {2, 1}, {8, 1}, {17, 1}, {257, 1}}};
    Worst enough, less, same;
    for_each_tokens<T>(seed, shapes, [&](const Tokens<T>& tokens, SplitMix64& random) {
        const std::vector<Index> order = ranked(tokens.p);
        RefRow tail(static_cast<std::size_t>(tokens.n) + 1); // without the first k
        for (std::size_t k = order.size(); k-- > 0;) tail[k] = tail[k + 1] + tokens.weight(order[k]);
        for (const double share : {1e-30, 0.1, 0.5, 0.9, 0.99, 1 - 1e-9, 1.0, random.uniform()}) {
            const RowBudget budget = mass_budget<T>(tokens.weights(), std::span<const Index>(order), share);
            const auto k = static_cast<std::size_t>(budget.measured);
            same.meet(budget.certified == budget.measured && budget.visible == tokens.n &&
                          budget.share == share && budget.measured >= 1 && budget.measured <= tokens.n,
                      tokens.where);
            const Ref spare = (1 - Ref(share)) * tail[0];
            const Ref slack = 2 * u * static_cast<Ref>(tokens.n + 4) * spare;
            enough.meet(tail[k] - spare, slack, tokens.where);
            if (k > 1) less.meet(spare - tail[k - 1], slack, tokens.where);
        }
    });
    ATTNSCOPE_CHECK_WORST(enough);
    ATTNSCOPE_CHECK_WORST(less);
    ATTNSCOPE_CHECK_WORST(same);
    const auto keep = [](std::vector<T> p, double share) {
        const std::vector<Index> order = ranked(p);
        return mass_budget<T>(in(p), std::span<const Index>(order), share).measured;
    };
    const T none = std::numeric_limits<T>::quiet_NaN();
    CHECK(keep({T(0.5), T(0.25), T(0.25)}, 0.5) == 1);
    CHECK(keep({T(0.5), T(0.25), T(0.25)}, 0.5 + 1e-9) == 2);
    CHECK(keep({T(0.5), T(0.25), T(0.25)}, 0.75) == 2);
    CHECK(keep({T(0.5), T(0), T(0.5), T(0)}, 1) == 2);
    CHECK(keep({T(0.25), none, T(0.75)}, 0.5) == 3);
    CHECK(keep({none, none}, 1e-9) == 2);
}

// ---- cache_bits.hpp

TEMPLATE_TEST_CASE("what a format of the cache does is what outputs say", "[planner][cache]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst error, limit, certified, kept, sure;
    std::size_t rows = 0, moved = 0;
    for (const Index n : {Index(1), Index(2), Index(9), Index(24)})
        for (const double size : {0.3, 1.0, 2.0})
            for (const int kind : {0, 1, 2}) {
                SplitMix64 random = generator(seed, n, kind, static_cast<int>(10 * size), 81);
                const RandomHead<T> made = random_head<T>(random, n, size, kind);
                const Where where{kind == 0   ? "none"
                                  : kind == 1 ? "causal"
                                              : "window",
                                  static_cast<std::size_t>(n), size, seed, scalar_name<T>()};
                for (const CacheFormat format :
                     {CacheFormat{CacheNumber::integer, 3},
                      CacheFormat{CacheNumber::integer, 6, CacheScale::token},
                      CacheFormat{CacheNumber::integer, 12}, CacheFormat{CacheNumber::float8_e4m3},
                      CacheFormat{CacheNumber::float8_e5m2, 8, CacheScale::token}}) {
                    const CacheFigures figures = made.figures(format);
                    const std::vector<CacheRow> exact = made.rows(format);
                    REQUIRE(figures.error.size() == exact.size());
                    REQUIRE(figures.limit.size() == exact.size());
                    Ref least_kept = 0, most_kept = 0, least_sure = 0, most_sure = 0;
                    for (std::size_t i = 0; i < exact.size(); ++i) {
                        const CacheRow& row = exact[i];
                        ++rows;
                        moved += row.error > 10 * row.error_rounding;
                        error.meet(std::abs(Ref(figures.error[i]) - row.error), row.error_rounding, where);
                        // A mask that passes keys by has the diameter of all values: more, not less.
                        if (kind == 2)
                            limit.meet(row.limit - Ref(figures.limit[i]), row.limit_rounding, where);
                        else
                            limit.meet(std::abs(Ref(figures.limit[i]) - row.limit), row.limit_rounding, where);
                        certified.meet(Ref(figures.error[i]) - Ref(figures.limit[i]),
                                       row.error_rounding + 16 * unit_roundoff<T> * row.limit, where);
                        // Rounding decides between near equals.
                        const Ref slack = row.range_rounding;
                        const bool unclear = std::abs(row.gap_after) <= slack || row.gap <= slack;
                        least_kept += row.gap_after > 0 && !unclear ? 1 : 0;
                        most_kept += row.gap_after > 0 || unclear ? 1 : 0;
                        least_sure += row.gap > row.range + slack ? 1 : 0;
                        most_sure += row.gap > row.range - slack ? 1 : 0;
                    }
                    const Ref count = static_cast<Ref>(exact.size());
                    kept.meet(least_kept - Ref(figures.argmax_kept) * count, count * u, where);
                    kept.meet(Ref(figures.argmax_kept) * count - most_kept, count * u, where);
                    sure.meet(least_sure - Ref(figures.argmax_sure) * count, count * u, where);
                    sure.meet(Ref(figures.argmax_sure) * count - most_sure, count * u, where);
                    sure.meet(figures.argmax_sure <= figures.argmax_kept, where);
                }
            }
    CHECK(rows > 1000);
    CHECK(moved > rows / 2);
    ATTNSCOPE_CHECK_WORST(error);
    ATTNSCOPE_CHECK_WORST(limit);
    ATTNSCOPE_CHECK_WORST(certified);
    ATTNSCOPE_CHECK_WORST(kept);
    ATTNSCOPE_CHECK_WORST(sure);
}

TEMPLATE_TEST_CASE("the fewest bits keep the tolerance and one bit less does not", "[planner][cache]", float,
                   double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst keeps, less, certificate, certificate_less, ordered;
    std::size_t inside = 0, certified_inside = 0;
    for (const Index n : {Index(2), Index(9), Index(20)})
        for (const int kind : {0, 1}) // for windows the diameter is not that of what is seen
            for (const CacheScale scale : {CacheScale::channel, CacheScale::token}) {
                SplitMix64 random = generator(seed, n, kind, static_cast<int>(scale), 91);
                const RandomHead<T> made = random_head<T>(random, n, 0.8, kind);
                const Where where{kind == 0 ? "none" : "causal", static_cast<std::size_t>(n), 1, seed,
                                  scalar_name<T>()};
                std::array<RefRow, 17> errors, rounding, limits, limit_rounding;
                for (int bits = 2; bits <= 16; ++bits)
                    for (const CacheRow& row : made.rows({CacheNumber::integer, bits, scale})) {
                        const auto b = static_cast<std::size_t>(bits);
                        errors[b].push_back(row.error);
                        rounding[b].push_back(row.error_rounding);
                        limits[b].push_back(row.limit);
                        limit_rounding[b].push_back(row.limit_rounding);
                    }
                // The share's need if every row is as much better (worse) as rounding allows.
                const auto need = [](const RefRow& values, const RefRow& slack, int sign, double share) {
                    RefRow at = values;
                    for (std::size_t i = 0; i < at.size(); ++i) at[i] += sign * slack[i];
                    return need_of(at, share);
                };
                for (const double tolerance : {0.5, 0.1, 0.02, 2e-3, 1e-4})
                    for (const double share : {0.3, 0.77, 1.0}) {
                        const CacheBits bits = made.fewest(scale, tolerance, share);
                        const bool sane = bits.measured >= 2 && bits.measured <= 17 && bits.certified >= 2 &&
                                          bits.certified <= 17;
                        ordered.meet(sane && bits.certified >= bits.measured, where);
                        if (!sane) continue;
                        for (int count = 16; count >= 2; --count) {
                            const auto b = static_cast<std::size_t>(count);
                            if (count >= bits.measured)
                                keeps.meet(need(errors[b], rounding[b], -1, share) <= tolerance, where);
                            if (count == bits.measured - 1)
                                less.meet(need(errors[b], rounding[b], 1, share) > tolerance, where);
                            if (count >= bits.certified)
                                certificate.meet(need(limits[b], limit_rounding[b], -1, share) <= tolerance,
                                                 where);
                            if (count == bits.certified - 1)
                                certificate_less.meet(need(limits[b], limit_rounding[b], 1, share) > tolerance,
                                                      where);
                        }
                        inside += bits.measured > 2 && bits.measured < 17;
                        certified_inside += bits.certified > bits.measured && bits.certified < 17;
                    }
            }
    CHECK(inside > 50);
    CHECK(certified_inside > 20);
    ATTNSCOPE_CHECK_WORST(keeps);
    ATTNSCOPE_CHECK_WORST(less);
    ATTNSCOPE_CHECK_WORST(certificate);
    ATTNSCOPE_CHECK_WORST(certificate_less);
    ATTNSCOPE_CHECK_WORST(ordered);
}

TEST_CASE("chosen queries of a cache have the rows that they have among all", "[planner][cache]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 95);
    const RandomHead<double> made = random_head<double>(random, 20, 1, 1);
    const HeadView<double> head = made.head();
    const MatrixView<double> outputs(made.outputs);
    const std::vector<Index> chosen = {17, 3, 0, 19, 11, 3};
    const CacheFormat format{CacheNumber::integer, 3};
    const CacheFigures all = made.figures(format),
                       some = cache_figures<double>(head, format, made.mask, made.widths(), outputs, chosen);
    REQUIRE(some.error.size() == chosen.size());
    REQUIRE(some.limit.size() == chosen.size());
    double kept = 0, sure = 0;
    for (std::size_t i = 0; i < chosen.size(); ++i) {
        CHECK(some.error[i] == all.error[static_cast<std::size_t>(chosen[i])]);
        CHECK(some.limit[i] == all.limit[static_cast<std::size_t>(chosen[i])]);
        const std::vector<Index> alone = {chosen[i]};
        const CacheFigures one = cache_figures<double>(head, format, made.mask, made.widths(), outputs, alone);
        kept += one.argmax_kept / static_cast<double>(chosen.size());
        sure += one.argmax_sure / static_cast<double>(chosen.size());
    }
    CHECK(std::abs(some.argmax_kept - kept) <= 16 * 0x1p-53);
    CHECK(std::abs(some.argmax_sure - sure) <= 16 * 0x1p-53);
    for (const double tolerance : {0.5, 0.05, 0.005}) {
        const CacheBits bits = fewest_cache_bits<double>(head, CacheScale::channel, made.mask, made.widths(),
                                                         outputs, tolerance, 0.7, chosen);
        const auto need = [&](int count) {
            return need_for_share(cache_figures<double>(head, {CacheNumber::integer, count}, made.mask,
                                                        made.widths(), outputs, chosen)
                                      .error,
                                  0.7);
        };
        CAPTURE(tolerance, bits.measured, bits.certified);
        for (int count = 16; count >= bits.measured; --count) CHECK(need(count) <= tolerance);
        if (bits.measured > 2) CHECK(need(bits.measured - 1) > tolerance);
        CHECK(bits.certified >= bits.measured);
    }
    for (const Index bad : {Index(-1), Index(20)}) {
        const std::vector<Index> missing = {0, bad};
        CHECK_THROWS_AS(cache_figures<double>(head, format, made.mask, made.widths(), outputs, missing),
                        invalid_argument);
    }
}

TEST_CASE("caches of special heads", "[planner][cache]") {
    SplitMix64 random = generator(test_seed(), 101);
    RandomHead<double> made = random_head<double>(random, 6, 1, 1);
    const CacheFormat coarse{CacheNumber::integer, 2};
    // What the cache holds already stays: no error, and nothing to certify.
    RandomHead<double> stored = made;
    stored.k = through_cache(MatrixView<double>(made.k), coarse);
    stored.measure();
    CacheFigures figures = stored.figures(coarse);
    for (std::size_t i = 0; i < 6; ++i) {
        CHECK(figures.error[i] == 0);
        CHECK(figures.limit[i] == 0);
    }
    // Every grid has 0 and the largest number, and a channel of the coarsest grid holds nothing else.
    CHECK(stored.fewest(CacheScale::channel, 1e-12, 1).measured == 2);
    CHECK(stored.fewest(CacheScale::channel, 1e-12, 1).certified == 2);
    // Rows that see no key, or one: 0/0 is no error.
    RandomHead<double> late = made;
    late.mask = Mask::causal(-2);
    late.measure();
    figures = late.figures(coarse);
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(figures.error[i] == 0);
        CHECK(figures.limit[i] == 0);
    }
    CHECK(figures.limit[4] > 0);
    // An output of 0 that changes: infinitely much.
    RandomHead<double> opposite;
    opposite.q = Matrix<double>::Ones(1, 1);
    opposite.k.resize(3, 1);
    opposite.k << 0.3, 0.3, 1;
    opposite.v.resize(3, 1);
    opposite.v << 1, -1, 0;
    opposite.measure();
    CHECK(opposite.figures(coarse).error[0] == 0);
    opposite.k(0, 0) = 0.6; // rounds the other way
    opposite.measure();
    opposite.outputs(0, 0) = 0;
    CHECK(opposite.figures(coarse).error[0] == infinity);
    CHECK(opposite.figures(coarse).limit[0] == infinity);
    CHECK(opposite.fewest(CacheScale::channel, 1e300, 1).measured == 17);
    // NaN in a row gives NaN, by token only where it is seen.
    RandomHead<double> broken = made;
    broken.k(4, 2) = nan_value;
    figures = broken.figures({CacheNumber::integer, 8, CacheScale::token});
    for (std::size_t i = 0; i < 6; ++i) {
        CHECK(std::isnan(figures.error[i]) == (i >= 4));
        CHECK(std::isnan(figures.limit[i]) == (i >= 4));
    }
    figures = broken.figures({CacheNumber::integer, 8, CacheScale::channel});
    for (std::size_t i = 0; i < 6; ++i) CHECK(std::isnan(figures.error[i]));
    CHECK(broken.fewest(CacheScale::token, 1e3, 1).measured == 2); // by the rows that have an answer
    CHECK(broken.fewest(CacheScale::channel, 1e3, 1).measured == 17);
    CHECK(broken.fewest(CacheScale::channel, 1e3, 1).certified == 17);
    // The tolerance is always kept, or never.
    CHECK(made.fewest(CacheScale::channel, 1e9, 1).measured == 2);
    CHECK(made.fewest(CacheScale::channel, 1e9, 1).certified == 2);
    CHECK(made.fewest(CacheScale::channel, 1e-300, 1).measured == 17);
    CHECK(made.fewest(CacheScale::channel, 1e-300, 1).certified == 17);

    const MatrixView<double> outputs(made.outputs);
    const HeadView<double> head = made.head(), without(made.q, made.k);
    const Matrix<double> narrow = made.outputs.leftCols(4), few = made.outputs.topRows(5);
    CHECK_THROWS_AS(cache_figures<double>(without, coarse, made.mask, made.widths(), outputs),
                    invalid_argument);
    CHECK_THROWS_AS(cache_figures<double>(head, coarse, made.mask, made.widths(), MatrixView<double>(narrow)),
                    invalid_argument);
    CHECK_THROWS_AS(cache_figures<double>(head, coarse, made.mask, made.widths(), MatrixView<double>(few)),
                    invalid_argument);
    CHECK_THROWS_AS(cache_figures<double>(head, coarse, made.mask, made.widths().first(5), outputs),
                    invalid_argument);
    CHECK_THROWS_AS(cache_figures<double>(head, {CacheNumber::integer, 1}, made.mask, made.widths(), outputs),
                    invalid_argument);
    for (const double bad : {0.0, -1.0, nan_value})
        CHECK_THROWS_AS(made.fewest(CacheScale::token, bad, 0.5), invalid_argument);
    for (const double bad : {0.0, -1.0, 1.5, nan_value})
        CHECK_THROWS_AS(made.fewest(CacheScale::token, 0.1, bad), invalid_argument);
    CHECK_THROWS_AS(
        fewest_cache_bits<double>(without, CacheScale::token, made.mask, made.widths(), outputs, 0.1, 0.5),
        invalid_argument);
}

TEST_CASE("a shift that takes nearly all of the gap loses no key", "[planner][temperature]") {
    // Keys that sums at the unshifted gaps would have lost: found by a review of the first version.
    const auto beta = [](const auto& z, const RowGrowth& growth, double weight) {
        using T = std::remove_cvref_t<decltype(z[0])>;
        const auto answer = planned_temperature<T>(in(z), growth, Aim::weight, weight);
        CHECK(answer.reachable);
        return answer.inverse_temperature;
    };
    // One key with a gap of 0.01 (0.1) left: beta = log(weight/(1-weight))/gap.
    const double left = 10.0 - 9.99;
    CHECK(std::abs(beta(std::vector<double>{10, 0}, {1, -9.99}, 0.99) / (std::log(99.0) / left) - 1) < 1e-12);
    CHECK(std::abs(beta(std::vector<float>{2, 0}, {1, -1.9}, 0.999) / (std::log(999.0) / (2 - 1.9)) - 1) <
          1e-12);
    CHECK(std::abs(beta(std::vector<float>{1, 0}, {999, -0.87}, 0.99) / (std::log(999 * 99.0) / (1 - 0.87)) -
                   1) < 1e-12);
    // All keys level, and the best one gains a lead of 1.
    CHECK(std::abs(beta(std::vector<double>{0, 0}, {1, 1}, 0.9) - std::log(9.0)) < 1e-12);
    // Tiny weights, and weights just above equal ones, keep their digits.
    CHECK(std::abs(beta(std::vector<double>{1, 0}, {1, 0}, 0.5 + 1e-11) / 4e-11 - 1) <
          1e-4); // 1 - weight is rounded
    const auto grown = grown_row<double>(in(std::vector<double>{1, 0}), {1e12, 0},
                                         beta(std::vector<double>{1, 0}, {1e12, 0}, 1e-10));
    CHECK(grown.best_weight >= 1e-10 * (1 - 1e-15));
    CHECK(std::abs(grown.best_weight / 1e-10 - 1) < 1e-13);
}

TEST_CASE("expected lengths where the lead grows as fast as the keys, or faster", "[planner][length]") {
    const auto row = [](const std::vector<double>& z) { return row_statistics<double>(in(z)); };
    // Two level keys at exponent -1: the sum is (L-1)/L * 2, which passes 1 at L = 2, the row's own length.
    CHECK(std::abs(length_limits(row({0, 0}), 0.5, -1).expected - 2) < 1e-12);
    // At -1.1 it still rises at first: 1 at L = 2, more at 4.
    CHECK(std::abs(length_limits(row({0, 0}), 0.5, -1.1).expected - 2) < 1e-12);
    // At -2 the weight of 0.6 was there last near L = 1.27: 4 (L-1)/L^2 = 2/3.
    const double last = length_limits(row({0, 0}), 0.6, -2).expected;
    CHECK(last < 2);
    CHECK(last >= 1);
    // A lead of 3 that grows faster than the keys is kept for ever.
    CHECK(length_limits(row({3, 0, 0}), 0.5, -2).expected == infinity);
    // Keys too far away to be summed: the growth still counts.
    const double far = length_limits(row({0, -800}), 0.5, 10).expected;
    CHECK((far > 1e31 && far < 1e33));
    // The outer two hold the expected length to the ends of the scale.
    for (const auto& z :
         {std::vector<double>{0, -705}, std::vector<double>{0, -709}, std::vector<double>{0, 0}})
        for (const double tau : {0.5, 1 - 1e-10}) {
            const auto limits = length_limits(row(z), tau);
            CHECK((limits.guaranteed <= limits.expected && limits.expected <= limits.possible));
        }
}

TEST_CASE("budgets at the ends of the scale", "[planner][budget]") {
    const std::vector<Index> order = {0, 1};
    Matrix<double> x(2, 1);
    x << 1, 0;
    const std::vector<double> p = {1, 1e-170};
    CHECK(output_budget<double>(in(p), MatrixView<double>(x), order, 1, 1e-200).measured == 2);
    const std::vector<float> pf = {0.6f, 0.4f};
    Matrix<float> xf(2, 1);
    xf << 0, 1;
    const auto budget = output_budget<float>(in(pf), MatrixView<float>(xf), order, 1, 0.99999998);
    CHECK(budget.certified >= budget.measured);
    for (const std::vector<double>& odd : {std::vector<double>{nan_value, 1}, std::vector<double>{0, 0}})
        CHECK(output_budget<double>(in(odd), MatrixView<double>(x), order, 1, 0.1).share <= 1);
    // No diameters, no figures; no queries, no rows.
    Matrix<double> q(3, 2), v(3, 1);
    q.setOnes();
    v.setOnes();
    const HeadView<double> head(q, q, v);
    CHECK_THROWS_AS(cache_figures<double>(head, {}, Mask(), std::span<const double>(), MatrixView<double>(v)),
                    invalid_argument);
    const std::vector<double> diameters(3, 1);
    CHECK(cache_figures<double>(head, {}, Mask(), diameters, MatrixView<double>(v), std::span<const Index>())
              .error.empty());
    // A row that is level after and still points to its first key has kept it; one that is overtaken has not.
    Matrix<double> one(1, 1), keys(2, 1), values(2, 1), output(1, 1);
    one << 1;
    keys << 1, 0.9;
    values << 1, 2;
    output << 1.5;
    const HeadView<double> level(one, keys, values);
    CHECK(cache_figures<double>(level, {CacheNumber::integer, 2}, Mask(), std::vector<double>{1},
                                MatrixView<double>(output))
              .argmax_kept == 1);
}
