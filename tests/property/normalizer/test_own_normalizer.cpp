// The normaliser of the example examples/own_normalizer.hpp under the whole law suite and the audit.
#include "../../../examples/own_normalizer.hpp"
#include <support/laws.hpp>
#include <support/statements.hpp>

using namespace attnscope_test;

namespace {

/// 1 + z + z^2/2, written down a second time.
struct TaylorKey {
    static Ref value(Ref z) { return 1 + z + z * z / 2; }
    Ref log(Ref z) const { return std::log(value(z)); }
    Ref gap(Ref top, Ref z) const { return log(top) - log(z); }
    Ref slope(Ref z) const { return (1 + z) / value(z); }
    /// F by a sum, a square and a sum, each rounded once, then the quotient.
    Ref log_units(Ref log, Ref top) const { return composed_log_units(log, top); }
    Ref slope_units() const { return 8; }
};

} // namespace

TEMPLATE_TEST_CASE("the example's own normaliser obeys the laws", "[laws][own]", float, double) {
    const FamilyReference<TaylorKey> reference{TaylorKey{}};
    test_laws<TestType>(TaylorSoftmax(), reference);
    test_special_rows<TestType>(TaylorSoftmax(), reference);
}

TEST_CASE("the example's own normaliser violates no statement", "[audit][own]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    attnscope::Audit audit;
    attnscope::RowAuditor auditor;
    for_each_row<double>(seed, lengths, 4, [&](const Where&, const std::vector<double>& z) {
        auditor(audit, TaylorSoftmax(), in(z));
    });
    CHECK(audit.sharp_violations() == 0);
    for (const std::string_view id : {"lemma1", "lemma2"}) {
        CHECK(audit.at(named_statement(id, attnscope::Form::sharp)).checked > 500);
        CHECK(audit.at(named_statement(id, attnscope::Form::sharp)).max_tightness() > 0.99);
    }
}
