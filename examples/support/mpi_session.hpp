// From the first to the last call of MPI, in programs that run on several ranks.
#pragma once

#include <support/program.hpp>

#include <mpi.h>

#include <cstdio>

namespace program {

/// Rank 0 speaks: results and errors, which all ranks have alike.
class MpiSession {
public:
    MpiSession(int& argc, char**& argv) {
        int provided = 0;
        MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
        MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
        if (rank_ == 0) return;
        errors_are_told = false;
        if (!std::freopen("/dev/null", "w", stdout)) MPI_Abort(MPI_COMM_WORLD, 1);
    }
    ~MpiSession() { MPI_Finalize(); }
    MpiSession(const MpiSession&) = delete;
    MpiSession& operator=(const MpiSession&) = delete;
    int rank() const { return rank_; }

private:
    int rank_ = 0;
};

} // namespace program
