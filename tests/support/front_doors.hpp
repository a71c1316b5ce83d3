// The front doors that take a normaliser, opened once each, and normalisers as users write them.
#pragma once

#include <support/catch.hpp>
#include <support/masked_heads.hpp>

#include <attnscope/attnscope.hpp>
#include <attnscope/runtime/registry.hpp>

#include <cmath>
#include <vector>

namespace attnscope_test {

using attnscope::AnyNormalizer;
using attnscope::HeadView;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::MatrixView;
using attnscope::Normalizer;
using attnscope::NormalizerTraits;
using attnscope::RowIn;
using attnscope::RowOut;
using attnscope::RowStatus;
using attnscope::Softmax;

/// A normaliser as a user may write it: plain members, no templates. Equal weights for all visible keys.
template <class T>
struct Uniform {
    static constexpr NormalizerTraits traits{.simplex = true, .shift_invariant = true};
    static constexpr std::string_view name() { return "uniform"; }
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        T visible = 0;
        for (const T x : z) visible += x > -std::numeric_limits<T>::infinity() ? T(1) : T(0);
        for (std::size_t i = 0; i < z.size(); ++i)
            out[i] = z[i] > -std::numeric_limits<T>::infinity() ? T(1) / visible : T(0);
        return visible > 0 ? RowStatus::normal : RowStatus::empty;
    }
    void jvp(std::span<const T>, std::span<const T>, std::span<const T>, std::span<T> out) const {
        std::fill(out.begin(), out.end(), T(0));
    }
    void vjp(std::span<const T>, std::span<const T>, std::span<const T>, std::span<T> out) const {
        std::fill(out.begin(), out.end(), T(0));
    }
};
/// The same over both scalars, by overloads.
struct UniformBoth : Uniform<float>, Uniform<double> {
    static constexpr NormalizerTraits traits = Uniform<double>::traits;
    static constexpr std::string_view name() { return "uniform"; }
    using Uniform<float>::apply;
    using Uniform<double>::apply;
    using Uniform<float>::jvp;
    using Uniform<double>::jvp;
    using Uniform<float>::vjp;
    using Uniform<double>::vjp;
};

static_assert(Normalizer<Uniform<double>, double> && !Normalizer<Uniform<double>, float>);
static_assert(Normalizer<AnyNormalizer, float> && Normalizer<AnyNormalizer, double>);
// The concept promises what compiles: behind its virtual functions there are two scalars.
static_assert(!Normalizer<AnyNormalizer, long double>);

inline constexpr Index queries = 6, keys = 9;

template <class T>
struct Case {
    SplitMix64 random = SplitMix64(5);
    Matrix<T> q = normal<T>(random, queries, 4, 1), k = normal<T>(random, keys, 4, 1),
              v = normal<T>(random, keys, 3, 1), d_output = normal<T>(random, queries, 3, 1);
    HeadView<T> head{q, k, v};
    Mask mask = Mask::causal_bottom_right(queries, keys);
    std::vector<Index> all = {0, 1, 2, 3, 4, 5}, counts = {1, 2};
};

/// Each door once; what they say of a row agrees with the row by itself.
template <class T, class N>
void open_doors(const Case<T>& c, const N& normalizer) {
    INFO(std::string(normalizer.name()));
    std::vector<T> z(static_cast<std::size_t>(keys)), p(z.size());
    attnscope::logits_of<T>(c.head, c.mask, queries - 1, RowOut<T>(z));
    REQUIRE(normalizer.apply(RowIn<T>(z), RowOut<T>(p)) == RowStatus::normal);

    const auto attention = attnscope::attend(c.head, normalizer, c.mask, {.weights = true});
    const T error = 64 * std::numeric_limits<T>::epsilon();
    for (Index j = 0; j < keys; ++j)
        CHECK(std::abs(attention.weights(queries - 1, j) - p[static_cast<std::size_t>(j)]) <=
              error * (1 + std::sqrt(std::abs(p[static_cast<std::size_t>(j)]))) * 8);
    CHECK(attnscope::attend(c.q, c.k, c.v, normalizer, c.mask).output == attention.output);
    const auto gradient = attnscope::attend_backward(c.head, normalizer, MatrixView<T>(c.d_output), c.mask);
    CHECK(gradient.q.allFinite());

    const auto norms = attnscope::scan_jacobian_norms(c.head, normalizer, c.mask);
    const auto own = attnscope::jacobian_norms(normalizer, RowIn<T>(z), RowIn<T>(p));
    REQUIRE(norms.rows.size() == static_cast<std::size_t>(queries));
    CHECK(std::abs(norms.rows.back().frobenius - own.frobenius) <= 1e3 * double(error) * (1 + own.frobenius));
    Index rows = 0;
    attnscope::scan_distances(
        c.head, c.counts, normalizer, [&](Index, std::span<const Index>, const auto&) { ++rows; }, c.mask);
    attnscope::scan_ranked_rows(
        std::span<const Index>(c.all), c.head, attnscope::gram_matrix(c.head.v()), normalizer,
        [&](const attnscope::RankedRow<T>&) { ++rows; }, c.mask);
    CHECK(rows == 2 * queries);

    const Eigen::Map<const attnscope::Row<T>> row(z.data(), 1, keys);
    CHECK(attnscope::weights(normalizer, row).size() == keys);
    CHECK(attnscope::weights(normalizer, row.replicate(2, 1)).rows() == 2);
    CHECK(attnscope::jvp(normalizer, row, row).size() == keys);
    CHECK(attnscope::vjp(normalizer, row, row).size() == keys);
    CHECK(attnscope::jacobian(normalizer, row).rows() == keys);
    if constexpr (std::same_as<T, double>) {
        attnscope::Audit audit;
        attnscope::RowAuditor()(audit, normalizer, RowIn<double>(z));
        CHECK(audit.sharp_violations() == 0);
    }
}

} // namespace attnscope_test
