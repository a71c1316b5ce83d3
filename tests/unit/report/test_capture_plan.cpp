// Plans of captures: every head as `plan_head` plans it, what is pooled over heads, and what is refused.
#include <support/catch.hpp>

#include <attnscope/problems/heads.hpp>
#include <attnscope/report/capture_plan.hpp>

namespace {

using namespace attnscope;

constexpr Index tokens = 40, width = 32;

struct Memory {
    std::vector<problems::ProblemHead> heads;

    explicit Memory(std::uint64_t seed) {
        SplitMix64 random(seed);
        for (const double needle : {2.0, 6.0})
            heads.push_back(problems::synthetic_head(tokens, width, {.needle = needle}, random));
    }
    Capture capture(LayerAttention attention = {.causal = true}) const {
        Capture result;
        result.name = "memory\x1b[31m";
        result.layers = 1;
        result.heads = std::ssize(heads);
        result.queries = result.keys = tokens;
        result.width = width;
        result.attention = {std::move(attention)};
        const auto source = [&](Matrix<double> problems::ProblemHead::*member) {
            HeadSource from;
            from.heads = std::ssize(heads);
            from.rows = tokens;
            from.cols = width;
            from.read = [this, member](Index first, Index count) {
                const Matrix<double>& m = heads[static_cast<std::size_t>(first / (tokens * width))].*member;
                return std::vector<double>(m.data(), m.data() + count);
            };
            return from;
        };
        result.q = source(&problems::ProblemHead::q);
        result.k = source(&problems::ProblemHead::k);
        result.v = source(&problems::ProblemHead::v);
        return result;
    }
};

} // namespace

TEST_CASE("plans of a capture are those of its heads", "[report][plan]") {
    const std::uint64_t seed = GENERATE(as<std::uint64_t>{}, 1, 9);
    INFO("seed " << seed);
    const Memory memory(seed);
    PlanQuestion question{.weight = 0.5, .mass = 0.9};
    question.output_error = 0.05;
    std::vector<Index> told;
    const CapturePlan plan = plan_capture(memory.capture({.causal = true, .temperature = 2.0}), question, 1,
                                          [&](Index done, Index) { told.push_back(done); });
    CHECK(told == std::vector<Index>{1, 2});
    REQUIRE(plan.heads.size() == 2);
    CHECK(plan.causal);
    for (std::size_t h = 0; h < 2; ++h) {
        const auto& [q, k, v] = std::tie(memory.heads[h].q, memory.heads[h].k, memory.heads[h].v);
        const HeadPlan alone =
            plan_head(q, k, v, question, Mask::causal(), HeadView<double>::default_scale(width) / 2);
        const PlacedPlan& own = plan.heads[h];
        CHECK(own.head == static_cast<Index>(h));
        CHECK(own.rows == alone.rows);
        CHECK(own.output->measured == alone.output->measured);
        CHECK(own.mass->measured == alone.mass->measured);
        REQUIRE(own.aims.size() == 1);
        CHECK(own.aims[0].inverse_temperature == alone.aims.at(0).inverse_temperature);
        CHECK(own.aims[0].needs == alone.aims[0].needs);
    }
    const std::string text = to_table(plan);
    CHECK(fmt::format("{}", plan) == text);
    CHECK(text.starts_with("memory\\x1b[31m: 2 heads, 40 queries, 40 keys, causal; planned from "));
    CHECK(io::to_json(plan)["source"] == "memory\\x1b[31m");
    CHECK(io::to_json(plan_capture(memory.capture({.causal = true, .temperature = 2.0}), question, 2)).dump() ==
          io::to_json(plan).dump());
}

TEST_CASE("what a plan of a capture cannot serve is refused or said", "[report][plan]") {
    const Memory memory(3);
    Capture capped = memory.capture({.causal = true, .normalizer = "softcap:30|softmax"});
    CHECK(has_plain_keys(memory.capture()));
    CHECK(!has_plain_keys(capped));
    CHECK_THROWS_WITH(plan_capture(capped, {.bits = true}),
                      Catch::Matchers::ContainsSubstring("plan_capture: bits need q, k and v"));
    Capture bare = memory.capture();
    bare.v.reset();
    CHECK_THROWS_AS(plan_capture(bare, {.bits = true}), invalid_argument);
    PlanQuestion of_output;
    of_output.output_error = 0.1;
    CHECK_THROWS_AS(plan_capture(bare, of_output), invalid_argument);
    const auto any = [](const std::vector<std::string>& lines, const char* words) {
        return std::any_of(lines.begin(), lines.end(),
                           [&](const std::string& line) { return line.find(words) != std::string::npos; });
    };
    CHECK(any(plan_capture(capped, {.mass = 0.9}).assumptions, "softcap:30"));
    Capture sinks = memory.capture();
    sinks.sinks = {1, 2};
    CHECK(any(plan_capture(sinks, {.mass = 0.9}).warnings, "sinks"));
    CHECK(
        any(plan_capture(memory.capture({.normalizer = "entmax:1.5"}), {.mass = 0.9}).warnings, "entmax:1.5"));
}
