// What changed keys (quantised, compressed, ...) do to the rows of a head, and how far apart the values lie that they see.
#pragma once

#include <attnscope/attention/head.hpp>
#include <attnscope/sensitivity/perturbation.hpp>

#include <optional>

namespace attnscope {
inline namespace v0_2 {

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

} // namespace v0_2
} // namespace attnscope
