// Every normaliser through `analyze`: its weights, their figures, and the norms of its own Jacobian.
#include <support/analysis_reference.hpp>
#include <support/front_doors.hpp>

#include "../../../examples/own_normalizer.hpp"

#include <attnscope/analysis/table.hpp>
#include <attnscope/runtime/registry.hpp>

using namespace attnscope;
using namespace attnscope_test;

namespace {

/// Figures of a row of weights p >= 0 of any sum, by loops; NaN where it has none.
std::map<std::string_view, Ref> figures_of_weights(std::span<const double> z, std::span<const double> p) {
    std::map<std::string_view, Ref> figure;
    Ref sum = 0, squares = 0, most = -1, second = -1, top = -std::numeric_limits<Ref>::infinity(), least = -top;
    std::size_t first = p.size(), seen = 0;
    for (std::size_t i = 0; i < p.size(); ++i) {
        if (!(z[i] > -std::numeric_limits<double>::infinity())) continue;
        ++seen;
        sum += Ref(p[i]);
        top = std::max(top, Ref(z[i]));
        least = std::min(least, Ref(z[i]));
        if (Ref(p[i]) > most) most = Ref(p[i]), first = i;
    }
    for (std::size_t i = 0; i < p.size(); ++i)
        if (z[i] > -std::numeric_limits<double>::infinity() && i != first) second = std::max(second, Ref(p[i]));
    Ref entropy = 0;
    for (const double x : p) {
        squares += Ref(x) / sum * (Ref(x) / sum);
        if (x > 0) entropy -= Ref(x) / sum * std::log(Ref(x) / sum);
    }
    figure["max_logit"] = top;
    figure["logit_spread"] = top - least;
    figure["max_weight"] = most;
    if (seen > 1) figure["second_weight"] = second;
    if (!z.empty() && z[0] > -std::numeric_limits<double>::infinity()) figure["first_key_weight"] = Ref(p[0]);
    figure["entropy_nats"] = entropy;
    figure["participation_ratio"] = 1 / squares;
    return figure;
}

/// Norms of the dense Jacobian, column by column from jvp.
ReferenceNorms dense_norms(const AnyNormalizer& normalizer, std::span<const double> z,
                           std::span<const double> p) {
    const std::size_t n = z.size();
    RefMatrix jacobian{n, RefRow(n * n)};
    std::vector<double> unit(n, 0), column(n);
    for (std::size_t j = 0; j < n; ++j) {
        unit[j] = 1;
        normalizer.jvp(z, p, std::span<const double>(unit), std::span<double>(column));
        unit[j] = 0;
        for (std::size_t i = 0; i < n; ++i) jacobian(i, j) = column[i];
    }
    return norms_of(jacobian);
}

/// What `analyze` says of a head under a normaliser, against the normaliser's own members on each row.
void check_normalizer(const AnyNormalizer& normalizer, const AnalysisOptions& options, const ExactHead& exact,
                      const MaskRule& rule, const std::string& name) {
    INFO(name);
    const HeadAnalysis head = analyze(exact.q, exact.k, exact.v, options);
    Matrix<double> z = reference_logits(exact.q, exact.k, 0.5, rule);
    const double temperature = options.temperature.value_or(1);
    std::size_t normal = 0;
    for (Index query = 0; query < head.queries; ++query) {
        const auto at = static_cast<std::size_t>(query);
        // Keys behind the last that a query sees are no part of its row.
        std::size_t length = 0;
        for (Index key = 0; key < z.cols(); ++key)
            if (z(query, key) > -std::numeric_limits<double>::infinity())
                length = static_cast<std::size_t>(key) + 1;
        const std::span<const double> row(z.data() + query * z.cols(), length);
        std::vector<double> divided(row.begin(), row.end()), p(length);
        for (double& x : divided) x /= temperature;
        const RowStatus status = normalizer.apply(std::span<const double>(divided), std::span<double>(p));
        INFO("row " << query);
        CHECK(head.rows.status[at] == status);
        if (status != RowStatus::normal) continue;
        ++normal;
        CHECK(head.rows.argmax[query] == std::max_element(p.begin(), p.end()) - p.begin());
        const auto right = figures_of_weights(row, p);
        const ReferenceNorms norms = dense_norms(normalizer, divided, p);
        for (const RowFigure& figure : row_figures) {
            INFO(figure.name);
            const double x = (head.rows.*figure.values)[query];
            const double most = static_cast<double>(norms.frobenius) / temperature;
            // Entropies come from log p, whose error is that of p relative to it: 1e-16 of the logarithm's size.
            if (figure.group == "jacobian") {
                const Ref norm = figure.name == "spectral"    ? norms.spectral
                                 : figure.name == "frobenius" ? norms.frobenius
                                 : figure.name == "one"       ? norms.one
                                 : figure.name == "column"    ? norms.column
                                                              : norms.max_entry;
                CHECK(x == Catch::Approx(static_cast<double>(norm) / temperature)
                               .epsilon(1e-9)
                               .margin(1e-14 + most * 1e-13));
            } else if (figure.name == "log_sum_exp") {
                const double log_sum_exp = normalizer.log_sum_exp(std::span<const double>(divided));
                if (std::isnan(log_sum_exp))
                    CHECK(std::isnan(x));
                else
                    CHECK(x == Catch::Approx(log_sum_exp).epsilon(1e-13).margin(1e-13));
            } else if (const auto found = right.find(figure.name); found == right.end()) {
                CHECK(std::isnan(x));
            } else {
                CHECK(x == Catch::Approx(static_cast<double>(found->second)).epsilon(1e-12).margin(1e-13));
            }
        }
        // Selections are of the weights as they are.
        Tokens<double> tokens;
        tokens.d = exact.v.cols();
        for (std::size_t key = 0; key < length; ++key) {
            if (!(row[key] > -std::numeric_limits<double>::infinity())) continue;
            ++tokens.n;
            tokens.p.push_back(p[key]);
            for (Index c = 0; c < tokens.d; ++c) tokens.x.push_back(exact.v(static_cast<Index>(key), c));
        }
        const SelectionColumns& columns = head.selection(2);
        CHECK(columns.has(query) == (tokens.n > 2));
        if (!columns.has(query)) continue;
        const std::vector<Index> order = reference_order(tokens.weights());
        const RefSelection set = reference_selection(tokens, std::span<const Index>(order).first(2));
        CHECK(columns.mass[query] == Catch::Approx(static_cast<double>(set.mass)).margin(1e-15));
        CHECK(columns.distance_cumulative[query] ==
              Catch::Approx(static_cast<double>(set.cumulative)).margin(1e-13));
        CHECK(columns.distance_resultant[query] ==
              Catch::Approx(static_cast<double>(set.resultant)).margin(1e-13));
    }
    CHECK(head.audit.sharp_violations() == 0);
    CHECK(head.audit.unknown_rows() <= normal);
    // Something is said of every normal row, or that nothing is known of it.
    std::size_t most = head.audit.unknown_rows();
    for (const AuditRecord& record : head.audit.records())
        if (record.statement->id.find("theorem") == std::string_view::npos &&
            record.statement->id != "corollary2" && record.statement->id != "missed_tokens")
            most = std::max(most, record.checked);
    CHECK(most >= normal);
}

} // namespace

TEST_CASE("analyze: every normaliser by name", "[analysis]") {
    INFO("seed " << test_seed());
    SplitMix64 random = generator(test_seed(), 31);
    const ExactHead exact(random, 9, 9, 4, 3);
    for (const NormalizerName& known : known_normalizers())
        for (const std::optional<double> temperature : {std::optional<double>(), std::optional(0.5)})
            for (const MaskRule& rule : {MaskRule{.causal = true}, MaskRule{.causal = true, .start = 3},
                                         MaskRule{.causal = true, .window = 3}}) {
                const AnyNormalizer normalizer = make_normalizer(known.example);
                check_normalizer(
                    normalizer,
                    {.mask = rule.mask(), .temperature = temperature, .normalizer = normalizer, .counts = {2}},
                    exact, rule, std::string(known.example));
            }
}

TEST_CASE("analyze: a normaliser by its class is the one by name", "[analysis]") {
    INFO("seed " << test_seed());
    SplitMix64 random = generator(test_seed(), 32);
    const ExactHead exact(random, 9, 9, 4, 3);
    const AnalysisOptions causal{.mask = Mask::causal(), .counts = {2}};
    const auto same = [&](auto typed, const char* name) {
        INFO(name);
        AnalysisOptions by_class = causal, by_name = causal;
        by_class.normalizer = typed;
        by_name.normalizer = make_normalizer(name);
        HeadAnalysis a = analyze(exact.q, exact.k, exact.v, by_class),
                     b = analyze(exact.q, exact.k, exact.v, by_name);
        b.normalizer = a.normalizer; // "entmax" and "entmax:1.5"
        CHECK(first_difference(a, b) == "");
    };
    same(Softmax(), "softmax");
    same(Sparsemax(), "sparsemax");
    same(Entmax(1.5), "entmax:1.5");
    same(SinkSoftmax(), "sink");
    same(SigmoidAttention(), "sigmoid");
    same(ScalableSoftmax(0.43), "ssmax:0.43");
    same(PointwiseNormalizer<Softplus>(), "softplus");
    same(softcap(2) | Softmax(), "softcap:2");
    // The norms of a restriction come from another algorithm where its class is known.
    check_normalizer(Softmax() | top_k(2),
                     {.mask = Mask::causal(), .normalizer = Softmax() | top_k(2), .counts = {2}}, exact,
                     {.causal = true}, "top_k by class");
    // A temperature in softmax and one beside it are one.
    AnalysisOptions inside = causal, beside = causal;
    inside.normalizer = Softmax(0.25);
    beside.temperature = 0.25;
    CHECK(first_difference(analyze(exact.q, exact.k, exact.v, inside),
                           analyze(exact.q, exact.k, exact.v, beside)) == "");
    inside.temperature = 4;
    CHECK(first_difference(analyze(exact.q, exact.k, exact.v, inside),
                           analyze(exact.q, exact.k, exact.v, causal)) == "");
}

TEST_CASE("analyze: a normaliser of one's own, and one about which nothing is known", "[analysis]") {
    INFO("seed " << test_seed());
    SplitMix64 random = generator(test_seed(), 33);
    const ExactHead exact(random, 9, 9, 4, 3);
    const MaskRule rule{.causal = true, .start = 3};
    check_normalizer(TaylorSoftmax(), {.mask = rule.mask(), .normalizer = TaylorSoftmax(), .counts = {2}},
                     exact, rule, "taylor");
    check_normalizer(UniformBoth(), {.mask = rule.mask(), .normalizer = UniformBoth(), .counts = {2}}, exact,
                     rule, "uniform");
    const HeadAnalysis own = analyze(exact.q, exact.k, exact.v, {.normalizer = TaylorSoftmax()}),
                       plain = analyze(exact.q, exact.k, exact.v,
                                       {.mask = rule.mask(), .normalizer = UniformBoth()});
    CHECK(own.normalizer == "taylor");
    CHECK(own.audit.unknown_rows() == 0);
    CHECK_FALSE(own.temperature.has_value());
    CHECK(plain.normalizer == "uniform");
    // Rows 0 to 2 see no key: there is nothing that could be known of them.
    CHECK(plain.audit.unknown_rows() == 6);
    CHECK_THAT(to_table(plain), Catch::Matchers::ContainsSubstring(
                                    "6 rows are of a normaliser about whose rows there is no statement."));
    // Selections have statements all the same.
    std::size_t checked = 0;
    for (const AuditRecord& record : plain.audit.records())
        if (record.statement->id == "theorem1_fixed" && record.statement->form == Form::sharp)
            checked = record.checked;
    CHECK(checked > 0);
}
