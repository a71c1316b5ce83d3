// Work on many heads by the ranks of an MPI communicator. Needs the component attnscope::mpi; not in the umbrella.
#pragma once

#include <attnscope/io/analysis_state.hpp>
#include <attnscope/io/streaming_state.hpp>

#include <mpi.h>

#include <functional>
#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// A communicator of our own, so that no message of the caller's meets one of ours.
class OwnCommunicator {
public:
    explicit OwnCommunicator(MPI_Comm comm) {
        MPI_Comm_dup(comm, &comm_);
        MPI_Comm_rank(comm_, &rank_);
        MPI_Comm_size(comm_, &size_);
    }
    ~OwnCommunicator() { MPI_Comm_free(&comm_); }
    OwnCommunicator(const OwnCommunicator&) = delete;
    OwnCommunicator& operator=(const OwnCommunicator&) = delete;
    MPI_Comm get() const { return comm_; }
    int rank() const { return rank_; }
    int size() const { return size_; }

    /// Throws on every rank, if any has something to complain about, what the first of them says.
    void agree(const std::string& complaint) const {
        int first = complaint.empty() ? std::numeric_limits<int>::max() : rank_;
        MPI_Allreduce(MPI_IN_PLACE, &first, 1, MPI_INT, MPI_MIN, comm_);
        if (first == std::numeric_limits<int>::max()) return;
        std::string text = complaint;
        auto size = static_cast<int>(std::min<std::size_t>(text.size(), 1 << 20));
        MPI_Bcast(&size, 1, MPI_INT, first, comm_);
        text.resize(static_cast<std::size_t>(size));
        MPI_Bcast(text.data(), size, MPI_CHAR, first, comm_);
        throw std::runtime_error("rank " + std::to_string(first) + ": " + text);
    }

private:
    MPI_Comm comm_ = MPI_COMM_NULL;
    int rank_ = 0, size_ = 1;
};

/// A number on rank 0 that every rank can raise: who hands out the units of work.
class SharedCounter {
public:
    explicit SharedCounter(const OwnCommunicator& comm) {
        MPI_Win_allocate(comm.rank() == 0 ? static_cast<MPI_Aint>(sizeof(std::int64_t)) : 0,
                         sizeof(std::int64_t), MPI_INFO_NULL, comm.get(), &memory_, &window_);
        if (comm.rank() == 0) {
            MPI_Win_lock(MPI_LOCK_EXCLUSIVE, 0, 0, window_);
            *memory_ = 0;
            MPI_Win_unlock(0, window_);
        }
        MPI_Barrier(comm.get());
        MPI_Win_lock_all(0, window_);
    }
    ~SharedCounter() {
        MPI_Win_unlock_all(window_);
        MPI_Win_free(&window_);
    }
    SharedCounter(const SharedCounter&) = delete;
    SharedCounter& operator=(const SharedCounter&) = delete;

    /// The number before it was raised.
    std::int64_t raise(std::int64_t by) {
        std::int64_t before = 0;
        MPI_Fetch_and_op(&by, &before, MPI_INT64_T, 0, 0, MPI_SUM, window_);
        MPI_Win_flush(0, window_);
        return before;
    }

private:
    MPI_Win window_ = MPI_WIN_NULL;
    std::int64_t* memory_ = nullptr;
};

/// Messages have int sizes: long ones go in pieces.
inline constexpr std::size_t most_of_message = std::size_t(1) << 30;
inline void send_bytes(const std::vector<std::byte>& bytes, int to, MPI_Comm comm) {
    for (std::size_t at = 0; at < bytes.size(); at += most_of_message)
        MPI_Send(bytes.data() + at, static_cast<int>(std::min(most_of_message, bytes.size() - at)), MPI_BYTE,
                 to, 1, comm);
}
inline void receive_bytes(std::vector<std::byte>& bytes, int from, MPI_Comm comm) {
    for (std::size_t at = 0; at < bytes.size(); at += most_of_message)
        MPI_Recv(bytes.data() + at, static_cast<int>(std::min(most_of_message, bytes.size() - at)), MPI_BYTE,
                 from, 1, comm, MPI_STATUS_IGNORE);
}

template <class Result>
std::vector<std::byte> bytes_of(const Result& result) {
    io::StateWriter out;
    io::write(out, result);
    return std::move(out).bytes();
}

template <class Work>
std::string complaint_of(const Work& work) {
    try {
        work();
        return {};
    } catch (const std::exception& error) {
        return *error.what() == '\0' ? "an error without words" : error.what();
    } catch (...) {
        return "an error of an unknown kind";
    }
}

} // namespace detail

/// Calls work() on every rank; if it throws on one, this throws on all of them, `std::runtime_error` with the number and the
/// words of the first such rank. Collective.
template <class Work>
void agree(MPI_Comm comm, const Work& work) {
    const detail::OwnCommunicator own(comm);
    own.agree(detail::complaint_of(work));
}

/// Called on rank 0 with the unit that it begins and how many there are; units are begun in their order.
using UnitProgress = std::function<void(Index, Index)>;

/// Calls work(i) for i = 0 ... count-1, each on one rank, whoever is free next, and on rank 0 take(i, bytes) with what it gave, in
/// the order of the units, whatever the number of ranks. Collective: all ranks name the same count.
/// Cost. One message for each unit; a rank holds the bytes of its own units until all are done, rank 0 one of the others at a
/// time. Where the network cannot reach the counter by itself, ranks may wait until rank 0 calls MPI. Not in two
/// communicators without a common rank at once: Open MPI 4.1 gives the windows of both the same file of shared memory.
/// Throws. On every rank `std::runtime_error` with the number and the words of the first rank whose work threw, or of `take`; no
/// further unit is begun. MPI must be initialised (with MPI_THREAD_FUNNELED where work uses threads); nothing here
/// initialises it.
template <class Work, class Take>
void for_each_unit(MPI_Comm comm, Index count, const Work& work, const Take& take,
                   const UnitProgress& progress = {}) {
    const detail::OwnCommunicator own(comm);
    std::vector<std::pair<std::int64_t, std::vector<std::byte>>> done; // ascending
    std::string complaint;
    {
        detail::SharedCounter counter(own);
        for (std::int64_t i = counter.raise(1); i < count && complaint.empty(); i = counter.raise(1)) {
            complaint = detail::complaint_of([&] {
                if (progress && own.rank() == 0) progress(static_cast<Index>(i), count);
                done.emplace_back(i, work(static_cast<Index>(i)));
            });
            if (!complaint.empty()) counter.raise(std::int64_t(1) << 60); // nobody gets another
        }
    }
    own.agree(complaint);

    // Who has which: every rank sends its own in ascending order.
    std::vector<int> owners(static_cast<std::size_t>(count), own.size());
    for (const auto& unit : done) owners[static_cast<std::size_t>(unit.first)] = own.rank();
    for (std::size_t at = 0; at < owners.size(); at += detail::most_of_message)
        MPI_Allreduce(MPI_IN_PLACE, owners.data() + at,
                      static_cast<int>(std::min(detail::most_of_message, owners.size() - at)), MPI_INT, MPI_MIN,
                      own.get());
    if (own.rank() != 0) {
        for (auto& [number, bytes] : done) {
            const auto size = static_cast<std::int64_t>(bytes.size());
            MPI_Send(&size, 1, MPI_INT64_T, 0, 0, own.get());
            detail::send_bytes(bytes, 0, own.get());
            bytes = {};
        }
    } else {
        std::size_t next = 0;
        for (std::size_t i = 0; i < owners.size(); ++i) {
            std::vector<std::byte> bytes;
            if (owners[i] == 0) {
                bytes = std::move(done[next++].second);
            } else {
                std::int64_t size = 0;
                MPI_Recv(&size, 1, MPI_INT64_T, owners[i], 0, own.get(), MPI_STATUS_IGNORE);
                bytes.resize(static_cast<std::size_t>(size));
                detail::receive_bytes(bytes, owners[i], own.get());
            }
            // After an error what comes is received still, or its sender would wait for ever.
            if (complaint.empty())
                complaint = detail::complaint_of([&] { take(static_cast<Index>(i), std::move(bytes)); });
        }
    }
    own.agree(complaint);
}

/// As `for_each_unit`; gives rank 0 the bytes of all units, other ranks nothing.
template <class Work>
std::vector<std::vector<std::byte>> run_units(MPI_Comm comm, Index count, const Work& work,
                                              const UnitProgress& progress = {}) {
    std::vector<std::vector<std::byte>> all;
    for_each_unit(
        comm, count, work, [&](Index, std::vector<std::byte> bytes) { all.push_back(std::move(bytes)); },
        progress);
    return all;
}

/// Analyses heads 0 ... count-1, analyze(i) on whatever rank is free, and gives rank 0 all of them, in their order and to the
/// bit as one process makes them; other ranks get none. An MPI_Op could not: it would add in an order that depends on the
/// number of ranks. Collective.
/// Throws. As `for_each_unit`.
/// Example: `const auto all = analyze_heads(comm, count, [&](Index head) { return analyze(read(head), options); });`
template <class Analyze>
std::vector<HeadAnalysis> analyze_heads(MPI_Comm comm, Index count, const Analyze& analyze,
                                        const UnitProgress& progress = {}) {
    std::vector<HeadAnalysis> heads;
    for_each_unit(
        comm, count, [&](Index head) { return detail::bytes_of(analyze(head)); },
        [&](Index, const std::vector<std::byte>& bytes) {
            io::StateReader in("a rank's analysis", bytes);
            heads.push_back(io::read_head_analysis(in));
        },
        progress);
    return heads;
}

namespace detail {

template <class HeadOf>
using ScalarOfBlocks =
    ScalarOfHead<std::remove_cvref_t<std::invoke_result_t<const HeadOf&, KeyRange, KeyRange>>>;

} // namespace detail

/// Scans one head in blocks, each on whatever rank is free, and gives rank 0 the scan; others get an empty one. The bits are those of
/// a `BlockMerger` in one process, on any number of ranks: an MPI_Op would add in another order on each. Collective.
/// Shapes and units. head_of(queries, keys), two `KeyRange`, gives the rows of q, and those of k and v, of these ranges: no rank
/// needs more of a head than it scans. Options as for `scan_block`; `sink_exponent` as for `BlockScan::finish`.
/// Cost. As of `scan_block`, for each block of the grid; rank 0 holds the result, and every rank the states of its blocks.
/// Throws. As `for_each_unit`.
/// Example: `const auto rows = scan_blocks(comm, grid, head_of, Mask::causal(), {.output = true});`
template <Index K = 8, class HeadOf, Executor E = Sequential>
Scan<detail::ScalarOfBlocks<HeadOf>, K> scan_blocks(MPI_Comm comm, const BlockGrid& grid, const HeadOf& head_of,
                                                    const Mask& mask = {}, const ScanOptions& options = {},
                                                    std::optional<double> sink_exponent = {}, E&& executor = {},
                                                    const UnitProgress& progress = {}) {
    using T = detail::ScalarOfBlocks<HeadOf>;
    BlockMerger<T, K> merger(grid, sink_exponent);
    for_each_unit(
        comm, grid.size(),
        [&](Index i) {
            return detail::bytes_of(
                scan_block<K>(head_of(grid[i].queries, grid[i].keys), grid.place(i), mask, options, executor));
        },
        [&](Index, const std::vector<std::byte>& bytes) {
            io::StateReader in("a rank's block", bytes);
            merger.take(io::read_block_scan<T, K>(in));
        },
        progress);
    int rank = 0;
    MPI_Comm_rank(comm, &rank);
    return rank == 0 ? merger.finish() : Scan<T, K>();
}

/// What the keys of one head collect, as `scan_column_mass`, in blocks on whatever rank is free; rank 0 gets it, others an empty one.
/// Shapes and units. `totals` [queries]: the log-sum-exp of each row, on rank 0; others may give nothing. Further as `scan_blocks`.
/// Throws. As `for_each_unit`, and on every rank what `ColumnSums::mean` says of totals that do not fit.
template <class HeadOf, Executor E = Sequential>
ColumnScan scan_block_columns(MPI_Comm comm, const BlockGrid& grid, const HeadOf& head_of,
                              std::vector<double> totals, const Mask& mask = {},
                              const TileOptions& options = {}, E&& executor = {},
                              const UnitProgress& progress = {}) {
    int rank = 0;
    MPI_Comm_rank(comm, &rank);
    agree(comm, [&] {
        detail::require(rank != 0 || static_cast<Index>(totals.size()) == grid.queries(), "scan_block_columns",
                        "there must be one log-sum-exp for each query", totals.size(), grid.queries());
    });
    totals.resize(static_cast<std::size_t>(grid.queries()));
    for (std::size_t at = 0; at < totals.size(); at += detail::most_of_message / sizeof(double))
        MPI_Bcast(totals.data() + at,
                  static_cast<int>(std::min(detail::most_of_message / sizeof(double), totals.size() - at)),
                  MPI_DOUBLE, 0, comm);
    ColumnMerger merger(grid);
    for_each_unit(
        comm, grid.size(),
        [&](Index i) {
            const KeyRange own = grid[i].queries;
            const std::span<const double> of_block = std::span<const double>(totals).subspan(
                static_cast<std::size_t>(own.begin), static_cast<std::size_t>(own.size()));
            return detail::bytes_of(scan_block_columns(head_of(own, grid[i].keys), grid.place(i), of_block,
                                                       mask, options, executor));
        },
        [&](Index, const std::vector<std::byte>& bytes) {
            io::StateReader in("a rank's block", bytes);
            merger.take(io::read_column_sums(in));
        },
        progress);
    ColumnScan result;
    agree(comm, [&] {
        if (rank == 0) result = merger.finish();
    });
    return result;
}

} // namespace v0_2
} // namespace attnscope
