// Logits of your own engine, tile by tile.
#include <attnscope/attnscope.hpp>
#include <cstdio>

int main() {
    const attnscope::Index n = 5000; // n x n logits are never there at once
    const auto source = [](attnscope::Index query, attnscope::Index key, attnscope::TileOut<float> tile) {
        for (attnscope::Index i = 0; i < tile.rows(); ++i) // the block that begins at (query, key)
            for (attnscope::Index j = 0; j < tile.cols(); ++j)
                tile(i, j) = 3 * std::cos(0.01F * float(query + i) * float(1 + (key + j) % 7));
    };
    const auto scan = attnscope::scan_tiles<4>(n, n, source, attnscope::Mask::sliding_window(256));
    const auto row = scan.rows[4999].statistics();
    std::printf("%td keys seen, entropy %.3f nats, participation %.1f keys\n", row.visible, row.entropy_nats(),
                row.participation_ratio());
    std::printf("rows done: %td of %td\n", scan.count(attnscope::RowStatus::normal), n);
}
