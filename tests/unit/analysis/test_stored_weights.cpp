// Heads of which somebody stored the weights.
#include <support/analysis_reference.hpp>

#include <attnscope/runtime/registry.hpp>

using namespace attnscope;
using namespace attnscope_test;

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

struct WeighedHead {
    Matrix<double> z, p, v;
};
/// Causal weights of random logits.
WeighedHead stored_head(Index keys) {
    SplitMix64 random = generator(test_seed(), 21, keys);
    const ExactHead exact(random, keys, keys, 4, 3);
    WeighedHead head{reference_logits(exact.q, exact.k, 0.5, {.causal = true}), Matrix<double>(keys, keys),
                     exact.v};
    for (Index i = 0; i < keys; ++i) head.p.row(i) = weights(Softmax(), head.z.row(i));
    return head;
}

std::size_t checked(const Audit& audit, std::string_view id, Form form = Form::sharp) {
    for (const AuditRecord& record : audit.records())
        if (record.statement->id == id && record.statement->form == form) return record.checked;
    FAIL("no statement " << id);
    return 0;
}
const AuditRecord& record_of(const Audit& audit, std::string_view id, Form form = Form::sharp) {
    for (const AuditRecord& record : audit.records())
        if (record.statement->id == id && record.statement->form == form) return record;
    throw std::runtime_error("no such statement");
}

} // namespace

TEST_CASE("analyze_weights: weights of softmax have its figures, but no logits", "[analysis]") {
    const WeighedHead head = stored_head(12);
    const HeadAnalysis right = analyze_logits(head.z, head.v, {.counts = {1, 3}});
    for (const Mask& mask : {Mask::none(), Mask::causal()}) {
        const HeadAnalysis stored = analyze_weights(head.p, head.v, {.mask = mask, .counts = {1, 3}});
        CHECK(stored.rows.status == right.rows.status);
        for (const RowFigure& figure : row_figures) {
            INFO(figure.name);
            const Column &a = stored.rows.*figure.values, &b = right.rows.*figure.values;
            for (Index query = 0; query < 12; ++query)
                if (figure.name == "log_sum_exp" || figure.name == "max_logit" || std::isnan(b[query]))
                    CHECK(std::isnan(a[query]));
                else // log p is exact to half a unit of 10, and entropies of sharp rows are small
                    CHECK(a[query] == Catch::Approx(b[query]).epsilon(1e-13).margin(1e-15));
        }
        for (const Index n : {1, 3})
            for (const SelectionFigure& figure : selection_figures) {
                INFO(figure.name);
                for (Index query = 0; query < 12; ++query) {
                    const double a = (stored.selection(n).*figure.values)[query],
                                 b = (right.selection(n).*figure.values)[query];
                    if (std::isnan(b))
                        CHECK(std::isnan(a));
                    else
                        CHECK(a == Catch::Approx(b).epsilon(1e-12).margin(1e-13));
                }
            }
        CHECK((stored.rows.row_sum - 1).abs().maxCoeff() < 1e-15);
        CHECK((stored.rows.unassigned_mass == 1 - stored.rows.row_sum).all());
        CHECK((stored.rows.hidden_mass == 0).all());
        CHECK((stored.rows.negative == 0).all());
        CHECK(stored.audit.sharp_violations() == 0);
        for (const AuditRecord& record : stored.audit.records()) CHECK(record[Verdict::undefined] <= 40);
        CHECK_FALSE(stored.scale.has_value());
    }
    CHECK(right.rows.row_sum.size() == 0);
    CHECK(figures_of(right.rows).size() == row_figures.size());
}

TEST_CASE("analyze_weights: rounding of the stored scalar is no missing mass", "[analysis]") {
    const WeighedHead head = stored_head(60);
    const auto audit_of = [&](const auto& p, std::optional<StoredScalar> scalar = {}) {
        const HeadAnalysis stored = analyze_weights(p, head.v, {.counts = {1}, .stored_scalar = scalar});
        CHECK(stored.audit.sharp_violations() == 0);
        return stored.audit;
    };
    const Eigen::MatrixXf single = head.p.cast<float>();
    const Eigen::Matrix<Eigen::half, -1, -1> half = head.p.cast<Eigen::half>();
    const Eigen::Matrix<Eigen::bfloat16, -1, -1> brain = head.p.cast<Eigen::bfloat16>();
    const auto none_undefined = [](const Audit& audit) {
        return record_of(audit, "lemma2")[Verdict::undefined] == 0;
    };
    CHECK(none_undefined(audit_of(head.p)));
    CHECK(none_undefined(audit_of(single)));
    CHECK(none_undefined(audit_of(half)));
    CHECK(none_undefined(audit_of(brain)));
    // What they were widened to does not matter.
    CHECK(none_undefined(audit_of(brain.cast<float>().cast<double>())));
    CHECK(none_undefined(audit_of(half.cast<float>().cast<double>())));
    CHECK(none_undefined(audit_of(single.cast<double>())));
    // As numbers of 64 bits they miss 1 by far.
    CHECK_FALSE(none_undefined(audit_of(brain, StoredScalar::float64)));
    CHECK_FALSE(none_undefined(audit_of(single, StoredScalar::float64)));
}

TEST_CASE("analyze_weights: rows that do not sum to 1 are taken as they are, or normalised", "[analysis]") {
    Matrix<double> p(3, 4);
    p << 0.4, 0.3, 0.1, 0,      // 0.8
        0.25, 0.25, 0.25, 0.25, // 1
        1, 0.5, 0.25, 0.75;     // 2.5
    const Matrix<double> v = Matrix<double>::Identity(4, 4);
    const HeadAnalysis taken = analyze_weights(p, v, {.counts = {1, 2}});
    CHECK(taken.rows.row_sum[0] == Catch::Approx(0.8));
    CHECK(taken.rows.unassigned_mass[0] == Catch::Approx(0.2));
    CHECK(taken.rows.unassigned_mass[2] == Catch::Approx(-1.5));
    CHECK(taken.rows.max_weight[0] == Catch::Approx(0.4));
    CHECK(taken.rows.second_weight[0] == Catch::Approx(0.3));
    CHECK(taken.rows.first_key_weight[0] == 0.4);
    CHECK(taken.rows.max_weight[2] == Catch::Approx(1));
    CHECK(taken.rows.visible[0] == 3);
    // The first of equal ones, and the largest of two that have one logarithm.
    CHECK((taken.rows.argmax == Eigen::Array<Index, 3, 1>(0, 0, 0)).all());
    const double less = 0.01, more = std::nextafter(less, 1.0);
    CHECK(analyze_weights(Matrix<double>{{less, more, less, less}}).rows.argmax[0] == 1);
    CHECK(std::isnan(taken.rows.spectral[0]));
    CHECK(std::isfinite(taken.rows.spectral[1]));
    CHECK(taken.selection(1).mass[0] == 0.4);
    CHECK(taken.selection(2).mass[2] == 1.75);
    // Entropy and participation ratio are those of the distribution.
    CHECK(taken.rows.participation_ratio[0] == Catch::Approx(0.64 / (0.16 + 0.09 + 0.01)));
    // Two of the three rows do not meet what the statements assume.
    CHECK(record_of(taken.audit, "lemma2").checked == 3);
    CHECK(record_of(taken.audit, "lemma2")[Verdict::undefined] == 2);
    CHECK(record_of(taken.audit, "box")[Verdict::undefined] == 2);
    CHECK(record_of(taken.audit, "dobrushin")[Verdict::undefined] ==
          record_of(taken.audit, "dobrushin").checked);
    CHECK(taken.audit.sharp_violations() == 0);

    const HeadAnalysis normalised = analyze_weights(p, v, {.counts = {1, 2}, .normalise_weights = true});
    CHECK(normalised.rows.max_weight[0] == Catch::Approx(0.5));
    CHECK(normalised.rows.first_key_weight[0] == Catch::Approx(0.5));
    CHECK(normalised.rows.max_weight[2] == Catch::Approx(0.4));
    CHECK(normalised.rows.row_sum[0] == Catch::Approx(0.8)); // as stored
    CHECK(normalised.selection(2).mass[2] == Catch::Approx(0.7));
    CHECK(record_of(normalised.audit, "lemma2")[Verdict::undefined] == 0);
    CHECK(std::isfinite(normalised.rows.spectral[0]));
}

TEST_CASE("analyze_weights: weights on keys that the mask hides", "[analysis]") {
    Matrix<double> p(3, 3);
    p << 0.75, 0.25, 0,  //
        0.5, 0.5, 0,     //
        0.25, 0.25, 0.5; //
    const Matrix<double> v = Matrix<double>::Identity(3, 3);
    const HeadAnalysis head = analyze_weights(p, v, {.mask = Mask::causal(), .counts = {1}});
    CHECK(head.rows.hidden_mass[0] == 0.25);
    CHECK(head.rows.hidden_mass[1] == 0);
    // They are weights of the row all the same.
    CHECK(head.rows.visible[0] == 2);
    CHECK(head.rows.max_weight[0] == Catch::Approx(0.75));
    CHECK(head.selection(1).mass[0] == Catch::Approx(0.75));
    // Normalised, they are left out.
    const HeadAnalysis normalised =
        analyze_weights(p, v, {.mask = Mask::causal(), .counts = {1}, .normalise_weights = true});
    CHECK(normalised.rows.hidden_mass[0] == 0.25);
    CHECK(normalised.rows.visible[0] == 1);
    CHECK(normalised.rows.max_weight[0] == 1);
    CHECK_FALSE(normalised.selection(1).has(0));
    // Hidden weights that cancel are hidden weights.
    p << 0.9, 0.2, -0.1, 0.5, 0.5, 0, 0.25, 0.25, 0.5;
    const HeadAnalysis cancelling = analyze_weights(p, v, {.mask = Mask::causal(2), .counts = {1}});
    CHECK(cancelling.rows.negative[0] == 1);
    p << 1, 0.25, -0.25, 0.5, 0.5, 0, 0.25, 0.25, 0.5;
    const HeadAnalysis zero_sum = analyze_weights(p, v, {.mask = Mask::causal(), .counts = {1}});
    CHECK(zero_sum.rows.negative[0] == 1);
    CHECK(zero_sum.rows.status[0] == RowStatus::nan);
    CHECK(zero_sum.rows.visible[0] == 3);
    CHECK(zero_sum.rows.argmax[0] == -1);
    CHECK(zero_sum.rows.second_weight[0] == 0.25);
}

TEST_CASE("analyze_weights: negative weights, NaN, +inf, padding and rows without weight", "[analysis]") {
    const double nothing = std::numeric_limits<double>::quiet_NaN();
    Matrix<double> p(6, 3);
    p << -0.25, 0.75, 0.5,  // negative
        nothing, 0.5, 0.5,  //
        infinity, 0.5, 0.5, //
        0, 0, 0,            //
        0.5, -0.5, 1,       // a query that is padding
        0.25, 0.25, 0.5;
    const Matrix<double> v = Matrix<double>::Identity(3, 3);
    for (const bool normalise : {false, true})
        for (const Mask& mask : {Mask::none(), Mask::none().with_start(3), Mask::causal()}) {
            std::vector<Index> visited;
            const HeadAnalysis head =
                analyze_weights(p, v,
                                {.mask = mask,
                                 .counts = {1},
                                 .visit =
                                     [&](Index query, RowIn<double> z, RowIn<double> weights) {
                                         visited.push_back(query);
                                         CHECK(z.size() == weights.size());
                                     },
                                 .padding = {false, false, false, false, true, false},
                                 .normalise_weights = normalise});
            CHECK(visited == std::vector<Index>{0, 1, 2, 3, 4, 5});
            CHECK(head.rows.status[4] == RowStatus::empty); // whatever is stored there
            CHECK(head.rows.visible[4] == 0);
            for (const RowFigure& figure : figures_of(head.rows)) {
                INFO(figure.name);
                CHECK(std::isnan((head.rows.*figure.values)[4]));
            }
            CHECK(head.audit.sharp_violations() == 0);
        }
    const HeadAnalysis head = analyze_weights(p, v, {.counts = {1}});
    CHECK(head.rows.status[0] == RowStatus::nan);
    CHECK(head.rows.negative[0] == 1);
    CHECK(head.rows.max_weight[0] == 0.75);
    CHECK(std::isnan(head.rows.entropy_nats[0]));
    CHECK(head.rows.row_sum[0] == 1);
    CHECK_FALSE(head.selection(1).has(0));
    CHECK(head.rows.status[1] == RowStatus::nan);
    CHECK(head.rows.status[2] == RowStatus::infinite);
    CHECK(head.rows.status[3] == RowStatus::empty);
    CHECK(head.rows.status[5] == RowStatus::normal);
    for (const Index query : {1, 2, 3}) {
        CHECK(std::isnan(head.rows.row_sum[query]));
        CHECK(std::isnan(head.rows.max_weight[query]));
    }
    CHECK(checked(head.audit, "lemma2") == 1);
}

TEST_CASE("analyze_weights: normalisers that feel a shift are refused", "[analysis]") {
    const Matrix<double> p = Matrix<double>::Constant(2, 4, 0.25);
    for (const char* name : {"sigmoid", "sink", "stablemax", "softcap:2"}) {
        const std::string error = error_of([&] { analyze_weights(p, {.normalizer = make_normalizer(name)}); });
        INFO(error);
        CHECK_THAT(error, Catch::Matchers::StartsWith("analyze_weights: ") &&
                              Catch::Matchers::ContainsSubstring(name) &&
                              Catch::Matchers::ContainsSubstring("up to a constant"));
    }
    const HeadAnalysis head = analyze_weights(p, {.normalizer = Sparsemax()});
    CHECK(head.rows.max_weight[0] == 0.25);
}
