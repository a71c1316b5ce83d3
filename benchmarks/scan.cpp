// What do the statistics of every row of a head cost from q, k and v, without the matrix of weights? Figures in
// ns per visible pair of query and key; a bare product in tiles with one exponential for each pair is the
// floor.
#include "support/peer.hpp"
#include "support/scan_case.hpp"

namespace {

using namespace bench;

/// All logits of a head, masked, softmax and statistics row by row: memory for queries x keys.
double by_matrix(const Heads& heads, const Mask& mask) {
    double sum = 0;
    Matrix<float> scores(heads.length, heads.length);
    for (Index h = 0; h < heads.count; ++h) {
        const auto head = heads[h];
        scores.noalias() = head.scale() * (head.q().map() * head.k().map().transpose());
        for (Index i = 0; i < heads.length; ++i) {
            const auto visible = mask.visible(i, heads.length);
            for (Index j = 0; j < heads.length; ++j)
                if (!visible.contains(j)) scores(i, j) = -std::numeric_limits<float>::infinity();
            sum += attnscope::row_statistics<float>(row_in(scores, i)).entropy_nats();
        }
    }
    return sum;
}

double sum_of_entropies(const std::vector<attnscope::Scan<float, 8>>& scans) {
    double sum = 0;
    for (const auto& scan : scans)
        for (const auto& row : scan.rows) sum += row.statistics().entropy_nats();
    return sum;
}

void add_case(const std::string& name, Index count, Index length, Index width, const Mask& mask, bool peer) {
    const auto heads = std::make_shared<const Heads>(count, length, width);
    const auto views = std::make_shared<const std::vector<HeadView<float>>>(heads->views());
    const std::string row = name + ", L=" + std::to_string(length) + ", d=" + std::to_string(width);
    const Work work{heads->pairs(mask)};
    const auto floor = std::make_shared<float>(0.F);
    add(
        row, "product + exp", work, [=] { *floor = product_and_exponential(*heads, mask); },
        [=](const std::string& who) { verify(std::isfinite(*floor), who, "not finite"); });
    for (const bool output : {false, true}) {
        const auto result = std::make_shared<std::vector<attnscope::Scan<float, 8>>>();
        add(
            row, output ? "with output" : "scan", work,
            [=] { *result = attnscope::scan_heads<8>(*views, {mask}, {.output = output}); },
            [=](const std::string& who) { verify_scan(*heads, mask, *result, output, who); });
    }
    const auto sum = std::make_shared<double>(0);
    add(
        row, "by matrix", work, [=] { *sum = by_matrix(*heads, mask); },
        [=](const std::string& who) {
            verify_close(*sum, sum_of_entropies(attnscope::scan_heads<8>(*views, {mask})), 1e-5L, 0, who,
                         "the sum of entropies");
        },
        length > 2048);
    if (!peer) return;

    const PeerFiles files;
    const std::vector<Index> shape = {count, length, width};
    const std::string input =
        files.write("q.npy", heads->q, shape) + files.write("k.npy", heads->k, shape) + "7 ";
    for (const std::string form : {"layer", "heads"}) {
        if (form == "heads" && count == 1) continue;
        const std::vector<PeerRun> runs = run_peer("attention_statistics.py", input + form);
        if (runs.empty()) return;
        verify_close(runs.front().checksum, sum_of_entropies(attnscope::scan_heads<8>(*views, {mask})), 1e-4L,
                     0, "PyTorch, " + row, "the sum of entropies");
        add_peer(row, form == "layer" ? "PyTorch" : "PyTorch by head", work, runs);
    }
}

} // namespace

int main(int argc, char** argv) {
    add_case("12 heads, causal", 12, 1024, 64, Mask::causal(), true);
    add_case("12 heads, window 128", 12, 1024, 64, Mask::sliding_window(128), false);
    add_case("1 head, causal", 1, 1024, 128, Mask::causal(), true);
    add_case("1 head, causal", 1, 8192, 64, Mask::causal(), false);
    return run(argc, argv,
               "Statistics of every row from q, k, v: ns per visible pair of query and key, median, one thread",
               {"product + exp", "scan", "with output", "by matrix", "PyTorch", "PyTorch by head"});
}
