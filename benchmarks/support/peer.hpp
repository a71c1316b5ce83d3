// Peers that are Python scripts: found, run, and their own timings read.
#pragma once

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

namespace bench {

/// The first of $ATTNSCOPE_PEER_PYTHON, python3 and /usr/bin/python3 that imports torch; "" if none does.
inline std::string python_with_torch() {
    const char* const chosen = std::getenv("ATTNSCOPE_PEER_PYTHON");
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
    const std::string python = python_with_torch();
    if (python.empty()) {
        std::printf("PyTorch is not installed: skipped (Debian: python3-torch).\n");
        return runs;
    }
    const std::string command = "'" + python + "' '" ATTNSCOPE_PEERS_DIR "/" + script + "' " + arguments;
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

} // namespace bench
