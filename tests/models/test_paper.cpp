// attnscope-paper: its experiments on models, whatever stands for the tokens.
#include <attnscope/analysis/curves.hpp>
#include <attnscope/analysis/experiments.hpp>
#include <attnscope/attnscope.hpp>
#include <models/prompt.hpp>
#include <paper/source.hpp>
#include <paper/tables.hpp>
#include <support/catch.hpp>
#include <support/rows.hpp>
#include <support/statements.hpp>

using namespace attnscope_test;
using attnscope::HeadView;
using attnscope::Matrix;
using attnscope::MatrixView;
using paper::Settings;
using Figure = attnscope::CurveFigure;

namespace {

Settings settings_for(Index n) { return {paper::Token::value, attnscope::experiment_options(n), 1}; }

models::Prompt small_model(std::uint64_t seed, Index length) {
    models::Config config;
    config.layers = 2;
    config.heads = config.key_heads = 3;
    config.width = 24;
    config.head_width = 8;
    config.inner = 48;
    config.context = 64;
    config.vocabulary = 50;
    models::Prompt prompt{
        models::Model(config, std::make_shared<models::RandomParameters>(config, seed)), {}, "numbers", length};
    SplitMix64 random(seed);
    for (Index i = 0; i < length; ++i) prompt.ids.push_back(static_cast<std::int32_t>(random.below(50)));
    return prompt;
}

/// All tables.
std::string all_tables(const paper::Result& result) {
    std::string text;
    for (const paper::File& file : paper::tables(result))
        if (file.name != paper::json_name) text += file.content; // which has the times
    return text;
}

} // namespace

TEST_CASE("a model's results do not depend on the threads, and heads are in their order", "[paper]") {
    const models::Prompt prompt = small_model(3, 40);
    Settings settings = settings_for(40);
    settings.threads = 1;
    const paper::Result one = paper::run(paper::source_of(prompt, settings.threads), settings);
    settings.threads = 3;
    const paper::Result three = paper::run(paper::source_of(prompt, settings.threads), settings);
    CHECK(all_tables(one) == all_tables(three));
    REQUIRE(one.heads.size() == 6);
    std::size_t balls = 0;
    for (std::size_t h = 0; h < 6; ++h) {
        CHECK((one.heads[h].layer == static_cast<Index>(h / 3) &&
               one.heads[h].head == static_cast<Index>(h % 3)));
        balls += one.heads[h].balls.size();
    }
    CHECK(balls > 6);
    CHECK(one.audit.sharp_violations() == 0);
    CHECK(one.audit.at(attnscope::corollary3_sharp_statement).checked == 6 * 40);

    // Critical N as `critical_count` has it.
    for (std::size_t l = 0; l < settings.experiments.lengths.size(); ++l) {
        const auto below = std::lower_bound(settings.experiments.counts.begin(),
                                            settings.experiments.counts.end(), settings.experiments.lengths[l]);
        const std::vector<Index> counts(settings.experiments.counts.begin(), below);
        Matrix<double> top(6, static_cast<Index>(counts.size())), random = top;
        for (Index h = 0; h < 6; ++h)
            for (std::size_t c = 0; c < counts.size(); ++c) {
                const auto& curves = one.heads[static_cast<std::size_t>(h)].at_length[l];
                top(h, static_cast<Index>(c)) = curves.at(Figure::distance, c);
                random(h, static_cast<Index>(c)) = curves.at(Figure::random_lower, c);
            }
        CHECK(one.critical(l).count == attnscope::critical_count(MatrixView<double>(top),
                                                                 MatrixView<double>(random), counts,
                                                                 settings.experiments.level));
    }
}

TEST_CASE("contributions are the values times W_O", "[paper]") {
    const models::Prompt prompt = small_model(4, 24);
    Settings settings = settings_for(24);
    settings.token = paper::Token::contribution;
    const paper::Result found = paper::run(paper::source_of(prompt, settings.threads), settings);
    models::RunOptions<float> options;
    std::size_t compared = 0;
    double apart = 0;
    options.layer = [&](const models::LayerView<float>& layer) {
        const Matrix<float> w = prompt.model.output_projection<float>(layer.layer);
        REQUIRE((w.rows() == 24 && w.cols() == 24));
        for (Index h = 0; h < 3; ++h) {
            const HeadView<float> own = layer.heads[h];
            const Matrix<float> x = own.v().map() * w.middleRows(8 * h, 8);
            const attnscope::HeadCurves direct =
                attnscope::head_curves(HeadView<float>(own.q(), own.k(), MatrixView<float>(x), own.scale()),
                                       {.mask = layer.mask,
                                        .lengths = settings.experiments.lengths,
                                        .counts = settings.experiments.counts});
            const auto& mean = found.heads[static_cast<std::size_t>(3 * layer.layer + h)].at_length.back();
            for (std::size_t c = 0; c < settings.experiments.counts.size(); ++c)
                for (const Figure figure : {Figure::distance, Figure::random_lower, Figure::lost}) {
                    const double exact = direct.at_length.back().at(figure, c);
                    apart = std::max(apart, std::abs(mean.at(figure, c) - exact) / std::max(exact, 1e-6));
                    ++compared;
                }
        }
    };
    prompt.model.run<float>(prompt.ids, options);
    CHECK(compared > 100);
    CHECK(apart < 1e-4);
    CHECK_THROWS_AS(prompt.model.output_projection<float>(2), std::runtime_error);
}

TEST_CASE("W_Q, W_K and W_V of a layer make its queries, keys and values", "[paper]") {
    const models::Prompt prompt = small_model(5, 20);
    models::RunOptions<double> options;
    int heads = 0;
    options.layer = [&](const models::LayerView<double>& layer) {
        const Matrix<double> w = prompt.model.input_projections<double>(layer.layer);
        REQUIRE((w.rows() == 24 && w.cols() == 72));
        // Layer norm with GPT-2's initial gain and offset, then the product; biases begin at 0.
        Matrix<double> x = layer.hidden;
        for (Index i = 0; i < x.rows(); ++i) {
            x.row(i).array() -= x.row(i).mean();
            x.row(i) /= std::sqrt(x.row(i).squaredNorm() / static_cast<double>(x.cols()) + 1e-5);
        }
        for (Index h = 0; h < 3; ++h, ++heads) {
            const HeadView<double> head = layer.heads[h];
            CHECK((head.q().map() - x * w.middleCols(8 * h, 8)).norm() < 1e-12 * head.q().map().norm());
            CHECK((head.k().map() - x * w.middleCols(24 + 8 * h, 8)).norm() < 1e-12 * head.k().map().norm());
            CHECK((head.v().map() - x * w.middleCols(48 + 8 * h, 8)).norm() < 1e-12 * head.v().map().norm());
        }
    };
    prompt.model.run<double>(prompt.ids, options);
    CHECK(heads == 6);
    CHECK_THROWS_AS(prompt.model.input_projections<double>(2), std::runtime_error);

    const paper::Result found = paper::run(paper::source_of(prompt, 1), settings_for(20));
    for (const char* id : {"token_jacobian", "rank_collapse", "dobrushin"})
        CHECK(found.audit.at(named_statement(id, attnscope::Form::sharp)).checked == 6);
    CHECK(found.audit.at(attnscope::critical_temperature_sharp_statement).checked == 120);
    CHECK(found.audit.sharp_violations() == 0);
}
