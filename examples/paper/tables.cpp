#include "tables.hpp"

#include <attnscope/io/experiments_csv.hpp>
#include <attnscope/io/experiments_json.hpp>

namespace paper {
namespace {

std::string to_json(const Result& result) {
    using Json = nlohmann::ordered_json;
    const attnscope::ExperimentOptions& options = result.options;
    Json json;
    json["schema"] = "attnscope.paper/1";
    json["model"] = {{"origin", attnscope::printable(result.model)},
                     {"shape", result.shape},
                     {"trained", result.trained},
                     {"layers", result.layers},
                     {"heads", result.heads_per_layer},
                     {"vector_width", result.vector_width}};
    json["text"] = {{"source", attnscope::printable(result.text)},
                    {"tokens", result.tokens()},
                    {"available", result.available}};
    json["loss_nats"] = result.loss;
    json["seconds"] = {{"all", result.seconds}, {"forward", result.forward_seconds}};
    json["settings"] = {{"vectors", token_names[static_cast<std::size_t>(result.token)]},
                        {"unit_vectors", unit_names[static_cast<std::size_t>(options.unit_vectors)]},
                        {"reading", result.resultant() ? "resultant" : "cumulative"},
                        {"short_rows", short_row_names[static_cast<std::size_t>(options.short_rows)]},
                        {"level", options.level},
                        {"radius", options.radius ? Json(*options.radius) : Json("nearest")},
                        {"seed", options.seed},
                        {"seeded_rows", options.sampled_rows},
                        {"temperatures", options.temperatures},
                        {"eps", options.steps}};
    for (const auto& [name, choice] : choices(result)) json["choices"][name] = choice;
    json.update(attnscope::io::to_json(result));
    return json.dump(1) + "\n";
}

} // namespace

std::vector<std::string> names_of_tables() {
    std::vector<std::string> names;
    for (const auto& table : attnscope::io::experiment_tables) names.emplace_back(table.file);
    names.emplace_back(json_name);
    return names;
}

std::vector<File> tables(const Result& result) {
    std::vector<File> files;
    for (const auto& table : attnscope::io::experiment_tables)
        files.push_back({std::string(table.file), table.text(result)});
    files.push_back({std::string(json_name), to_json(result)});
    return files;
}

} // namespace paper
