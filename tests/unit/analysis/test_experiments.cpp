// The paper's experiments on heads: every curve against the core functions called directly, row by row and set by set.
#include <attnscope/analysis/findings.hpp>
#include <attnscope/analysis/run_experiments.hpp>
#include <attnscope/attnscope.hpp>
#include <attnscope/io/experiments_csv.hpp>
#include <attnscope/io/experiments_json.hpp>
#include <attnscope/report/experiment_pictures.hpp>
#include <attnscope/streaming/threads.hpp>
#include <support/catch.hpp>
#include <support/rows.hpp>
#include <support/statements.hpp>

using namespace attnscope_test;
using attnscope::ExperimentHead;
using attnscope::ExperimentOptions;
using attnscope::Experiments;
using attnscope::HeadView;
using attnscope::Mask;
using attnscope::Matrix;
using attnscope::MatrixView;
using attnscope::Reading;
using attnscope::SelectedSet;
using attnscope::ShortRows;
using attnscope::Softmax;
using attnscope::UnitVectors;
using Figure = attnscope::CurveFigure;

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

/// The experiments on one head, under its numbers.
ExperimentHead experiment(const HeadView<float>& head, const Mask& mask, const ExperimentOptions& options,
                          std::vector<Index> sampled, Index layer = 0, Index number = 0) {
    Experiments found(options, layer + 1, number + 1);
    found.sampled.assign(found.sampled.size(), sampled);
    run_experiments(found,
                    attnscope::ExperimentLayer<float>{layer, [&](Index) { return head; }, mask, {}, {}, {}});
    return found.heads.back();
}

ExperimentOptions options_for(Index n) { return attnscope::experiment_options(n); }

} // namespace

TEST_CASE("special: the grids hold the paper's N and stay within the text", "[analysis][experiments]") {
    const ExperimentOptions options = options_for(1024);
    CHECK(options.lengths == std::vector<Index>{32, 64, 128, 256, 512, 1024});
    CHECK(std::is_sorted(options.counts.begin(), options.counts.end()));
    CHECK(std::adjacent_find(options.counts.begin(), options.counts.end()) == options.counts.end());
    CHECK((options.counts.front() == 1 && options.counts.back() == 1023));
    for (Index n = 1; n <= 153; ++n) // 0.15 L
        CHECK(std::binary_search(options.counts.begin(), options.counts.end(), n));
    for (const Index n : {2, 3, 20, 33}) {
        const ExperimentOptions small = options_for(n);
        CHECK(small.lengths.back() == n);
        for (const auto* list : {&small.counts, &small.audited_counts, &small.ball_counts})
            for (const Index count : *list) CHECK((count >= 1 && count < n));
    }
}

TEST_CASE("special: every curve of a head is the mean of what the core functions say of its rows",
          "[analysis][experiments]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 90);
    const Index n = 40;
    const Head head = random_head(random, n, 6);
    const std::vector<std::pair<std::string_view, Mask>> masks = {{"causal", Mask::causal()},
                                                                  {"window", Mask::sliding_window(9)}};
    for (const auto& [name, mask] : masks)
        for (const auto unit : {UnitVectors::nowhere, UnitVectors::separability, UnitVectors::everywhere})
            for (const auto short_rows : {ShortRows::exclude, ShortRows::zero}) {
                INFO(name);
                ExperimentOptions options = options_for(n);
                options.lengths = {1, 7, 32, 40};
                options.unit_vectors = unit;
                options.short_rows = short_rows;
                const ExperimentHead found = experiment(head.view(), mask, options, {n - 1});
                REQUIRE(found.at_length.size() == 4);
                CHECK(found.skipped == 0);
                Worst worst;
                std::size_t compared = 0;
                for (std::size_t l = 0; l < options.lengths.size(); ++l) {
                    std::vector<DirectRow> rows, on_sphere;
                    double entropy = 0;
                    for (Index query = 0; query < options.lengths[l]; ++query) {
                        rows.emplace_back(head.view(), mask, query, unit == UnitVectors::everywhere);
                        on_sphere.emplace_back(head.view(), mask, query, unit != UnitVectors::nowhere);
                        entropy += attnscope::row_statistics<double>(in(rows.back().z)).entropy_nats();
                    }
                    const double count_of_rows = static_cast<double>(options.lengths[l]);
                    CHECK(found.at_length[l].entropy_nats ==
                          Catch::Approx(entropy / count_of_rows).epsilon(1e-5));
                    for (std::size_t c = 0; c < options.counts.size(); ++c)
                        for (std::size_t f = 0; f < attnscope::curve_figure_count; ++f) {
                            const Figure figure = static_cast<Figure>(f);
                            double sum = 0, used = 0, scale = 0;
                            for (std::size_t r = 0; r < rows.size(); ++r) {
                                if (options.counts[c] >= rows[r].visible()) continue;
                                sum += direct(figure, rows[r], on_sphere[r], options.counts[c]);
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
                            if (short_rows == ShortRows::zero && is_distance(figure)) used = count_of_rows;
                            const double exact = sum / used;
                            // Float logits of size 20 and float squares: 1e-5 of the distances, or of the
                            // lengths that they are differences of.
                            worst.meet(std::abs(mean - exact), 2e-5 * (std::abs(exact) + scale),
                                       {attnscope::curve_figure_names[f], static_cast<std::size_t>(n), 1, seed,
                                        "float", std::string(name)});
                            ++compared;
                        }
                }
                CHECK(compared > 200);
                ATTNSCOPE_CHECK_WORST(worst);
            }
}

TEST_CASE("special: Algorithms 4 and 5 of a head against the core functions", "[analysis][experiments]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 91);
    const Index n = 40;
    const Head head = random_head(random, n, 6);
    ExperimentOptions options = options_for(n);
    options.seed = 5;
    const std::vector<Index> sampled = {11, n - 1};
    const ExperimentHead found = experiment(head.view(), Mask::causal(), options, sampled, 2, 1);

    REQUIRE(found.at_temperature.size() == options.temperatures.size());
    for (std::size_t t = 0; t < options.temperatures.size(); ++t) {
        const double temperature = options.temperatures[t];
        const Softmax softmax(temperature);
        std::vector<double> sum(options.steps.size(), 0), largest(options.steps.size(), 0);
        double spectral = 0;
        for (Index query = 0; query < n; ++query) {
            const DirectRow row(head.view(), Mask::causal(), query, false);
            std::vector<double> p(row.z.size()), v(row.z.size()), moved(row.z.size());
            softmax.apply<double>(row.z, p);
            SplitMix64 directions(attnscope::mixed_seed(5, std::uint64_t(2), std::uint64_t(1),
                                                        static_cast<std::uint64_t>(query)));
            attnscope::random_direction<double>(row.z, directions, v);
            spectral += attnscope::jacobian_norms(softmax, in(row.z), in(p)).spectral.value;
            for (std::size_t e = 0; e < options.steps.size(); ++e) {
                const double g =
                    attnscope::finite_difference<double>(softmax, row.z, p, v, options.steps[e], moved);
                sum[e] += g;
                largest[e] = std::max(largest[e], g);
            }
        }
        const double rows = static_cast<double>(n);
        // Logits that differ by a rounding of float, over the temperature.
        const double error = 1e-4 / temperature;
        CHECK(std::abs(found.at_temperature[t].spectral - spectral / rows) <= error * spectral / rows + 1e-12);
        for (std::size_t e = 0; e < options.steps.size(); ++e) {
            CHECK(std::abs(found.at_temperature[t].mean[e] - sum[e] / rows) <= error * sum[e] / rows + 1e-9);
            CHECK(std::abs(found.at_temperature[t].largest[e] - largest[e]) <= error * largest[e] + 1e-9);
            CHECK(found.at_temperature[t].largest[e] <=
                  attnscope::finite_difference_limit(temperature, options.steps[e]) * (1 + 1e-6));
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

TEST_CASE("special: a head is planned for from its own rows, whatever stands for the tokens",
          "[analysis][experiments]") {
    SplitMix64 random = generator(test_seed(), 95);
    Head head = random_head(random, 40, 4);
    const ExperimentOptions options = options_for(40);
    const attnscope::HeadPlan found = experiment(head.view(), Mask::causal(), options, {39}).plan;
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
    const attnscope::HeadPlan nothing = experiment(head.view(), Mask::causal(), options, {39}).plan;
    CHECK(nothing.rows == 0);
    CHECK(!nothing.length);
}

TEST_CASE("special: rows that have no weights are left out and counted", "[analysis][experiments]") {
    SplitMix64 random = generator(test_seed(), 92);
    Head head = random_head(random, 33, 4);
    head.q.row(7).setConstant(std::numeric_limits<float>::quiet_NaN());
    const ExperimentHead found = experiment(head.view(), Mask::causal(), options_for(33), {32});
    CHECK(found.skipped == 1);
    CHECK(found.at_length.back().normal_rows == 32);
    CHECK(std::isfinite(found.at_length.back().at(Figure::distance, 0)));
    CHECK(std::isfinite(found.spectral));
}

TEST_CASE("special: slopes and quantiles of what is known", "[analysis][experiments]") {
    const std::vector<double> x = {1, 2, 4, 8},
                              y = {3, 3 * std::pow(2, -1.5), 3 * std::pow(4, -1.5), 3 * std::pow(8, -1.5)};
    CHECK(attnscope::log_slope(x, y) == Catch::Approx(-1.5));
    CHECK(std::isnan(attnscope::log_slope(std::span(x).first(1), std::span(y).first(1))));
    const double nan = std::numeric_limits<double>::quiet_NaN();
    const auto some = attnscope::over_heads({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, nan});
    CHECK((some.mean == 5 && some.low == 1 && some.high == 9));
    CHECK(std::isnan(attnscope::over_heads({nan}).mean));
}

TEST_CASE("special: the results of a layer do not depend on the executor, nor on how its heads are handed over",
          "[analysis][experiments]") {
    SplitMix64 random = generator(test_seed(), 96);
    const Index n = 33, d = 4, heads = 3;
    std::vector<float> q(static_cast<std::size_t>(heads * n * d)), k(q.size() / 3), v(k.size());
    for (auto* numbers : {&q, &k, &v})
        for (float& x : *numbers) x = static_cast<float>(random.normal());
    using Array = attnscope::HeadArray<float>;
    const attnscope::HeadGroup<float> group(Array::contiguous(q.data(), heads, n, d),
                                            Array::contiguous(k.data(), 1, n, d),
                                            Array::contiguous(v.data(), 1, n, d));
    const auto tables = [](const Experiments& found) {
        std::string text;
        for (const auto& table : attnscope::io::experiment_tables) text += table.text(found);
        return text + attnscope::io::to_json(found).dump();
    };
    const ExperimentOptions options = attnscope::experiment_options(n, true);
    Experiments one(options, 2, heads), three(options, 2, heads);
    Index done = 0;
    for (const Index layer : {0, 1}) {
        run_experiments(one, layer, group, Mask::causal());
        attnscope::ExperimentLayer<float> own;
        own.number = layer;
        own.head = [&](Index head) { return group[head]; };
        own.mask = Mask::causal();
        own.token_vectors = [&](Index head, Matrix<float>& room) {
            room = group[head].v().map();
            return MatrixView<float>(room);
        };
        own.done = [&](Index) { ++done; };
        run_experiments(three, own, attnscope::Threads(3));
    }
    CHECK(done == 2 * heads);
    CHECK(tables(one) == tables(three));
    CHECK(one.vector_width == d);
    CHECK(one.audit.sharp_violations() == 0);
    CHECK(one.audit.at(attnscope::corollary3_sharp_statement).checked ==
          static_cast<std::size_t>(2 * heads * n));
    for (Index i = 0; i < 2 * heads; ++i) {
        const ExperimentHead& head = one.heads[static_cast<std::size_t>(i)];
        CHECK((head.layer == i / heads && head.head == i % heads && head.rows == n && head.plan.rows == 8));
        CHECK(head.at_length.back().normal_rows == n);
    }
    // One layer need not be numbered.
    Experiments single(options, 1, heads), numbered(options, 1, heads);
    run_experiments(single, group, Mask::causal(), attnscope::Threads(2));
    run_experiments(numbered, 0, group, Mask::causal());
    CHECK(tables(single) == tables(numbered));
    CHECK_THROWS_WITH(run_experiments(one, group, Mask::causal()),
                      "run_experiments: of several layers it must be said which this is, got 2");

    // Pictures: each name once, in order, without a colour that is still open.
    const std::vector<attnscope::ExperimentPicture> pictures = attnscope::experiment_pictures(one);
    REQUIRE(pictures.size() == attnscope::experiment_picture_names.size());
    for (std::size_t i = 0; i < pictures.size(); ++i) {
        CHECK(pictures[i].name == attnscope::experiment_picture_names[i]);
        using Format = attnscope::PictureFormat;
        const std::string light = gnuplot_script(pictures[i], Format::svg),
                          dark = gnuplot_script(pictures[i], Format::svg_dark),
                          png = gnuplot_script(pictures[i], Format::png);
        for (const std::string* script : {&light, &dark, &png}) CHECK(script->find('@') == std::string::npos);
        CHECK(light.find("background '#ffffff'") != std::string::npos);
        CHECK(dark.find("background '#16181d'") != std::string::npos);
        CHECK(png.starts_with("set terminal pngcairo"));
        CHECK(light.substr(light.find("set border")).size() == dark.substr(dark.find("set border")).size());
    }
    CHECK_THROWS_AS(attnscope::experiment_pictures(Experiments(options, 1, heads)),
                    attnscope::invalid_argument);

    // Rows of the table of heads: a name and a cell for each figure.
    const std::string csv = attnscope::io::heads_csv(one);
    CHECK(std::count(csv.begin(), csv.end(), '\n') == 1 + 2 * heads);
    CHECK(std::count(csv.begin(), csv.end(), ',') == (1 + 2 * heads) * 19);
}

TEST_CASE("special: sampled rows are the last of each head and as many others as are asked for",
          "[analysis][experiments]") {
    for (const Index n : {2, 3, 40}) {
        ExperimentOptions options = attnscope::experiment_options(n);
        options.seed = test_seed();
        const Experiments found(options, 2, 3);
        Index others = 0;
        for (const std::vector<Index>& head : found.sampled) {
            CHECK((head.back() == n - 1 && head.front() >= 0));
            CHECK(std::is_sorted(head.begin(), head.end()));
            CHECK(std::adjacent_find(head.begin(), head.end()) == head.end());
            others += std::ssize(head) - 1;
        }
        CHECK(others == std::min<Index>(16, 6 * (n - 1)));
        CHECK(found.tokens() == n);
    }
}

TEST_CASE("special: findings say what the curves were made to say", "[analysis][experiments]") {
    // Heads whose figures are powers of the length, of N and of the temperature.
    ExperimentOptions options = attnscope::experiment_options(512);
    Experiments found(options, 4, 5);
    SplitMix64 random = generator(test_seed(), 97);
    for (ExperimentHead& head : found.heads) {
        for (const Index length : options.lengths) {
            attnscope::LengthCurves at;
            const Index counts = std::ssize(options.counts);
            at.mean = Matrix<double>::Constant(attnscope::curve_figure_count, counts, 0.75);
            at.rows.assign(options.counts.size(), length);
            at.max_weight = 3 / static_cast<double>(length);
            for (Index c = 0; c < counts; ++c) {
                // Top-N and random selections stop being told apart where their means cross over, at N = 32.
                const double shift = options.counts[static_cast<std::size_t>(c)] < 32 ? 10 : 0;
                at.mean(Index(Figure::distance), c) =
                    static_cast<double>(length) * (20 + shift + random.uniform());
                at.mean(Index(Figure::random_lower), c) = static_cast<double>(length) * (20 + random.uniform());
            }
            head.at_length.push_back(at);
        }
        for (const double t : options.temperatures) {
            const std::vector<double> g(options.steps.size(), 0.1 / t);
            head.at_temperature.push_back({g, g, std::vector<Index>(g.size(), 0)});
        }
    }
    const std::vector<attnscope::Finding> said = attnscope::findings(found);
    REQUIRE(said.size() == 7);
    const auto finding = [&](std::string_view id) -> const attnscope::Finding& {
        return *std::find_if(said.begin(), said.end(), [&](const auto& one) { return one.id == id; });
    };
    using attnscope::Agreement;
    CHECK(finding("weights").value == Catch::Approx(-1));
    CHECK(finding("weights").here == "mean largest weight ~ L^-1.00 from L = 64, 0.006 at L = 512");
    CHECK(finding("weights").agreement == Agreement::agrees);
    CHECK(finding("distance_length").value == Catch::Approx(1).epsilon(0.02));
    CHECK(finding("distance_length").agreement == Agreement::agrees);
    CHECK(finding("distance_count").value == Catch::Approx(20.5 / 30.5).epsilon(0.02)); // N = 100 against 20
    CHECK(finding("distance_count").agreement == Agreement::differs);
    CHECK(finding("critical_count").value == Catch::Approx(32.0 / 512));
    CHECK(finding("critical_count").agreement == Agreement::agrees);
    CHECK(finding("separable").here == "between 0.75 and 0.75 for N from 16 to L/2");
    CHECK(finding("separable").agreement == Agreement::agrees);
    CHECK(finding("gradient").value == Catch::Approx(-1));
    CHECK(finding("gradient").here == "largest mean over heads ~ T^-1.00 at eps = 0.001, T <= 0.1");
    CHECK(finding("gradient_limit").agreement == Agreement::not_measured); // no row was audited
    CHECK(std::isnan(finding("gradient_limit").value));

    // A text that is too short says so.
    Experiments nothing(attnscope::experiment_options(2, true), 1, 1);
    run_experiments(nothing, attnscope::ExperimentLayer<double>{0,
                                                                [](Index) {
                                                                    static const Matrix<double> x =
                                                                        Matrix<double>::Identity(2, 2);
                                                                    return HeadView<double>(x, x, x);
                                                                },
                                                                Mask::causal(),
                                                                {},
                                                                {},
                                                                {}});
    for (const attnscope::Finding& one : attnscope::findings(nothing))
        if (one.id == "weights" || one.id == "distance_length" || one.id == "separable") {
            CHECK(one.here == "the text is too short");
            CHECK(one.agreement == Agreement::not_measured);
        }
}

TEST_CASE("special: what the experiments refuse", "[analysis][experiments]") {
    const auto error_of = [](const auto& call) -> std::string {
        try {
            call();
        } catch (const attnscope::invalid_argument& error) {
            return error.what();
        }
        return "nothing";
    };
    CHECK(error_of([] { attnscope::experiment_options(1); }) ==
          "experiment_options: the text must have at least 2 tokens, got 1");
    CHECK(error_of([] { Experiments({}, 1, 1); }) == "Experiments: the options must have lengths >= 1");
    CHECK(error_of([] { Experiments(attnscope::experiment_options(8), 0, 1); }) ==
          "Experiments: there must be layers and heads, got 0 and 1");
    const Matrix<double> x = Matrix<double>::Identity(8, 4);
    Experiments found(attnscope::experiment_options(8), 1, 1);
    const auto run = [&](Index layer, const HeadView<double>& head) {
        run_experiments(found,
                        attnscope::ExperimentLayer<double>{layer, [&](Index) { return head; }, {}, {}, {}, {}});
    };
    CHECK(error_of([&] { run(1, HeadView<double>(x, x, x)); }) ==
          "run_experiments: layer must be in [0, layers), got 1 and 1");
    CHECK(error_of([&] { run(0, HeadView<double>(x.topRows(7), x, x)); }) ==
          "run_experiments: heads must have as many queries as the text has tokens, got 7 and 8");
    CHECK(error_of([&] { run(0, HeadView<double>(x, x)); }) ==
          "run_experiments: heads must have values, head 0 has none");
    CHECK(error_of([&] { run_experiments(found, attnscope::ExperimentLayer<double>{}); }) ==
          "run_experiments: the layer must say what its heads are");
    // Every layer once, before anything is asked.
    Experiments two(attnscope::experiment_options(8, true), 2, 1);
    const attnscope::ExperimentLayer<double> first{
        0, [&](Index) { return HeadView<double>(x, x, x); }, {}, {}, {}, {}};
    for (const char* missing : {"0", "1"}) {
        const std::string rule = std::string(": every layer must have been run, layer ") + missing + " has not";
        CHECK(error_of([&] { attnscope::findings(two); }) == "findings" + rule);
        CHECK(error_of([&] { attnscope::io::to_json(two); }) == "to_json" + rule);
        CHECK(error_of([&] { attnscope::mean_balls(two); }) == "mean_balls" + rule);
        CHECK(error_of([&] { attnscope::mean_gradient(two, 0, 0); }) == "mean_gradient" + rule);
        CHECK(error_of([&] { two.critical(0); }) == "Experiments" + rule);
        CHECK(error_of([&] { two.rows(0, 0); }) == "Experiments" + rule);
        for (const auto& table : attnscope::io::experiment_tables)
            CHECK(error_of([&] { table.text(two); }).ends_with(rule));
        if (!two.has_run(0)) run_experiments(two, first);
    }
    CHECK((two.has_run(0) && !two.has_run(1)));
    CHECK(two.figure(two.heads[0], Figure::mass, 5) ==
          two.heads[0].at_length.back().at(Figure::mass, *two.place(5)));
    CHECK(std::isnan(two.figure(two.heads[1], Figure::mass, 5)));
    CHECK(std::isnan(two.figure(two.heads[0], Figure::mass, 0)));
    CHECK(error_of([&] { run_experiments(two, first); }) ==
          "run_experiments: a layer must be run once only, this one was run before, got 0");
    CHECK(Experiments().tokens() == 0);
    const auto array = attnscope::HeadArray<double>::contiguous(x.data(), 2, 4, 4);
    CHECK(error_of([&] {
              run_experiments(found, 0, attnscope::HeadGroup<double>(array, array, array), Mask::causal());
          }) == "run_experiments: the group must have the heads of a layer, got 2 and 1");
}
