// How does the time of a scan grow with length, width and threads? Figures in ns of wall time per visible pair.
#include "support/scan_case.hpp"

#include <attnscope/streaming/threads.hpp>

namespace {

using namespace bench;

void add_case(Index count, Index length, Index width) {
    const auto heads = std::make_shared<const Heads>(count, length, width);
    const auto views = std::make_shared<const std::vector<HeadView<float>>>(heads->views());
    const std::string row = std::to_string(count) + (count == 1 ? " head, L=" : " heads, L=") +
                            std::to_string(length) + ", d=" + std::to_string(width);
    const Mask mask = Mask::causal();
    const Index most = static_cast<Index>(std::max(1U, std::thread::hardware_concurrency()));
    for (const bool output : {false, true})
        for (Index threads = 1; threads <= most; threads *= 2) {
            const auto result = std::make_shared<std::vector<attnscope::Scan<float, 8>>>();
            add(
                row,
                std::to_string(threads) + (threads == 1 ? " thread" : " threads") + (output ? ", output" : ""),
                Work{heads->pairs(mask)},
                [=] {
                    *result = attnscope::scan_heads<8>(*views, {mask}, {.output = output},
                                                       attnscope::Threads(threads));
                },
                [=](const std::string& who) { verify_scan(*heads, mask, *result, output, who); },
                length > 16384, Clock::wall);
        }
}

} // namespace

int main(int argc, char** argv) {
    for (const Index length : {256, 1024, 4096, 16384})
        for (const Index width : {64, 128}) add_case(length <= 1024 ? 12 : 1, length, width);
    return run(argc, argv, "Causal scan, 8 leading keys a row: ns of wall time per visible pair, median",
               {"1 thread", "2 threads", "4 threads", "8 threads", "1 thread, output", "2 threads, output"});
}
