// Run by mpirun on 1, 2 and 4 ranks: units come back whole and in their order, analyses to the bit, and an error of one rank is
// one of all of them, in its own words, without a deadlock.
#include <attnscope/analysis/analyze.hpp>
#include <attnscope/mpi.hpp>

#include <chrono>
#include <cstdio>
#include <functional>
#include <thread>

namespace {

using namespace attnscope;

int rank_of(MPI_Comm comm) {
    int rank = 0;
    MPI_Comm_rank(comm, &rank);
    return rank;
}

/// Ends all ranks, so that none waits for one that has failed.
void require(bool right, const char* what) {
    if (right) return;
    std::fprintf(stderr, "rank %d: %s\n", rank_of(MPI_COMM_WORLD), what);
    MPI_Abort(MPI_COMM_WORLD, 1);
}

std::string message_of(const std::function<void()>& work) {
    try {
        work();
    } catch (const std::runtime_error& error) {
        return error.what();
    }
    return {};
}

/// `i`, its size depending on it.
std::vector<std::byte> unit(Index i) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(i * i % 1000));
    for (std::size_t at = 0; at < bytes.size(); ++at)
        bytes[at] = static_cast<std::byte>((i + static_cast<Index>(at)) % 251);
    return bytes;
}

Matrix<double> drawn(SplitMix64& random, Index rows, Index cols) {
    Matrix<double> m(rows, cols);
    for (Index i = 0; i < m.size(); ++i) m.data()[i] = random.normal();
    return m;
}

HeadAnalysis analysis(Index head) {
    SplitMix64 random(static_cast<std::uint64_t>(head));
    const Matrix<double> q = drawn(random, 20, 4), k = drawn(random, 20, 4), v = drawn(random, 20, 3);
    AnalysisOptions options;
    options.mask = Mask::causal();
    return analyze(q, k, v, options);
}

std::vector<std::byte> bytes_of(const HeadAnalysis& head) {
    io::StateWriter out;
    io::write(out, head);
    return out.bytes();
}

/// A head whose blocks the ranks scan: to the bit as one process merges them, and to rounding as it is scanned whole.
void test_blocks(MPI_Comm comm) {
    const int rank = rank_of(comm);
    SplitMix64 random(3);
    const Index queries = 70, keys = 90;
    const Matrix<float> q = drawn(random, queries, 6).cast<float>(), k = drawn(random, keys, 6).cast<float>(),
                        v = drawn(random, keys, 3).cast<float>();
    const Mask mask = Mask::causal_bottom_right(queries, keys);
    const BlockGrid grid(queries, keys, mask, {.queries = 16, .keys = 32});
    const auto head_of = [&](KeyRange of, KeyRange part) {
        return HeadView<float>(MatrixView<float>(q.row(of.begin).data(), of.size(), q.cols()),
                               MatrixView<float>(k.row(part.begin).data(), part.size(), k.cols()),
                               MatrixView<float>(v.row(part.begin).data(), part.size(), v.cols()));
    };
    const ScanOptions options{.output = true};
    const auto rows = scan_blocks(comm, grid, head_of, mask, options, 0.5);
    std::vector<double> totals;
    for (const auto& row : rows.rows) totals.push_back(row.statistics().log_sum_exp());
    const auto columns = scan_block_columns(comm, grid, head_of, totals, mask);
    require(message_of([&] {
                scan_block_columns(comm, grid, head_of, std::vector<double>(3), mask);
            }).find("one log-sum-exp for each query") != std::string::npos,
            "too few totals are taken");
    totals.assign(totals.size(), 0);
    require(!message_of([&] { scan_block_columns(comm, grid, head_of, totals, mask); }).empty(),
            "totals that do not fit are taken");
    if (rank != 0) return require(rows.rows.empty() && columns.mass.size() == 0, "results belong to rank 0");

    BlockMerger<float> merger(grid, 0.5);
    for (Index i = 0; i < grid.size(); ++i)
        merger.take(scan_block(head_of(grid[i].queries, grid[i].keys), grid.place(i), mask, options));
    const auto alone = merger.finish();
    require(rows.rows == alone.rows && rows.output == alone.output, "ranks have other bits than one process");
    ScanOptions with_sink = options;
    with_sink.sink_logit = 0.5;
    const HeadView<float> head(q, k, v);
    const auto whole = scan(head, mask, with_sink);
    require(rows.output.isApprox(whole.output, 1e-5f), "the output of blocks is not that of the head");
    require(columns.mass.isApprox(scan_column_mass(head, scan(head, mask), mask).mass, 1e-5),
            "the columns of blocks are not those of the head");
}

void run_tests(MPI_Comm comm) {
    const int rank = rank_of(comm);
    int size = 1;
    MPI_Comm_size(comm, &size);
    for (const Index count : {0, 1, 3, 200}) {
        int own = 0;
        const auto all = run_units(comm, count, [&](Index i) {
            ++own;
            if (count == 3) std::this_thread::sleep_for(std::chrono::milliseconds(20)); // others come between
            return unit(i);
        });
        require(static_cast<Index>(all.size()) == (rank == 0 ? count : 0), "results belong to rank 0");
        for (std::size_t i = 0; i < all.size(); ++i)
            require(all[i] == unit(static_cast<Index>(i)), "a unit is not what its work gave");
        int total = 0;
        MPI_Allreduce(&own, &total, 1, MPI_INT, MPI_SUM, comm);
        require(total == count, "every unit is done once");
    }
    // To the bit as one process.
    const auto heads = analyze_heads(comm, 9, analysis);
    for (std::size_t i = 0; i < heads.size(); ++i)
        require(bytes_of(heads[i]) == bytes_of(analysis(static_cast<Index>(i))),
                "an analysis is not that of one process");
    require(rank != 0 || heads.size() == 9, "heads are missing");

    // One at a time, in the order of the units, whoever had them; progress counts up on rank 0 alone.
    Index next = 0, last_begun = -1;
    for_each_unit(
        comm, 50, unit,
        [&](Index i, const std::vector<std::byte>& bytes) {
            require(i == next++ && bytes == unit(i), "units come out of their order");
        },
        [&](Index i, Index count) {
            require(rank == 0 && count == 50 && i > last_begun, "progress does not count up");
            last_begun = i;
        });
    require(next == (rank == 0 ? 50 : 0), "units are missing");
    const std::string refused = message_of([&] {
        for_each_unit(comm, 50, unit, [](Index i, const std::vector<std::byte>&) {
            if (i == 7) throw std::runtime_error("no room for unit 7");
        });
    });
    require(refused == "rank 0: no room for unit 7", "what rank 0 could not take is lost");

    test_blocks(comm);

    // Whoever gets unit 5 throws: all ranks say so, and no more than a few units are begun afterwards.
    int begun = 0;
    const std::string said = message_of([&] {
        run_units(comm, 100000, [&](Index i) -> std::vector<std::byte> {
            ++begun;
            if (i == 5) throw std::runtime_error("head 5 has no keys");
            std::this_thread::sleep_for(std::chrono::microseconds(100));
            return {};
        });
    });
    require(said.find("rank ") == 0 && said.find("head 5 has no keys") != std::string::npos,
            "the error of a rank is lost");
    int all_begun = 0;
    MPI_Allreduce(&begun, &all_begun, 1, MPI_INT, MPI_SUM, comm);
    require(all_begun < 100000, "work goes on after an error");
    // One rank cannot even begin.
    const std::string last = message_of([&] {
        agree(comm, [&] {
            if (rank == size - 1) throw std::runtime_error("no such file");
        });
    });
    require(last == "rank " + std::to_string(size - 1) + ": no such file", "what a rank could not do is lost");
    require(message_of([&] { agree(comm, [] {}); }).empty(), "an error out of nothing");
    // And afterwards everything works as before.
    require(run_units(comm, 4, unit).size() == (rank == 0 ? 4u : 0u), "nothing works after an error");
}

} // namespace

int main(int argc, char** argv) {
    int provided = 0;
    MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
    run_tests(MPI_COMM_WORLD);
    // A communicator of some ranks.
    MPI_Comm half = MPI_COMM_NULL;
    MPI_Comm_split(MPI_COMM_WORLD, rank_of(MPI_COMM_WORLD) % 2, 0, &half);
    for (int turn = 0; turn < 2; ++turn) { // see run_units: not both at once
        if (rank_of(MPI_COMM_WORLD) % 2 == turn) run_tests(half);
        MPI_Barrier(MPI_COMM_WORLD);
    }
    MPI_Comm_free(&half);
    if (rank_of(MPI_COMM_WORLD) == 0) std::puts("all of it holds");
    MPI_Finalize();
}
