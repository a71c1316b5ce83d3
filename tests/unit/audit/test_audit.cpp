// The table of statements and the tally over rows.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <limits>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace {

using attnscope::Audit;
using attnscope::Bound;
using attnscope::BoundPair;
using attnscope::corollary3_published_statement;
using attnscope::corollary3_sharp_statement;
using attnscope::Form;
using attnscope::lemma2_sharp_statement;
using attnscope::Provenance;
using attnscope::upper_bound;
using attnscope::Verdict;

constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

/// A bound of corollary3 with the verdict that is asked for.
Bound<double> with(Verdict verdict, const attnscope::Statement& statement = corollary3_sharp_statement) {
    Bound<double> bound = upper_bound(statement, {.limit = 2, .measured = 1, .tolerance = 0.5, .trivial = 4});
    switch (verdict) {
    case Verdict::holds:
        break;
    case Verdict::within_rounding:
        bound.measured = 2.25;
        break;
    case Verdict::vacuous:
        bound.trivial = 2;
        break;
    case Verdict::undefined:
        bound.assumption_met = false;
        break;
    case Verdict::violated:
        bound.measured = 3;
        break;
    }
    REQUIRE(bound.verdict() == verdict);
    return bound;
}

constexpr std::array<Verdict, 5> verdicts = {Verdict::holds, Verdict::within_rounding, Verdict::vacuous,
                                             Verdict::undefined, Verdict::violated};

std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream(text);
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
}

std::vector<std::string> words_of(const std::string& line) {
    std::istringstream stream(line);
    return {std::istream_iterator<std::string>(stream), {}};
}

} // namespace

TEST_CASE("statements stand in both forms, and only lemma2 lacks its published one", "[audit]") {
    std::set<std::pair<std::string_view, Form>> seen;
    for (const attnscope::Statement* const entry : attnscope::statements) {
        const attnscope::Statement& statement = *entry;
        CAPTURE(statement.id);
        CHECK(seen.emplace(statement.id, statement.form).second);
        CHECK_FALSE(statement.text.empty());
        CHECK_FALSE(statement.conditions.empty());
        // The paper's statements name it, those about other normalisers their paper, and certificates what they
        // rest on.
        CHECK_FALSE(statement.source.empty());
        const bool papers = statement.id == "lemma2" ||
                            std::any_of(attnscope::statements.begin(), attnscope::statements.end(),
                                        [&](const attnscope::Statement* other) {
                                            return other->id == statement.id && other->form == Form::published;
                                        });
        const bool elsewhere = statement.id == "ssmax" || statement.id == "sigmoid_gradient" ||
                               statement.id == "entmax_support" || statement.id == "lp_lipschitz";
        if (papers || elsewhere)
            CHECK_THAT(std::string(statement.source),
                       Catch::Matchers::ContainsSubstring(elsewhere ? "arXiv:" : "P "));
        // Our own forms are derived, theirs are not; what was not recovered has no published form.
        if (statement.form == Form::published) {
            CHECK((statement.provenance == Provenance::verbatim ||
                   statement.provenance == Provenance::reconstructed));
        } else {
            CHECK((statement.provenance == Provenance::derived ||
                   statement.provenance == Provenance::not_recovered));
        }
    }
    for (const std::string_view id : {"lemma1", "corollary1", "corollary3", "finite_difference"}) {
        CAPTURE(id);
        CHECK(seen.contains({id, Form::published}));
        CHECK(seen.contains({id, Form::sharp}));
    }
    CHECK(seen.contains({"lemma2", Form::sharp}));
    CHECK_FALSE(seen.contains({"lemma2", Form::published}));
    const Audit audit;
    CHECK(audit.at(lemma2_sharp_statement).statement->provenance == Provenance::not_recovered);
    CHECK(audit.at(attnscope::lemma1_published_statement).statement->provenance == Provenance::verbatim);
    CHECK(audit.at(attnscope::corollary1_published_statement).statement->provenance == Provenance::verbatim);
    CHECK(audit.at(corollary3_published_statement).statement->provenance == Provenance::verbatim);
}

TEST_CASE("names of forms and provenances", "[audit]") {
    CHECK(name_of(Form::published) == "published");
    CHECK(name_of(Form::sharp) == "sharp");
    CHECK(name_of(Provenance::verbatim) == "verbatim");
    CHECK(name_of(Provenance::reconstructed) == "reconstructed");
    CHECK(name_of(Provenance::not_recovered) == "not_recovered");
    CHECK(name_of(Provenance::derived) == "derived");
}

TEST_CASE("a row counts once, by the worst of its sides", "[audit]") {
    for (const Verdict a : verdicts)
        for (const Verdict b : verdicts) {
            Audit audit;
            audit.add(BoundPair<double>{with(a), with(b)});
            const auto& record = audit.at(corollary3_sharp_statement);
            CAPTURE(name_of(a), name_of(b));
            CHECK(record.checked == 1);
            for (const Verdict verdict : verdicts)
                CHECK(record[verdict] == (verdict == std::max(a, b) ? 1u : 0u));
            // Each defined side leaves its tightness.
            CHECK(record.tightness.size() == (a != Verdict::undefined) + std::size_t(b != Verdict::undefined));
        }
}

TEST_CASE("published and sharp forms are tallied apart", "[audit]") {
    Audit audit;
    audit.add(with(Verdict::violated, corollary3_published_statement));
    audit.add(with(Verdict::holds));
    audit.add(with(Verdict::holds));
    CHECK(audit.at(corollary3_published_statement)[Verdict::violated] == 1);
    CHECK(audit.at(corollary3_sharp_statement)[Verdict::holds] == 2);
    CHECK(audit.at(corollary3_sharp_statement)[Verdict::violated] == 0);
    CHECK(audit.sharp_violations() == 0);
    audit.add(with(Verdict::violated));
    CHECK(audit.sharp_violations() == 1);
    for (const auto& record : audit.records())
        if (record.statement->id != "corollary3") CHECK(record.checked == 0);
}

TEST_CASE("no sides is no row", "[audit]") {
    Audit audit;
    audit.add(std::span<const Bound<double>>{});
    for (const auto& record : audit.records()) CHECK(record.checked == 0);
}

TEST_CASE("an unknown statement is refused by name, and sides of two statements", "[audit]") {
    static constexpr attnscope::Statement other{
        .id = "theorem7",
        .form = Form::sharp,
        .provenance = Provenance::derived,
        .text = "1 <= 2",
        .conditions = "",
        .source = "",
    };
    Audit audit;
    CHECK_THROWS_WITH(audit.add(with(Verdict::holds, other)),
                      "Audit: statement must be one of the table `statements`, got theorem7");
    CHECK_THROWS_WITH(audit.at(other), "Audit: statement must be one of the table `statements`, got theorem7");
    CHECK_THROWS_WITH(audit.add(Bound<double>()),
                      "Audit: statement must be one of the table `statements`, got none");
    const BoundPair<double> mixed{with(Verdict::holds), with(Verdict::holds, corollary3_published_statement)};
    CHECK_THROWS_WITH(audit.add(mixed), "Audit: sides must be of one statement, got corollary3 and corollary3");
    for (const auto& record : audit.records()) {
        CHECK(record.checked == 0);
        CHECK(record.tightness.empty());
    }
}

TEST_CASE("median and maximum of the tightness", "[audit]") {
    Audit audit;
    const auto& record = audit.at(corollary3_sharp_statement);
    CHECK(std::isnan(record.median_tightness()));
    CHECK(std::isnan(record.max_tightness()));
    const auto add = [&](double measured) {
        audit.add(upper_bound(corollary3_sharp_statement, {.limit = 8, .measured = measured}));
    };
    add(6);
    CHECK(record.median_tightness() == 0.75);
    CHECK(record.max_tightness() == 0.75);
    add(2);
    CHECK(record.median_tightness() == 0.5);
    add(1);
    CHECK(record.median_tightness() == 0.25);
    add(8);
    CHECK(record.median_tightness() == 0.5);
    CHECK(record.max_tightness() == 1);
    // The median is asked for without disturbing the record.
    CHECK(record.tightness == std::vector<double>{0.75, 0.25, 0.125, 1});
    audit.add(upper_bound(corollary3_sharp_statement, {.limit = 8, .measured = not_a_number}));
    CHECK(record.tightness.size() == 4);
    CHECK(record[Verdict::undefined] == 1);
}

TEST_CASE("float bounds are tallied like double ones", "[audit]") {
    Audit audit;
    audit.add(upper_bound<float>(lemma2_sharp_statement, {.limit = 2, .measured = 1}));
    CHECK(audit.at(lemma2_sharp_statement)[Verdict::holds] == 1);
    CHECK(audit.at(lemma2_sharp_statement).max_tightness() == 0.5);
}

TEST_CASE("audits made side by side merge to the audit of all rows", "[audit]") {
    Audit all, left, right;
    std::size_t row = 0;
    for (const Verdict a : verdicts)
        for (const Verdict b : verdicts)
            for (const auto* statement : {&corollary3_published_statement, &corollary3_sharp_statement}) {
                const BoundPair<double> sides{with(a, *statement), with(b, *statement)};
                all.add(sides);
                (++row % 3 == 0 ? left : right).add(sides);
            }
    left.merge(right);
    for (std::size_t i = 0; i < all.records().size(); ++i) {
        const auto& expected = all.records()[i];
        const auto& merged = left.records()[i];
        CHECK(merged.statement == expected.statement);
        CHECK(merged.checked == expected.checked);
        CHECK(merged.count == expected.count);
        CHECK(merged.tightness.size() == expected.tightness.size());
        if (expected.checked > 0) {
            CHECK(merged.median_tightness() == expected.median_tightness());
            CHECK(merged.max_tightness() == expected.max_tightness());
        }
    }
    left.merge(Audit{});
    CHECK(left.at(corollary3_sharp_statement).checked == 25);
}

TEST_CASE("an audit can be copied without sharing its tally", "[audit]") {
    Audit audit;
    audit.add(with(Verdict::holds));
    Audit copy = audit;
    copy.add(with(Verdict::holds));
    CHECK(audit.at(corollary3_sharp_statement).checked == 1);
    CHECK(copy.at(corollary3_sharp_statement).checked == 2);
}

TEST_CASE("the row that comes closest is kept, a violation before all others", "[audit]") {
    const auto at = [](Audit& audit, attnscope::Index query, double measured) {
        audit.set_query(query);
        audit.add(
            upper_bound(corollary3_sharp_statement, {.limit = 2, .measured = measured, .tolerance = 0.5}));
    };
    const auto closest = [](const Audit& audit) { return audit.at(corollary3_sharp_statement).closest; };
    Audit audit;
    CHECK(closest(audit).query == -1);
    CHECK(closest(audit).use == -1);
    audit.set_query(2);
    audit.add(with(Verdict::undefined)); // says nothing
    CHECK(closest(audit).use == -1);
    at(audit, 3, 1);
    at(audit, 4, 1.5);
    at(audit, 5, 1.5); // the first of several stays
    CHECK(closest(audit).query == 4);
    CHECK(closest(audit).use == 0.75);
    CHECK(closest(audit).verdict == Verdict::holds);
    at(audit, 6, 2.25); // within rounding
    CHECK(closest(audit).query == 6);
    CHECK(closest(audit).use == 1);
    at(audit, 7, 3);
    at(audit, 8, 5);
    at(audit, 9, 4);
    CHECK(closest(audit).query == 8);
    CHECK(closest(audit).verdict == Verdict::violated);
    CHECK(closest(audit).use == 2.5); // 1, and three halves of the limit beyond it
    CHECK(closest(audit).measured == 5);
    CHECK(closest(audit).limit == 2);

    Audit first, second, both;
    at(first, 1, 1);
    at(second, 2, 6);
    both.merge(first);
    both.merge(second);
    CHECK(closest(both).query == 2);
    both.merge(audit);
    CHECK(closest(both).query == 2);

    // A limit of 0 is exceeded by no part of it that could be told.
    Audit zero;
    zero.set_query(1);
    zero.add(upper_bound(corollary3_sharp_statement, {.limit = 0, .measured = 1}));
    CHECK(closest(zero).use == std::numeric_limits<double>::infinity());
}

TEST_CASE("the table has one line a statement", "[audit]") {
    Audit audit;
    audit.add(with(Verdict::violated, corollary3_published_statement));
    audit.add(with(Verdict::holds, corollary3_published_statement));
    audit.add(with(Verdict::holds, corollary3_published_statement));
    audit.add(with(Verdict::vacuous, corollary3_published_statement));
    audit.add(with(Verdict::within_rounding, corollary3_published_statement));
    audit.add(with(Verdict::undefined, corollary3_published_statement));
    const std::vector<std::string> lines = lines_of(to_table(audit));
    REQUIRE(lines.size() == attnscope::statements.size() + 1);
    CHECK(words_of(lines[0]) == std::vector<std::string>{"statement", "form", "provenance", "rows", "holds",
                                                         "rounding", "vacuous", "undefined", "violated",
                                                         "median", "max"});
    bool found = false;
    for (std::size_t i = 1; i < lines.size(); ++i) {
        const auto& statement = *attnscope::statements[i - 1];
        const std::vector<std::string> words = words_of(lines[i]);
        CAPTURE(lines[i]);
        REQUIRE(words.size() == 11);
        CHECK(words[0] == statement.id);
        CHECK(words[1] == name_of(statement.form));
        CHECK(words[2] == name_of(statement.provenance));
        // The columns stand under each other.
        CHECK(lines[i].size() == lines[0].size());
        const bool counted = statement.id == "corollary3" && statement.form == Form::published;
        found = found || counted;
        const std::vector<std::string> figures(words.begin() + 3, words.end());
        CHECK(figures == (counted ? std::vector<std::string>{"6", "2", "1", "1", "1", "1", "0.5000", "1.0000"}
                                  : std::vector<std::string>(8, "-")));
    }
    CHECK(found);
}
