// Sinks that outputs force: the bound holds on every row, is attained by two heights, and cannot be sharpened.
#include <attnscope/audit/certificates.hpp>
#include <attnscope/concentration/sink_necessity.hpp>
#include <support/attained.hpp>
#include <support/selection_reference.hpp>

using namespace attnscope_test;
using attnscope::forced_sinks;
using attnscope::ForcedSinks;
using attnscope::sink_direction;
using attnscope::sink_heights;
using attnscope::sink_necessity_limit;
using attnscope::sink_necessity_sharp;
using attnscope::SinkHeights;
using attnscope::Verdict;

namespace {

SinkHeights<double> heights_of(const std::vector<double>& p, const std::vector<double>& heights,
                               const std::vector<char>& inside) {
    return sink_heights<double>(in(p), in(heights), std::span<const char>(inside));
}

} // namespace

TEST_CASE("the weight on a sink is at least what the output forces, along any direction, for any set",
          "[concentration][sinks]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    constexpr std::array<std::pair<Index, Index>, 6> shapes = {
        {{1, 1}, {2, 3}, {3, 1}, {9, 2}, {17, 4}, {60, 8}}};
    std::size_t checked = 0, violated = 0, informative = 0;
    for_each_tokens<double>(seed, shapes, [&](const Tokens<double>& tokens, SplitMix64& random) {
        for (int repetition = 0; repetition < 4; ++repetition) {
            std::vector<double> u(static_cast<std::size_t>(tokens.d)), heights;
            for (double& c : u) c = random.normal();
            for (Index i = 0; i < tokens.n; ++i) {
                double height = 0;
                for (Index c = 0; c < tokens.d; ++c)
                    height += u[static_cast<std::size_t>(c)] * static_cast<double>(tokens.at(i, c));
                heights.push_back(height);
            }
            // The lowest key, which a sink is, or any set.
            std::vector<char> inside(tokens.p.size(), 0);
            if (repetition % 2 == 0)
                inside[static_cast<std::size_t>(std::min_element(heights.begin(), heights.end()) -
                                                heights.begin())] = 1;
            else
                for (char& member : inside) member = random.below(3) == 0 ? 1 : 0;
            const auto bound = sink_necessity_sharp(heights_of(tokens.p, heights, inside), tokens.n);
            ++checked;
            violated += bound.verdict() == Verdict::violated || bound.verdict() == Verdict::undefined;
            informative += bound.value > 0;
        }
    });
    CHECK(checked > 1000);
    CHECK(violated == 0);
    CHECK(informative > 200);
}

TEST_CASE("two heights attain what the output forces", "[concentration][sinks]") {
    const std::uint64_t seed = test_seed();
    for (const double total : {1.0, 2.5}) // weights need not sum to 1
        for (const double offset : {-3.0, 0.0, 1e3})
            for (const std::size_t n : {2u, 5u, 100u}) {
                SplitMix64 random = generator(seed, n);
                std::vector<double> p(n), heights(n, offset + 2);
                families::sharp_weights(random, p);
                for (double& w : p) w *= total;
                std::vector<char> inside(n, 0);
                inside[1] = 1;
                heights[1] = offset - 0.5;
                CAPTURE(total, offset, n);
                const auto bound = sink_necessity_sharp(heights_of(p, heights, inside), static_cast<Index>(n));
                CHECK(bound.measured == p[1]);
                if (p[1] > 1e-6 * total) check_attained(bound);
            }
    // What was forgotten: with the sink's own height taken as 0, a factor (c+b)/c more would be claimed.
    const std::vector<double> p = {0.75, 0.25}, heights = {-1, 1};
    const auto row = heights_of(p, heights, {1, 0});
    CHECK(sink_necessity_limit(row) == 0.75);
    CHECK((row.outside - row.output) / row.outside > 0.76);
}

TEST_CASE("special rows of forced sinks", "[concentration][sinks]") {
    // Nothing but the set is seen: all weight is on it. Nothing of the set: none is. Heights the wrong way round: none.
    CHECK(sink_necessity_limit(heights_of({0.5, 0.5}, {1, 2}, {1, 1})) == 1);
    CHECK(sink_necessity_limit(heights_of({0.5, 0.5}, {1, 2}, {0, 0})) == 0);
    CHECK(sink_necessity_limit(heights_of({0.5, 0.5}, {2, 1}, {1, 0})) == 0);
    CHECK(sink_necessity_limit(heights_of({}, {}, {})) == 0);
    CHECK(sink_necessity_sharp(heights_of({0.5, 0.5}, {2, 1}, {1, 0}), 2).verdict() == Verdict::vacuous);
    const std::vector<double> two = {1, 2}, one = {1};
    CHECK_THROWS_AS(heights_of(two, one, {1, 0}), attnscope::invalid_argument);
    const Matrix<double> values = Matrix<double>::Identity(3, 3),
                         weights = Matrix<double>::Constant(2, 3, 1.0 / 3);
    const std::vector<Index> outside = {3}, none = {};
    CHECK_THROWS_AS(forced_sinks(MatrixView<double>(weights), MatrixView<double>(values), outside),
                    attnscope::invalid_argument);
    CHECK(forced_sinks(MatrixView<double>(weights), MatrixView<double>(values), none).forced == 0);
}

TEST_CASE("the direction that forces a sink is found", "[concentration][sinks]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    const std::vector<char> first = {1, 0, 0};
    // On a line: others at 1 and 3, the sink at 0. The output 0.25 needs 3/4 on the sink at least.
    Matrix<double> line(3, 1);
    line << 0, 1, 3;
    const auto found = sink_direction(MatrixView<double>(line), first, Eigen::RowVectorXd::Constant(1, 0.25));
    CHECK(found.forced == Catch::Approx(0.75));
    CHECK(found.direction(0) == 1);
    // Others on both sides: nothing is forced.
    line << 0, -1, 1;
    CHECK(sink_direction(MatrixView<double>(line), first, Eigen::RowVectorXd::Constant(1, 0.0)).forced == 0);
    // Values in general position in as many dimensions: one row of weights alone has this output.
    for (const Index n : {2, 4, 10}) {
        SplitMix64 random = generator(seed, n);
        Matrix<double> values(n, n);
        for (Index i = 0; i < n; ++i)
            for (Index c = 0; c < n; ++c) values(i, c) = random.normal();
        std::vector<double> p(static_cast<std::size_t>(n));
        families::flat_weights(random, p);
        std::vector<char> inside(p.size(), 0);
        inside[0] = 1;
        const Eigen::RowVectorXd output = Eigen::Map<const Eigen::RowVectorXd>(p.data(), n) * values;
        const double forced = sink_direction(MatrixView<double>(values), inside, output, 2000).forced;
        CAPTURE(n, p[0]);
        CHECK(forced > 0.85 * p[0]);
        CHECK(forced < p[0] * (1 + 1e-9));
    }
}

TEST_CASE("a head that rests on a key without value is forced to; one whose values surround it is not",
          "[concentration][sinks][audit]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    SplitMix64 random = generator(seed, 3);
    constexpr Index queries = 40, keys = 60, d = 8;
    Matrix<double> logits(queries, keys), values(keys, d);
    for (Index i = 0; i < queries; ++i)
        for (Index j = 0; j < keys; ++j)
            logits(i, j) =
                j > i + 20 ? -std::numeric_limits<double>::infinity() : random.normal() + (j == 0 ? 6 : 0);
    for (Index j = 0; j < keys; ++j)
        for (Index c = 0; c < d; ++c) values(j, c) = j == 0 ? 0 : 0.1 * random.normal() + (c == 0 ? 1 : 0);
    attnscope::Audit audit;
    const ForcedSinks apart = audit_sinks(audit, MatrixView<double>(logits), MatrixView<double>(values));
    CHECK(apart.rows == queries);
    CHECK(apart.mass > 0.8);
    CHECK(apart.forced > 0.9 * apart.mass);
    CHECK(apart.direction(0) > 0.9);
    const auto& record = audit.at(attnscope::sink_necessity_statement);
    CHECK(record.checked == queries);
    CHECK(record[Verdict::violated] == 0);
    CHECK(record.median_tightness() > 0.9);

    for (Index j = 1; j < keys; ++j) values(j, 0) = random.normal();
    const ForcedSinks around = audit_sinks(audit, MatrixView<double>(logits), MatrixView<double>(values));
    CHECK(around.mass == Catch::Approx(apart.mass));
    CHECK(around.forced < 0.1);
    CHECK(record[Verdict::violated] == 0);

    // No sink, nothing to ask.
    logits.col(0).array() -= 6;
    CHECK(audit_sinks(audit, MatrixView<double>(logits), MatrixView<double>(values)).rows == 0);
    CHECK(record.checked == 2 * queries);
    // A key that few queries see is none, however much weight it has there.
    logits.col(keys - 2).tail(1).array() = 20;
    CHECK(audit_sinks(audit, MatrixView<double>(logits), MatrixView<double>(values)).rows == 0);
}
