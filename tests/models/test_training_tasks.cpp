// The tasks of attnscope-training-temperature: there is one right key, and the figures are those of the core.
#include <support/catch.hpp>
#include <support/rows.hpp>
#include <training_temperature/experiment.hpp>

using namespace attnscope_test;
using temperature::Task;

TEST_CASE("every example has one key that knows the answer", "[training][tasks]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random = generator(seed, 110);
    for (const Task task : {Task::recall, Task::maximum})
        for (const Index length : {2, 3, 64, 1000})
            for (int trial = 0; trial < 50; ++trial) {
                const auto example = draw(task, length, random);
                REQUIRE(static_cast<Index>(example.ids.size()) == length);
                for (const auto id : example.ids) CHECK((id >= 0 && id < temperature::vocabulary_of(task)));
                CHECK((example.place >= 0 && example.place < length - 1));
                // Items are finder * 16 + answer; questions and answers follow.
                const Index right = example.ids[static_cast<std::size_t>(example.place)] / 16;
                const Index questions = task == Task::recall ? 16 : 1;
                CHECK(example.ids[static_cast<std::size_t>(example.place)] % 16 ==
                      example.answer - 256 - questions);
                for (Index i = 0; i + 1 < length; ++i) {
                    const Index finder = example.ids[static_cast<std::size_t>(i)] / 16;
                    if (i == example.place) continue;
                    CHECK((task == Task::recall ? finder != right : finder < right));
                }
                CHECK(example.ids.back() == 256 + (task == Task::recall ? right : 0));
            }
}

TEST_CASE("a trained model finds its key, and its figures are those of its row", "[training][tasks]") {
    temperature::RunPlan plan;
    plan.steps = 250;
    plan.least_length = plan.most_length = 6;
    const auto [run, network] = train(plan, 50, 24);
    REQUIRE(run.log.size() == 5);
    CHECK(run.log.back().loss < 0.5 * run.log.front().loss);
    const auto rows = measure(network, Task::recall, 6, 64, 3);
    CHECK(rows.accuracy > 0.8); // chance: 1/16
    CHECK(rows.accuracy <= 1);
    CHECK((rows.right_weight > 0 && rows.right_weight < 1));
    CHECK((rows.entropy_nats > 0 && rows.entropy_nats < std::log(6)));
    CHECK(rows.spectral <= rows.largest_spectral);
    CHECK(rows.largest_spectral <= attnscope::gradient_limit(1.0));
    // weight = 1/(1 + (L-1) rest), row by row
    double weight = 0;
    for (const double rest : rows.rest) weight += 1 / (1 + 5 * rest) / 64;
    CHECK(weight == Catch::Approx(rows.right_weight).epsilon(1e-9));
    // Places mean nothing: positions are 0 and stay so.
    auto copy = network;
    CHECK(copy.weights().position.isZero(0));
    const auto [again, other] = train(plan, 50, 24);
    CHECK(again.log.back().loss == run.log.back().loss);
    CHECK(again.log.back().rows.right_weight == run.log.back().rows.right_weight);
}

TEST_CASE("medians leave out what is not known", "[training][tasks]") {
    CHECK(temperature::median({3, 1, 2}) == 2);
    CHECK(temperature::median({4, 1, 2, std::numeric_limits<double>::quiet_NaN(), 3}) == 2.5);
    CHECK(std::isnan(temperature::median({})));
}
