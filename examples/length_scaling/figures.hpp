// What is measured on one row under one normaliser.
#pragma once

#include <array>
#include <string_view>

namespace scaling {

/// NaN where a figure is not taken.
struct Figures {
    double needle_weight, weight_sum, entropy, participation, top_mass, distance, distance_per_key, recall,
        spectral, gradient, own_gradient;
    bool spectral_exact; ///< false: a lower bound, see `spectral_norm`
};

/// Name of a figure and where it stands.
struct Figure {
    std::string_view name;
    double Figures::*value;
};
inline constexpr std::array<Figure, 11> all_figures = {{
    {"needle_weight", &Figures::needle_weight},
    {"weight_sum", &Figures::weight_sum},
    {"entropy_nats", &Figures::entropy},
    {"participation_ratio", &Figures::participation},
    {"top_mass", &Figures::top_mass},
    {"distance", &Figures::distance},
    {"distance_per_key", &Figures::distance_per_key},
    {"geometric_recall", &Figures::recall},
    {"spectral_norm", &Figures::spectral},
    {"needle_gradient", &Figures::gradient},
    {"needle_own_gradient", &Figures::own_gradient},
}};

} // namespace scaling
