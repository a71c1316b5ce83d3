// References in long double for normalisers beyond the general family, for the law suite. A formula gives, for
// a row z, its weights and its derivative as J = diag(d) + sum of rank-one terms a b^T, written from the
// definition, beside how exactly arithmetic of unit roundoff u knows each factor.
#pragma once

#include <support/reference.hpp>

#include <numeric>

namespace attnscope_test {

/// One row of a formula. Errors count units of u and leave out the rounding of sums, which the reference adds.
struct FormulaRow {
    /// a b^T; `a_size`, `b_size` >= |a|, |b| are what was added and subtracted to form them.
    struct Term {
        RefRow a, b, a_size, b_size;
    };
    RefRow weights, diagonal;
    std::vector<Term> terms;
    RefRow weight_units, derivative_units; ///< relative error of each weight, of each factor of J
    RefRow slope;                          ///< >= |d log p_i/dz_i|
    RefRow diagonal_size = {};             ///< >= |d|, what was added to form it; empty for |d| itself
    Ref product = 0; ///< how an absolute error of a product weight x logit enters J, where J has such products

    Ref diagonal_bound(std::size_t i) const {
        return diagonal_size.empty() ? std::abs(diagonal[i]) : diagonal_size[i];
    }
};

inline RefRow negated(RefRow row) {
    for (Ref& x : row) x = -x;
    return row;
}
inline RefRow absolute(RefRow row) {
    for (Ref& x : row) x = std::abs(x);
    return row;
}
inline Ref weighted_mean(const RefRow& p, const RefRow& x) {
    Ref sum = 0;
    for (std::size_t i = 0; i < p.size(); ++i)
        if (p[i] != 0) sum += p[i] * x[i];
    return sum;
}
inline Ref visible_keys(const RefRow& z) {
    return static_cast<Ref>(std::count_if(z.begin(), z.end(), [](Ref x) { return x != masked_ref; }));
}

/// e^{beta z}/(n0^beta + sum e^{beta z}), from the largest exponent. The rounding of z - shift, of beta (a
/// logarithm and a square, both in double) and of their product moves an exponent by at most 8 u of itself.
inline FormulaRow softmax_row(const RefRow& z, Ref beta, Ref sink = masked_ref) {
    const std::size_t n = z.size();
    FormulaRow row{RefRow(n, 0), RefRow(n, 0), {}, RefRow(n, 0), RefRow(n, 0), RefRow(n, beta)};
    Ref top = sink;
    for (const Ref x : z) top = std::max(top, x);
    if (top == masked_ref) return row;
    Ref sum = sink == masked_ref ? Ref(0) : std::exp(sink - top);
    RefRow units(n, 0);
    for (std::size_t i = 0; i < n; ++i) {
        if (z[i] == masked_ref) continue;
        units[i] = 8 * beta * (top - z[i]);
        sum += row.weights[i] = std::exp(beta * (z[i] - top));
    }
    for (Ref& p : row.weights) p /= sum;
    // log n0 is rounded too, in double.
    const Ref mean = weighted_mean(row.weights, units) + (sink == masked_ref ? 0 : 2 * std::abs(sink));
    for (std::size_t i = 0; i < n; ++i) {
        row.weight_units[i] = units[i] + mean + 8;
        row.derivative_units[i] = row.weight_units[i] + 8;
        row.diagonal[i] = beta * row.weights[i];
    }
    row.terms = {{negated(row.weights), row.diagonal, row.weights, row.diagonal}};
    return row;
}

/// beta(n) of the number of visible keys.
template <class Beta>
struct LengthFormula {
    Beta beta;
    FormulaRow operator()(const RefRow& z) const { return softmax_row(z, beta(visible_keys(z))); }
};
template <class Beta>
LengthFormula(Beta) -> LengthFormula<Beta>;

struct SinkFormula {
    Ref n0;
    FormulaRow operator()(const RefRow& z) const { return softmax_row(z, 1, std::log(n0)); }
};

/// 1/(1 + e^{-(z+b)}), b = -log n unless given.
struct SigmoidFormula {
    bool per_length;
    Ref bias;
    FormulaRow operator()(const RefRow& z) const {
        const std::size_t n = z.size();
        FormulaRow row{RefRow(n, 0), RefRow(n, 0), {}, RefRow(n, 0), RefRow(n, 0), RefRow(n, 1)};
        const Ref b = per_length ? -std::log(std::max(Ref(1), visible_keys(z))) : bias;
        for (std::size_t i = 0; i < n; ++i) {
            if (z[i] == masked_ref) continue;
            if (std::isinf(z[i])) {
                row.weights[i] = 1;
                continue;
            }
            const Ref x = z[i] + b, e = std::exp(-std::abs(x));
            const Ref p = (x < 0 ? e : 1) / (1 + e), other = (x < 0 ? 1 : e) / (1 + e);
            // z + b and b are rounded.
            const Ref moved = 2 * std::abs(x) + 2 * std::abs(b);
            row.weights[i] = p;
            row.diagonal[i] = p * other;
            row.weight_units[i] = other * moved + 8;
            row.derivative_units[i] = moved + 16;
        }
        return row;
    }
};

/// max(e^z - 1, 0)/(sum |e^z - 1| + eps)
struct SoftpickFormula {
    Ref eps;
    FormulaRow operator()(const RefRow& z) const {
        const std::size_t n = z.size();
        FormulaRow row{RefRow(n, 0), RefRow(n, 0), {}, RefRow(n, 0), RefRow(n, 0), RefRow(n, 1)};
        Ref top = 0;
        for (const Ref x : z) top = std::max(top, x);
        Ref sum = eps * std::exp(-top), units = 0;
        for (std::size_t i = 0; i < n; ++i) {
            if (z[i] == masked_ref) continue;
            // (e^z - 1) e^{-top}; only the exponent z - top of a positive key is rounded.
            const Ref value =
                z[i] > 0 ? -std::expm1(-z[i]) * std::exp(z[i] - top) : std::expm1(z[i]) * std::exp(-top);
            row.weights[i] = std::max(value, Ref(0));
            sum += std::abs(value);
            if (z[i] > 0) units += 2 * value * (top - z[i]);
        }
        if (top == 0)
            return FormulaRow{RefRow(n, 0), RefRow(n, 0), {}, RefRow(n, 0), RefRow(n, 0), RefRow(n, 1)};
        RefRow h(n, 0);
        for (std::size_t i = 0; i < n; ++i) {
            if (z[i] == masked_ref) continue;
            row.weights[i] /= sum;
            if (z[i] != 0) h[i] = std::copysign(std::exp(z[i] - top) / sum, z[i]);
            row.diagonal[i] = std::max(h[i], Ref(0));
            row.weight_units[i] = 2 * (top - std::max(z[i], Ref(0))) + units / sum + 16;
            row.derivative_units[i] = 2 * (top - z[i]) + units / sum + 16;
            if (z[i] > 0) row.slope[i] = -1 / std::expm1(-z[i]);
        }
        row.terms = {{negated(row.weights), h, row.weights, absolute(h)}};
        return row;
    }
};

/// F(z)/sum F; F gives value, F'/F and relative error of value(z)/value(top) in units of u.
template <class F>
struct SumFormula {
    F f;
    FormulaRow operator()(const RefRow& z) const {
        const std::size_t n = z.size();
        FormulaRow row{RefRow(n, 0), RefRow(n, 0), {}, RefRow(n, 0), RefRow(n, 0), RefRow(n, 0)};
        Ref sum = 0, top = masked_ref;
        for (const Ref x : z) top = std::max(top, x);
        for (std::size_t i = 0; i < n; ++i)
            if (z[i] != masked_ref) sum += row.weights[i] = f.value(z[i]);
        if (!(sum > 0)) return row;
        RefRow units(n, 0);
        for (std::size_t i = 0; i < n; ++i) {
            row.weights[i] /= sum;
            if (row.weights[i] == 0) continue;
            units[i] = f.units(z[i], top);
            row.slope[i] = f.slope(z[i]);
            row.diagonal[i] = row.weights[i] * row.slope[i];
        }
        const Ref mean = weighted_mean(row.weights, units);
        for (std::size_t i = 0; i < n; ++i) {
            row.weight_units[i] = units[i] + mean + 4;
            row.derivative_units[i] = row.weight_units[i] + 12;
        }
        row.terms = {{negated(row.weights), row.diagonal, row.weights, row.diagonal}};
        return row;
    }
};

struct StableMaxKey {
    Ref value(Ref z) const { return z >= 0 ? z + 1 : 1 / (1 - z); }
    Ref slope(Ref z) const { return 1 / (1 + std::abs(z)); }
    Ref units(Ref, Ref) const { return 4; }
};

struct ReluKey {
    Ref k;
    Ref value(Ref z) const { return z > 0 ? std::pow(z, k) : Ref(0); }
    Ref slope(Ref z) const { return k / z; }
    /// Powers other than 1 and 2 go through k log z, twice rounded, of the key and of the largest.
    Ref units(Ref z, Ref top) const {
        return 6 + (k == 1 || k == 2 ? Ref(0) : 4 * k * (std::abs(std::log(z)) + std::abs(std::log(top))));
    }
};

/// softmax(beta(H) z), H the entropy of softmax(z); J = beta (diag p - p p^T) + p (z - E_p z) (d beta/dz)^T.
struct AdaptiveFormula {
    FormulaRow operator()(const RefRow& z) const {
        const std::size_t n = z.size();
        const RefRow q = softmax_row(z, 1).weights;
        Ref top = masked_ref;
        for (const Ref x : z) top = std::max(top, x);
        if (top == masked_ref) return softmax_row(z, 1);
        RefRow gap(n, 0);
        for (std::size_t i = 0; i < n; ++i)
            if (z[i] != masked_ref) gap[i] = top - z[i];
        Ref partition = 0;
        for (std::size_t i = 0; i < n; ++i)
            if (z[i] != masked_ref) partition += std::exp(-gap[i]);
        const Ref mean_gap = weighted_mean(q, gap), h = std::log(partition) + mean_gap;
        // Highest power first, by powers rather than by Horner.
        constexpr std::array<Ref, 5> c = {-1.791L, 4.917L, -2.3L, 0.481L, -0.037L};
        Ref fitted = 0, first = 0, second = 0;
        for (int k = 0; k < 5; ++k) {
            const Ref coefficient = static_cast<Ref>(static_cast<double>(c[static_cast<std::size_t>(k)]));
            fitted += coefficient * std::pow(h, Ref(k));
            if (k > 0) first += Ref(k) * coefficient * std::pow(h, Ref(k - 1));
            if (k > 1) second += Ref(k * (k - 1)) * coefficient * std::pow(h, Ref(k - 2));
        }
        const bool moves = h > 0.5L && fitted > 1;
        const Ref beta = moves ? fitted : Ref(1);
        FormulaRow row = softmax_row(z, beta);
        if (!moves) return row;
        // H is a quotient of sums over keys, each term exact to 4 u beside its gap; the sums take at most 64
        // units in blocks and n/64 over blocks.
        Ref square_gap = 0;
        for (std::size_t i = 0; i < n; ++i) square_gap += q[i] * gap[i] * gap[i];
        const Ref h_units = (72 + static_cast<Ref>(n) / 64) * (1 + h + mean_gap) + 4 * square_gap;
        // The polynomial rounds each of its terms, of size below 5 h.
        const Ref beta_units = std::abs(first) * h_units + 40 * (1 + h) * (1 + h);
        const Ref p_gap = weighted_mean(row.weights, gap);
        FormulaRow::Term term{RefRow(n, 0), RefRow(n, 0), RefRow(n, 0), RefRow(n, 0)};
        const Ref steep = std::abs(first) + (std::abs(second) * h_units + 40 * (1 + h) * (1 + h)) / 16;
        for (std::size_t i = 0; i < n; ++i) {
            if (z[i] == masked_ref) continue;
            const Ref p = row.weights[i];
            term.a[i] = p * (p_gap - gap[i]);
            term.a_size[i] = p * (p_gap + gap[i]);
            term.b[i] = -first * q[i] * (mean_gap - gap[i]);
            term.b_size[i] = steep * q[i] * (mean_gap + gap[i]);
            row.weight_units[i] += beta_units * (gap[i] + p_gap);
            row.derivative_units[i] += beta_units * (gap[i] + p_gap + 1);
            row.slope[i] += std::abs(first) * (1 + gap[i]) * (1 + gap[i]);
        }
        // p's share of E_p z is a sum with the errors of all weights.
        row.terms.push_back(std::move(term));
        return row;
    }
};

/// f(z) before a formula: f gives value(z), slope(z) and the relative error of the slope; value is exact to 8
/// u.
template <class Map, class Inner>
struct MappedFormula {
    Map map;
    Inner inner;
    FormulaRow operator()(const RefRow& z) const {
        RefRow y = z;
        for (Ref& x : y)
            if (x != masked_ref) x = map.value(x);
        FormulaRow row = inner(y);
        RefRow size(z.size(), 0);
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref) size[i] = 8 * row.slope[i] * std::abs(y[i]);
        const Ref mean = weighted_mean(row.weights, size);
        for (std::size_t i = 0; i < z.size(); ++i) {
            const bool masked = z[i] == masked_ref;
            const Ref slope = masked ? Ref(0) : map.slope(z[i]);
            row.weight_units[i] += size[i] + mean;
            row.derivative_units[i] += size[i] + mean + (masked ? Ref(0) : map.slope_units(z[i]));
            row.diagonal[i] *= slope;
            for (FormulaRow::Term& term : row.terms) {
                term.b[i] *= slope;
                term.b_size[i] *= slope;
            }
            row.slope[i] *= slope;
        }
        return row;
    }
};

struct SoftcapMap {
    Ref c;
    Ref value(Ref z) const { return c * std::tanh(z / c); }
    Ref slope(Ref z) const {
        const Ref e = std::exp(-2 * std::abs(z / c));
        return 4 * e / ((1 + e) * (1 + e));
    }
    Ref slope_units(Ref z) const { return std::isinf(z) ? Ref(0) : 6 * std::abs(z / c) + 12; }
};

struct TemperatureMap {
    Ref t;
    Ref value(Ref z) const { return z / t; }
    Ref slope(Ref) const { return 1 / t; }
    Ref slope_units(Ref) const { return 2; }
};

/// How many of the weights, largest first, are kept.
struct KeepCount {
    std::size_t k;
    std::size_t operator()(const RefRow& sorted) const { return std::min(k, sorted.size()); }
    Ref margin(const RefRow&) const { return std::numeric_limits<Ref>::infinity(); }
};
struct KeepMass {
    Ref mass;
    /// The smallest count whose share reaches the mass.
    std::size_t operator()(const RefRow& sorted) const {
        Ref total = 0, sum = 0;
        for (std::size_t i = sorted.size(); i-- > 0;) total += sorted[i];
        for (std::size_t i = 0; i < sorted.size(); ++i)
            if ((sum += sorted[i]) >= mass * total) return i + 1;
        return sorted.size();
    }
    /// How far the share that decides is from the mass, at the nearest count.
    Ref margin(const RefRow& sorted) const {
        Ref total = 0, sum = 0, nearest = 1;
        for (const Ref x : sorted) total += x;
        for (const Ref x : sorted) nearest = std::min(nearest, std::abs((sum += x) / total - mass));
        return nearest;
    }
};

/// The largest weights behind a formula; divided by what is left if `simplex`.
template <class Inner, class Keep>
struct RestrictedFormula {
    Inner inner;
    Keep keep;
    bool simplex;

    static std::vector<std::size_t> by_weight(const RefRow& w) {
        std::vector<std::size_t> order(w.size());
        std::iota(order.begin(), order.end(), std::size_t(0));
        std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return w[a] > w[b]; });
        return order;
    }
    FormulaRow operator()(const RefRow& z) const {
        FormulaRow row = inner(z);
        const std::vector<std::size_t> order = by_weight(row.weights);
        RefRow sorted(z.size());
        for (std::size_t i = 0; i < z.size(); ++i) sorted[i] = row.weights[order[i]];
        const std::size_t count = keep(sorted);
        Ref kept = 0;
        for (std::size_t i = 0; i < count; ++i) kept += sorted[i];
        for (std::size_t i = count; i < z.size(); ++i) {
            row.weights[order[i]] = row.diagonal[order[i]] = 0;
            for (FormulaRow::Term& term : row.terms) term.a[order[i]] = term.a_size[order[i]] = 0;
        }
        if (!simplex || !(kept > 0)) return row;
        for (Ref& p : row.weights) p /= kept;
        for (Ref& d : row.diagonal) d /= kept;
        const Ref mean = weighted_mean(row.weights, row.weight_units);
        for (std::size_t i = 0; i < z.size(); ++i) {
            row.weight_units[i] += mean + 4;
            row.derivative_units[i] += mean + 8;
        }
        // (I - p 1^T)(diag(d) - w b^T) restricted to the kept keys is diag(d) - p d^T.
        row.terms = {{negated(row.weights), row.diagonal, row.weights, absolute(row.diagonal)}};
        return row;
    }
    /// Whether arithmetic in T must make the same choice: the weights at the cut differ by more than their
    /// errors, or belong to equal logits.
    template <class T>
    bool decided(const RefRow& z) const {
        const FormulaRow row = inner(z);
        const std::vector<std::size_t> order = by_weight(row.weights);
        RefRow sorted(z.size());
        for (std::size_t i = 0; i < z.size(); ++i) sorted[i] = row.weights[order[i]];
        const std::size_t count = keep(sorted);
        const Ref units = *std::max_element(row.weight_units.begin(), row.weight_units.end()) +
                          2 * static_cast<Ref>(z.size() + 64);
        if (!(keep.margin(sorted) > 8 * units * unit_roundoff<T>)) return false;
        if (count == 0 || count == z.size()) return true;
        const std::size_t last = order[count - 1], next = order[count];
        return z[last] == z[next] ||
               sorted[count - 1] - sorted[count] > 4 * units * unit_roundoff<T> * sorted[count - 1];
    }
};

/// What `laws.hpp` asks of a reference, by a formula.
template <class Formula>
class ConditionReference {
public:
    explicit ConditionReference(Formula formula, bool shares_infinity = true)
        : formula_(std::move(formula)), shares_infinity_(shares_infinity) {}

    FormulaRow row(const RefRow& z) const { return formula_(z); }
    RefRow weights(const RefRow& z) const { return formula_(z).weights; }

    RefMatrix jacobian(const RefRow& z) const {
        const FormulaRow row = formula_(z);
        RefMatrix dense{z.size(), RefRow(z.size() * z.size(), 0)};
        for (std::size_t i = 0; i < z.size(); ++i) {
            dense(i, i) = row.diagonal[i];
            for (const FormulaRow::Term& term : row.terms)
                for (std::size_t j = 0; j < z.size(); ++j) dense(i, j) += term.a[i] * term.b[j];
        }
        return dense;
    }

    /// Relative error of each weight: that of its terms, of the sum they are divided by, twice for a choice.
    template <class T>
    RefRow weight_error(const RefRow& z) const {
        const FormulaRow row = formula_(z);
        RefRow error(z.size(), 0);
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref) error[i] = relative<T>(row.weight_units[i], z.size());
        return error;
    }

    /// sum over factors: error of each times the sizes of the others, plus the rounding of the sums.
    template <class T>
    RefRow jvp_error(const RefRow& z, const RefRow& v) const {
        const FormulaRow row = formula_(z);
        const RefRow factor = factor_error<T>(row, z.size());
        RefRow result(z.size(), underflow<T>(row, v));
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref) result[i] += row.diagonal_bound(i) * std::abs(v[i]) * factor[i];
        for (const FormulaRow::Term& term : row.terms) {
            Ref size = 0, spread = 0;
            for (std::size_t j = 0; j < z.size(); ++j) {
                if (z[j] == masked_ref) continue;
                size += term.b_size[j] * std::abs(v[j]);
                spread += term.b_size[j] * std::abs(v[j]) * factor[j];
            }
            for (std::size_t i = 0; i < z.size(); ++i)
                if (z[i] != masked_ref) result[i] += term.a_size[i] * (size * factor[i] + spread);
        }
        return result;
    }
    template <class T>
    RefRow vjp_error(const RefRow& z, const RefRow& w) const {
        const FormulaRow row = formula_(z);
        const RefRow factor = factor_error<T>(row, z.size());
        RefRow result(z.size(), underflow<T>(row, w));
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref) result[i] += row.diagonal_bound(i) * std::abs(w[i]) * factor[i];
        for (const FormulaRow::Term& term : row.terms) {
            Ref size = 0, spread = 0;
            for (std::size_t i = 0; i < z.size(); ++i) {
                if (z[i] == masked_ref) continue;
                size += term.a_size[i] * std::abs(w[i]);
                spread += term.a_size[i] * std::abs(w[i]) * factor[i];
            }
            for (std::size_t j = 0; j < z.size(); ++j)
                if (z[j] != masked_ref) result[j] += term.b_size[j] * (size * factor[j] + spread);
        }
        return result;
    }

    Ref step(const RefRow& z, const RefRow& v) const {
        const FormulaRow row = formula_(z);
        Ref fastest = 0;
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref) fastest = std::max(fastest, std::abs(row.slope[i] * v[i]));
        return Ref(1e-6) / (1 + fastest);
    }
    RefRow difference_rounding(const RefRow& z, const RefRow& v) const {
        const FormulaRow row = formula_(z);
        const RefRow error = weight_error<Ref>(z);
        const Ref h = step(z, v);
        Ref moved = 0;
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref) moved = std::max(moved, std::abs(row.slope[i] * z[i]) * unit_roundoff<Ref>);
        RefRow result(z.size());
        for (std::size_t i = 0; i < z.size(); ++i) result[i] = row.weights[i] * (error[i] + 2 * moved) * 2 / h;
        return result;
    }

    bool shares_infinity() const { return shares_infinity_; }
    /// Whether equal logits may get different weights.
    static constexpr bool separates_ties = requires(const Formula f) { f.keep; };
    template <class T>
    bool decided(const RefRow& z) const {
        if constexpr (separates_ties)
            return formula_.template decided<T>(z);
        else
            return true;
    }

private:
    template <class T>
    static Ref relative(Ref units, std::size_t n) {
        const Ref u = unit_roundoff<T> + unit_roundoff<Ref>;
        // What is not known at all stays finite, so that nothing times it is nothing.
        return std::expm1(
            std::min(Ref(1000), u * units + 2 * plain_sum_error<T>(n) + Ref(n) * unit_roundoff<Ref>));
    }
    template <class T>
    static RefRow factor_error(const FormulaRow& row, std::size_t n) {
        RefRow error(n);
        for (std::size_t i = 0; i < n; ++i) error[i] = 2 * relative<T>(row.derivative_units[i], n);
        return error;
    }
    /// What weights flushed to 0 and subnormal products may cost.
    template <class T>
    static Ref underflow(const FormulaRow& row, const RefRow& v) {
        Ref slope = 1, size = 1;
        for (std::size_t i = 0; i < v.size(); ++i) {
            slope = std::max(slope, row.slope[i]);
            size = std::max(size, std::abs(v[i]));
        }
        return (Ref(std::numeric_limits<T>::min()) * slope +
                Ref(std::numeric_limits<T>::denorm_min()) * row.product) *
               Ref(v.size() + 4) * size;
    }

    Formula formula_;
    bool shares_infinity_;
};

} // namespace attnscope_test
