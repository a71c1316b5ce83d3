// What do the paper's Algorithms 1 and 2 cost from q, k and v: the distances d(N) of the top-N selections of
// every causal query, for five N and for every N? Milliseconds of wall time per head of 1024 tokens, d = 64.
// ATTNSCOPE_HEADS=144 does GPT-2's 12 x 12 heads instead of one.
#include "support/peer.hpp"
#include "support/scan_case.hpp"

#include <attnscope/streaming/threads.hpp>

#include <cstdlib>

namespace {

using namespace bench;

constexpr std::array<Index, 5> few = {1, 5, 10, 20, 100};

/// Gives add(query, N, d(N)) the distances of a head: of every N, or of those that are asked for.
template <class Add>
void for_each_distance(const HeadView<float>& head, bool every, Index threads, const Add& add) {
    const attnscope::Threads executor(threads);
    if (every)
        attnscope::scan_distance_curves(
            head, head.keys(),
            [&](Index query, std::span<const Index>, const auto& curve) {
                for (std::size_t i = 0; i < curve.cumulative.size(); ++i)
                    add(query, static_cast<Index>(i + 1), curve.cumulative[i]);
            },
            Mask::causal(), {}, executor);
    else
        attnscope::scan_distances(
            head, few, attnscope::Softmax(),
            [&](Index query, std::span<const Index>, std::span<const double> distances) {
                for (std::size_t i = 0; i < distances.size(); ++i) add(query, few[i], distances[i]);
            },
            Mask::causal(), {}, executor);
}

/// Sum of d(N) over queries, heads and the N that are asked for.
double sum_of_distances(const Heads& heads, bool every, Index threads) {
    double total = 0;
    for (Index h = 0; h < heads.count; ++h) {
        std::vector<double> sums(static_cast<std::size_t>(heads.length));
        for_each_distance(heads[h], every, threads, [&](Index query, Index, double distance) {
            sums[static_cast<std::size_t>(query)] += distance;
        });
        for (const double sum : sums) total += sum;
    }
    return total;
}

/// The same of the first head, from the definition, in double.
double direct(const Heads& heads, bool every) {
    double total = 0;
    attnscope::Ranking<double> ranking;
    const Matrix<double> q = heads[0].q().map().cast<double>(), k = heads[0].k().map().cast<double>(),
                         v = heads[0].v().map().cast<double>();
    const HeadView<double> head(q, k, v);
    std::vector<double> z(static_cast<std::size_t>(heads.length));
    for (Index query = 0; query < heads.length; query += heads.length / 16) {
        attnscope::logits_of<double>(head, Mask::causal(), query, z);
        attnscope::Softmax{}.apply<double>(z, z);
        const auto p = RowIn<double>(z).first(static_cast<std::size_t>(query + 1));
        ranking.rank(p);
        Eigen::RowVectorXd s = Eigen::RowVectorXd::Zero(heads.width);
        for (Index n = 1; n <= query; ++n) {
            const Index chosen = ranking.order()[static_cast<std::size_t>(n - 1)];
            s += p[static_cast<std::size_t>(chosen)] * v.row(chosen);
            if (!every && std::find(few.begin(), few.end(), n) == few.end()) continue;
            for (Index i = n; i <= query; ++i) {
                const Index other = ranking.order()[static_cast<std::size_t>(i)];
                total += (s - p[static_cast<std::size_t>(other)] * v.row(other)).norm();
            }
        }
    }
    return total;
}

/// What `direct` adds up, from the scan.
double sampled(const Heads& heads, bool every) {
    double total = 0;
    for_each_distance(heads[0], every, 1, [&](Index query, Index, double distance) {
        if (query % (heads.length / 16) == 0) total += distance;
    });
    return total;
}

void add_case(const std::string& name, bool every, Index count) {
    const auto heads = std::make_shared<const Heads>(count, 1024, 64);
    const std::string row = name + ", " + std::to_string(count) + (count == 1 ? " head" : " heads");
    const Work work{static_cast<double>(count), 1e6};
    const Index most = static_cast<Index>(std::max(1U, std::thread::hardware_concurrency()));
    for (const Index threads : {Index(1), most}) {
        if (threads == 1 && most > 1 && count > 12) continue; // minutes
        const auto sum = std::make_shared<double>(0);
        add(
            row, std::to_string(threads) + (threads == 1 ? " thread" : " threads"), work,
            [=] { *sum = sum_of_distances(*heads, every, threads); },
            [=](const std::string& who) {
                verify_close(sampled(*heads, every), direct(*heads, every), 1e-5L, 0, who,
                             "the sum of some d(N)");
                verify(std::isfinite(*sum), who, "the sum is not finite");
            },
            every || count > 1, Clock::wall);
        if (most == 1) break;
    }
    if (count > 1) return;
    const PeerFiles files;
    const std::vector<Index> shape = {count, heads->length, heads->width};
    const std::vector<PeerRun> runs = run_peer(
        "paper_algorithms.py", files.write("q.npy", heads->q, shape) + files.write("k.npy", heads->k, shape) +
                                   files.write("v.npy", heads->v, shape) + (every ? "all" : "few") + " 3");
    if (runs.empty()) return;
    // PyTorch works in float and its distances come from products: three digits are what it promises.
    verify_close(runs.front().checksum, sum_of_distances(*heads, every, 1), 1e-3L, 0, "PyTorch, " + row,
                 "the sum of d(N)");
    add_peer(row, "PyTorch", work, runs);
}

} // namespace

int main(int argc, char** argv) {
    const char* const asked = std::getenv("ATTNSCOPE_HEADS");
    const Index count = asked ? std::max(1, std::atoi(asked)) : 1;
    add_case("N = 1, 5, 10, 20, 100", false, 1);
    add_case("every N", true, 1);
    if (count > 1) {
        add_case("N = 1, 5, 10, 20, 100", false, count);
        add_case("every N", true, count);
    }
    return run(argc, argv,
               "Distances d(N) of every causal query, L=1024, d=64: milliseconds of wall time per head",
               {"1 thread"});
}
