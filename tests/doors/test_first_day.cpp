// What a new user types on the first day, and what it gives.
#include <support/catch.hpp>

#include <attnscope/analysis/analyze.hpp>
#include <attnscope/analysis/table.hpp>
#include <attnscope/attnscope.hpp>
#include <attnscope/planner/plan_head.hpp>

#include <cstdio>

namespace {

using namespace attnscope;

Eigen::MatrixXf tokens(Index n, Index d, std::uint64_t seed) {
    SplitMix64 random(seed);
    return Eigen::MatrixXf::NullaryExpr(n, d, [&] { return static_cast<float>(random.normal()); });
}

} // namespace

TEST_CASE("the lines of the first day compile and agree with each other", "[doors][first day]") {
    const Eigen::MatrixXf q = tokens(24, 8, 1), k = tokens(24, 8, 2), v = tokens(24, 5, 3);
    const Mask mask = Mask::causal();

    // A scan of any three expressions, and of two.
    const auto rows = scan(q, k, v, mask).rows;
    REQUIRE(rows.size() == 24);
    CHECK(scan(q, k, mask).rows == rows);
    CHECK(scan(q.topRows(4), k.cast<float>(), v).rows.size() == 4);
    CHECK(scan(q, k, v, mask, {.output = true}).output.cols() == 5);

    // Views of row-major matrices, Maps and Blocks without a copy; a head of its own of anything else.
    const Matrix<float> row_q = q, row_k = k, row_v = v;
    const HeadView view(row_q, row_k, row_v);
    static_assert(std::same_as<decltype(view), const HeadView<float>>);
    CHECK(view.q().data() == row_q.data());
    CHECK(HeadView<float>(row_q, row_k).has_values() == false);
    const Eigen::Map<const Matrix<float>> map(row_q.data(), 24, 8);
    CHECK(HeadView(map, map, map).k().data() == row_q.data());
    const HeadView part(row_q.rightCols(4), row_k.rightCols(4), row_v);
    CHECK(part.q().data() == row_q.data() + 4);
    CHECK(part.q().outer_stride() == 8);
    CHECK(HeadView(row_q, row_k, row_v, 0.5).scale() == 0.5f);
    const Head head(q, k, v);
    static_assert(std::same_as<decltype(head), const Head<float>>);
    CHECK(scan(head.view(), mask).rows == rows);
    CHECK(head.view().q().data() != row_q.data());
    const Head half(q.cast<Eigen::half>(), k, v);
    CHECK(half.view().q().map().isApprox(row_q, 1e-3f));
    const Head without(q, k);
    CHECK_FALSE(without.view().has_values());

    // The largest logits of a row.
    CHECK(rows[3].leaders().size() == 4);
    CHECK(rows[3].leaders()[0].key == rows[3].statistics().argmax);
    Index count = 0;
    for (const auto& [key, logit] : rows[23].leaders()) count += key >= 0 && std::isfinite(logit);
    CHECK(count == 8);

    // Weights of a vector; the audit as text.
    const std::vector<double> z = {1, 2, 3};
    CHECK(weights(Softmax{}, z).sum() == Catch::Approx(1));
    Audit audit;
    audit_row(audit, Softmax{}, z);
    CHECK(to_table(audit).find("lemma1") != std::string::npos);

    // Everything about a head, and what it needs.
    const HeadAnalysis analysis = analyze(q, k, v, {.mask = mask});
    CHECK(analysis.audit.sharp_violations() == 0);
    CHECK(analysis.rows.entropy_nats[23] == Catch::Approx(rows[23].statistics().entropy_nats()).epsilon(1e-5));
    CHECK(analysis.selection(5).separable_fraction.size() == 24);
    CHECK(to_table(analysis).find("Selecting the N largest weights") != std::string::npos);
    Index tasks = 0;
    auto own = [&tasks](Index all, auto&& task) mutable { // an executor of your own that changes itself
        for (Index i = all; i-- > 0;) task(i);
        tasks += all;
    };
    CHECK((analyze(q, k, v, {.mask = mask}, own).rows.entropy_nats == analysis.rows.entropy_nats).all());
    CHECK(tasks > 0);
    const HeadPlan plan = plan_head(q, k, v, {.weight = 0.5}, mask);
    REQUIRE(plan.aims.size() == 1);
    CHECK(plan.aims.front().inverse_temperature > 0);

    // Planning by plain numbers.
    CHECK(longest_context(8.0, 1, 0.5) == longest_context(8, 1.0, 0.5));
}
