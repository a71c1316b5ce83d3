// What a capture holds beside its heads is obeyed: finite masks, biases, attention masks, batches, layouts,
// scales and windows; stored weights are taken as they are. Right values by plain loops, and those of numpy for
// ../shared.
#include <support/catch.hpp>

#include <attnscope/capture/load_head.hpp>
#include <attnscope/capture/open_capture.hpp>
#include <attnscope/io/safetensors.hpp>
#include <attnscope/random.hpp>
#include <attnscope/row/row_statistics.hpp>

#include <support/paths.hpp>
#include <support/temporary_file.hpp>

#include <nlohmann/json.hpp>

namespace {

using namespace attnscope;
using attnscope_test::TemporaryFolder;
using io::SafetensorsWriter;
using Json = nlohmann::json;
using Shape = std::vector<Index>;

constexpr double inf = std::numeric_limits<double>::infinity();

std::vector<double> normal_numbers(Index count, std::uint64_t seed) {
    attnscope::SplitMix64 random(seed);
    std::vector<double> numbers(static_cast<std::size_t>(count));
    for (double& x : numbers) x = random.normal();
    return numbers;
}

/// One file of a few tensors.
class File {
public:
    template <class T = double>
    File& add(const char* name, const std::vector<double>& values, Shape shape) {
        std::vector<T> stored;
        for (const double x : values) stored.push_back(static_cast<T>(x));
        writer_.add(name, std::span<const T>(stored), std::move(shape));
        return *this;
    }
    File& says(const char* key, const char* value) {
        writer_.set_metadata(key, value);
        return *this;
    }
    Capture open(const CaptureOptions& options = {}) const {
        const TemporaryFolder folder;
        const std::string path = folder.path("capture.safetensors");
        writer_.write(path);
        return open_capture({path}, options);
    }

private:
    SafetensorsWriter writer_;
};

bool any_has(const std::vector<std::string>& lines, const std::string& text) {
    return std::any_of(lines.begin(), lines.end(),
                       [&](const std::string& line) { return line.find(text) != std::string::npos; });
}

std::string refusal(const std::function<void()>& work) {
    try {
        work();
    } catch (const std::exception& error) {
        return error.what();
    }
    return "accepted";
}

/// Logits of 2 heads x 5 causal queries whose masked keys hold `mask`, or are lowered by it.
std::vector<double> masked_logits(double mask, bool added = false) {
    std::vector<double> logits = normal_numbers(50, 7);
    for (std::size_t i = 0; i < 50; ++i)
        if (i % 5 > i / 5 % 5) logits[i] = added ? logits[i] + mask : mask;
    return logits;
}

template <class T>
void check_masks(double mask, bool added, const CaptureOptions& options = {}) {
    const Capture capture = File().add<T>("logits", masked_logits(mask, added), {2, 5, 5}).open(options);
    RowTally tally;
    for (Index head = 0; head < 2; ++head) {
        const HeadRows rows = load_head(capture, {0, 0, head});
        tally.merge(rows.tally);
        for (Index i = 0; i < 5; ++i)
            for (Index j = 0; j < 5; ++j) CHECK((rows.logits(i, j) == -inf) == (j > i));
    }
    CHECK(tally.masks == 20);
    CHECK(tally.causal_from_masks());
    CHECK(tally.unmasked_rows == 0);
    CHECK(!tally.looks_masked());
    CHECK(any_has(findings_of(capture, tally), "20 entries of value"));
}

TEST_CASE("captures: finite masks of every stored type", "[io][captures]") {
    check_masks<float>(std::numeric_limits<float>::lowest(), false);
    check_masks<float>(std::numeric_limits<float>::lowest() / 2, false);
    check_masks<double>(std::numeric_limits<double>::lowest(), true);
    check_masks<Eigen::half>(-65504, false);
    check_masks<Eigen::half>(-30000, false);
    CaptureOptions below;
    below.masked_below = -5000;
    check_masks<float>(-1e4, true, below);
    below.masked_below = -1e8;
    check_masks<double>(-1e9, false, below);
}

TEST_CASE("captures: a row of nothing but masks stays visible, and unknown masks are told", "[io][captures]") {
    std::vector<double> logits = masked_logits(-65504);
    for (std::size_t j = 0; j < 5; ++j) logits[5 + j] = -31000 - 16 * static_cast<double>(j);
    Capture capture = File().add<Eigen::half>("logits", logits, {2, 5, 5}).open();
    HeadRows rows = load_head(capture, {});
    CHECK(rows.logits.row(1).minCoeff() == -31072); // as float16 has it
    CHECK(rows.tally.unmasked_rows == 1);
    CHECK(rows.tally.masks == 7);
    CHECK(any_has(findings_of(capture, rows.tally), "1 rows hold nothing but masks: their keys stay visible"));

    capture = File().add<float>("logits", masked_logits(-1e4, true), {2, 5, 5}).open();
    rows = load_head(capture, {});
    CHECK(rows.tally.masks == 0);
    CHECK(rows.tally.looks_masked());
    CHECK(any_has(warnings_of(capture, rows.tally), "--masked-below"));
    CHECK(!rows.tally.causal_from_masks());
}

TEST_CASE("captures: a bias is added, and its masks are masks", "[io][captures]") {
    const auto q = normal_numbers(2 * 4 * 3, 1), k = normal_numbers(1 * 5 * 3, 2),
               v = normal_numbers(1 * 5 * 2, 3);
    std::vector<double> bias = normal_numbers(20, 4);
    bias[3] = bias[11] = std::numeric_limits<float>::lowest();
    const Capture capture = File()
                                .add("q", q, {2, 4, 3})
                                .add("k", k, {1, 5, 3})
                                .add("v", v, {1, 5, 2})
                                .add<float>("bias", bias, {4, 5})
                                .open();
    for (Index head = 0; head < 2; ++head) {
        const HeadRows rows = load_head(capture, {0, 0, head});
        CHECK(rows.tally.masks == 2);
        for (std::size_t i = 0; i < 4; ++i)
            for (std::size_t j = 0; j < 5; ++j) {
                double z = 0;
                for (std::size_t c = 0; c < 3; ++c)
                    z += q[(static_cast<std::size_t>(head) * 4 + i) * 3 + c] * k[j * 3 + c];
                z = z / std::sqrt(3.0) + static_cast<double>(static_cast<float>(bias[i * 5 + j]));
                if (i * 5 + j == 3 || i * 5 + j == 11) z = -inf;
                const double found = rows.logits(static_cast<Index>(i), static_cast<Index>(j));
                CHECK((found == z || std::abs(found - z) < 1e-14));
            }
    }
    CHECK(any_has(capture.assumptions, "bias: added to the logits"));
    CHECK(refusal([&] {
              File().add("q", q, {2, 4, 3}).add("k", k, {1, 5, 3}).add("bias", bias, {5, 4}).open();
          }).find("tensor bias: expected [4,5]") != std::string::npos);
}

TEST_CASE("captures: padding is neither key nor row", "[io][captures]") {
    const auto q = normal_numbers(3 * 2 * 6 * 4, 1), k = normal_numbers(3 * 2 * 6 * 4, 2);
    File file;
    file.add("q", q, {3, 1, 2, 6, 4}).add("k", k, {3, 1, 2, 6, 4}).says("causal", "true");
    file.add("attention_mask", {0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0}, {3, 6});
    const Capture capture = file.open();
    CHECK(capture.chosen_batches() == std::vector<Index>{0, 1, 2});
    const auto counts = [&](Index batch) {
        const HeadRows rows = load_head(capture, {batch, 0, 1});
        std::vector<Index> visible;
        for (Index i = 0; i < 6; ++i) visible.push_back((rows.logits.row(i).array() > -inf).count());
        return visible;
    };
    CHECK(counts(0) == std::vector<Index>{0, 0, 1, 2, 3, 4});
    CHECK(counts(1) == std::vector<Index>{1, 2, 3, 4, 5, 6});
    CHECK(counts(2) == std::vector<Index>{1, 2, 3, 4, 0, 0});
    CHECK(any_has(capture.assumptions, "attention_mask: 4 of 18 tokens are padding"));

    const auto with_mask = [](std::vector<double> mask, Shape shape) {
        return refusal([&] {
            File()
                .add("logits", normal_numbers(9, 1), {1, 3, 3})
                .add("attention_mask", mask, std::move(shape))
                .open();
        });
    };
    CHECK(with_mask({1, 1, 0}, {3}) == "accepted");
    CHECK(with_mask({1, 0, 1}, {3}).find("one run of tokens") != std::string::npos);
    CHECK(with_mask({0, 0, 0}, {3}).find("at least one token") != std::string::npos);
    CHECK(with_mask({1, 0.5, 1}, {3}).find("0 and 1, got 0.5") != std::string::npos);
    CHECK(with_mask({1, 1}, {2}).find("expected [3]") != std::string::npos);
}

TEST_CASE("captures: scale, window, causality and normaliser of every layer", "[io][captures]") {
    const auto q = normal_numbers(2 * 1 * 5 * 4, 1), k = normal_numbers(2 * 1 * 5 * 4, 2);
    File file;
    file.add("q", q, {2, 1, 5, 4}).add("k", k, {2, 1, 5, 4});
    file.says("scale", "0.5,2")
        .says("window", "0,2")
        .says("causal", "true")
        .says("normalizer", "softmax,entmax:1.5");
    const auto check = [&](const Capture& capture, Index layer, double scale, Index window) {
        const HeadRows rows = load_head(capture, {0, layer, 0});
        for (Index i = 0; i < 5; ++i)
            for (Index j = 0; j < 5; ++j) {
                double z = 0;
                for (Index c = 0; c < 4; ++c)
                    z += q[static_cast<std::size_t>((layer * 5 + i) * 4 + c)] *
                         k[static_cast<std::size_t>((layer * 5 + j) * 4 + c)];
                const bool sees = j <= i && (window == 0 || j > i - window);
                CHECK(rows.logits(i, j) ==
                      (sees ? Catch::Approx(scale * z).epsilon(1e-13) : Catch::Approx(-inf)));
            }
    };
    check(file.open(), 0, 0.5, 0);
    check(file.open(), 1, 2, 2);
    CHECK(file.open().layer(1).normalizer == "entmax:1.5");
    CaptureOptions options;
    options.scale = "1,3";
    options.window = "1";
    check(file.open(options), 1, 3, 1);
    options.scale = "1,2,3";
    CHECK_THROWS_AS(file.open(options), invalid_argument);
    File tensor;
    tensor.add("q", q, {2, 1, 5, 4}).add("k", k, {2, 1, 5, 4}).add("scale", {0.25, 4}, {2}).says("causal", "1");
    check(tensor.open(), 1, 4, 0);
    tensor.says("scale", "0.5");
    CHECK(refusal([&] { tensor.open(); }).find("says 0.25, the metadata say 0.5") != std::string::npos);
}

TEST_CASE("captures: batches and layouts", "[io][captures]") {
    const auto q = normal_numbers(3 * 4 * 2 * 5, 1), k = normal_numbers(3 * 4 * 2 * 5, 2);
    File file;
    file.add("q", q, {3, 2, 4, 5}).add("k", k, {3, 2, 4, 5});
    const Capture layers = file.open();
    CHECK(layers.layers == 3);
    CHECK(any_has(layers.assumptions, "taken for layers"));
    CaptureOptions options;
    options.batch = 2;
    const Capture batch = file.open(options);
    CHECK(batch.layers == 1);
    CHECK(any_has(batch.assumptions, "taken for a batch"));
    CHECK(load_head(batch, {2, 0, 1}).logits == load_head(layers, {0, 2, 1}).logits);
    options.batch = 3;
    CHECK_THROWS_AS(file.open(options), invalid_argument);

    // The same numbers with tokens before heads.
    const auto turned = [](const std::vector<double>& from) {
        std::vector<double> to(from.size());
        for (std::size_t l = 0; l < 3; ++l)
            for (std::size_t h = 0; h < 2; ++h)
                for (std::size_t i = 0; i < 4; ++i)
                    for (std::size_t c = 0; c < 5; ++c)
                        to[((l * 4 + i) * 2 + h) * 5 + c] = from[((l * 2 + h) * 4 + i) * 5 + c];
        return to;
    };
    File nhd;
    nhd.add("q", turned(q), {3, 4, 2, 5}).add("k", turned(k), {3, 4, 2, 5});
    CaptureOptions inside;
    inside.nhd = true;
    const Capture other = nhd.open(inside);
    CHECK(other.heads == 2);
    for (Index layer = 0; layer < 3; ++layer)
        for (Index head = 0; head < 2; ++head) {
            CHECK(load_head(other, {0, layer, head}).logits == load_head(layers, {0, layer, head}).logits);
            CHECK(load_vectors<float>(other, {0, layer, head}).q ==
                  load_vectors<float>(layers, {0, layer, head}).q);
        }
}

TEST_CASE("captures: what is not obeyed is named", "[io][captures]") {
    File file;
    file.add("logits", normal_numbers(9, 1), {1, 3, 3})
        .add("relative_positions", {1}, {1})
        .add("hidden", {1}, {1});
    file.says("alibi", "8").says("source", "somewhere");
    const Capture capture = file.open();
    REQUIRE(capture.warnings.size() == 2);
    CHECK(capture.warnings[0] == "tensors that are not used: relative_positions");
    CHECK(capture.warnings[1] == "metadata that are not obeyed: alibi = 8");
}

TEST_CASE("captures: stored weights are taken as they are", "[io][captures]") {
    const std::vector<double> p = {0.5, 0.25, 0.125, 0.25, 0.25, 0.5, -0.25, 0.75, 0.5};
    File file;
    file.add("weights", p, {1, 3, 3}).says("causal", "true");
    Capture capture = file.open();
    HeadRows rows = load_head(capture, {});
    REQUIRE(rows.stored_scalar == attnscope::StoredScalar::float16); // which has all of these numbers
    std::vector<attnscope::StoredRow> stored_rows;
    for (Index i = 0; i < 3; ++i)
        stored_rows.push_back(attnscope::stored_row(
            {p.data() + 3 * i, 3}, attnscope::Mask::causal().visible(i, 3), *rows.stored_scalar));
    CHECK(stored_rows[0].sum == 0.875);
    CHECK(!stored_rows[0].sums_to_one);
    CHECK(stored_rows[0].hidden == 0.375);
    CHECK(stored_rows[1].hidden == 0.5);
    CHECK(stored_rows[1].sums_to_one);
    CHECK(stored_rows[2].negative == 1);
    CHECK(rows.logits(0, 2) == Catch::Approx(std::log(0.125)));
    CHECK(rows.tally.hidden_rows == 2);
    CHECK(rows.tally.most_hidden == 0.5);
    CHECK(rows.tally.median_sum() == 1);
    CHECK(any_has(findings_of(capture, rows.tally), "1 negative weights in 1 rows"));
    CaptureOptions options;
    options.normalise_weights = true;
    CHECK(load_head(file.open(options), {}).logits(0, 2) == -inf);

    // Rows of every type that miss 1 by their rounding, and a row that misses it by more.
    attnscope::SplitMix64 random(5);
    std::vector<double> softmax(4 * 300);
    for (std::size_t i = 0; i < 4; ++i) {
        double sum = 0;
        for (std::size_t j = 0; j < 300; ++j) sum += softmax[i * 300 + j] = std::exp(2 * random.normal());
        for (std::size_t j = 0; j < 300; ++j) softmax[i * 300 + j] /= sum;
    }
    for (std::size_t j = 0; j < 300; ++j) softmax[j] *= 0.99;
    for (const int type : {0, 1, 2}) {
        File stored;
        if (type == 0) stored.add<Eigen::half>("weights", softmax, {1, 4, 300});
        if (type == 1) stored.add<float>("weights", softmax, {1, 4, 300});
        if (type == 2) { // widened before it was saved
            std::vector<double> narrow;
            for (const double x : softmax) narrow.push_back(static_cast<double>(static_cast<float>(x)));
            stored.add("weights", narrow, {1, 4, 300});
        }
        const RowTally tally = load_head(stored.open(), {}).tally;
        CHECK(tally.not_one == 1);
        CHECK(tally.rounded == 3);
        CHECK(tally.rounded_type == (type == 0 ? "float16" : "float32"));
    }
}

TEST_CASE("captures: the cases of ../shared", "[io][captures][data]") {
    const std::string cases = attnscope_test::data_folder() + "/../cases/";
    if (!std::filesystem::exists(cases + "mask_expected.json")) ATTNSCOPE_SKIP("no ../shared/cases");
    const Json masks = Json::parse(attnscope_test::read_text(cases + "mask_expected.json"));
    CaptureOptions below;
    below.masked_below = -5000;
    for (const auto& [name, options] :
         {std::pair("mask_lowest_float", CaptureOptions()), std::pair("mask_added_1e4", below),
          std::pair("mask_minus_inf", CaptureOptions())}) {
        const Capture capture = open_capture({cases + name + ".safetensors"}, options);
        for (Index head = 0; head < 2; ++head) {
            const HeadRows rows = load_head(capture, {0, 0, head});
            CHECK(rows.tally.causal_from_masks());
            for (Index i = 0; i < 16; ++i) {
                const auto row = attnscope::row_statistics(rows.logits.row(i));
                const auto right = [&](const char* key) {
                    return masks.at(key)
                        .at(static_cast<std::size_t>(head))
                        .at(static_cast<std::size_t>(i))
                        .get<double>();
                };
                CHECK(static_cast<double>(row.visible) == right("visible"));
                CHECK(row.entropy_nats() == Catch::Approx(right("entropy_nats")).epsilon(1e-9).margin(1e-9));
                CHECK(row.max_weight() == Catch::Approx(right("max_weight")).epsilon(1e-9));
                CHECK(row.logit_spread() == Catch::Approx(right("logit_spread")).epsilon(1e-9).margin(1e-9));
            }
        }
    }
    const Json weights = Json::parse(attnscope_test::read_text(cases + "weights_expected.json"));
    const Capture capture = open_capture({cases + "weights_with_dropped_sink.safetensors"});
    for (Index head = 0; head < 2; ++head) {
        const HeadRows rows = load_head(capture, {0, 0, head});
        CHECK(rows.tally.not_one == 16);
        for (std::size_t i = 0; i < 16; ++i)
            CHECK(rows.weights->row(static_cast<Index>(i)).sum() ==
                  Catch::Approx(weights.at("row_sum").at(static_cast<std::size_t>(head)).at(i).get<double>())
                      .epsilon(0x1p-24));
    }
}

} // namespace
