// What do the distances d(N) of all top-N selections, for every N and every causal query of a head, cost?
// Figures in milliseconds per head.
#include "support/harness.hpp"
#include "support/peer.hpp"

#include <attnscope/io/npy.hpp>

#include <filesystem>

#include <unistd.h>

namespace {

using namespace bench;

constexpr Index width = 64;

struct Head {
    Matrix<float> weights; ///< [queries, keys], causal
    Matrix<float> values;  ///< [keys, width]
    double ours = 0, naive = 0;
};

/// s_N and all its distances anew for every N: O(n^2 d) a row, vectorised by Eigen.
double direct(const Head& head) {
    double sum = 0;
    attnscope::Ranking<float> ranking;
    for (Index query = 0; query < head.weights.rows(); ++query) {
        const Index n = query + 1;
        const RowIn<float> p = row_in(head.weights, query).first(static_cast<std::size_t>(n));
        ranking.rank(p);
        Matrix<double> y(n, width);
        for (Index i = 0; i < n; ++i) {
            const Index key = ranking.order()[static_cast<std::size_t>(i)];
            y.row(i) = head.values.row(key).cast<double>() * double(p[static_cast<std::size_t>(key)]);
        }
        Eigen::Matrix<double, 1, width> s = Eigen::Matrix<double, 1, width>::Zero();
        for (Index i = 0; i < n; ++i) {
            s += y.row(i);
            for (Index j = i + 1; j < n; ++j) sum += (s - y.row(j)).norm();
        }
    }
    return sum;
}

double ours(const Head& head) {
    double sum = 0;
    const attnscope::MatrixView<float> x(head.values);
    const Matrix<double> gram = attnscope::gram_matrix(x);
    attnscope::Ranking<float> ranking;
    attnscope::DistanceCurves<float> curves;
    for (Index query = 0; query < head.weights.rows(); ++query) {
        const RowIn<float> p = row_in(head.weights, query).first(static_cast<std::size_t>(query + 1));
        ranking.rank(p);
        for (const double d : curves.compute(p, x, gram, ranking.order(), query + 1).cumulative) sum += d;
    }
    return sum;
}

void add_case(Index length) {
    const auto head = std::make_shared<Head>();
    attnscope::SplitMix64 random(1);
    head->values.resize(length, width);
    for (Index i = 0; i < head->values.size(); ++i)
        head->values.data()[i] = static_cast<float>(random.normal());
    head->weights = logits<float>(length, length, false);
    for (Index i = 0; i < length; ++i) {
        for (Index j = i + 1; j < length; ++j) head->weights(i, j) = -std::numeric_limits<float>::infinity();
        attnscope::Softmax{}.apply<float>(row_in(head->weights, i), row_out(head->weights, i));
    }
    const std::string row = "L=" + std::to_string(length) + ", d=" + std::to_string(width);
    const Work work{1, 1e6};
    add(
        row, "all N at once", work, [=] { head->ours = ours(*head); },
        [=](const std::string& who) {
            verify_close(head->ours, direct(*head), 1e-6L, 0, who, "the sum of all d(N)");
        },
        length > 256);
    add(
        row, "N by N", work, [=] { head->naive = direct(*head); },
        [=](const std::string& who) {
            verify_close(head->naive, ours(*head), 1e-6L, 0, who, "the sum of all d(N)");
        },
        length > 256);

    const auto folder =
        std::filesystem::temp_directory_path() / ("attnscope-peer-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder);
    const std::string p = (folder / "weights.npy").string(), x = (folder / "values.npy").string();
    const auto count = [](Index size) { return static_cast<std::size_t>(size); };
    attnscope::io::write_npy(p, std::span<const float>(head->weights.data(), count(head->weights.size())),
                             std::vector<Index>{length, length});
    attnscope::io::write_npy(x, std::span<const float>(head->values.data(), count(head->values.size())),
                             std::vector<Index>{length, width});
    const std::vector<PeerRun> runs = run_peer("distance_curves.py", "'" + p + "' '" + x + "' 3");
    std::filesystem::remove_all(folder);
    if (runs.empty()) return;
    // PyTorch sums in float and its cdist goes through a product: three digits are what it promises.
    verify_close(runs.front().checksum, ours(*head), 1e-3L, 0, "PyTorch, " + row, "the sum of all d(N)");
    add_peer(row, "PyTorch", work, runs);
}

} // namespace

int main(int argc, char** argv) {
    for (const Index length : {128, 512, 1024}) add_case(length);
    return run(argc, argv,
               "All distances d(N) of every causal query of a head: milliseconds per head, median, one thread",
               {"all N at once", "N by N", "PyTorch"});
}
