// fmt formatters of the library's types.
#include <attnscope/fmt.hpp>
#include <attnscope/sensitivity/gradient_bounds.hpp>

#include <support/catch.hpp>

#include <sstream>

namespace {

using namespace attnscope;

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double nan = std::numeric_limits<double>::quiet_NaN();

Bound<double> bound(Side side, double value, double measured,
                    const Statement& statement = corollary3_sharp_statement) {
    return side == Side::upper
               ? attnscope::upper_bound(statement, {.limit = value, .measured = measured})
               : attnscope::lower_bound(statement, {.limit = value, .measured = measured, .trivial = 0});
}

TEST_CASE("fmt: enumerators print their names", "[fmt]") {
    CHECK(fmt::format("{} {} {} {} {}", Verdict::holds, Verdict::within_rounding, Verdict::vacuous,
                      Verdict::undefined,
                      Verdict::violated) == "holds within_rounding vacuous undefined violated");
    CHECK(fmt::format("{} {}", Form::published, Form::sharp) == "published sharp");
    CHECK(fmt::format("{} {} {} {}", Provenance::verbatim, Provenance::reconstructed, Provenance::not_recovered,
                      Provenance::derived) == "verbatim reconstructed not_recovered derived");
    CHECK(fmt::format("{} {}", Side::lower, Side::upper) == "lower upper");
    CHECK(fmt::format("{} {} {} {}", RowStatus::normal, RowStatus::empty, RowStatus::infinite,
                      RowStatus::nan) == "normal empty infinite nan");
}

TEST_CASE("fmt: enumerators take the specification of a string", "[fmt]") {
    CHECK(fmt::format("[{:>10}]", Verdict::violated) == "[  violated]");
    CHECK(fmt::format("[{:<10}]", Form::sharp) == "[sharp     ]");
    CHECK(fmt::format("[{:10}]", Side::upper) == "[upper     ]");
    CHECK(fmt::format("[{:^9}]", RowStatus::empty) == "[  empty  ]");
    CHECK(fmt::format("[{:*>{}}]", Provenance::derived, 9) == "[**derived]");
    CHECK(fmt::format("[{:.4}]", Verdict::undefined) == "[unde]");
    CHECK(fmt::format("[{:3}]", Verdict::violated) == "[violated]");
    CHECK_THROWS_AS(fmt::format(fmt::runtime("{:d}"), Verdict::holds), fmt::format_error);
}

TEST_CASE("fmt: a bound tells id, measured number, limit and verdict", "[fmt]") {
    CHECK(fmt::format("{}", bound(Side::upper, 0.25, 0.5)) == "corollary3: measured 0.5 <= 0.25: violated");
    CHECK(fmt::format("{}", bound(Side::upper, 0.5, 0.25)) == "corollary3: measured 0.25 <= 0.5: holds");
    CHECK(fmt::format("{}", bound(Side::lower, 0.125, 0.25)) == "corollary3: measured 0.25 >= 0.125: holds");
    CHECK(fmt::format("{}", bound(Side::lower, 0.25, 0.125)) == "corollary3: measured 0.125 >= 0.25: violated");
    CHECK(fmt::format("{}", bound(Side::upper, inf, 2)) == "corollary3: measured 2 <= inf: vacuous");
    CHECK(fmt::format("{}", bound(Side::upper, 1, nan)) == "corollary3: measured nan <= 1: undefined");
    Bound<double> rounded = bound(Side::upper, 1, 1.25);
    rounded.tolerance = 0.5;
    CHECK(fmt::format("{}", rounded) == "corollary3: measured 1.25 <= 1: within_rounding");
}

TEST_CASE("fmt: a bound hands its specification to both numbers", "[fmt]") {
    const Bound<double> third = bound(Side::upper, 2.0 / 3, 1.0 / 3);
    CHECK(fmt::format("{:.3g}", third) == "corollary3: measured 0.333 <= 0.667: holds");
    CHECK(fmt::format("{:8.2f}", third) == "corollary3: measured     0.33 <=     0.67: holds");
    CHECK(fmt::format("{:.1e}", third) == "corollary3: measured 3.3e-01 <= 6.7e-01: holds");
    CHECK(fmt::format("{:.{}f}", third, 4) == "corollary3: measured 0.3333 <= 0.6667: holds");

    const auto single =
        attnscope::lower_bound<float>(attnscope::lemma1_sharp_statement, {.limit = 0.1F, .measured = 0.2F});
    CHECK(fmt::format("{}", single) == "lemma1: measured 0.2 >= 0.1: holds");
    const auto extended = attnscope::lower_bound<long double>(attnscope::lemma1_sharp_statement,
                                                              {.limit = 0.5L, .measured = 0.75L});
    CHECK(fmt::format("{:.2f}", extended) == "lemma1: measured 0.75 >= 0.50: holds");
}

TEST_CASE("fmt: an id that is not null-terminated", "[fmt]") {
    const std::string text = "corollary3 and more";
    Bound<double> part = bound(Side::upper, 1, 0.5);
    const Statement cut{std::string_view(text).substr(0, 9), Form::sharp, Provenance::derived, "", "", ""};
    part.statement = &cut;
    CHECK(fmt::format("{}", part) == "corollary: measured 0.5 <= 1: holds");
}

TEST_CASE("fmt: an audit is its table", "[fmt]") {
    Audit audit;
    CHECK(fmt::format("{}", audit) == to_table(audit));
    audit.add(bound(Side::upper, 0.25, 0.5, corollary3_published_statement));
    audit.add(bound(Side::upper, 0.5, 0.5));
    audit.add(bound(Side::upper, 0.5, 0.25));
    audit.add(bound(Side::upper, nan, 0.25));
    const std::string text = fmt::format("{}", audit);
    CHECK(text == to_table(audit));

    // One line a statement below the names of the columns; counts stand where the names say.
    std::istringstream lines(text);
    std::vector<std::vector<std::string>> table;
    for (std::string line; std::getline(lines, line);) {
        std::istringstream words(line);
        table.emplace_back();
        for (std::string word; words >> word;) table.back().push_back(word);
    }
    REQUIRE(table.size() == 1 + statements.size());
    CHECK(table[0] == std::vector<std::string>{"statement", "form", "provenance", "rows", "holds", "rounding",
                                               "vacuous", "undefined", "violated", "median", "max"});
    std::size_t found = 0;
    for (const auto& line : table) {
        if (line[0] != "corollary3") continue;
        ++found;
        if (line[1] == "published")
            CHECK(line == std::vector<std::string>{"corollary3", "published", "verbatim", "1", "0", "0", "0",
                                                   "0", "1", "1.0000", "1.0000"});
        else
            CHECK(line == std::vector<std::string>{"corollary3", "sharp", "derived", "3", "2", "0", "0", "1",
                                                   "0", "0.7500", "1.0000"});
    }
    CHECK(found == 2);
}

} // namespace
