// Heads in an engine's memory: analysed in two shards that leave states, merged, written as JSON and CSV.
#include <attnscope/capture/make_capture.hpp>
#include <attnscope/io/write_file.hpp>
#include <attnscope/report/csv.hpp>
#include <attnscope/report/json.hpp>
#include <attnscope/report/make_report.hpp>

int main() {
    const Eigen::Index layers = 2, heads = 4, key_heads = 2, n = 100, d = 16;
    attnscope::SplitMix64 random(1);
    std::vector<float> q(layers * heads * n * d), k(layers * key_heads * n * d), v(k.size());
    for (auto* numbers : {&q, &k, &v})
        for (float& x : *numbers) x = float(random.normal());
    std::vector<attnscope::HeadGroup<float>> groups; // strides may be anything: see HeadArray
    for (Eigen::Index layer = 0; layer < layers; ++layer) {
        const auto array = [&](const std::vector<float>& x, Eigen::Index count) {
            return attnscope::HeadArray<float>::contiguous(x.data() + layer * count * n * d, count, n, d);
        };
        groups.emplace_back(array(q, heads), array(k, key_heads), array(v, key_heads));
    }
    const auto capture = make_capture("engine", groups, {{.causal = true}, {.causal = true, .window = 20}});

    const attnscope::ReportOptions options{.threads = 2, .keep_rows = true};
    const auto folder = std::filesystem::temp_directory_path() / "attnscope-snippet-states";
    create_directory(folder);
    const attnscope::HeadStates states(folder.string(), "engine 1.0 with the weights of Monday");
    for (const char* shard : {"1/2", "2/2"}) // each on a machine of its own, or again after a failure
        analyze_shard(capture, options, states, attnscope::Shard::parse(shard));
    const attnscope::Report report = merge_states(capture, options, states);

    for (std::size_t i = 0; i < report.heads.size(); ++i)
        if (report.heads[i].mean(&attnscope::RowColumns::entropy_nats) > 3)
            fmt::print("layer {}, head {} is diffuse: row 99 has {:.1f} keys\n", report.places[i].layer,
                       report.places[i].head, report.head_rows[i].rows.participation_ratio[99]);
    for (const auto& [name, text] : attnscope::io::csv_tables(report, true))
        attnscope::io::write_file((folder / name).string(), text);
    attnscope::io::write_file((folder / "report.json").string(), attnscope::io::to_json(report, true).dump(1));
    fmt::print("{} files\n", std::distance(std::filesystem::directory_iterator(folder), {}));
    remove_all(folder);
}
