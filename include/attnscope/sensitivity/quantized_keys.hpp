// Keys as a cache stores them in few bits, and what that does to a head, measured and certified.
#pragma once

#include <attnscope/attention/head.hpp>
#include <attnscope/sensitivity/perturbation.hpp>

#include <optional>

namespace attnscope {
inline namespace v0_1 {

/// Numbers that a cache can store.
enum class CacheNumber {
    integer,     ///< symmetric, -(2^(bits-1)-1) ... 2^(bits-1)-1
    float8_e4m3, ///< 4 bits of exponent, 3 of mantissa, largest 448, no infinity (OCP 8-bit floating point)
    float8_e5m2  ///< 5 bits of exponent, 2 of mantissa, largest 57344
};

/// What shares one scale: all tokens of a channel (column), or all channels of a token (row).
enum class CacheScale { channel, token };

/// How a cache stores keys.
struct CacheFormat {
    CacheNumber number = CacheNumber::integer;
    int bits = 8; ///< of integers, 2 to 24
    CacheScale scale = CacheScale::channel;
};

namespace detail {

template <Real T>
T largest_cache_number(const CacheFormat& format) {
    switch (format.number) {
    case CacheNumber::integer:
        return std::ldexp(T(1), format.bits - 1) - 1;
    case CacheNumber::float8_e4m3:
        return 448;
    case CacheNumber::float8_e5m2:
        return 57344;
    }
    return 1;
}

/// The distance of the numbers of the format near x.
template <Real T>
T cache_quantum(T x, const CacheFormat& format) {
    if (format.number == CacheNumber::integer) return T(1);
    const bool wide = format.number == CacheNumber::float8_e4m3;
    const int mantissa = wide ? 3 : 2, smallest = wide ? -6 : -14;
    int exponent = 0; // x = f 2^exponent, 1/2 <= |f| < 1
    std::frexp(x, &exponent);
    return std::ldexp(T(1), std::max(exponent - 1, smallest) - mantissa);
}

/// The nearest number of the format to x, ties to even; beyond the largest, the largest.
template <Real T>
T nearest_cache_number(T x, const CacheFormat& format) {
    const T most = largest_cache_number<T>(format);
    if (!(std::abs(x) < most)) return x == x ? std::copysign(most, x) : x;
    const T quantum = cache_quantum(x, format);
    return std::clamp(std::nearbyint(x / quantum) * quantum, -most, most);
}

/// number(x/scale) scale of every entry x, with the scale that its channel or token has in the format.
template <Real T, class Number>
Matrix<T> in_cache(std::string_view function, MatrixView<T> x, const CacheFormat& format,
                   const Number& number) {
    require(format.bits >= 2 && format.bits <= 24, function, "bits must be in [2, 24]", format.bits);
    Matrix<T> result = x.map();
    const T most = largest_cache_number<T>(format);
    const auto store = [&](auto&& part) {
        const T largest = part.size() > 0 ? part.cwiseAbs().template maxCoeff<Eigen::PropagateNaN>() : T(0);
        if (largest == T(0)) return;
        if (!(largest <= std::numeric_limits<T>::max())) {
            part.setConstant(std::numeric_limits<T>::quiet_NaN());
            return;
        }
        const T scale = std::max(largest / most, std::numeric_limits<T>::min());
        for (Index i = 0; i < part.size(); ++i) part(i) = scale * number(part(i) / scale);
    };
    if (format.scale == CacheScale::channel)
        for (Index j = 0; j < result.cols(); ++j) store(result.col(j));
    else
        for (Index i = 0; i < result.rows(); ++i) store(result.row(i));
    return result;
}

} // namespace detail

/// The rows of x after a visit to a cache of this format.
/// Formula. x' = scale * nearest(x/scale), the scale such that the largest |x| of its channel or token is the
/// largest number of the format. Rounding is to nearest, ties to even (the default rounding mode of the
/// machine).
/// Shapes and units. x [tokens, d], and the result.
/// Special rows. A channel or token of zeros stays; one that holds NaN or an infinity becomes NaN.
/// Cost. O(tokens d), allocates the result.
/// Throws. `invalid_argument` unless bits is in [2, 24].
template <Real T>
Matrix<T> through_cache(MatrixView<T> x, const CacheFormat& format) {
    return detail::in_cache("through_cache", x, format,
                            [&](T number) { return detail::nearest_cache_number(number, format); });
}

/// The distance of the numbers that a cache of this format has near every entry of x: rounding to the nearest is off
/// by half of it at most.
/// Formula. scale * quantum(x/scale), the scale as in `through_cache`.
/// Shapes and units. x [tokens, d], and the result.
/// Special rows. A channel or token of zeros has 0; one that holds NaN or an infinity has NaN.
/// Cost. O(tokens d), allocates the result.
/// Throws. `invalid_argument` unless bits is in [2, 24].
template <Real T>
Matrix<T> cache_quanta(MatrixView<T> x, const CacheFormat& format) {
    return detail::in_cache("cache_quanta", x, format,
                            [&](T number) { return detail::cache_quantum(number, format); });
}

/// As above from any Eigen matrix.
template <MatrixExpr X>
Matrix<ScalarOf<X>> through_cache(const X& x, const CacheFormat& format) {
    const MatrixHolder<ScalarOf<X>> rows(x);
    return through_cache(rows.get(), format);
}

/// A copy of a head whose keys have been in the cache.
template <Real T>
Head<T> through_cache(const HeadView<T>& head, const CacheFormat& format) {
    const Matrix<T> keys = through_cache(head.k(), format);
    return Head<T>(HeadView<T>(head.q(), MatrixView<T>(keys), head.v(), head.scale()));
}

/// The same for q [queries, d], k [keys, d] and v [keys, d_v], any Eigen matrices of one scalar.
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V>
requires std::same_as<ScalarOf<Q>, ScalarOf<K>> && std::same_as<ScalarOf<Q>, ScalarOf<V>>
Head<ScalarOf<Q>> through_cache(const Q& q, const K& k, const V& v, const CacheFormat& format) {
    return Head<ScalarOf<Q>>(q, through_cache(k, format), v);
}

/// The diameters of the first i values, for every i.
/// Formula. max |v_j - v_k| over j, k < i.
/// Shapes and units. v [keys, d], result [keys + 1]. gram: `gram_matrix` of the values, if it is there: it
/// tells which pairs may be further apart than all before.
/// Special rows. A pair with NaN does not count.
/// Cost. O(keys^2 d); with gram O(keys^2) and the pairs in doubt. Allocates a copy of v in double.
/// Throws. `invalid_argument` for a smaller gram.
template <Real T>
Row<T> prefix_diameters(MatrixView<T> v, const Matrix<double>* gram = nullptr) {
    const Index keys = v.rows();
    if (gram)
        detail::require(gram->rows() >= keys && gram->cols() >= keys, "prefix_diameters",
                        "the Gram matrix must cover the values", gram->rows(), keys);
    const Matrix<double> values = v.map().template cast<double>(); // squares of floats could underflow
    const Eigen::ArrayXd squares = gram ? gram->diagonal().head(keys).array() : Eigen::ArrayXd();
    const bool guided = gram && squares.isFinite().all();
    // Differences of Gram entries are exact to this.
    const double doubt = guided && keys > 0 ? 8 * std::numeric_limits<double>::epsilon() *
                                                  static_cast<double>(v.cols() + 4) * squares.maxCoeff()
                                            : 0;
    Row<T> up_to(keys + 1);
    up_to[0] = 0;
    double largest = 0;
    // Differences and not a Gram matrix in the end: near-equal values keep their digits.
    const auto measure = [&](Index i, Index j) {
        largest = std::max(largest, (values.row(i) - values.row(j)).squaredNorm());
    };
    for (Index i = 0; i < keys; ++i) {
        if (guided && i > 0) {
            // |v_i - v_j|^2 - |v_i|^2
            const Eigen::ArrayXd beyond = squares.head(i) - 2 * gram->row(i).head(i).transpose().array();
            Index farthest = 0;
            if (squares[i] + beyond.maxCoeff(&farthest) + doubt > largest) {
                measure(i, farthest);
                const double limit = largest - squares[i] - doubt;
                for (Index j = 0; j < i; ++j)
                    if (j != farthest && beyond[j] > limit) measure(i, j);
            }
        } else {
            for (Index j = 0; j < i; ++j) measure(i, j);
        }
        const double diameter = std::sqrt(largest);
        up_to[i + 1] = static_cast<T>(diameter);
        // Limits are made of it: upwards in T.
        if (static_cast<double>(up_to[i + 1]) < diameter)
            up_to[i + 1] = std::nextafter(up_to[i + 1], std::numeric_limits<T>::infinity());
    }
    return up_to;
}

/// For every query an upper bound on the diameter of the values it sees: exact where the keys seen are the
/// first ones (causal masks, no mask), else that of all values.
/// Shapes and units. up_to: `prefix_diameters` of the values; result [queries].
/// Special rows. 0 for a query that sees no key.
/// Cost. O(queries), allocates the result.
template <Real T>
Row<T> visible_diameters(const Row<T>& up_to, const Mask& mask, Index queries) {
    const Index keys = up_to.size() - 1;
    Row<T> result(queries);
    for (Index i = 0; i < queries; ++i) {
        const KeyRanges visible = mask.visible(i, keys);
        const KeyRange hull = visible.hull();
        const bool prefix = hull.begin == 0 && visible.count() == hull.end;
        result[i] = prefix ? up_to[hull.end] : visible.count() == 0 ? T(0) : up_to[keys];
    }
    return result;
}

/// The same from the values. O(keys^2 d).
template <Real T>
Row<T> visible_diameters(MatrixView<T> v, const Mask& mask, Index queries) {
    return visible_diameters<T>(prefix_diameters<T>(v), mask, queries);
}

/// What changed keys do to softmax rows of a head: from k and k' (quantised, compressed, ...) the range of
/// the logit error, and what became of weights, output and gap, for the bounds of
/// sensitivity/perturbation.hpp. Calls visit(query, Perturbation<double>) for the `queries`, or for all
/// unless they are given.
/// Shapes and units. changed [keys, d]; `widths`: one for each query of the head, from `visible_diameters`;
/// empty: the output is left out.
/// Special rows. As of `measure_perturbation`.
/// Cost. O(queries keys (d + d_v)), memory O(keys d_v).
/// Throws. `invalid_argument` when shapes do not fit or there is no such query.
template <Real T, RowLike D, class Visit>
requires std::same_as<RowScalar<D>, T>
void for_each_key_perturbation(const HeadView<T>& head, MatrixView<std::type_identity_t<T>> changed,
                               const Mask& mask, const D& widths, const Visit& visit,
                               std::optional<std::span<const Index>> queries = {}) {
    const RowHolder<T> held(widths);
    const RowIn<T> diameters = held.get();
    detail::require(changed.rows() == head.keys() && changed.cols() == head.k().cols(),
                    "for_each_key_perturbation", "changed keys must have the shape of the keys", changed.rows(),
                    changed.cols());
    detail::require(diameters.empty() || (head.has_values() && detail::size<T>(diameters) == head.queries()),
                    "for_each_key_perturbation", "there must be values and one diameter for each query",
                    diameters.size());
    const HeadView<T> after(head.q(), changed, head.v(), head.scale());
    const auto keys = static_cast<std::size_t>(head.keys());
    std::vector<T> logits(keys);
    std::vector<double> z(keys), moved(keys);
    Matrix<double> values;
    if (!diameters.empty()) values = head.v().map().template cast<double>();
    const auto look_at = [&](Index query) {
        logits_of<T>(head, mask, query, RowOut<T>(logits));
        std::copy(logits.begin(), logits.end(), z.begin());
        logits_of<T>(after, mask, query, RowOut<T>(logits));
        std::copy(logits.begin(), logits.end(), moved.begin());
        const double diameter = diameters.empty() ? 0.0 : static_cast<double>(detail::at(diameters, query));
        visit(query, measure_perturbation(RowIn<double>(z), RowIn<double>(moved),
                                          diameters.empty() ? MatrixView<double>() : MatrixView<double>(values),
                                          diameter));
    };
    if (queries) {
        for (const Index query : *queries) look_at(query); // `logits_of` refuses those that are not there
        return;
    }
    for (Index query = 0; query < head.queries(); ++query) look_at(query);
}

} // namespace v0_1
} // namespace attnscope
