// Attention itself, with any normaliser, forward and backward.
#pragma once

#include <attnscope/attention/logits.hpp>
#include <attnscope/detail/workspace_pool.hpp>
#include <attnscope/executor.hpp>
#include <attnscope/normalizer/concept.hpp>
#include <attnscope/normalizer/softmax.hpp>

#include <ranges>

namespace attnscope {
inline namespace v0_2 {

/// What `attend` is asked for beside the output, and how logits are made: z = (scale q.k + bias)/temperature.
struct AttendOptions {
    bool weights = false;             ///< keep the [queries, keys] weights
    std::optional<double> scale = {}; ///< of q.k; that of the head or 1/sqrt(d) unless given
    double temperature = 1;           ///< divides the logits before the normaliser
    LogitBias bias = {};              ///< added to scale q.k
};

/// What one head gives.
template <Real T>
struct Attention {
    Matrix<T> output;   ///< [queries, d_v], sum_j p_j v_j; [queries, 0] without values
    Row<T> log_sum_exp; ///< [queries], see `HasLogSumExp`; NaN if the normaliser has none
    Matrix<T> weights;  ///< [queries, keys] if asked for, else empty
};

namespace detail {

/// Logits of a block to weights, in place.
template <Real T, class N>
void normalize(const N& normalizer, const QueryBlock<T>& block, Row<T>& log_sum_exp) {
    for (Index i = 0; i < block.rows; ++i) {
        const RowOut<T> row = block.row(i);
        if constexpr (HasFusedLogSumExp<N, T>) {
            normalizer.apply(RowIn<T>(row), row, log_sum_exp[block.first + i]);
            continue;
        }
        if constexpr (HasLogSumExp<N, T>)
            log_sum_exp[block.first + i] = normalizer.log_sum_exp(RowIn<T>(row));
        else
            log_sum_exp[block.first + i] = std::numeric_limits<T>::quiet_NaN();
        normalizer.apply(RowIn<T>(row), row);
    }
}

/// output += p v for the rows of a block. `finite`: of all values, whose product with a weight of 0 is 0.
template <Real T>
void add_values(const LogitBlocks<T>& blocks, const QueryBlock<T>& p, bool finite, Matrix<T>& output) {
    const auto v = blocks.head().v().map();
    if (finite) {
        output.middleRows(p.first, p.rows).noalias() += p.matrix() * v.topRows(p.keys);
        return;
    }
    for (Index i = 0; i < p.rows; ++i)
        blocks.for_each_seen(p.first + i, [&](Index key) {
            output.row(p.first + i) += p.row(i)[static_cast<std::size_t>(key)] * v.row(key);
        });
}

} // namespace detail

/// Attention of one head under a structural mask.
/// Formula. p = normalizer((scale q.k + bias)/temperature), output = p v. A learned sink is in the normaliser:
/// `with_sink(Softmax(), b)` has e^b in the denominator.
/// Shapes and units. q [queries, d], k [keys, d], v [keys, d_v] or none.
/// Special rows. A query that sees no key gives output 0; its log-sum-exp is that of the empty sum, -inf or with a
/// sink log n0. Keys and values that a query does not see have no influence on it, NaN and infinities included. NaN in
/// a visible key gives NaN for the queries that see it.
/// Cost. O(queries keys d), one task for each 64 queries; memory O(64 threads keys) and a copy of the keys beyond the
/// result, which does not depend on the executor. Agrees with exact arithmetic to the forward error of a dot product, of the normaliser and
/// of the weighted sum (tests/property/attention/test_attention.cpp computes that bound).
/// Throws. `invalid_argument` for a scale or temperature that is none.
/// Example: `attend(head, Softmax(), Mask::causal(), {.bias = [](Index q, Index k) { return 0.1 * double(k - q); }})`
template <Real T, Normalizer<T> N = Softmax, Executor E = Sequential>
Attention<T> attend(const HeadView<T>& head, const N& normalizer = {}, const Mask& mask = {},
                    const AttendOptions& options = {}, E&& executor = {}) {
    const detail::LogitBlocks<T> blocks("attend", head, mask, options, executor);
    const Index queries = head.queries(), keys = head.keys();
    Attention<T> result;
    result.output = Matrix<T>::Zero(queries, head.v().cols());
    result.log_sum_exp.resize(1, queries);
    if (options.weights) result.weights = Matrix<T>::Zero(queries, keys);
    const bool finite = !head.has_values() || head.v().map().allFinite();
    detail::WorkspacePool<Matrix<T>> rooms;
    const auto task = [&](Index number) {
        rooms.use([&](Matrix<T>& room) {
            const detail::QueryBlock<T> block = blocks(number, room);
            detail::normalize(normalizer, block, result.log_sum_exp);
            if (options.weights) result.weights.block(block.first, 0, block.rows, block.keys) = block.matrix();
            if (head.has_values()) detail::add_values(blocks, block, finite, result.output);
        });
    };
    executor(blocks.count(), task);
    return result;
}

/// As above of half or bfloat16, or of keys and values in pages: see `StoredHead`.
template <Real T, Normalizer<T> N = Softmax, Executor E = Sequential>
Attention<T> attend(const StoredHead<T>& head, const N& normalizer = {}, const Mask& mask = {},
                    const AttendOptions& options = {}, E&& executor = {}) {
    const detail::ReadHead<T> read(head);
    return attend(read.view(), normalizer, mask, options, executor);
}

/// As above from any Eigen matrices, with the scale 1/sqrt(d) unless given; column-major and half-precision input is
/// copied.
/// Throws. `invalid_argument` also when shapes do not fit.
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V, class N = Softmax, Executor E = Sequential>
requires Normalizer<N, ScalarOf<Q>> && std::same_as<ScalarOf<Q>, ScalarOf<K>> &&
         std::same_as<ScalarOf<Q>, ScalarOf<V>>
Attention<ScalarOf<Q>> attend(const Q& q, const K& k, const V& v, const N& normalizer = {},
                              const Mask& mask = {}, const AttendOptions& options = {}, E&& executor = {}) {
    using T = ScalarOf<Q>;
    const MatrixHolder<T> q_rows(q), k_rows(k), v_rows(v);
    return attend(HeadView<T>(q_rows.get(), k_rows.get(), v_rows.get()), normalizer, mask, options, executor);
}

namespace detail {

template <class...>
inline constexpr bool in_this_order = false;

} // namespace detail

/// Only says what is wrong, where the compiler would list all that a call is not.
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V, class... Rest>
void attend(const Q&, const K&, const V&, const Mask&, const Rest&...) {
    static_assert(detail::in_this_order<Q>,
                  "attend: a normaliser stands before the mask: attend(q, k, v, Softmax(), mask)");
}
/// The same of a head.
template <Real T, class... Rest>
void attend(const HeadView<T>&, const Mask&, const Rest&...) {
    static_assert(detail::in_this_order<T>,
                  "attend: a normaliser stands before the mask: attend(head, Softmax(), mask)");
}
/// The same of options where the mask stands.
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V, class N, class... Rest>
void attend(const Q&, const K&, const V&, const N&, const AttendOptions&, const Rest&...) {
    static_assert(
        detail::in_this_order<Q>,
        "attend: a mask stands before the options: attend(q, k, v, Softmax(), Mask::none(), options)");
}

/// Normalisers side by side, one for each head: a vector, an array, a span.
template <class R, class T>
concept NormalizerList = std::ranges::contiguous_range<R> && std::ranges::sized_range<R> &&
                         Normalizer<std::ranges::range_value_t<R>, T>;

namespace detail {

inline void check_normalizers(std::string_view function, std::size_t normalizers, Index heads) {
    require(static_cast<Index>(normalizers) == heads, function,
            "there must be one normaliser for each query head", normalizers, heads);
}

/// normalizer(h): of query head h.
template <InputScalar S, class NormalizerOf, class E>
std::vector<Attention<ComputeScalar<S>>> attend_group(const HeadGroup<S>& group, const NormalizerOf& normalizer,
                                                      const Mask& mask, const AttendOptions& options,
                                                      E&& executor) {
    std::vector<Attention<ComputeScalar<S>>> result;
    result.reserve(static_cast<std::size_t>(group.heads()));
    for (Index h = 0; h < group.heads(); ++h)
        result.push_back(attend(group[h], normalizer(h), mask, options, executor));
    return result;
}

} // namespace detail

/// Attention of every head of a group, in order.
template <InputScalar S, Normalizer<ComputeScalar<S>> N = Softmax, Executor E = Sequential>
std::vector<Attention<ComputeScalar<S>>> attend(const HeadGroup<S>& group, const N& normalizer = {},
                                                const Mask& mask = {}, const AttendOptions& options = {},
                                                E&& executor = {}) {
    return detail::attend_group(
        group, [&](Index) -> const N& { return normalizer; }, mask, options, executor);
}

/// The same with a normaliser for each query head: heads have sinks, or temperatures, of their own.
/// Throws. `invalid_argument` when their number is another.
/// Example: `attend(group, std::vector{with_sink(Softmax(), 0.3), with_sink(Softmax(), -1)}, Mask::causal())`
template <InputScalar S, NormalizerList<ComputeScalar<S>> Ns, Executor E = Sequential>
std::vector<Attention<ComputeScalar<S>>> attend(const HeadGroup<S>& group, const Ns& normalizers,
                                                const Mask& mask = {}, const AttendOptions& options = {},
                                                E&& executor = {}) {
    detail::check_normalizers("attend", std::size(normalizers), group.heads());
    return detail::attend_group(
        group, [&](Index h) -> const auto& { return std::data(normalizers)[h]; }, mask, options, executor);
}

} // namespace v0_2
} // namespace attnscope
