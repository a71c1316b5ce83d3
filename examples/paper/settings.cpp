#include "settings.hpp"

#include <algorithm>
#include <cmath>

namespace paper {

void fill_grids(Settings& settings, Index length, bool quick) {
    settings.lengths.clear();
    for (Index l = 32; l < length; l *= 2) settings.lengths.push_back(l);
    settings.lengths.push_back(length);

    const Index dense = quick ? 0 : static_cast<Index>(0.15 * static_cast<double>(length));
    std::vector<Index> counts = {1, 2, 3, 4, 5, 8, 10, 16, 20, 32, 64, 100, 128, 256, 512};
    for (Index n = 1; n <= dense; ++n) counts.push_back(n);
    const double steps = quick ? 6 : 12; // for each factor of 10
    for (double step = 0;; ++step) {
        const double n = std::round(std::pow(10, step / steps));
        if (n >= static_cast<double>(length)) break;
        counts.push_back(static_cast<Index>(n));
    }
    counts.push_back(length - 1);
    std::sort(counts.begin(), counts.end());
    counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
    std::erase_if(counts, [&](Index n) { return n < 1 || n >= length; });
    settings.counts = counts;

    const auto below = [&](std::vector<Index> list) {
        std::erase_if(list, [&](Index n) { return n >= length; });
        return list;
    };
    settings.audited = below(quick ? std::vector<Index>{1, 5, 20} : std::vector<Index>{1, 5, 10, 20, 100});
    settings.balls =
        below(quick ? std::vector<Index>{2, 8, 32} : std::vector<Index>{2, 4, 8, 16, 32, 64, 128, 256});
    settings.planned_rows = quick ? std::min<Index>(8, settings.planned_rows) : settings.planned_rows;
    settings.seeded_rows = quick ? std::min<Index>(4, settings.seeded_rows) : settings.seeded_rows;
    settings.temperatures = quick ? std::vector<double>{0.01, 0.1, 1, 10}
                                  : std::vector<double>{0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10};
    settings.steps = {1e-3, 1e-1, 10};
}

} // namespace paper
