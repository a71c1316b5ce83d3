// Heads as views, grouped-query heads, and the logits of one query.
#include <attnscope/attention/head.hpp>
#include <support/catch.hpp>

#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

namespace {

using attnscope::HeadArray;
using attnscope::HeadGroup;
using attnscope::HeadView;
using attnscope::Index;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::MatrixView;
using attnscope::RowOut;

template <class T>
std::vector<T> counted(Index n) {
    std::vector<T> values(static_cast<std::size_t>(n));
    std::iota(values.begin(), values.end(), T(0));
    return values;
}

} // namespace

TEMPLATE_TEST_CASE("a head knows its shape and its scale", "[head]", float, double, long double) {
    using T = TestType;
    const Matrix<T> q = Matrix<T>::Zero(3, 4), k = Matrix<T>::Zero(5, 4), v = Matrix<T>::Zero(5, 2);
    const HeadView<T> head{MatrixView<T>(q), MatrixView<T>(k), MatrixView<T>(v)};
    CHECK(head.queries() == 3);
    CHECK(head.keys() == 5);
    CHECK(head.scale() == T(0.5));
    CHECK(head.has_values());
    CHECK(head.q().data() == q.data());
    CHECK(head.k().data() == k.data());
    CHECK(head.v().data() == v.data());
    const HeadView<T> without{MatrixView<T>(q), MatrixView<T>(k)};
    CHECK_FALSE(without.has_values());
    CHECK(without.v().rows() == 0);
    const HeadView<T> scaled{MatrixView<T>(q), MatrixView<T>(k), MatrixView<T>(v), T(3)};
    CHECK(scaled.scale() == T(3));
    CHECK(HeadView<T>::default_scale(64) == T(0.125));
    CHECK(HeadView<T>::default_scale(3) == T(1) / std::sqrt(T(3)));
    CHECK(HeadView<T>::default_scale(0) == T(1));
}

TEST_CASE("query heads share key heads in order", "[head]") {
    // [heads, rows, cols]: 6 query heads on 2 key heads.
    const auto q = counted<double>(6 * 2 * 3), k = counted<double>(2 * 4 * 3), v = counted<double>(2 * 4 * 5);
    const auto q_heads = HeadArray<double>::contiguous(q.data(), 6, 2, 3);
    const auto k_heads = HeadArray<double>::contiguous(k.data(), 2, 4, 3);
    const auto v_heads = HeadArray<double>::contiguous(v.data(), 2, 4, 5);
    const HeadGroup<double> group(q_heads, k_heads, v_heads);
    CHECK(group.heads() == 6);
    CHECK(group.key_heads() == 2);
    CHECK(group.queries() == 2);
    CHECK(group.keys() == 4);
    for (Index h = 0; h < 6; ++h) {
        CAPTURE(h);
        const HeadView<double> head = group[h];
        CHECK(head.q().data() == q.data() + h * 6);
        CHECK(head.k().data() == k.data() + (h / 3) * 12);
        CHECK(head.v().data() == v.data() + (h / 3) * 20);
        CHECK(head.scale() == 1 / std::sqrt(3.0));
        CHECK(head.v().cols() == 5);
    }
    const HeadGroup<double> one_key_head(q_heads, HeadArray<double>::contiguous(k.data(), 1, 4, 3));
    CHECK(one_key_head[5].k().data() == k.data());
    CHECK_FALSE(one_key_head[5].has_values());
    const HeadGroup<double> as_many(HeadArray<double>::contiguous(q.data(), 2, 2, 3), k_heads, v_heads, 2.0);
    CHECK(as_many[1].k().data() == k.data() + 12);
    CHECK(as_many[1].scale() == 2);
    const HeadGroup<double> none(HeadArray<double>::contiguous(q.data(), 0, 2, 3), k_heads);
    CHECK(none.heads() == 0);
}

TEST_CASE("heads inside a fused buffer are views with strides", "[head]") {
    // [token, (q | k | v), head, width] as GPT-2 stores it: 2 tokens, 2 heads of width 2.
    const auto fused = counted<float>(2 * 3 * 2 * 2);
    const auto part = [&](Index which) { return HeadArray<float>{fused.data() + which * 4, 2, 2, 2, 2, 12}; };
    const HeadGroup<float> group(part(0), part(1), part(2));
    CHECK(group[1].q().row(0)[0] == 2);
    CHECK(group[1].q().row(1)[1] == 15);
    CHECK(group[0].k().row(1)[0] == 16);
    CHECK(group[1].v().row(0)[1] == 11);
}

TEMPLATE_TEST_CASE("logits are scaled products, -inf where the mask hides", "[head]", float, double,
                   long double) {
    using T = TestType;
    Matrix<T> q(2, 2), k(3, 2);
    q << 1, 2, -1, 3;
    k << 4, 1, 0, 2, 5, -1;
    const HeadView<T> head{MatrixView<T>(q), MatrixView<T>(k), {}, T(0.5)};
    const T hidden = -std::numeric_limits<T>::infinity();
    std::vector<T> z(3, T(99));
    attnscope::logits_of<T>(head, Mask::none(), 0, RowOut<T>(z));
    CHECK(z == std::vector<T>{3, 2, T(1.5)});
    attnscope::logits_of<T>(head, Mask::none(), 1, RowOut<T>(z));
    CHECK(z == std::vector<T>{T(-0.5), 3, -4});
    attnscope::logits_of<T>(head, Mask::causal(), 0, RowOut<T>(z));
    CHECK(z == std::vector<T>{3, hidden, hidden});
    attnscope::logits_of<T>(head, Mask::causal_bottom_right(2, 3), 0, RowOut<T>(z));
    CHECK(z == std::vector<T>{3, 2, hidden});
    attnscope::logits_of<T>(head, Mask::causal(-1), 0, RowOut<T>(z));
    CHECK(z == std::vector<T>(3, hidden));
    // A key that is not seen is not read.
    k(2, 0) = std::numeric_limits<T>::quiet_NaN();
    attnscope::logits_of<T>(head, Mask::causal(1), 0, RowOut<T>(z));
    CHECK(z == std::vector<T>{3, 2, hidden});
}
