// Peers that are Python scripts: found, run, and their own timings read.
#pragma once

#include "harness.hpp"
#include "peers_folder.hpp"

#include <attnscope/io/npy.hpp>

#include <filesystem>

#include <unistd.h>

namespace bench {

/// The first of $ATTNSCOPE_PEER_PYTHON, python3 and /usr/bin/python3 that imports torch; "" if none does, or if the
/// first says "none".
inline std::string python_with_torch() {
    const char* const chosen = std::getenv("ATTNSCOPE_PEER_PYTHON");
    if (chosen != nullptr && std::string(chosen) == "none") return {};
    for (const std::string& python :
         {std::string(chosen ? chosen : ""), std::string("python3"), std::string("/usr/bin/python3")})
        if (!python.empty() &&
            std::system(("'" + python + "' -c 'import torch, numpy' >/dev/null 2>&1").c_str()) == 0)
            return python;
    return {};
}

struct PeerRun {
    double seconds = 0;
    double checksum = 0;
};

/// Runs benchmarks/peers/`script` and reads its lines "seconds checksum". Empty when no Python with torch is
/// there.
inline std::vector<PeerRun> run_peer(const std::string& script, const std::string& arguments) {
    std::vector<PeerRun> runs;
    static const std::string python = [] {
        std::string found = python_with_torch();
        if (found.empty()) std::printf("Without PyTorch (Debian: python3-torch).\n");
        return found;
    }();
    if (python.empty()) return runs;
    // glibc keeps the memory of temporaries: the peer shall not pay for fetching pages anew in every call.
    const std::string command = "MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=10737418240 '" + python + "' '" +
                                peers_folder() + "/" + script + "' " + arguments;
    std::FILE* const pipe = ::popen(command.c_str(), "r");
    if (!pipe) return runs;
    PeerRun run;
    while (std::fscanf(pipe, "%lf %lf", &run.seconds, &run.checksum) == 2) runs.push_back(run);
    if (::pclose(pipe) != 0) {
        std::fprintf(stderr, "%s failed: %s\n", script.c_str(), command.c_str());
        std::exit(1);
    }
    return runs;
}

/// A folder for a peer's input, which goes with this object.
class PeerFiles {
public:
    PeerFiles()
        : folder_(std::filesystem::temp_directory_path() / ("attnscope-peer-" + std::to_string(::getpid()))) {
        std::filesystem::create_directories(folder_);
    }
    ~PeerFiles() { std::filesystem::remove_all(folder_); }
    PeerFiles(const PeerFiles&) = delete;
    PeerFiles& operator=(const PeerFiles&) = delete;

    /// Writes an array of that shape; returns its path as a word of a command.
    std::string write(const std::string& name, const Matrix<float>& m, std::vector<Index> shape) const {
        const std::string path = (folder_ / name).string();
        attnscope::io::write_npy(path, std::span<const float>(m.data(), static_cast<std::size_t>(m.size())),
                                 shape);
        return "'" + path + "' ";
    }

private:
    std::filesystem::path folder_;
};

/// Puts what a script measured into the table, as `contender` in `row`.
inline void add_peer(const std::string& row, const std::string& contender, Work work,
                     const std::vector<PeerRun>& runs) {
    row_order().push_back(row);
    const auto next = std::make_shared<std::size_t>(0);
    benchmark::RegisterBenchmark((row + "/" + contender).c_str(),
                                 [=](benchmark::State& state) {
                                     for (auto _ : state)
                                         state.SetIterationTime(runs[(*next)++ % runs.size()].seconds);
                                     using C = benchmark::Counter;
                                     state.counters["figure"] = C(work.amount * work.unit_in_ns * 1e-9,
                                                                  C::kIsIterationInvariantRate | C::kInvert);
                                 })
        ->UseManualTime()
        ->Iterations(1)
        ->Repetitions(static_cast<int>(runs.size()));
}

} // namespace bench
