// Real attention heads, when the data are there: attend() against stored weights, and the audit over real rows.
#include <attnscope/attention/attend.hpp>
#include <attnscope/audit/row.hpp>
#include <attnscope/io/safetensors.hpp>

#include <support/catch.hpp>
#include <support/paths.hpp>
#include <support/statements.hpp>

#include <filesystem>

namespace {

using attnscope::Audit;
using attnscope::Form;
using attnscope::HeadView;
using attnscope::Index;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::MatrixView;
using attnscope::Softmax;
using attnscope::Verdict;
using attnscope::io::SafetensorsFile;

/// Calls f(layer, head, q, k, v, weights) for every head of a file, as borrowed float matrices.
template <class Function>
void for_each_head(const SafetensorsFile& file, Function&& f) {
    const auto& shape = file.info("q").shape;
    REQUIRE(shape.size() == 4);
    const Index layers = shape[0], heads = shape[1], n = shape[2], d = shape[3];
    const auto q = file.view<float>("q"), k = file.view<float>("k"), v = file.view<float>("v"),
               weights = file.view<float>("weights");
    REQUIRE(file.info("k").shape == shape);
    REQUIRE(file.info("v").shape == shape);
    REQUIRE(file.info("weights").shape == std::vector<Index>{layers, heads, n, n});
    for (Index layer = 0; layer < layers; ++layer)
        for (Index head = 0; head < heads; ++head) {
            const Index at = layer * heads + head;
            f(layer, head, MatrixView<float>(q.data() + at * n * d, n, d),
              MatrixView<float>(k.data() + at * n * d, n, d), MatrixView<float>(v.data() + at * n * d, n, d),
              MatrixView<float>(weights.data() + at * n * n, n, n));
        }
}

/// Largest |computed - stored| weight over the allowed error that `tolerance(largest |q|.|k| scale)` gives, and
/// the audit of all rows in double.
struct Outcome {
    double worst = 0;          ///< largest difference
    double worst_fraction = 0; ///< largest difference over its tolerance
    std::size_t rows = 0;
    std::size_t hidden = 0; ///< weights where the mask allows none
    Audit audit;
};

template <class Tolerance>
Outcome run(const SafetensorsFile& file, Tolerance&& tolerance) {
    Outcome outcome;
    const Softmax softmax;
    attnscope::RowAuditor auditor({.steps = {1e-3, 1e-1, 10}});
    for_each_head(file, [&](Index, Index, MatrixView<float> q, MatrixView<float> k, MatrixView<float> v,
                            MatrixView<float> stored) {
        const HeadView<float> head(q, k, v);
        const auto attention = attend(head, softmax, Mask::causal(), {.weights = true});
        REQUIRE(attention.weights.rows() == q.rows());
        const Matrix<double> wide_q = q.map().cast<double>(), wide_k = k.map().cast<double>();
        const double scale = HeadView<double>::default_scale(q.cols());
        std::vector<double> row;
        for (Index i = 0; i < q.rows(); ++i) {
            double delta = 0;
            for (Index j = 0; j <= i; ++j)
                delta = std::max(delta, scale * wide_q.row(i).norm() * wide_k.row(j).norm());
            for (Index j = 0; j < q.rows(); ++j) {
                if (j > i) {
                    outcome.hidden += attention.weights(i, j) != 0 || stored.map()(i, j) != 0;
                    continue;
                }
                const double p = stored.map()(i, j), difference = std::abs(double(attention.weights(i, j)) - p);
                outcome.worst = std::max(outcome.worst, difference);
                outcome.worst_fraction =
                    std::max(outcome.worst_fraction, difference / tolerance(p, delta, i + 1, q.cols()));
            }
            row.assign(static_cast<std::size_t>(i + 1), 0);
            for (Index j = 0; j <= i; ++j)
                row[static_cast<std::size_t>(j)] = scale * wide_q.row(i).dot(wide_k.row(j));
            auditor(outcome.audit, softmax, row, {.delta = delta});
            ++outcome.rows;
        }
    });
    return outcome;
}

void check_audit(const Outcome& outcome) {
    CHECK(outcome.hidden == 0);
    CHECK(outcome.audit.sharp_violations() == 0);
    CHECK(outcome.audit.at(attnscope::corollary3_published_statement)[Verdict::violated] > 0);
    for (const char* id : {"lemma1", "corollary1", "lemma2", "corollary3"})
        CHECK(outcome.audit.at(attnscope_test::named_statement(id, Form::sharp)).checked == outcome.rows);
    for (const char* id : {"lemma1", "corollary1", "corollary3"})
        CHECK(outcome.audit.at(attnscope_test::named_statement(id, Form::published)).checked == outcome.rows);
    // The published weight ranges are true, if often vacuous.
    CHECK(outcome.audit.at(attnscope::lemma1_published_statement)[Verdict::violated] == 0);
    CHECK(outcome.audit.at(attnscope::corollary1_published_statement)[Verdict::violated] == 0);
    CHECK(outcome.audit.at(attnscope::finite_difference_sharp_statement).checked == 3 * outcome.rows);
}

/// Error of float weights against those of exact arithmetic, relative to a weight: logits are off by a dot
/// product of d terms, at most (d + 4) u |q||k| scale, which enters a weight once by its own logit and once by
/// the sum; exp and the division add (3 spread + 64) u, the spread being at most 2 |q||k| scale. Both files
/// were rounded to float afterwards: one more u, which the 64 holds.
double float_error(double p, double delta, Index n, Index d) {
    const double u = std::numeric_limits<float>::epsilon() / 2;
    const double exponent = 2 * static_cast<double>(d + 4) * delta + 6 * delta;
    return u * (exponent + 64 + static_cast<double>(n) / 64) * p + std::numeric_limits<float>::min();
}

TEST_CASE("io real heads: GPT-2, stored weights are those of q and k to 1e-6", "[io][data]") {
    const std::string path = attnscope_test::data_folder() + "/gpt2-heads/john_smith_n9.safetensors";
    if (!std::filesystem::exists(path))
        ATTNSCOPE_SKIP("no john_smith_n9.safetensors (ATTNSCOPE_DATA_DIR names the data folder)");
    const SafetensorsFile file(attnscope::io::File::map(path));
    const Outcome outcome = run(file, [](double, double, Index, Index) { return 1e-6; });
    INFO("largest difference " << outcome.worst);
    CHECK(outcome.worst_fraction <= 1);
    CHECK(outcome.worst > 0); // float arithmetic of another machine: not the same bits
    CHECK(outcome.rows == 12 * 12 * 9);
    check_audit(outcome);
}

TEST_CASE("io real heads: small models against their float64 reference", "[io][data]") {
    const std::string model = GENERATE("tiny-gpt2", "stories260k");
    const std::string path = attnscope_test::data_folder() + "/" + model + "/reference_192.safetensors";
    if (!std::filesystem::exists(path))
        ATTNSCOPE_SKIP("no " + model + "/reference_192.safetensors (ATTNSCOPE_DATA_DIR names the data folder)");
    const SafetensorsFile file(attnscope::io::File::map(path));
    // q and k were rounded to float after the weights had been computed: each entry is off by u, so each logit
    // by at most 2 u |q||k| scale more.
    const Outcome outcome = run(file, [](double p, double delta, Index n, Index d) {
        const double u = std::numeric_limits<float>::epsilon() / 2;
        return float_error(p, delta, n, d) + 4 * u * delta * p;
    });
    INFO(model << ": largest difference " << outcome.worst << ", of its tolerance " << outcome.worst_fraction);
    CHECK(outcome.worst_fraction <= 1);
    CHECK(outcome.worst_fraction > 1e-3); // the tolerance is not idle
    CHECK(outcome.worst < 1e-5);
    check_audit(outcome);
}

TEST_CASE("io real heads: the output is the weighted sum of the values", "[io][data]") {
    const std::string path = attnscope_test::data_folder() + "/tiny-gpt2/reference_192.safetensors";
    if (!std::filesystem::exists(path))
        ATTNSCOPE_SKIP("no tiny-gpt2/reference_192.safetensors (ATTNSCOPE_DATA_DIR names the data folder)");
    const SafetensorsFile file(attnscope::io::File::map(path));
    std::size_t heads = 0;
    for_each_head(file, [&](Index, Index, MatrixView<float> q, MatrixView<float> k, MatrixView<float> v,
                            MatrixView<float> stored) {
        const auto attention = attend(HeadView<float>(q, k, v), Softmax{}, Mask::causal());
        const Matrix<double> expected = stored.map().cast<double>() * v.map().cast<double>();
        const double largest = v.map().cwiseAbs().maxCoeff();
        // Weights are exact to 1e-5 (above) and sum to 1; the sum of 192 products is rounded in float.
        const double tolerance = largest * (192 * 1e-5 * 0.02 + 192 * std::numeric_limits<float>::epsilon());
        CHECK((attention.output.cast<double>() - expected).cwiseAbs().maxCoeff() <= tolerance);
        CHECK(attention.weights.size() == 0);
        ++heads;
    });
    CHECK(heads == 8);
}

} // namespace
