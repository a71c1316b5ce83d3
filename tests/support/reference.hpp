// References in long double, written from the formulas, and forward-error bounds of what they are compared
// with. Plain loops: clarity and digits before speed.
#pragma once

#include <support/scalars.hpp>

#include <attnscope/normalizer/pointwise.hpp>

#include <algorithm>

namespace attnscope_test {

inline constexpr Ref masked_ref = -std::numeric_limits<Ref>::infinity();

/// One key of a normaliser of the general family p_i = F(z_i)/sum F: log F, its fall from the largest, F'/F,
/// and how exactly arithmetic of
/// unit roundoff u knows them. `log_units`: error of e^{log F(z) - top} in units of u, whether it is computed
/// through F or through log F. `slope_units`: relative error of F'/F.
struct SoftmaxKey {
    double temperature = 1;
    Ref log(Ref z) const { return z / Ref(temperature); }
    Ref gap(Ref top, Ref z) const { return (top - z) / Ref(temperature); }
    Ref slope(Ref) const { return 1 / Ref(temperature); }
    /// z - max z, 1/T and their product are rounded; exp to one ulp.
    Ref log_units(Ref log, Ref top) const { return 3 * (top - log) + 2; }
    Ref slope_units() const { return 1; }
};

/// e^z, the argument of which is known exactly.
struct ExponentialKey {
    Ref log(Ref z) const { return z; }
    Ref gap(Ref top, Ref z) const { return top - z; }
    Ref slope(Ref) const { return 1; }
    Ref log_units(Ref log, Ref top) const { return (top - log) + 2; }
    Ref slope_units() const { return 0; }
};

/// The general family adds in blocks or one by one in the sum scalar, as F allows.
template <class T>
Ref plain_sum_error(std::size_t n) {
    return sum_error<T>(n) + Ref(n) * unit_roundoff<SumScalar<T>>;
}

/// Functions of libm to one ulp (2u), three of them in a row, of log F and of the largest log F.
inline Ref composed_log_units(Ref log, Ref top) {
    return 5 * (std::abs(log) + std::abs(top)) + (top - log) + 14;
}

struct SigmoidKey {
    Ref log(Ref z) const { return z >= 0 ? -std::log1p(std::exp(-z)) : z - std::log1p(std::exp(z)); }
    Ref gap(Ref top, Ref z) const { return log(top) - log(z); }
    Ref slope(Ref z) const { return std::exp(-std::max(z, Ref(0))) / (1 + std::exp(-std::abs(z))); }
    Ref log_units(Ref log, Ref top) const { return composed_log_units(log, top); }
    Ref slope_units() const { return 8; }
};

struct SoftplusKey {
    static Ref value(Ref z) { return std::max(z, Ref(0)) + std::log1p(std::exp(-std::abs(z))); }
    // Far below 0 the value is e^z (1 - e^z/2), which underflows before its logarithm does.
    Ref log(Ref z) const { return z < -50 ? z - std::exp(z) / 2 : std::log(value(z)); }
    Ref gap(Ref top, Ref z) const { return log(top) - log(z); }
    Ref slope(Ref z) const { return z < -50 ? 1 - std::exp(z) / 2 : SigmoidKey{}.slope(-z) / value(z); }
    Ref log_units(Ref log, Ref top) const { return composed_log_units(log, top); }
    Ref slope_units() const { return 12; }
};

struct QuadraticKey {
    double c = 1;
    Ref log(Ref z) const { return std::log(z * z + Ref(c)); }
    Ref gap(Ref top, Ref z) const { return log(top) - log(z); }
    Ref slope(Ref z) const { return 2 * z / (z * z + Ref(c)); }
    Ref log_units(Ref log, Ref top) const { return composed_log_units(log, top); }
    Ref slope_units() const { return 6; }
};

inline SoftmaxKey key_of(const attnscope::Softmax& softmax) { return {softmax.temperature()}; }
inline ExponentialKey key_of(const attnscope::PointwiseNormalizer<attnscope::Exponential>&) { return {}; }
inline SigmoidKey key_of(const attnscope::PointwiseNormalizer<attnscope::Sigmoid>&) { return {}; }
inline SoftplusKey key_of(const attnscope::PointwiseNormalizer<attnscope::Softplus>&) { return {}; }
/// The constant is read back from F(0) = c.
inline QuadraticKey key_of(const attnscope::PointwiseNormalizer<attnscope::Quadratic>& normalizer) {
    return {normalizer.function()(0.0)};
}

/// Weights of one row with everything that follows from them; no figure is formed by subtracting near-equal
/// numbers.
struct ReferenceRow {
    RefRow weights;    ///< p_i, 0 at masked keys
    RefRow complement; ///< 1 - p_i
    RefRow log_weight; ///< log p_i
    RefRow slope;      ///< F'(z_i)/F(z_i), 0 at masked keys
    RefRow log_value;  ///< log F(z_i)
    std::size_t visible = 0;
    std::size_t top = 0;
    Ref log_sum_exp = masked_ref;
    Ref entropy = 0;
    Ref one_minus_s2 = 0;

    Ref power_sum(int k) const {
        Ref sum = 0;
        for (Ref p : weights) sum += std::pow(p, Ref(k));
        return sum;
    }
};

/// A normaliser of the general family in long double, by its `Key`. The law suite asks a reference for
/// what `laws.hpp` lists.
template <class Key>
class FamilyReference {
public:
    explicit FamilyReference(Key key = Key{}) : key_(key) {}

    const Key& key() const { return key_; }

    ReferenceRow row(const RefRow& z) const {
        ReferenceRow row;
        const std::size_t n = z.size();
        row.weights.assign(n, 0);
        row.complement.assign(n, 1);
        row.log_weight.assign(n, masked_ref);
        row.slope.assign(n, 0);
        row.log_value.assign(n, masked_ref);
        for (std::size_t i = 0; i < n; ++i) {
            if (z[i] == masked_ref) continue;
            ++row.visible;
            row.log_value[i] = key_.log(z[i]);
            row.slope[i] = key_.slope(z[i]);
            if (row.visible == 1 || row.log_value[i] > row.log_value[row.top]) row.top = i;
        }
        if (row.visible == 0) return row;
        const Ref top = row.log_value[row.top];
        // r, t, q without the largest: sums of positive terms.
        Ref r = 0, t = 0, q = 0;
        for (std::size_t i = 0; i < n; ++i) {
            if (i == row.top || z[i] == masked_ref) continue;
            const Ref u = key_.gap(z[row.top], z[i]), e = std::exp(-u);
            r += e;
            t += u * e;
            q += e * e;
        }
        row.log_sum_exp = top + std::log1p(r);
        row.entropy = std::log1p(r) + t / (1 + r);
        row.one_minus_s2 = (r * (2 + r) - q) / ((1 + r) * (1 + r));
        for (std::size_t i = 0; i < n; ++i) {
            if (z[i] == masked_ref) continue;
            const Ref u = key_.gap(z[row.top], z[i]), e = std::exp(-u);
            row.weights[i] = e / (1 + r);
            row.complement[i] = (i == row.top ? r : 1 + (r - e)) / (1 + r);
            row.log_weight[i] = -u - std::log1p(r);
        }
        return row;
    }

    RefRow weights(const RefRow& z) const { return row(z).weights; }

    /// Relative error of each weight computed in T, the reference's own included.
    template <class T>
    RefRow weight_error(const RefRow& z) const {
        const ReferenceRow reference = row(z);
        RefRow error(z.size(), 0);
        if (reference.visible == 0) return error;
        const Ref top = reference.log_value[reference.top];
        Ref mean = 0;
        for (std::size_t i = 0; i < z.size(); ++i) {
            if (z[i] == masked_ref) continue;
            error[i] = key_.log_units(reference.log_value[i], top);
            mean += reference.weights[i] * error[i];
        }
        const Ref u = unit_roundoff<T> + unit_roundoff<Ref>;
        for (std::size_t i = 0; i < z.size(); ++i) {
            if (z[i] == masked_ref) continue;
            error[i] = std::expm1(u * (error[i] + mean + 2) + sum_of_weights_error<T>(reference.visible) +
                                  Ref(reference.visible) * unit_roundoff<Ref>);
        }
        return error;
    }

    /// A step h for central differences along v: about the cube root of the reference's unit roundoff, in the
    /// units of the weights' exponents.
    Ref step(const RefRow& z, const RefRow& v) const { return Ref(1e-6) / (1 + fastest(z, v)); }

    /// Absolute rounding error of each (p(z + h v) - p(z - h v))/2h: that of the weights, and of z + h v.
    RefRow difference_rounding(const RefRow& z, const RefRow& v) const {
        const ReferenceRow r = row(z);
        const RefRow error = weight_error<Ref>(z);
        const Ref h = step(z, v);
        Ref moved = 0;
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref) moved = std::max(moved, std::abs(r.slope[i] * z[i]) * unit_roundoff<Ref>);
        RefRow result(z.size());
        for (std::size_t i = 0; i < z.size(); ++i) result[i] = r.weights[i] * (error[i] + 2 * moved) * 2 / h;
        return result;
    }

    /// Absolute error of J v computed in T from weights computed in T.
    template <class T>
    RefRow jvp_error(const RefRow& z, const RefRow& v) const {
        const ReferenceRow r = row(z);
        const RefRow e = weight_error<T>(z);
        const Ref u = unit_roundoff<T> + unit_roundoff<Ref>;
        const Ref key_error = (key_.slope_units() + 4) * u;
        Ref size = 0, spread = 0;
        for (std::size_t j = 0; j < z.size(); ++j) {
            const Ref term = std::abs(r.weights[j] * r.slope[j] * v[j]);
            size += term;
            spread += term * (e[j] + key_error);
        }
        RefRow result(z.size());
        for (std::size_t i = 0; i < z.size(); ++i) {
            const Ref own = std::abs(r.weights[i] * r.slope[i] * v[i]) * (e[i] + key_error);
            result[i] = own +
                        r.weights[i] * (size * (e[i] + 4 * u + sum_of_weights_error<T>(z.size())) + spread) +
                        underflow<T>(r, v);
        }
        return result;
    }

    /// Absolute error of J^T w = g (w - <p, w>) computed in T from weights computed in T.
    template <class T>
    RefRow vjp_error(const RefRow& z, const RefRow& w) const {
        const ReferenceRow r = row(z);
        const RefRow e = weight_error<T>(z);
        const Ref u = unit_roundoff<T> + unit_roundoff<Ref>;
        Ref size = 0, spread = 0;
        for (std::size_t i = 0; i < z.size(); ++i) {
            size += r.weights[i] * std::abs(w[i]);
            spread += r.weights[i] * std::abs(w[i]) * e[i];
        }
        RefRow result(z.size());
        for (std::size_t j = 0; j < z.size(); ++j) {
            const Ref g = std::abs(r.weights[j] * r.slope[j]);
            result[j] = g * ((std::abs(w[j]) + size) * (e[j] + (key_.slope_units() + 4) * u) +
                             size * sum_of_weights_error<T>(z.size()) + spread) +
                        underflow<T>(r, w);
        }
        return result;
    }

    /// Whether keys at +inf take all the mass (F grows without limit).
    bool shares_infinity() const { return !std::is_same_v<Key, SigmoidKey>; }

private:
    template <class T>
    static Ref sum_of_weights_error(std::size_t n) {
        return std::is_same_v<Key, SoftmaxKey> ? sum_error<T>(n) : plain_sum_error<T>(n);
    }

    /// Largest |F'/F v|.
    Ref fastest(const RefRow& z, const RefRow& v) const {
        Ref largest = 0;
        for (std::size_t i = 0; i < z.size(); ++i)
            if (z[i] != masked_ref) largest = std::max(largest, std::abs(key_.slope(z[i]) * v[i]));
        return largest;
    }

    /// What weights flushed to 0 and subnormal products may cost.
    template <class T>
    static Ref underflow(const ReferenceRow& r, const RefRow& v) {
        Ref slope = 1, size = 1;
        for (std::size_t i = 0; i < v.size(); ++i) {
            slope = std::max(slope, std::abs(r.slope[i]));
            size = std::max(size, std::abs(v[i]));
        }
        return Ref(std::numeric_limits<T>::min()) * Ref(v.size() + 4) * slope * size;
    }

    Key key_;
};

template <class N>
auto reference_of(const N& normalizer) {
    return FamilyReference(key_of(normalizer));
}

/// Square matrix of references, row-major.
struct RefMatrix {
    std::size_t n = 0;
    RefRow entries;
    Ref& operator()(std::size_t i, std::size_t j) { return entries[i * n + j]; }
    Ref operator()(std::size_t i, std::size_t j) const { return entries[i * n + j]; }
};

/// J_ij = (delta_ij - p_i) g_j. `complement` is 1 - p_i, so that every entry has its full relative accuracy.
inline RefMatrix dense_jacobian(const RefRow& p, const RefRow& complement, const RefRow& slope) {
    RefMatrix jacobian{p.size(), RefRow(p.size() * p.size())};
    for (std::size_t i = 0; i < p.size(); ++i)
        for (std::size_t j = 0; j < p.size(); ++j)
            jacobian(i, j) = (i == j ? complement[i] : -p[i]) * p[j] * slope[j];
    return jacobian;
}

/// Largest singular value by one-sided Jacobi rotations of the columns.
inline Ref largest_singular_value(RefMatrix a) {
    const std::size_t n = a.n;
    const Ref u = unit_roundoff<Ref>;
    for (int sweep = 0; sweep < 60; ++sweep) {
        bool rotated = false;
        for (std::size_t p = 0; p + 1 < n; ++p) {
            for (std::size_t q = p + 1; q < n; ++q) {
                Ref alpha = 0, beta = 0, gamma = 0;
                for (std::size_t i = 0; i < n; ++i) {
                    alpha += a(i, p) * a(i, p);
                    beta += a(i, q) * a(i, q);
                    gamma += a(i, p) * a(i, q);
                }
                if (gamma == 0 || std::abs(gamma) <= 4 * u * std::sqrt(alpha) * std::sqrt(beta)) continue;
                rotated = true;
                const Ref zeta = (beta - alpha) / (2 * gamma);
                const Ref t = (zeta >= 0 ? 1 : -1) / (std::abs(zeta) + std::hypot(Ref(1), zeta));
                const Ref c = 1 / std::hypot(Ref(1), t), s = c * t;
                for (std::size_t i = 0; i < n; ++i) {
                    const Ref x = a(i, p), y = a(i, q);
                    a(i, p) = c * x - s * y;
                    a(i, q) = s * x + c * y;
                }
            }
        }
        if (!rotated) break;
    }
    Ref largest = 0;
    for (std::size_t j = 0; j < n; ++j) {
        Ref square = 0;
        for (std::size_t i = 0; i < n; ++i) square += a(i, j) * a(i, j);
        largest = std::max(largest, std::sqrt(square));
    }
    return largest;
}

/// The norms of a dense matrix, each by its definition.
struct ReferenceNorms {
    Ref max_entry = 0, column = 0, spectral = 0, frobenius = 0, one = 0, infinity = 0;
};

inline ReferenceNorms norms_of(const RefMatrix& a) {
    ReferenceNorms norms;
    RefRow row_sum(a.n, 0);
    Ref all = 0;
    for (std::size_t j = 0; j < a.n; ++j) {
        Ref sum = 0, squares = 0;
        for (std::size_t i = 0; i < a.n; ++i) {
            const Ref entry = std::abs(a(i, j));
            norms.max_entry = std::max(norms.max_entry, entry);
            sum += entry;
            squares += entry * entry;
            row_sum[i] += entry;
        }
        all += squares;
        norms.one = std::max(norms.one, sum);
        norms.column = std::max(norms.column, std::sqrt(squares));
    }
    for (Ref sum : row_sum) norms.infinity = std::max(norms.infinity, sum);
    norms.frobenius = std::sqrt(all);
    norms.spectral = largest_singular_value(a);
    return norms;
}

/// max |A x|_1 over x in {-1,1}^n, by enumeration.
inline Ref infinity_to_one_norm(const RefMatrix& a) {
    Ref largest = 0;
    for (std::size_t signs = 0; signs < (std::size_t(1) << a.n); ++signs) {
        Ref total = 0;
        for (std::size_t i = 0; i < a.n; ++i) {
            Ref sum = 0;
            for (std::size_t j = 0; j < a.n; ++j) sum += (signs >> j & 1) != 0 ? a(i, j) : -a(i, j);
            total += std::abs(sum);
        }
        largest = std::max(largest, total);
    }
    return largest;
}

} // namespace attnscope_test
