// Work on many heads by the ranks of an MPI communicator. Needs the component attnscope::mpi; not in the umbrella.
#pragma once

#include <attnscope/io/analysis_state.hpp>

#include <mpi.h>

#include <limits>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace attnscope {
inline namespace v0_1 {
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

/// Calls work(i) for i = 0 ... count-1, each on one rank, whoever is free next, and gives rank 0 the bytes of all of them, in
/// their order, whatever the number of ranks; other ranks get nothing. Collective: all ranks name the same count.
/// Cost. One message for each unit; rank 0 holds all bytes. Where the network cannot reach the counter by itself, ranks may wait
/// until rank 0 calls MPI. Not in two communicators without a common rank at once: Open MPI 4.1 gives the windows of both the
/// same file of shared memory.
/// Throws. On every rank `std::runtime_error` with the number and the words of the first rank whose work threw; no further
/// unit is begun. MPI must be initialised (with MPI_THREAD_FUNNELED where work uses threads); nothing here initialises it.
template <class Work>
std::vector<std::vector<std::byte>> run_units(MPI_Comm comm, Index count, const Work& work) {
    const detail::OwnCommunicator own(comm);
    std::vector<std::pair<std::int64_t, std::vector<std::byte>>> done;
    std::string complaint;
    {
        detail::SharedCounter counter(own);
        for (std::int64_t i = counter.raise(1); i < count && complaint.empty(); i = counter.raise(1)) {
            complaint = detail::complaint_of([&] { done.emplace_back(i, work(static_cast<Index>(i))); });
            if (!complaint.empty()) counter.raise(std::int64_t(1) << 60); // nobody gets another
        }
    }
    own.agree(complaint);

    std::vector<std::vector<std::byte>> all(own.rank() == 0 ? static_cast<std::size_t>(count) : 0);
    const auto units = static_cast<std::int64_t>(done.size());
    std::vector<std::int64_t> counts(static_cast<std::size_t>(own.size()));
    MPI_Gather(&units, 1, MPI_INT64_T, counts.data(), 1, MPI_INT64_T, 0, own.get());
    if (own.rank() != 0) {
        for (const auto& [number, bytes] : done) {
            const std::array<std::int64_t, 2> head{number, static_cast<std::int64_t>(bytes.size())};
            MPI_Send(head.data(), 2, MPI_INT64_T, 0, 0, own.get());
            detail::send_bytes(bytes, 0, own.get());
        }
        return all;
    }
    for (auto& [number, bytes] : done) all[static_cast<std::size_t>(number)] = std::move(bytes);
    for (int from = 1; from < own.size(); ++from)
        for (std::int64_t i = 0; i < counts[static_cast<std::size_t>(from)]; ++i) {
            std::array<std::int64_t, 2> head{};
            MPI_Recv(head.data(), 2, MPI_INT64_T, from, 0, own.get(), MPI_STATUS_IGNORE);
            std::vector<std::byte>& bytes = all[static_cast<std::size_t>(head[0])];
            bytes.resize(static_cast<std::size_t>(head[1]));
            detail::receive_bytes(bytes, from, own.get());
        }
    return all;
}

/// Analyses heads 0 ... count-1, analyze(i) on whatever rank is free, and gives rank 0 all of them, in their order and to the
/// bit as one process makes them; other ranks get none. An MPI_Op could not: it would add in an order that depends on the
/// number of ranks. Collective.
/// Throws. As `run_units`.
/// Example: `const auto all = analyze_heads(comm, count, [&](Index head) { return analyze(read(head), options); });`
template <class Analyze>
std::vector<HeadAnalysis> analyze_heads(MPI_Comm comm, Index count, const Analyze& analyze) {
    std::vector<HeadAnalysis> heads;
    for (const auto& bytes : run_units(comm, count, [&](Index head) {
             io::StateWriter out;
             io::write(out, analyze(head));
             return std::move(out).bytes();
         })) {
        io::StateReader in("a rank's analysis", bytes);
        heads.push_back(io::read_head_analysis(in));
    }
    return heads;
}

} // namespace v0_1
} // namespace attnscope
