// Heads whose logits are exact whatever computes them, and what an analysis should say about one: every figure of
// every row, and every selection, from their definitions by plain loops in long double.
#pragma once

#include <support/laws.hpp>
#include <support/mask_reference.hpp>
#include <support/selection_reference.hpp>

#include <attnscope/analysis/analyze.hpp>

#include <cstring>
#include <map>

namespace attnscope_test {

/// What an error says; empty if there is none.
template <class F>
std::string error_of(F&& f) {
    try {
        f();
    } catch (const attnscope::invalid_argument& error) {
        return error.what();
    }
    return {};
}

using attnscope::HeadAnalysis;
using attnscope::RowStatus;
using attnscope::SelectionColumns;

/// Multiples of 1/8 in [-2, 2]: exact in float, half and bfloat16. Inner products over 4 or 16 of them, and these
/// divided by 2 or 4, are exact in float in any order of the sum.
inline Matrix<double> eighths(SplitMix64& random, Index rows, Index cols) {
    Matrix<double> m(rows, cols);
    for (Index i = 0; i < m.size(); ++i) m.data()[i] = static_cast<double>(random.below(33) - 16) / 8;
    return m;
}
/// Queries and keys of them, and values that half and bfloat16 have too.
struct ExactHead {
    Matrix<double> q, k, v;
    ExactHead(SplitMix64& random, Index queries, Index keys, Index width, Index value_width)
        : q(eighths(random, queries, width)), k(eighths(random, keys, width)),
          v(eighths(random, keys, value_width)) {}
};

/// Logits scale q.k by three loops, -inf where the rule hides a key or a query is padding.
inline Matrix<double> reference_logits(const Matrix<double>& q, const Matrix<double>& k, double scale,
                                       const MaskRule& rule, const std::vector<bool>& padding = {}) {
    Matrix<double> z(q.rows(), k.rows());
    for (Index i = 0; i < q.rows(); ++i)
        for (Index j = 0; j < k.rows(); ++j) {
            Ref sum = 0;
            for (Index c = 0; c < q.cols(); ++c) sum += Ref(q(i, c)) * Ref(k(j, c));
            const bool hidden = !rule.sees(i, j) || (!padding.empty() && padding[static_cast<std::size_t>(i)]);
            z(i, j) = hidden ? -std::numeric_limits<double>::infinity() : static_cast<double>(sum * Ref(scale));
        }
    return z;
}

/// Absolute error of logits scale q.k whose sums are taken in a scalar of this unit roundoff, in any order.
inline Ref product_error(const Matrix<double>& q, const Matrix<double>& k, double scale, Ref unit) {
    if (q.rows() == 0 || k.rows() == 0) return 0;
    const Matrix<double> sizes = q.cwiseAbs() * k.cwiseAbs().transpose();
    return unit * Ref(q.cols() + 4) * std::abs(Ref(scale)) * Ref(sizes.maxCoeff());
}

/// A row of logits z/T of softmax by its definition.
struct ReferenceSoftmax {
    RowStatus status = RowStatus::empty;
    Index visible = 0;
    RefRow p;                               ///< weights, of masked keys too
    Ref weight_error = 0;                   ///< relative, of weights computed in double
    std::map<std::string_view, Ref> figure; ///< by their names in `row_figures`; one that is not here is NaN
    Ref log_error = 0;                      ///< absolute, of log_sum_exp
};

inline ReferenceSoftmax reference_softmax(std::span<const double> z, double temperature) {
    ReferenceSoftmax row;
    const std::size_t n = z.size();
    bool nan = false, infinite = false;
    std::vector<std::size_t> seen;
    for (std::size_t i = 0; i < n; ++i) {
        nan = nan || std::isnan(z[i]);
        infinite = infinite || z[i] == std::numeric_limits<double>::infinity();
        if (z[i] > -std::numeric_limits<double>::infinity()) seen.push_back(i);
    }
    row.visible = static_cast<Index>(seen.size());
    row.status = nan            ? RowStatus::nan
                 : infinite     ? RowStatus::infinite
                 : seen.empty() ? RowStatus::empty
                                : RowStatus::normal;
    if (row.status != RowStatus::normal) return row;

    const Ref t = temperature;
    Ref most = z[seen[0]], least = most;
    for (const std::size_t i : seen) most = std::max(most, Ref(z[i])), least = std::min(least, Ref(z[i]));
    Ref sum = 0;
    row.p.assign(n, 0);
    for (const std::size_t i : seen) sum += row.p[i] = std::exp((Ref(z[i]) - most) / t);
    std::size_t first = n;
    for (const std::size_t i : seen)
        if (first == n || row.p[i] > row.p[first]) first = i;
    Ref rest = 0, entropy = 0, squares = 0, second = -1;
    for (const std::size_t i : seen) rest += i == first ? 0 : row.p[i];
    RefRow complement(n, 1);
    for (const std::size_t i : seen) {
        Ref others = 0;
        for (const std::size_t j : seen)
            if (j != i) others += row.p[j];
        complement[i] = others / sum;
        // -p log p = p (log sum + (max - z)/T)
        entropy += row.p[i] / sum * (std::log1p(rest) + (most - Ref(z[i])) / t);
        if (i != first) second = std::max(second, row.p[i] / sum);
    }
    for (Ref& p : row.p) p /= sum;
    for (const Ref p : row.p) squares += p * p;
    row.figure["log_sum_exp"] = most / t + std::log1p(rest);
    row.figure["max_logit"] = most;
    row.figure["entropy_nats"] = entropy;
    row.figure["max_weight"] = row.p[first];
    if (second >= 0) row.figure["second_weight"] = second;
    if (seen.front() == 0) row.figure["first_key_weight"] = row.p[0];
    row.figure["participation_ratio"] = 1 / squares;
    row.figure["logit_spread"] = most - least;
    const ReferenceNorms norms = norms_of(dense_jacobian(row.p, complement, RefRow(n, 1 / t)));
    row.figure["spectral"] = norms.spectral;
    row.figure["frobenius"] = norms.frobenius;
    row.figure["one"] = norms.one;
    row.figure["column"] = norms.column;
    row.figure["max_entry"] = norms.max_entry;
    // (z - max z)/T is rounded once or twice, e^x to two units, and n of them are added.
    const Ref u = unit_roundoff<double>;
    row.weight_error = u * (4 * (most - least) / t + Ref(n) + 16);
    row.log_error = row.weight_error + u * (4 * std::abs(most / t) + 4);
    return row;
}

/// What a selection of N of the keys that a row sees should be like.
struct ReferenceSelectionFigures {
    std::map<std::string_view, Ref> figure;
    Ref length_error = 0; ///< absolute, of figures that are lengths
    bool tied = false;    ///< rounding decides which of two keys is nearer: fractions may be others
};

/// p, x: weights and values of the visible keys; relative_error: that of the weights.
inline ReferenceSelectionFigures reference_selection_figures(const Tokens<double>& tokens, Index count,
                                                             std::optional<double> radius, Ref relative_error) {
    ReferenceSelectionFigures result;
    const std::vector<Index> order = reference_order(tokens.weights());
    const RefSelection r =
        reference_selection(tokens, std::span<const Index>(order).first(static_cast<std::size_t>(count)));
    const Ref n = tokens.n, selected = count;
    result.length_error = (relative_error + unit_roundoff<double> * Ref(tokens.n + tokens.d + 16)) *
                          (r.total_length + tokens.longest()) * (n + 2) * 4;
    Ref nearest = std::numeric_limits<Ref>::infinity(), farthest = 0;
    for (Index i = 0; i < tokens.n; ++i) {
        const Ref distance = r.distance[static_cast<std::size_t>(i)];
        if (r.member[static_cast<std::size_t>(i)] != 0)
            farthest = std::max(farthest, distance);
        else
            nearest = std::min(nearest, distance);
    }
    Ref recalled = 0, inside = 0, confused = 0;
    for (Index i = 0; i < tokens.n; ++i) {
        const Ref distance = r.distance[static_cast<std::size_t>(i)];
        if (r.member[static_cast<std::size_t>(i)] != 0) {
            recalled += distance < nearest ? 1 : 0;
            inside += radius && distance < Ref(*radius) ? 1 : 0;
        } else {
            confused += distance <= farthest ? 1 : 0;
        }
        result.tied = result.tied || (radius && std::abs(distance - Ref(*radius)) <= result.length_error);
        for (Index j = 0; j < i; ++j)
            result.tied = result.tied ||
                          std::abs(distance - r.distance[static_cast<std::size_t>(j)]) <= result.length_error;
    }
    Ref loss = 0;
    for (Index c = 0; c < tokens.d; ++c) {
        const auto at = static_cast<std::size_t>(c);
        const Ref difference = r.s[at] + r.rest[at] - r.s[at] / r.mass;
        loss += difference * difference;
    }
    const Ref precision = selected / (selected + confused), recall = recalled / selected;
    auto& figure = result.figure;
    figure["mass"] = r.mass;
    figure["distance_cumulative"] = r.cumulative;
    figure["distance_resultant"] = r.resultant;
    figure["distance_bound"] = r.tail * reference_spread(tokens, r) + r.longest * r.imbalance;
    figure["truncation_error"] = std::sqrt(loss);
    figure["separable_fraction"] = !radius ? recall : nearest < Ref(*radius) ? 0 : inside / selected;
    figure["precision"] = precision;
    figure["recall"] = recall;
    figure["f_score"] = recall > 0 ? 2 * precision * recall / (precision + recall) : 0;
    figure["margin"] = nearest - farthest;
    // E d over random N-subsets: mu_i = |y_i - N/(L-1) S_i|, S_i = sum_{j != i} y_j, and the variance beside it.
    Ref lower = 0, upper = 0;
    for (Index i = 0; i < tokens.n; ++i) {
        Ref mean = 0, square = 0, squares = 0;
        for (Index c = 0; c < tokens.d; ++c) {
            Ref others = 0;
            for (Index j = 0; j < tokens.n; ++j) {
                if (j == i) continue;
                others += tokens.y(j, c);
                squares += tokens.y(j, c) * tokens.y(j, c);
            }
            const Ref apart = tokens.y(i, c) - selected / (n - 1) * others;
            mean += apart * apart;
            square += others * others;
        }
        const Ref variance = tokens.n <= 2 ? 0
                                           : selected * (n - 1 - selected) / ((n - 1) * (n - 2)) *
                                                 std::max(Ref(0), squares - square / (n - 1));
        lower += std::sqrt(mean);
        upper += std::sqrt(mean + variance);
    }
    figure["expected_distance_lower"] = (n - selected) / n * lower;
    figure["expected_distance_upper"] = (n - selected) / n * upper;
    return result;
}

/// How far figures are from those of the references, each against its tolerance.
struct AnalysisErrors {
    Worst status, missing, logarithm, weights, norms, mass, lengths, fractions;
    /// Exact figures of a row without rounding: `max_logit`, `logit_spread`.
    Worst exact;
};
#define ATTNSCOPE_CHECK_ANALYSIS(errors)                                                                       \
    do {                                                                                                       \
        ATTNSCOPE_CHECK_WORST((errors).status);                                                                \
        ATTNSCOPE_CHECK_WORST((errors).missing);                                                               \
        ATTNSCOPE_CHECK_WORST((errors).logarithm);                                                             \
        ATTNSCOPE_CHECK_WORST((errors).weights);                                                               \
        ATTNSCOPE_CHECK_WORST((errors).norms);                                                                 \
        ATTNSCOPE_CHECK_WORST((errors).exact);                                                                 \
    } while (false)
#define ATTNSCOPE_CHECK_SELECTIONS(errors)                                                                     \
    do {                                                                                                       \
        ATTNSCOPE_CHECK_WORST((errors).mass);                                                                  \
        ATTNSCOPE_CHECK_WORST((errors).lengths);                                                               \
        ATTNSCOPE_CHECK_WORST((errors).fractions);                                                             \
    } while (false)

/// Holds every figure of a softmax head against its logits z before the temperature (exact, -inf where masked).
/// unit: the roundoff in which it was computed; norms: were they asked for? logit_error: absolute, of its logits.
inline void compare_rows(AnalysisErrors& errors, const HeadAnalysis& head, const Matrix<double>& z,
                         double temperature, Where where, Ref unit = unit_roundoff<double>, bool norms = true,
                         Ref logit_error = 0) {
    REQUIRE(head.queries == z.rows());
    REQUIRE(head.keys == z.cols());
    REQUIRE(head.rows.size() == z.rows());
    REQUIRE(static_cast<Index>(head.rows.status.size()) == z.rows());
    const Ref units = unit / unit_roundoff<double>;
    for (Index query = 0; query < z.rows(); ++query) {
        const ReferenceSoftmax row =
            reference_softmax({z.data() + query * z.cols(), static_cast<std::size_t>(z.cols())}, temperature);
        where.length = static_cast<std::size_t>(query);
        errors.status.meet(head.rows.status[static_cast<std::size_t>(query)] == row.status, where);
        errors.status.meet(head.rows.visible[query] == row.visible, where);
        const Index best = head.rows.argmax[query];
        if (row.status != RowStatus::normal) {
            errors.status.meet(best == -1, where);
        } else {
            errors.status.meet(best >= 0 && best < z.cols(), where);
            // Which of several that rounding cannot tell apart is not said.
            if (best >= 0 && best < z.cols())
                errors.weights.meet(row.figure.at("max_weight") - row.p[static_cast<std::size_t>(best)],
                                    8 * (units * row.weight_error + 2 * logit_error / Ref(temperature)) *
                                        row.figure.at("max_weight"),
                                    where);
        }
        for (const attnscope::RowFigure& figure : attnscope::row_figures) {
            where.normalizer = figure.name;
            const Ref computed = (head.rows.*figure.values)[query];
            const auto right = row.figure.find(figure.name);
            const bool is_norm = figure.group == "jacobian";
            if (right == row.figure.end() || (is_norm && !norms)) {
                errors.missing.meet(std::isnan(computed), where);
                continue;
            }
            const Ref error = std::abs(computed - right->second),
                      relative = units * row.weight_error + 2 * logit_error / Ref(temperature);
            if (figure.name == "log_sum_exp")
                errors.logarithm.meet(error, units * row.log_error + logit_error / Ref(temperature), where);
            else if (figure.name == "max_logit" || figure.name == "logit_spread")
                errors.exact.meet(error, 4 * unit * std::abs(right->second) + 2 * logit_error, where);
            else if (is_norm)
                errors.norms.meet(error, 8 * relative * right->second, where);
            else
                errors.weights.meet(error, 4 * relative * right->second, where);
        }
    }
}

/// Weights of the keys that a row sees and their values.
inline Tokens<double> visible_tokens(std::span<const double> z, const ReferenceSoftmax& row,
                                     const Matrix<double>* values) {
    Tokens<double> tokens;
    tokens.d = values ? values->cols() : 0;
    for (std::size_t key = 0; key < z.size(); ++key) {
        if (!(z[key] > -std::numeric_limits<double>::infinity())) continue;
        ++tokens.n;
        tokens.p.push_back(static_cast<double>(row.p[key]));
        for (Index c = 0; c < tokens.d; ++c) tokens.x.push_back((*values)(static_cast<Index>(key), c));
    }
    return tokens;
}

/// Holds every selection of a softmax head against its logits and values: at the rows `examined`, for N below the
/// number of visible keys, else NaN.
inline void compare_selections(AnalysisErrors& errors, const HeadAnalysis& head, const Matrix<double>& z,
                               double temperature, const Matrix<double>* values, std::optional<double> radius,
                               Where where, Ref unit = unit_roundoff<double>) {
    const Ref units = unit / unit_roundoff<double>;
    for (const SelectionColumns& columns : head.selections)
        for (Index query = 0; query < z.rows(); ++query) {
            const std::span<const double> logits(z.data() + query * z.cols(),
                                                 static_cast<std::size_t>(z.cols()));
            const ReferenceSoftmax row = reference_softmax(logits, temperature);
            const bool examined =
                std::find(head.examined.begin(), head.examined.end(), query) != head.examined.end();
            where.length = static_cast<std::size_t>(query);
            const bool has = examined && row.status == RowStatus::normal && columns.n < row.visible;
            errors.missing.meet(columns.has(query) == has, where);
            ReferenceSelectionFigures right;
            if (has)
                right = reference_selection_figures(visible_tokens(logits, row, values), columns.n, radius,
                                                    units * row.weight_error);
            for (const attnscope::SelectionFigure& figure : attnscope::selection_figures) {
                where.normalizer = figure.name;
                const Ref computed = (columns.*figure.values)[query];
                if (!has || (!values && figure.name != "mass")) {
                    errors.missing.meet(std::isnan(computed), where);
                    continue;
                }
                const Ref error = std::abs(computed - right.figure.at(figure.name));
                if (figure.name == "mass")
                    errors.mass.meet(error, 4 * units * row.weight_error * right.figure.at(figure.name), where);
                else if (figure.name == "separable_fraction" || figure.name == "precision" ||
                         figure.name == "recall" || figure.name == "f_score")
                    errors.fractions.meet(right.tied ? 0 : error, 8 * unit_roundoff<double>, where);
                else
                    errors.lengths.meet(error, right.length_error, where);
            }
        }
}

/// Are two columns the same, bit for bit, NaN equal to NaN?
inline bool same_bits(const attnscope::Column& a, const attnscope::Column& b) {
    if (a.size() != b.size()) return false;
    for (Index i = 0; i < a.size(); ++i)
        if (!(std::isnan(a[i]) && std::isnan(b[i])) && std::memcmp(&a[i], &b[i], sizeof(double)) != 0)
            return false;
    return true;
}
/// The name of the first column or part in which two analyses differ; empty: they are the same bit for bit.
inline std::string first_difference(const HeadAnalysis& a, const HeadAnalysis& b) {
    if (a.queries != b.queries || a.keys != b.keys) return "shape";
    if (a.rows.status != b.rows.status) return "status";
    if (a.rows.visible.size() != b.rows.visible.size() || (a.rows.visible != b.rows.visible).any())
        return "visible";
    if (a.rows.argmax.size() != b.rows.argmax.size() || (a.rows.argmax != b.rows.argmax).any()) return "argmax";
    const auto figures = attnscope::figures_of(a.rows);
    if (figures.size() != attnscope::figures_of(b.rows).size()) return "figures";
    for (const attnscope::RowFigure& figure : figures)
        if (!same_bits(a.rows.*figure.values, b.rows.*figure.values)) return std::string(figure.name);
    if (a.rows.negative.size() != b.rows.negative.size() ||
        (a.rows.negative.size() > 0 && (a.rows.negative != b.rows.negative).any()))
        return "negative";
    if (a.selections.size() != b.selections.size()) return "selections";
    for (std::size_t i = 0; i < a.selections.size(); ++i) {
        if (a.selections[i].n != b.selections[i].n) return "counts";
        for (const attnscope::SelectionFigure& figure : attnscope::selection_figures)
            if (!same_bits(a.selections[i].*figure.values, b.selections[i].*figure.values))
                return std::string(figure.name) + " of " + std::to_string(a.selections[i].n);
    }
    if (a.audit.unknown_rows() != b.audit.unknown_rows()) return "unknown rows";
    for (std::size_t i = 0; i < a.audit.records().size(); ++i) {
        const attnscope::AuditRecord &x = a.audit.records()[i], &y = b.audit.records()[i];
        if (x.checked != y.checked || x.count != y.count || x.tightness != y.tightness)
            return "audit of " + std::string(x.statement->id);
    }
    return a.streamed != b.streamed || a.examined != b.examined || a.temperature != b.temperature ||
                   a.normalizer != b.normalizer
               ? "how it was computed"
               : "";
}

} // namespace attnscope_test
