// What attnscope-report writes: selections, means and rows, CSV, the same bytes for the same seed.
#ifdef ATTNSCOPE_REPORT_PROGRAM // not there when the examples are not built

#include <support/report_reference.hpp>

namespace {

using namespace report_test;

TEST_CASE("io report: selections", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("heads.safetensors");
    Input input;
    input.q = normal_tensor({2, 4, 12, 8}, 151, 2);
    input.k = normal_tensor({2, 2, 12, 8}, 152, 2);
    input.v = normal_tensor({2, 2, 12, 5}, 153);
    input.causal = true;
    Asked asked{.causal = true};
    std::vector<std::string> arguments = {path};
    SECTION("every N, in any order") {
        asked.select = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11};
        arguments.insert(arguments.end(), {"--select", "7-11,1-5,6,3,400"});
    }
    SECTION("the radius of the ball") {
        asked.radius = 0.3;
        arguments.insert(arguments.end(), {"--ball-radius", "0.3"});
    }
    SECTION("the reading changes the audit and the text, not the figures") {
        arguments.insert(arguments.end(), {"--reading", "resultant"});
    }
    SECTION("every query sees every key") {
        asked.causal = false;
        arguments.push_back("--no-causal");
    }
    SECTION("another normaliser") {
        asked.normalizer = "softplus";
        arguments.insert(arguments.end(), {"--normalizer", "softplus"});
    }
    SECTION("masked keys in the middle: values are gathered") {
        input.q.reset();
        input.k.reset();
        input.logits = normal_tensor({2, 4, 12, 12}, 154);
        for (std::size_t i = 0; i < input.logits->values.size(); i += 5) input.logits->values[i] = -inf;
        asked.causal = false;
        input.causal.reset();
    }
    SECTION("weights and values") {
        input.weights = normal_tensor({2, 4, 12, 12}, 155);
        for (double& w : input.weights->values) w = std::exp(w);
        arguments.push_back("--normalise-weights");
        input.q.reset();
        input.k.reset();
    }
    SECTION("keys that the mask hides may hold anything") {
        input.v->at(0, 1, 11, 2) = not_a_number;
        input.k->at(0, 1, 11, 2) = inf;
        arguments.insert(arguments.end(), {"--layers", "1"});
        asked.layers = {1};
    }
    write_safetensors<double>(path, input);
    compare(run_json(folder, arguments), input, asked);
}

TEST_CASE("io report: NaN in a value is not hidden", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("heads.safetensors");
    const double poison = GENERATE(as<double>{}, not_a_number, inf, -inf);
    Input input;
    input.logits = Tensor{{1, 3, 3}, {3, 2, 1, 1, 3, 2, 1, 2, 3}};
    input.v = normal_tensor({1, 3, 2}, 161);
    input.v->at(0, 0, 2, 1) = poison;
    write_safetensors<double>(path, input);
    const Json json = run_json(folder, {path, "--causal"});
    const Json& rows = json.at("heads").at(0).at("rows");
    REQUIRE(rows.at(1).at("selection").size() == 1);
    for (const auto& item : rows.at(1).at("selection").at(0).items()) CHECK(item.value().is_number());
    REQUIRE(rows.at(2).at("selection").size() == 2);
    for (const Json& selection : rows.at(2).at("selection"))
        for (const auto& item : selection.items()) {
            INFO(poison << " " << selection.at("n") << " " << item.key() << " " << item.value().dump());
            CHECK(item.value().is_null() == (item.key() != "n" && item.key() != "mass"));
        }
    for (const Json& entry : json.at("audit"))
        if (entry.at("form") == "sharp") {
            INFO(entry.dump());
            CHECK(entry.at("violated") == 0);
        }
}

TEST_CASE("io report: without --rows the means stay and the rows go", "[io][report]") {
    const TemporaryFolder folder;
    const Json with = run_json(folder, {"--layers", "0", "--heads", "2-3"});
    const std::string path = folder.path("short.json");
    REQUIRE(run(folder, {"--layers", "0", "--heads", "2-3", "--json", path}).status == 0);
    const Json without = Json::parse(attnscope_test::read_text(path));
    REQUIRE(without.at("heads").size() == with.at("heads").size());
    for (std::size_t i = 0; i < with.at("heads").size(); ++i) {
        CHECK(without.at("heads").at(i).at("rows").empty());
        CHECK(without.at("heads").at(i).at("rows").is_array());
        CHECK(without.at("heads").at(i).at("mean") == with.at("heads").at(i).at("mean"));
    }
    CHECK(without.at("audit") == with.at("audit"));

    const Outcome piped = run(folder, {"--layers", "0", "--heads", "2-3", "--json", "-"});
    CHECK(piped.status == 0);
    CHECK(piped.err.empty());
    CHECK(Json::parse(piped.out) == without);
}

TEST_CASE("io report: CSV says what JSON says", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("logits.safetensors");
    Input input;
    input.logits = special_logits();
    input.v = normal_tensor({2, 9, 3}, 52);
    write_safetensors<double>(path, input);
    const std::string csv = folder.path("csv");
    std::filesystem::create_directory(csv);
    const Json json = run_json(folder, {path, "--csv", csv});
    const auto table = [&](const std::string& name) {
        std::istringstream text(attnscope_test::read_text(csv + "/" + name));
        std::vector<std::vector<std::string>> lines;
        for (std::string line; std::getline(text, line);) {
            lines.emplace_back();
            std::istringstream cells(line + ",");
            for (std::string cell; std::getline(cells, cell, ',');) lines.back().push_back(cell);
        }
        return lines;
    };
    const auto agrees = [](const std::string& cell, const Json& value) {
        if (value.is_null()) return cell.empty();
        if (value.is_string()) return cell == value.get<std::string>();
        return !cell.empty() && std::strtod(cell.c_str(), nullptr) == value.get<double>();
    };
    // A column of a row or of a mean: "entropy_nats", "jacobian_spectral".
    const auto figure = [](const Json& object, const std::string& name) {
        constexpr std::string_view group = "jacobian_";
        return name.starts_with(group) ? object.at("jacobian").at(name.substr(group.size())) : object.at(name);
    };
    Findings found;
    const auto rows = table("rows.csv"), heads = table("heads.csv"), audit = table("audit.csv");
    const auto selection_rows = table("selection_rows.csv"), selections = table("selection.csv");
    const std::vector<std::string> names = {"layer",
                                            "head",
                                            "query",
                                            "visible",
                                            "argmax",
                                            "log_sum_exp",
                                            "max_logit",
                                            "entropy_nats",
                                            "max_weight",
                                            "second_weight",
                                            "first_key_weight",
                                            "participation_ratio",
                                            "logit_spread",
                                            "jacobian_spectral",
                                            "jacobian_frobenius",
                                            "jacobian_one",
                                            "jacobian_column",
                                            "jacobian_max_entry"};
    REQUIRE(rows.size() == 1 + 16);
    REQUIRE(rows[0].size() >= names.size());
    CHECK(std::equal(names.begin(), names.end(), rows[0].begin()));
    REQUIRE(heads.size() == 1 + 2);
    REQUIRE(audit.size() == 1 + json.at("audit").size());
    for (std::size_t i = 0; i < 16; ++i) {
        const auto& line = rows[1 + i];
        REQUIRE(line.size() == rows[0].size());
        const Json& head = json.at("heads").at(i / 8);
        found.expect(agrees(line[0], head.at("layer")) && agrees(line[1], head.at("head")), "rows.csv ", i);
        for (std::size_t c = 2; c < names.size(); ++c)
            found.expect(agrees(line[c], figure(head.at("rows").at(i % 8), names[c])), "rows.csv ", i, " ",
                         names[c], ": ", line[c]);
    }
    for (std::size_t i = 0; i < 2; ++i) {
        REQUIRE(heads[1 + i].size() == heads[0].size());
        std::size_t c = 2; // layer and head stand first, and no mean is taken of the query and the best key
        for (const std::string& name : names) {
            if (name == "layer" || name == "head" || name == "query" || name == "argmax") continue;
            found.expect(heads[0][c] == name, "heads.csv has ", heads[0][c], " for ", name);
            found.expect(agrees(heads[1 + i][c], figure(json.at("heads").at(i).at("mean"), name)), "heads.csv ",
                         i, " ", name, ": ", heads[1 + i][c]);
            ++c;
        }
    }
    std::size_t selection_at = 1, mean_at = 1;
    const auto compare_line = [&](const std::vector<std::vector<std::string>>& lines, std::size_t at,
                                  std::vector<Json> places, const Json& selection) {
        REQUIRE(at < lines.size());
        REQUIRE(lines[at].size() == lines[0].size());
        for (std::size_t c = 0; c < lines[0].size(); ++c)
            found.expect(agrees(lines[at][c], c < places.size() ? places[c] : selection.at(lines[0][c])),
                         "selection ", at, " ", lines[0][c], ": ", lines[at][c]);
        found.expect(lines[0].size() == places.size() + selection.size(), "columns of a selection");
    };
    for (const Json& head : json.at("heads")) {
        for (const Json& selection : head.at("mean").at("selection"))
            compare_line(selections, mean_at++, {head.at("layer"), head.at("head")}, selection);
        for (const Json& row : head.at("rows"))
            for (const Json& selection : row.at("selection"))
                compare_line(selection_rows, selection_at++,
                             {head.at("layer"), head.at("head"), row.at("query")}, selection);
    }
    CHECK(selections.size() == mean_at);
    CHECK(selection_rows.size() == selection_at);
    CHECK(std::set<std::string>(audit[0].begin(), audit[0].end()) == audit_keys);
    for (std::size_t i = 1; i < audit.size(); ++i)
        for (std::size_t c = 0; c < audit[0].size(); ++c)
            found.expect(agrees(audit[i][c], json.at("audit").at(i - 1).at(audit[0][c])), "audit.csv ", i, " ",
                         audit[0][c], ": ", audit[i][c]);
    INFO(found.text());
    CHECK(found.text().empty());
    CHECK(found.checks() > 300);
}

TEST_CASE("io report: the same seed gives the same bytes, another one other directions", "[io][report]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("heads.safetensors");
    Input input;
    input.q = normal_tensor({2, 14, 8}, 131, 2);
    input.k = normal_tensor({2, 14, 8}, 132, 2);
    write_safetensors<float>(path, input);
    const auto bytes = [&](const char* seed) {
        const Outcome outcome = run(folder, {path, "--rows", "--json", "-", "--seed", seed});
        REQUIRE(outcome.status == 0);
        return outcome.out;
    };
    const std::string first = bytes("7");
    CHECK(first == bytes("7"));
    const std::string other = bytes("8");
    CHECK(first != other);
    CHECK(Json::parse(first).at("heads") == Json::parse(other).at("heads"));
}

} // namespace

#endif
