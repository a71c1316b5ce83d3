// What do all top-N selections of every causal query of a head cost, for every N: their distances d(N), and the
// precision and recall with which their tokens are told apart? Figures in milliseconds per head.
#include "support/peer.hpp"

namespace {

using namespace bench;

constexpr Index width = 64;

struct Head {
    Matrix<float> weights; ///< [queries, keys], causal
    Matrix<float> values;  ///< [keys, width]
    double sum = 0;        ///< of what was asked for
};

RowIn<float> visible_weights(const Head& head, Index query) {
    return row_in(head.weights, query).first(static_cast<std::size_t>(query + 1));
}

/// s_N and all its distances anew for every N: O(n^2 d) a row, vectorised by Eigen.
double distances_one_by_one(const Head& head) {
    double sum = 0;
    attnscope::Ranking<float> ranking;
    for (Index query = 0; query < head.weights.rows(); ++query) {
        const RowIn<float> p = visible_weights(head, query);
        const Index n = query + 1;
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

/// What figure(p, order) makes of the ranked weights of each row, in all.
template <class Figure>
double sum_over_rows(const Head& head, const Figure& figure) {
    double sum = 0;
    attnscope::Ranking<float> ranking;
    for (Index query = 0; query < head.weights.rows(); ++query) {
        ranking.rank(visible_weights(head, query));
        sum += figure(visible_weights(head, query), ranking.order());
    }
    return sum;
}

double distances(const Head& head) {
    const attnscope::MatrixView<float> x(head.values);
    const Matrix<double> gram = attnscope::gram_matrix(x);
    attnscope::DistanceCurves<float> curves;
    return sum_over_rows(head, [&](RowIn<float> p, std::span<const Index> order) {
        double sum = 0;
        for (const double d : curves.compute(p, x, gram, order, std::ssize(p)).cumulative) sum += d;
        return sum;
    });
}

double separabilities(const Head& head) {
    attnscope::SeparabilityCurves<float> curves;
    curves.assign(attnscope::MatrixView<float>(head.values));
    return sum_over_rows(head, [&](RowIn<float> p, std::span<const Index> order) {
        const auto& curve = curves.compute(p, order, std::ssize(p));
        double sum = 0;
        for (std::size_t i = 0; i < curve.precision.size(); ++i) sum += curve.precision[i] + curve.recall[i];
        return sum;
    });
}

double separabilities_one_by_one(const Head& head) {
    double sum = 0;
    attnscope::Ranking<float> ranking;
    attnscope::SelectedSet<float> set;
    for (Index query = 0; query < head.weights.rows(); ++query) {
        const RowIn<float> p = visible_weights(head, query);
        ranking.rank(p);
        for (Index n = 1; n <= query + 1; ++n) {
            set.assign(p, attnscope::MatrixView<float>(head.values.data(), query + 1, width, width),
                       ranking.order().first(static_cast<std::size_t>(n)));
            const auto figures = attnscope::separability(set);
            sum += figures.precision + figures.recall;
        }
    }
    return sum;
}

/// Both ways to answer a question, and PyTorch's.
void add_question(const std::string& name, const std::string& mode, const std::shared_ptr<Head>& head,
                  double (*all)(const Head&), double (*one_by_one)(const Head&), long double tolerance,
                  bool with_naive) {
    const Index length = head->weights.rows();
    const std::string row = name + ", L=" + std::to_string(length);
    const Work work{1, 1e6};
    add(
        row, "all N at once", work, [=] { head->sum = all(*head); },
        [=](const std::string& who) {
            if (with_naive) verify_close(head->sum, one_by_one(*head), 1e-6L, 0, who, "the sum of all figures");
            verify(head->sum > 0, who, "the sum must be positive");
        },
        length > 256);
    if (with_naive)
        add(
            row, "N by N", work, [=] { head->sum = one_by_one(*head); },
            [=](const std::string& who) {
                verify_close(head->sum, all(*head), 1e-6L, 0, who, "the sum of all figures");
            },
            length > 256);
    const PeerFiles files;
    const std::vector<PeerRun> runs = run_peer(
        "selection_curves.py", files.write("weights.npy", head->weights, {length, length}) +
                                   files.write("values.npy", head->values, {length, width}) + mode + " 3");
    if (runs.empty()) return;
    verify_close(runs.front().checksum, all(*head), tolerance, 0, "PyTorch, " + row, "the sum of all figures");
    add_peer(row, "PyTorch", work, runs);
}

void add_case(Index length) {
    const auto head = std::make_shared<Head>();
    attnscope::SplitMix64 random(1);
    head->values = normal_matrix<float>(length, width, 1, random);
    head->weights = logits<float>(length, length, false);
    for (Index i = 0; i < length; ++i) {
        for (Index j = i + 1; j < length; ++j) head->weights(i, j) = -std::numeric_limits<float>::infinity();
        attnscope::Softmax{}.apply<float>(row_in(head->weights, i), row_out(head->weights, i));
    }
    // PyTorch sums in float, and its distances go through a product: three digits are what it promises; two
    // where a rounding decides which of two tokens is nearer.
    add_question("distances", "distances", head, distances, distances_one_by_one, 1e-3L, true);
    add_question("precision and recall", "separability", head, separabilities, separabilities_one_by_one, 1e-2L,
                 length <= 128); // else minutes
}

} // namespace

int main(int argc, char** argv) {
    for (const Index length : {128, 512, 1024}) add_case(length);
    return run(argc, argv,
               "All top-N selections of every causal query of a head, d=64: milliseconds per head, median, one "
               "thread",
               {"all N at once", "N by N", "PyTorch"});
}
