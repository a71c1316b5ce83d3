// What does it cost to judge a selector, and to run a cache that forgets, on a causal head? Milliseconds per head.
#include "support/peer.hpp"

namespace {

using namespace bench;
using attnscope::HeadView;
using attnscope::KeySets;
using attnscope::Mask;
using attnscope::MatrixView;

constexpr Index width = 64, budget = 256;

struct Head {
    Matrix<float> q, k, v;
    KeySets sets;
    Matrix<float> selected;              ///< 1 where a key is selected, for those who take no sets
    double kept = 0, error = 0, sum = 0; ///< means of what was asked for
    HeadView<float> view() const { return {MatrixView<float>(q), MatrixView<float>(k), MatrixView<float>(v)}; }
};

/// Mean mass and output error of all rows, of the sets of a window with sinks.
void judge(Head& head) {
    const auto scan = attnscope::scan_selection(head.view(), head.sets, Mask::causal());
    head.kept = scan.mean(&attnscope::SelectionFigures<double>::kept);
    head.error = scan.mean(&attnscope::SelectionFigures<double>::output_error);
}

/// The same from matrices of all logits, 32 queries at a time, by Eigen.
void judge_dense(Head& head) {
    const Index n = head.q.rows();
    double kept = 0, error = 0;
    const float scale = 1 / std::sqrt(static_cast<float>(width));
    for (Index first = 0; first < n; first += 32) {
        const Index rows = std::min<Index>(32, n - first);
        Matrix<float> z = scale * head.q.middleRows(first, rows) * head.k.topRows(first + rows).transpose();
        for (Index i = 0; i < rows; ++i) {
            z.row(i).tail(rows - 1 - i).setConstant(-std::numeric_limits<float>::infinity());
            z.row(i) = (z.row(i).array() - z.row(i).maxCoeff()).exp();
            z.row(i) /= z.row(i).sum();
        }
        const Matrix<float> in = z.cwiseProduct(head.selected.block(first, 0, rows, z.cols()));
        const Matrix<float> output = z * head.v.topRows(z.cols()), kept_output = in * head.v.topRows(z.cols());
        for (Index i = 0; i < rows; ++i) {
            const double mass = in.row(i).cast<double>().sum();
            kept += mass;
            error += (output.row(i).cast<double>() - kept_output.row(i).cast<double>() / mass).norm();
        }
    }
    head.kept = kept / static_cast<double>(n);
    head.error = error / static_cast<double>(n);
}

void add_judges(Index length) {
    const auto head = std::make_shared<Head>();
    attnscope::SplitMix64 random(1);
    head->q = normal_matrix<float>(length, width, 1.5, random);
    head->k = normal_matrix<float>(length, width, 1.5, random);
    head->v = normal_matrix<float>(length, width, 1, random);
    head->sets = attnscope::evict(attnscope::KeepSinks(4), head->view(), {.budget = budget});
    head->selected.setZero(length, length);
    for (Index query = 0; query < length; ++query)
        for (const Index key : head->sets(query)) head->selected(query, key) = 1;
    const std::string row = "judge 256 keys, L=" + std::to_string(length);
    const Work work{1, 1e6};
    const bool once = length > 2048;
    judge_dense(*head);
    const double kept = head->kept, error = head->error;
    const auto check = [=](const std::string& who) {
        verify_close(head->kept, kept, 1e-4L, 0, who, "the mean mass kept");
        verify_close(head->error, error, 1e-3L, 0, who, "the mean output error");
    };
    add(
        row, "scan_selection", work, [=] { judge(*head); }, check, once);
    add(
        row, "dense, Eigen", work, [=] { judge_dense(*head); }, check, once);
    // The floor: the same products and exponentials without a question about sets.
    const auto scan_alone = [=](bool output) {
        return [=] {
            attnscope::ScanOptions options;
            options.output = output;
            const auto scanned = attnscope::scan(head->view(), Mask::causal(), options);
            head->sum = scanned.rows.back().statistics().entropy_nats();
        };
    };
    const auto sane = [=](const std::string& who) {
        verify(head->sum > 0, who, "the last row must have an entropy");
    };
    add(row, "scan", work, scan_alone(false), sane, once);
    add(row, "scan, output", work, scan_alone(true), sane, once);

    const PeerFiles files;
    const std::vector<PeerRun> runs =
        run_peer("judge_selectors.py", files.write("q.npy", head->q, {length, width}) +
                                           files.write("k.npy", head->k, {length, width}) +
                                           files.write("v.npy", head->v, {length, width}) +
                                           files.write("selected.npy", head->selected, {length, length}) + "3");
    if (runs.empty()) return;
    verify_close(runs.front().checksum, kept + error, 1e-3L, 0, "PyTorch, " + row, "mean mass and error");
    add_peer(row, "PyTorch", work, runs);
}

/// A cache of 256 keys in the order of decoding.
template <class Policy>
void add_cache(const std::string& name, Index length, const Policy& policy) {
    const auto head = std::make_shared<Head>();
    attnscope::SplitMix64 random(1);
    head->q = normal_matrix<float>(length, width, 1.5, random);
    head->k = normal_matrix<float>(length, width, 1.5, random);
    add(
        name + ", L=" + std::to_string(length), "evict", Work{1, 1e6},
        [=] {
            head->sets = attnscope::evict(
                policy, HeadView<float>(MatrixView<float>(head->q), MatrixView<float>(head->k)),
                {.budget = budget});
        },
        [=](const std::string& who) {
            verify(head->sets.queries() == length, who, "every query has a set");
            const auto last = head->sets(length - 1);
            verify(static_cast<Index>(last.size()) == std::min(budget, length), who,
                   "the cache is full at the end");
            verify(last.back() == length - 1, who, "the newest key is there");
        },
        length > 2048);
}

} // namespace

int main(int argc, char** argv) {
    for (const Index length : {1024, 8192}) add_judges(length);
    for (const Index length : {1024, 8192}) {
        add_cache("StreamingLLM", length, attnscope::KeepSinks(4));
        add_cache("H2O", length, attnscope::HeavyHitters(128));
        add_cache("SnapKV", length, attnscope::ObservationWindow(32));
        add_cache("TOVA", length, attnscope::LastQuery());
    }
    return run(argc, argv, "A causal head, d=64, 256 keys a query: milliseconds per head, median, one thread",
               {"scan_selection", "dense, Eigen", "scan", "scan, output", "PyTorch", "evict"});
}
