// How fast is alpha-entmax beside the algorithms of the entmax package on PyTorch? Figures in ns per element.
#include "support/entmax_check.hpp"
#include "support/peer.hpp"
#include "support/softmax_check.hpp"

#include <attnscope/io/npy.hpp>

#include <filesystem>

#include <unistd.h>

namespace {

using namespace bench;

constexpr double alphas[] = {2, 1.5, 1.33, 3};

void verify_rows(const Matrix<float>& z, const Matrix<float>& p, double alpha, long double units,
                 const std::string& who) {
    for (Index i = 0; i < z.rows(); ++i) verify_entmax(row_in(z, i), row_in(p, i), alpha, units, who);
}

void add_length(Index length, const std::filesystem::path& folder) {
    const Index rows = std::max(Index(1), elements / length);
    const auto z = std::make_shared<const Matrix<float>>(logits<float>(rows, length, false, 1));
    const auto p = std::make_shared<Matrix<float>>(Matrix<float>::Zero(rows, length));
    const Work work{static_cast<double>(z->size())};
    const std::string in = (folder / "logits.npy").string(), out = (folder / "weights.npy").string();
    attnscope::io::write_npy(in, std::span<const float>(z->data(), static_cast<std::size_t>(z->size())),
                             std::vector<Index>{rows, length});
    for (const double alpha : alphas) {
        char row[60];
        std::snprintf(row, sizeof row, "alpha=%-4g L=%td", alpha, length);
        const attnscope::Entmax entmax(alpha);
        add(
            row, "attnscope", work,
            [=] {
                for (Index i = 0; i < rows; ++i) entmax.apply<float>(row_in(*z, i), row_out(*p, i));
            },
            [=](const std::string& who) { verify_rows(*z, *p, alpha, 64, who); });
        const std::vector<PeerRun> runs =
            run_peer("entmax.py", "'" + in + "' " + std::to_string(alpha) + " 9 '" + out + "'");
        if (runs.empty()) continue;
        const std::vector<float> weights = attnscope::io::read_npy<float>(out).data;
        verify(weights.size() == static_cast<std::size_t>(z->size()), "PyTorch", "its shape");
        // For alpha > 2 a key at the edge has a weight like the square root of the rounding of its threshold.
        verify_rows(*z, Matrix<float>::Map(weights.data(), rows, length), alpha, alpha > 2 ? 2e4L : 500,
                    "PyTorch, " + std::string(row));
        add_peer(row, "PyTorch", work, runs);
    }
}

} // namespace

int main(int argc, char** argv) {
    const auto folder =
        std::filesystem::temp_directory_path() / ("attnscope-peer-" + std::to_string(::getpid()));
    std::filesystem::create_directories(folder);
    for (const Index length : {128, 1024, 16384, 1048576}) add_length(length, folder);
    std::filesystem::remove_all(folder);
    return run(argc, argv,
               "alpha-entmax of rows of L Gaussian logits (deviation 1) in float: ns per element, median, one "
               "thread",
               {"attnscope", "PyTorch"});
}
