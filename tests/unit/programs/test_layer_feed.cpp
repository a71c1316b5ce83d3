// Layers of an evaluation, asked for in any order.
#include <support/catch.hpp>
#include <support/layer_feed.hpp>

#include <atomic>
#include <stdexcept>

using program::Index;
using program::LayerFeed;
using program::LayerTensors;

namespace {

/// Layer l holds the number 10 l; counts how often the evaluation begins and ends.
struct Evaluation {
    std::atomic<int> begun = 0, ended = 0, emitted = 0;
    Index layers = 0;

    LayerFeed::Evaluate function() {
        return [this](const LayerFeed::Emit& emit) {
            ++begun;
            for (Index layer = 0; layer < layers; ++layer) {
                ++emitted;
                emit({{static_cast<float>(10 * layer)}, {}, {}, {}});
            }
            ++ended;
        };
    }
};

float number(LayerFeed& feed, Index layer) { return feed.layer(layer)->q.at(0); }

} // namespace

TEST_CASE("layers in order take one evaluation, which computes none before it is asked for", "[layer_feed]") {
    Evaluation evaluation;
    evaluation.layers = 5;
    LayerFeed feed(5, evaluation.function());
    CHECK(evaluation.begun == 0);
    for (Index layer = 0; layer < 5; ++layer)
        for (int again = 0; again < 3; ++again) {
            CHECK(number(feed, layer) == static_cast<float>(10 * layer));
            CHECK(evaluation.emitted == static_cast<int>(layer) + 1);
        }
    feed.finish();
    CHECK(evaluation.begun == 1);
    CHECK(evaluation.ended == 1);
}

TEST_CASE("the layer before is still there, an earlier one starts the evaluation again", "[layer_feed]") {
    Evaluation evaluation;
    evaluation.layers = 4;
    LayerFeed feed(4, evaluation.function());
    CHECK(number(feed, 2) == 20);
    CHECK(number(feed, 1) == 10);
    CHECK(number(feed, 2) == 20);
    CHECK(evaluation.begun == 1);
    CHECK(number(feed, 0) == 0);
    CHECK(number(feed, 3) == 30);
    CHECK(evaluation.begun == 2);
    const auto kept = feed.layer(3);
    feed.finish();
    CHECK(evaluation.ended == 1); // the first one was given up
    CHECK(number(feed, 1) == 10);
    CHECK(evaluation.begun == 3);
    CHECK(kept->q.at(0) == 30);
}

TEST_CASE("what the evaluation throws comes to the one who asks, and an end too soon is an error",
          "[layer_feed]") {
    LayerFeed fails(3, [](const LayerFeed::Emit& emit) {
        emit({{1}, {}, {}, {}});
        throw std::runtime_error("the file is cut");
    });
    CHECK(number(fails, 0) == 1);
    for (int again = 0; again < 2; ++again)
        CHECK_THROWS_WITH(fails.layer(1), Catch::Matchers::ContainsSubstring("the file is cut"));
    LayerFeed ends(3, [](const LayerFeed::Emit& emit) { emit({{1}, {}, {}, {}}); });
    CHECK_THROWS_AS(ends.layer(1), std::logic_error);
    CHECK_THROWS_AS(ends.layer(3), std::logic_error);
    CHECK_THROWS_AS(ends.layer(-1), std::logic_error);
}

TEST_CASE("a feed that nobody asks on ends its evaluation", "[layer_feed]") {
    Evaluation evaluation;
    evaluation.layers = 100;
    {
        LayerFeed feed(100, evaluation.function());
        CHECK(number(feed, 7) == 70);
    }
    CHECK(evaluation.emitted == 8);
    CHECK(evaluation.ended == 0);
}
