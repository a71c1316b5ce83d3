// The selection audit over many random rows: no sharp form is ever violated, the published ones are.
#include <attnscope/audit/selection.hpp>
#include <support/selection_reference.hpp>
#include <support/statements.hpp>

using namespace attnscope_test;
using attnscope::Audit;
using attnscope::Form;
using attnscope::Reading;
using attnscope::SelectionAuditOptions;
using attnscope::Verdict;

namespace {

/// Random rows of all families and of lengths up to 40.
template <class F>
void for_each_random_row(std::uint64_t seed, int rows, F&& f) {
    for (int row = 0; row < rows; ++row) {
        SplitMix64 random = generator(seed, row, 4711);
        const auto w = static_cast<std::size_t>(random.below(Index(weight_families.size())));
        const auto v = static_cast<std::size_t>(random.below(Index(vector_families.size())));
        const Index n = 1 + random.below(40), d = 1 + random.below(9);
        f(row, make_tokens<double>(random, w, v, n, d), random);
    }
}

constexpr std::array<Index, 6> counts = {1, 2, 3, 5, 10, 20};

std::size_t violations(const Audit& audit, std::string_view id, Form form) {
    return audit.at(named_statement(id, form))[Verdict::violated];
}

} // namespace

TEST_CASE("24,000 random rows: sharp forms hold, published Theorem 1(1) fails", "[selection][audit]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Audit by_reading[2];
    attnscope::SelectionAuditor<> auditors[2] = {
        attnscope::SelectionAuditor({.reading = Reading::cumulative}, seed),
        attnscope::SelectionAuditor({.reading = Reading::resultant}, seed)};
    std::size_t selections = 0;
    for_each_random_row(seed, 24000, [&](int row, const Tokens<double>& tokens, SplitMix64&) {
        const std::vector<Index> order = reference_order(tokens.weights());
        // The inner products may be given or not.
        const Matrix<double> gram = row % 2 == 0 ? gram_matrix(tokens.vectors()) : Matrix<double>();
        for (const std::size_t reading : {0u, 1u})
            auditors[reading](by_reading[reading],
                              {tokens.weights(), tokens.vectors(), order, row % 2 == 0 ? &gram : nullptr},
                              counts);
        for (const Index count : counts) selections += count < tokens.n ? 2 : 0;
    });
    for (const Audit& audit : by_reading) {
        INFO(to_table(audit));
        CHECK(audit.sharp_violations() == 0);
        CHECK(audit.at(attnscope::theorem1_fixed_sharp_statement).checked == selections);
        CHECK(audit.at(attnscope::theorem1_fixed_sharp_statement).max_tightness() == 1);
        CHECK(violations(audit, "theorem1_fixed", Form::published) > 1000);
        // Of the two about truncation: the top-N sets, and all sets, that have weight.
        for (const auto* statement :
             {&attnscope::truncation_gap_statement, &attnscope::truncation_output_statement}) {
            const attnscope::AuditRecord& record = audit.at(*statement);
            CHECK(record.checked > selections / 3);
            CHECK(record.checked <=
                  (statement == &attnscope::truncation_gap_statement ? selections / 2 : selections));
            CHECK(record[Verdict::undefined] == 0);
            CHECK(record.max_tightness() == 1);
        }
        // Expectations were not asked for.
        CHECK(audit.at(attnscope::theorem1_random_sharp_statement).checked == 0);
        CHECK(audit.at(attnscope::theorem2_upper_sharp_statement).checked == 0);
    }
}

TEST_CASE("selections of float tokens are audited as those of the same tokens in double",
          "[selection][audit]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Audit narrow, wide;
    attnscope::SelectionAuditor<float> of_float({.subsets = 20, .trials = 20}, seed);
    attnscope::SelectionAuditor of_double({.subsets = 20, .trials = 20}, seed);
    SplitMix64 random = generator(seed, 77);
    for (int row = 0; row < 300; ++row) {
        const auto w = static_cast<std::size_t>(random.below(Index(weight_families.size())));
        const auto v = static_cast<std::size_t>(random.below(Index(vector_families.size())));
        const Tokens<float> tokens =
            make_tokens<float>(random, w, v, 1 + random.below(20), 2 + random.below(6));
        const std::vector<double> p(tokens.p.begin(), tokens.p.end()), x(tokens.x.begin(), tokens.x.end());
        const std::vector<Index> order = reference_order(attnscope::RowIn<double>(p));
        of_float(narrow, {tokens.weights(), tokens.vectors(), order}, counts);
        of_float.expectations(narrow, {tokens.weights(), tokens.vectors(), order}, counts);
        const attnscope::MatrixView<double> vectors(x.data(), tokens.n, tokens.d);
        of_double(wide, {attnscope::RowIn<double>(p), vectors, order}, counts);
        of_double.expectations(wide, {attnscope::RowIn<double>(p), vectors, order}, counts);
    }
    CHECK(narrow.sharp_violations() == 0);
    for (const attnscope::Statement* statement : attnscope::statements) {
        INFO(statement->id);
        CHECK(narrow.at(*statement).checked == wide.at(*statement).checked);
        CHECK(narrow.at(*statement)[Verdict::violated] == wide.at(*statement)[Verdict::violated]);
    }
    CHECK(narrow.at(attnscope::theorem1_random_sharp_statement).checked > 0);
    CHECK(narrow.at(attnscope::theorem2_upper_sharp_statement).checked > 0);
}

TEST_CASE("random rows with expectations: sharp forms hold, published ones fail", "[selection][audit]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    Audit audit;
    attnscope::SelectionAuditor auditor({.subsets = 60, .trials = 40}, seed);
    std::size_t rows_of_n = 0, with_sphere = 0;
    for_each_random_row(seed + 1, 900, [&](int, const Tokens<double>& tokens, SplitMix64&) {
        const std::vector<Index> order = reference_order(tokens.weights());
        const attnscope::RankedTokens<> ranked{tokens.weights(), tokens.vectors(), order};
        auditor(audit, ranked, counts);
        auditor.expectations(audit, ranked, counts);
        for (const Index count : counts) {
            if (count >= tokens.n) continue;
            ++rows_of_n;
            // A selection in which at most one token weighs anything has xi = 0 for it, but not for the others.
            with_sphere += count >= 2 && tokens.d >= 2 && tokens.weight(order[0]) > 0;
        }
    });
    INFO(to_table(audit));
    CHECK(audit.sharp_violations() == 0);
    CHECK(violations(audit, "theorem1_fixed", Form::published) > 0);
    CHECK(violations(audit, "theorem1_random", Form::published) > 0);
    CHECK(violations(audit, "corollary2", Form::published) > 0);
    CHECK(violations(audit, "theorem2_upper", Form::published) > 0);
    CHECK(violations(audit, "theorem2_lower", Form::published) == 0);
    for (const Form form : {Form::published, Form::sharp}) {
        CHECK(audit.at(named_statement("theorem1_random", form)).checked == rows_of_n);
        CHECK(audit.at(named_statement("corollary2", form)).checked == rows_of_n);
        for (const char* id : {"theorem2_lower", "theorem2_upper"}) {
            // Three radii on simulated spheres, and once the row's own vectors, of which it says nothing.
            CHECK(audit.at(named_statement(id, form)).checked == 4 * with_sphere);
            CHECK(audit.at(named_statement(id, form))[Verdict::undefined] == with_sphere);
        }
    }
}

TEST_CASE("the audit leaves out N that do not fit, and rows of one key", "[selection][audit]") {
    Audit audit;
    attnscope::SelectionAuditor auditor;
    const Tokens<double> one = tokens_of({1.0}, {1, 2}), three = tokens_of({0.5, 0.3, 0.2}, {1, 0, 0, 1, 1, 1});
    const std::array<Index, 1> first = {0};
    const std::array<Index, 3> order = {0, 1, 2};
    const std::array<Index, 5> wanted = {-1, 0, 2, 3, 100};
    auditor(audit, {one.weights(), one.vectors(), first}, wanted);
    auditor.expectations(audit, {one.weights(), one.vectors(), first}, wanted);
    CHECK(audit.at(attnscope::theorem1_fixed_sharp_statement).checked == 0);
    auditor(audit, {three.weights(), three.vectors(), order}, wanted);
    auditor.expectations(audit, {three.weights(), three.vectors(), order}, wanted);
    CHECK(audit.at(attnscope::theorem1_fixed_sharp_statement).checked ==
          2); // N = 2: the top two, and two at random
    CHECK(audit.at(attnscope::theorem1_random_sharp_statement).checked == 1);
    CHECK(audit.at(attnscope::theorem2_lower_sharp_statement).checked == 4);
}

TEST_CASE("equal seeds audit alike", "[selection][audit]") {
    const std::uint64_t seed = test_seed();
    SplitMix64 make = generator(seed, 2);
    const Tokens<double> tokens = make_tokens<double>(make, 1, 0, 30, 4);
    const std::vector<Index> order = reference_order(tokens.weights());
    const auto table = [&](std::uint64_t audit_seed) {
        Audit audit;
        attnscope::SelectionAuditor auditor({}, audit_seed);
        auditor(audit, {tokens.weights(), tokens.vectors(), order}, counts);
        auditor.expectations(audit, {tokens.weights(), tokens.vectors(), order}, counts);
        return std::pair(to_table(audit), audit.at(attnscope::theorem1_fixed_sharp_statement).tightness);
    };
    CHECK(table(1) == table(1));
    CHECK(table(1).second != table(2).second);
}

TEST_CASE("truncation is audited where weights underflow, and not where they do not sum to 1",
          "[selection][audit]") {
    const Matrix<double> x = Matrix<double>::Identity(4, 4);
    const std::vector<Index> order = {0, 1, 2, 3}, one = {1, 2, 3};
    attnscope::SelectionAuditor<> auditor;
    Audit audit;
    for (const double tiny : {0.0, 5e-324, 3e-320, 1e-300}) {
        const std::vector<double> p = {1, tiny, tiny, tiny / 2};
        auditor(audit, {attnscope::RowIn<double>(p), attnscope::MatrixView<double>(x), order}, one);
    }
    CHECK(audit.at(attnscope::truncation_gap_statement).checked == 12);
    CHECK(audit.at(attnscope::truncation_output_statement).checked >= 12); // random sets may have no weight
    CHECK(audit.sharp_violations() == 0);
    const std::vector<double> half = {0.3, 0.1, 0.05, 0.05};
    Audit other;
    auditor(other, {attnscope::RowIn<double>(half), attnscope::MatrixView<double>(x), order}, one);
    CHECK(other.at(attnscope::truncation_gap_statement).checked == 0);
    CHECK(other.at(attnscope::truncation_output_statement).checked == 0);
    CHECK(other.at(attnscope::theorem1_fixed_sharp_statement).checked == 6);
}
