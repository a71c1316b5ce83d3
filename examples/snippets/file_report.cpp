// A file of heads: its report, as attnscope-report makes it.
#include <attnscope/capture/open_capture.hpp>
#include <attnscope/problems/heads.hpp>
#include <attnscope/report/json.hpp>
#include <attnscope/report/make_report.hpp>
#include <attnscope/report/table.hpp>

int main() {
    std::vector<double> q, k, v; // [heads, tokens, width]
    attnscope::SplitMix64 random(1);
    for (const double sink : {0.0, 8.0}) {
        const auto head = attnscope::problems::synthetic_head(64, 32, {.sink = sink, .local = 2}, random);
        for (auto [from, to] : {std::pair(&head.q, &q), {&head.k, &k}, {&head.v, &v}})
            to->insert(to->end(), from->data(), from->data() + from->size());
    }
    attnscope::io::SafetensorsWriter writer;
    for (auto [name, numbers] : {std::pair("q", &q), {"k", &k}, {"v", &v}})
        writer.add(name, std::span<const double>(*numbers), {2, 64, 32});
    const auto path = std::filesystem::temp_directory_path() / "attnscope-snippet-heads.safetensors";
    writer.write(path.string());

    const attnscope::Capture capture = attnscope::open_capture({path.string()}, {.causal = true});
    const attnscope::Report report = attnscope::make_report(capture, {.threads = 2});
    const std::string text = to_table(report); // fmt::print("{}", report) prints all of it
    const std::size_t table = text.find("layer head");
    fmt::print("{}\n\n", text.substr(table, text.find("\n\n", table) - table));
    fmt::print("sharp statements violated: {}\n", report.audit.sharp_violations());
    const auto json = attnscope::io::to_json(report);
    fmt::print("head 1: mean weight of the first key {:.3f}\n",
               json["heads"][1]["mean"]["first_key_weight"].get<double>());
    std::filesystem::remove(path);
}
