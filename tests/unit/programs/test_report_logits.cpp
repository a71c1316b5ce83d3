// attnscope-report on logits and on stored weights, and by other normalisers than softmax.
#ifdef ATTNSCOPE_REPORT_PROGRAM // not there when the examples are not built

#include <support/report_reference.hpp>

namespace {

using namespace report_test;

TEST_CASE("io report: logits, with NaN, infinities, masked rows and ties", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("logits.safetensors");
    Input input;
    input.logits = special_logits();
    write_safetensors<double>(path, input);
    const Json json = run_json(folder, {path});
    compare(json, input, {});
    const Json& rows = json.at("heads").at(1).at("rows");
    for (const std::size_t query : {std::size_t{1}, std::size_t{2}, std::size_t{3}})
        for (const std::string& name : norm_keys) CHECK(rows.at(query).at("jacobian").at(name).is_null());
    CHECK(rows.at(1).at("visible") == 9);
    CHECK(rows.at(3).at("visible") == 0);
    CHECK(rows.at(4).at("entropy_nats") == 0);
    CHECK(rows.at(4).at("second_weight").is_null());
    CHECK(rows.at(4).at("first_key_weight").is_null());
    CHECK(rows.at(7).at("max_weight").get<double>() == Catch::Approx(0.25));
    const Outcome text = run(folder, {path});
    CHECK(text.out.find("Summary of 2 heads, 16 rows, 2 without a visible key, 2 with NaN, 2 with +inf") !=
          std::string::npos);

    SECTION("causal on top: 8 queries, 9 keys") {
        compare(run_json(folder, {path, "--causal", "--temperature", "3"}), input,
                {.temperature = 3, .causal = true});
    }
    SECTION("a head without any figure") {
        Input none;
        none.logits = Tensor{{1, 2, 3}, std::vector<double>(6, not_a_number)};
        write_safetensors<float>(path, none);
        const Json empty = run_json(folder, {path});
        compare(empty, none, {});
        CHECK(empty.at("heads").at(0).at("mean").at("entropy_nats").is_null());
        CHECK(empty.at("heads").at(0).at("mean").at("visible") == 3);
    }
}

TEST_CASE("io report: weights, whose logits are known up to a constant", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("weights.safetensors");
    Input input;
    input.weights = normal_tensor({2, 2, 6, 7}, 61);
    for (Index i = 0; i < 24; ++i) {
        double sum = 0;
        for (std::size_t j = 0; j < 7; ++j) {
            double& x = input.weights->values[static_cast<std::size_t>(i) * 7 + j];
            x = (static_cast<std::size_t>(i) + j) % 5 == 0 ? 0 : std::exp(2 * x);
            sum += x;
        }
        for (std::size_t j = 0; j < 7; ++j) input.weights->values[static_cast<std::size_t>(i) * 7 + j] /= sum;
    }
    input.v = normal_tensor({2, 1, 7, 3}, 62);
    write_safetensors<float>(path, input);
    const Json json = run_json(folder, {path});
    compare(json, input, {});
    const Json& mean = json.at("heads").at(0).at("mean");
    CHECK(mean.at("log_sum_exp").is_null());
    CHECK(mean.at("max_logit").is_null());
    compare(run_json(folder, {path, "--temperature", "0.5"}), input, {.temperature = 0.5});
    compare(run_json(folder, {path, "--causal", "--normalise-weights"}), input, {.causal = true});

    const Outcome refused = run(folder, {path, "--normalizer", "sigmoid"});
    CHECK(refused.status == 2);
    CHECK(refused.err.find("--normalizer") != std::string::npos);
    CHECK(run(folder, {path, "--scale", "2"}).status == 2);
}

TEST_CASE("io report: q and k go before logits, logits before weights", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("all.safetensors");
    Input input;
    input.q = normal_tensor({2, 5, 4}, 71);
    input.k = normal_tensor({2, 5, 4}, 72);
    input.logits = normal_tensor({2, 5, 5}, 73);
    input.weights = Tensor{{2, 5, 5}, std::vector<double>(50, 0.2)};
    write_safetensors<double>(path, input);
    const Json both = run_json(folder, {path});
    compare(both, input, {});
    CHECK(both.at("max_weight_difference") > 0.01);

    input.q.reset();
    input.k.reset();
    write_safetensors<double>(path, input);
    compare(run_json(folder, {path}), input, {});
}

TEST_CASE("io report: stored weights beside q and k", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("both.safetensors");
    Input input;
    input.q = normal_tensor({1, 6, 4}, 81);
    input.k = normal_tensor({1, 6, 4}, 82);
    input.weights = Tensor{{1, 6, 6}, std::vector<double>(36)};
    for (Index query = 0; query < 6; ++query) {
        const Expected row = expected_row(input, {.causal = true}, 0, 0, query);
        for (std::size_t key = 0; key < row.p.size(); ++key)
            input.weights->at(0, 0, query, Index(key)) = static_cast<double>(row.p[key]);
    }
    write_safetensors<double>(path, input);
    Json json = run_json(folder, {path, "--causal"});
    compare(json, input, {.causal = true});
    CHECK(json.at("max_weight_difference") < 1e-14);

    input.weights->at(0, 0, 4, 2) += 0.125;
    write_safetensors<double>(path, input);
    json = run_json(folder, {path, "--causal"});
    compare(json, input, {.causal = true});
    CHECK(std::abs(json.at("max_weight_difference").get<double>() - 0.125) < 1e-12);
    CHECK(run(folder, {path, "--causal"}).out.find("differ from those of q and k by at most 0.125") !=
          std::string::npos);

    SECTION("a weight where the mask allows none") {
        input.weights->at(0, 0, 0, 5) = 0.75;
        write_safetensors<double>(path, input);
        json = run_json(folder, {path, "--causal"});
        CHECK(json.at("max_weight_difference") == 0.75);
    }
    SECTION("NaN that only the stored weights have is not passed over") {
        input.weights->at(0, 0, 1, 0) = not_a_number;
        write_safetensors<double>(path, input);
        json = run_json(folder, {path, "--causal"});
        CHECK(json.at("max_weight_difference").is_null());
        CHECK(run(folder, {path, "--causal"}).out.find("NaN in the stored weights") != std::string::npos);
    }
    SECTION("weights of another shape are refused") {
        input.weights = Tensor{{1, 6, 5}, std::vector<double>(30)};
        write_safetensors<double>(path, input);
        const Outcome outcome = run(folder, {path});
        CHECK(outcome.status == 1);
        CHECK(outcome.out.empty());
        CHECK(outcome.err.find("expected [1,1,6,6], found [1,6,5]") != std::string::npos);
    }
}

TEST_CASE("io report: the general family", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("heads.safetensors");
    const std::string name = GENERATE("softplus", "sigmoidsum", "quadratic");
    Input input;
    input.q = normal_tensor({2, 14, 8}, 121, 2);
    input.k = normal_tensor({2, 14, 8}, 122, 2);
    input.causal = true;
    write_safetensors<float>(path, input);
    const Json json = run_json(folder, {path, "--normalizer", name});
    compare(json, input, {.normalizer = name, .causal = true});
    compare(run_json(folder, {path, "--normalizer", name, "--temperature", "0.4", "--scale", "0.5"}), input,
            {.temperature = 0.4, .normalizer = name, .scale = 0.5, .causal = true});
    for (const Json& entry : json.at("audit"))
        if (entry.at("id") == "corollary3") CHECK(entry.at("checked") == 0);

    SECTION("masked keys and NaN in logits") {
        Input logits;
        logits.logits = special_logits();
        // F stays finite at +inf for some of them: what that row gives is not compared here.
        for (double& x : logits.logits->values)
            if (x == inf || x == 1e5 || x == 600) x = 4;
        write_safetensors<double>(path, logits);
        compare(run_json(folder, {path, "--normalizer", name}), logits, {.normalizer = name});
    }
}

TEST_CASE("io report: sigmoidsum and softplus at +inf", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("logits.safetensors");
    Input input;
    input.logits = Tensor{{1, 1, 3}, {inf, 0, 0}};
    write_safetensors<double>(path, input);
    // F(inf) = 1 and F(0) = 1/2: weights 1/2, 1/4, 1/4. The published Lemma 1 has an infinite kappa: no
    // violation.
    const Json sigmoid = run_json(folder, {path, "--normalizer", "sigmoidsum"});
    const Json& row = sigmoid.at("heads").at(0).at("rows").at(0);
    CHECK(row.at("max_weight").get<double>() == Catch::Approx(0.5).epsilon(1e-14));
    CHECK(row.at("participation_ratio").get<double>() == Catch::Approx(8.0 / 3).epsilon(1e-14));
    CHECK(row.at("max_logit").is_null());
    CHECK(row.at("logit_spread").is_null());
    for (const Json& entry : sigmoid.at("audit")) CHECK(entry.at("violated") == 0);
    const Json softplus = run_json(folder, {path, "--normalizer", "softplus"});
    CHECK(softplus.at("heads").at(0).at("rows").at(0).at("max_weight").is_null());
}

TEST_CASE("io report: extreme temperatures give no false violation", "[io][report]") {
    const TemporaryFolder folder;
    for (const char* temperature : {"1e-310", "1e-300", "1e300", "1.7e308"}) {
        const Json json = run_json(folder, {"--temperature", temperature, "--layers", "0", "--heads", "0,3"});
        for (const Json& entry : json.at("audit"))
            if (entry.at("form") == "sharp") {
                INFO(temperature << " " << entry.dump());
                CHECK(entry.at("violated") == 0);
            }
    }
}

} // namespace

#endif
