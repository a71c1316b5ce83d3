// attnscope-paper: every curve against the core functions called directly, row by row and set by set.
#include <attnscope/attnscope.hpp>
#include <attnscope/selection/separability_expectation.hpp>
#include <models/prompt.hpp>
#include <paper/source.hpp>
#include <paper/tables.hpp>
#include <support/catch.hpp>
#include <support/rows.hpp>
#include <support/statements.hpp>

using namespace attnscope_test;
using attnscope::HeadView;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::MatrixView;
using attnscope::Reading;
using attnscope::SelectedSet;
using attnscope::Softmax;
using paper::Figure;
using paper::HeadResult;
using paper::Settings;

namespace {

struct Head {
    Matrix<float> q, k, v;
    HeadView<float> view() const { return {q, k, v}; }
};

Head random_head(SplitMix64& random, Index n, Index d) {
    Head head{Matrix<float>(n, d), Matrix<float>(n, d), Matrix<float>(n, d)};
    for (auto* m : {&head.q, &head.k, &head.v})
        for (Index i = 0; i < m->size(); ++i) m->data()[i] = static_cast<float>(random.normal());
    head.q *= 2;
    head.v.array() += 0.3F;
    return head;
}

/// A row as double: visible keys, their logits, weights and vectors.
struct DirectRow {
    std::vector<Index> keys;
    std::vector<double> z, p;
    Matrix<double> x;
    std::vector<Index> order;

    DirectRow(const HeadView<float>& head, const Mask& mask, Index query, bool unit) {
        std::vector<float> logits(static_cast<std::size_t>(head.keys()));
        attnscope::logits_of<float>(head, mask, query, logits);
        for (Index key = 0; key < head.keys(); ++key)
            if (logits[static_cast<std::size_t>(key)] > -std::numeric_limits<float>::infinity()) {
                keys.push_back(key);
                z.push_back(static_cast<double>(logits[static_cast<std::size_t>(key)]));
            }
        p.resize(z.size());
        Softmax().apply<double>(z, p);
        x.resize(static_cast<Index>(keys.size()), head.v().cols());
        for (std::size_t i = 0; i < keys.size(); ++i) {
            x.row(static_cast<Index>(i)) = head.v().map().row(keys[i]).cast<double>();
            if (unit) x.row(static_cast<Index>(i)).normalize();
        }
        attnscope::Ranking<double> ranking;
        ranking.rank(p);
        order.assign(ranking.order().begin(), ranking.order().end());
    }
    Index visible() const { return static_cast<Index>(keys.size()); }
    SelectedSet<double> top(Index count) const {
        SelectedSet<double> set;
        set.assign(attnscope::RowIn<double>(p), MatrixView<double>(x),
                   std::span<const Index>(order).first(static_cast<std::size_t>(count)));
        return set;
    }
};

double direct(Figure figure, const DirectRow& row, const DirectRow& on_sphere, Index count) {
    const auto set = row.top(count);
    const attnscope::RandomSubsetMoments<double> moments(row.p, MatrixView<double>(row.x));
    const auto separable = attnscope::separability(on_sphere.top(count));
    switch (figure) {
    case Figure::distance:
        return attnscope::selection_distance(set);
    case Figure::resultant:
        return attnscope::selection_distance(set, Reading::resultant);
    case Figure::theorem1:
        return attnscope::theorem1_fixed_limit(set, attnscope::fixed_set_geometry(set), Reading::cumulative);
    case Figure::random_lower:
        return moments.expected_distance(count).lower;
    case Figure::random_upper:
        return moments.expected_distance(count).upper;
    case Figure::random_resultant:
        return std::sqrt(moments.resultant_second_moment(count));
    case Figure::lost:
        return attnscope::truncation_error(set);
    case Figure::mass:
        return set.mass();
    case Figure::separable:
        return separable.separable_fraction;
    case Figure::precision:
        return separable.precision;
    case Figure::f_score:
        return separable.f_score;
    }
    return 0;
}

Settings settings_for(Index n) {
    Settings settings;
    paper::fill_grids(settings, n, false);
    return settings;
}

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

/// All tables but the times.
std::string tables(const paper::Result& result) {
    std::string text;
    for (const paper::File& file : to_csv(result)) text += file.content;
    return text;
}

} // namespace

TEST_CASE("the grids hold the paper's N and stay within the text", "[paper]") {
    const Settings settings = settings_for(1024);
    CHECK(settings.lengths == std::vector<Index>{32, 64, 128, 256, 512, 1024});
    CHECK(std::is_sorted(settings.counts.begin(), settings.counts.end()));
    CHECK(std::adjacent_find(settings.counts.begin(), settings.counts.end()) == settings.counts.end());
    CHECK((settings.counts.front() == 1 && settings.counts.back() == 1023));
    for (Index n = 1; n <= 153; ++n) // 0.15 L
        CHECK(std::binary_search(settings.counts.begin(), settings.counts.end(), n));
    for (const Index n : {2, 3, 20, 33}) {
        const Settings small = settings_for(n);
        CHECK(small.lengths.back() == n);
        for (const auto* list : {&small.counts, &small.audited, &small.balls})
            for (const Index count : *list) CHECK((count >= 1 && count < n));
    }
}

TEST_CASE("every curve of a head is the mean of what the core functions say of its rows", "[paper]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 90);
    const Index n = 40;
    const Head head = random_head(random, n, 6);
    const std::vector<std::pair<std::string_view, Mask>> masks = {{"causal", Mask::causal()},
                                                                  {"window", Mask::sliding_window(9)}};
    for (const auto& [name, mask] : masks)
        for (const auto unit :
             {paper::UnitVectors::nowhere, paper::UnitVectors::separability, paper::UnitVectors::everywhere})
            for (const auto short_rows : {paper::ShortRows::exclude, paper::ShortRows::zero}) {
                INFO(name);
                Settings settings = settings_for(n);
                settings.lengths = {1, 7, 32, 40};
                settings.unit = unit;
                settings.short_rows = short_rows;
                const HeadResult found = analyse_head({0, 0, head.view(), {n - 1}}, mask, settings);
                REQUIRE(found.at_length.size() == 4);
                CHECK(found.skipped == 0);
                Worst worst;
                std::size_t compared = 0;
                for (std::size_t l = 0; l < settings.lengths.size(); ++l) {
                    std::vector<DirectRow> rows, on_sphere;
                    double entropy = 0;
                    for (Index query = 0; query < settings.lengths[l]; ++query) {
                        rows.emplace_back(head.view(), mask, query, unit == paper::UnitVectors::everywhere);
                        on_sphere.emplace_back(head.view(), mask, query, unit != paper::UnitVectors::nowhere);
                        entropy += attnscope::row_statistics<double>(in(rows.back().z)).entropy_nats();
                    }
                    const double count_of_rows = static_cast<double>(settings.lengths[l]);
                    CHECK(found.at_length[l].entropy_nats ==
                          Catch::Approx(entropy / count_of_rows).epsilon(1e-5));
                    for (std::size_t c = 0; c < settings.counts.size(); ++c)
                        for (std::size_t f = 0; f < paper::figure_count; ++f) {
                            const Figure figure = static_cast<Figure>(f);
                            double sum = 0, used = 0, scale = 0;
                            for (std::size_t r = 0; r < rows.size(); ++r) {
                                if (settings.counts[c] >= rows[r].visible()) continue;
                                sum += direct(figure, rows[r], on_sphere[r], settings.counts[c]);
                                used += 1;
                                scale = std::max(scale, attnscope::RandomSubsetMoments<double>(
                                                            rows[r].p, MatrixView<double>(rows[r].x))
                                                            .total_length());
                            }
                            const double mean = found.at_length[l].at(figure, c);
                            CHECK(static_cast<double>(found.at_length[l].rows[c]) == used);
                            if (used == 0) {
                                CHECK(std::isnan(mean));
                                continue;
                            }
                            if (short_rows == paper::ShortRows::zero && is_distance(figure))
                                used = count_of_rows;
                            const double exact = sum / used;
                            // Float logits of size 20 and float squares: 1e-5 of the distances, or of the
                            // lengths that they are differences of.
                            worst.meet(std::abs(mean - exact), 2e-5 * (std::abs(exact) + scale),
                                       {paper::figure_names[f], static_cast<std::size_t>(n), 1, seed, "float",
                                        std::string(name)});
                            ++compared;
                        }
                }
                CHECK(compared > 200);
                ATTNSCOPE_CHECK_WORST(worst);
            }
}

TEST_CASE("Algorithms 4 and 5 of a head against the core functions", "[paper]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 91);
    const Index n = 40;
    const Head head = random_head(random, n, 6);
    Settings settings = settings_for(n);
    settings.seed = 5;
    const std::vector<Index> sampled = {11, n - 1};
    const HeadResult found = analyse_head({2, 1, head.view(), sampled}, Mask::causal(), settings);

    REQUIRE(found.at_temperature.size() == settings.temperatures.size());
    for (std::size_t t = 0; t < settings.temperatures.size(); ++t) {
        const double temperature = settings.temperatures[t];
        const Softmax softmax(temperature);
        std::vector<double> sum(settings.steps.size(), 0), largest(settings.steps.size(), 0);
        double spectral = 0;
        for (Index query = 0; query < n; ++query) {
            const DirectRow row(head.view(), Mask::causal(), query, false);
            std::vector<double> p(row.z.size()), v(row.z.size()), moved(row.z.size());
            softmax.apply<double>(row.z, p);
            SplitMix64 directions(attnscope::mixed_seed(5, std::uint64_t(2), std::uint64_t(1),
                                                        static_cast<std::uint64_t>(query)));
            attnscope::random_direction<double>(row.z, directions, v);
            spectral += attnscope::jacobian_norms(softmax, in(row.z), in(p)).spectral.value;
            for (std::size_t e = 0; e < settings.steps.size(); ++e) {
                const double g =
                    attnscope::finite_difference<double>(softmax, row.z, p, v, settings.steps[e], moved);
                sum[e] += g;
                largest[e] = std::max(largest[e], g);
            }
        }
        const double rows = static_cast<double>(n);
        // Logits that differ by a rounding of float, over the temperature.
        const double error = 1e-4 / temperature;
        CHECK(std::abs(found.at_temperature[t].spectral - spectral / rows) <= error * spectral / rows + 1e-12);
        for (std::size_t e = 0; e < settings.steps.size(); ++e) {
            CHECK(std::abs(found.at_temperature[t].mean[e] - sum[e] / rows) <= error * sum[e] / rows + 1e-9);
            CHECK(std::abs(found.at_temperature[t].largest[e] - largest[e]) <= error * largest[e] + 1e-9);
            CHECK(found.at_temperature[t].largest[e] <=
                  attnscope::finite_difference_limit(temperature, settings.steps[e]) * (1 + 1e-6));
        }
    }

    CHECK(found.balls.size() >= 2 * 3);
    for (const attnscope::SeparabilityBall& ball : found.balls) {
        CHECK(std::binary_search(sampled.begin(), sampled.end(), ball.query));
        const DirectRow row(head.view(), Mask::causal(), ball.query, true);
        const auto set = row.top(ball.count);
        const auto one = attnscope::separability(set);
        CHECK(ball.separable == one.separable_fraction);
        CHECK(ball.radius == Catch::Approx(one.nearest_other).epsilon(1e-4));
        std::vector<double> selected, others;
        for (std::size_t rank = 0; rank < row.order.size(); ++rank)
            (static_cast<Index>(rank) < ball.count ? selected : others)
                .push_back(row.p[static_cast<std::size_t>(row.order[rank])]);
        const double exact = attnscope::expected_separable_fraction(selected, others, 6, 24);
        CHECK(std::abs(ball.expected - exact) <= 5e-3);
        CHECK((ball.valid.lower <= ball.valid.upper && ball.published.lower <= ball.valid.lower + 1e-6));
    }
}

TEST_CASE("a model's results do not depend on the threads, and heads are in their order", "[paper]") {
    const models::Prompt prompt = small_model(3, 40);
    Settings settings = settings_for(40);
    settings.threads = 1;
    const paper::Result one = paper::run(paper::source_of(prompt, settings.threads), settings);
    settings.threads = 3;
    const paper::Result three = paper::run(paper::source_of(prompt, settings.threads), settings);
    CHECK(tables(one) == tables(three));
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
    for (std::size_t l = 0; l < settings.lengths.size(); ++l) {
        const auto below =
            std::lower_bound(settings.counts.begin(), settings.counts.end(), settings.lengths[l]);
        const std::vector<Index> counts(settings.counts.begin(), below);
        Matrix<double> top(6, static_cast<Index>(counts.size())), random = top;
        for (Index h = 0; h < 6; ++h)
            for (std::size_t c = 0; c < counts.size(); ++c) {
                const auto& curves = one.heads[static_cast<std::size_t>(h)].at_length[l];
                top(h, static_cast<Index>(c)) = curves.at(Figure::distance, c);
                random(h, static_cast<Index>(c)) = curves.at(Figure::random_lower, c);
            }
        CHECK(one.critical(l).count == attnscope::critical_count(MatrixView<double>(top),
                                                                 MatrixView<double>(random), counts,
                                                                 settings.level));
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
            const HeadResult direct =
                analyse_head({layer.layer, h, {own.q(), own.k(), MatrixView<float>(x), own.scale()}, {}},
                             layer.mask, settings);
            const auto& mean = found.heads[static_cast<std::size_t>(3 * layer.layer + h)].at_length.back();
            for (std::size_t c = 0; c < settings.counts.size(); ++c)
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

TEST_CASE("a head is planned for from its own rows, whatever stands for the tokens", "[paper]") {
    SplitMix64 random = generator(test_seed(), 95);
    Head head = random_head(random, 40, 4);
    const Settings settings = settings_for(40);
    const attnscope::HeadPlan found = paper::plan_of(head.view(), Mask::causal(), settings);
    CHECK(found.rows == 24);
    REQUIRE((found.length && found.steady && found.output && found.bits && found.aims.size() == 1));
    CHECK(found.length->limits.guaranteed <= found.length->limits.possible);
    // The answers, applied by hand to every row.
    std::vector<double> errors;
    const auto whole = attnscope::attend(head.view(), attnscope::Softmax(), Mask::causal());
    const auto kept = attnscope::attend(
        head.view(), attnscope::Softmax() | attnscope::top_k(found.output->measured), Mask::causal());
    for (Index i = 0; i < 40; ++i)
        errors.push_back((kept.output.row(i) - whole.output.row(i)).norm() / whole.output.row(i).norm());
    CHECK(attnscope::share_of(errors, [](double x) { return x <= 0.01; }) >=
          0.9); // 24 of the 40 were planned for
    CHECK(found.output->certified >= found.output->measured);
    CHECK(found.bits->bits.certified >= found.bits->bits.measured);
    CHECK(found.bits->confirmation.applied >= 0.99);

    head.q.setConstant(std::numeric_limits<float>::quiet_NaN());
    const attnscope::HeadPlan nothing = paper::plan_of(head.view(), Mask::causal(), settings);
    CHECK(nothing.rows == 0);
    CHECK(!nothing.length);
}

TEST_CASE("rows that have no weights are left out and counted", "[paper]") {
    SplitMix64 random = generator(test_seed(), 92);
    Head head = random_head(random, 33, 4);
    head.q.row(7).setConstant(std::numeric_limits<float>::quiet_NaN());
    const HeadResult found = analyse_head({0, 0, head.view(), {32}}, Mask::causal(), settings_for(33));
    CHECK(found.skipped == 1);
    CHECK(found.at_length.back().normal_rows == 32);
    CHECK(std::isfinite(found.at_length.back().at(Figure::distance, 0)));
    CHECK(std::isfinite(found.spectral));
}

TEST_CASE("slopes and quantiles of what is known", "[paper]") {
    const std::vector<double> x = {1, 2, 4, 8},
                              y = {3, 3 * std::pow(2, -1.5), 3 * std::pow(4, -1.5), 3 * std::pow(8, -1.5)};
    CHECK(paper::log_slope(x, y) == Catch::Approx(-1.5));
    CHECK(std::isnan(paper::log_slope(std::span(x).first(1), std::span(y).first(1))));
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto some = paper::over({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, nan});
    CHECK((some.mean == 5 && some.low == 1 && some.high == 9));
    CHECK(std::isnan(paper::over({nan}).mean));
}
