// Takes the figures of one row under one normaliser.
#pragma once

#include "figures.hpp"
#include "spectral.hpp"

#include <attnscope/attnscope.hpp>
#include <attnscope/runtime/any_normalizer.hpp>

namespace scaling {

using attnscope::Index;

/// A row with its needle.
struct PlantedRow {
    std::span<const float> logits;
    std::size_t needle = 0;
    std::span<const Index> top; ///< the keys of the N largest logits, from the largest down
    attnscope::MatrixView<float> values;
};

/// Takes the figures of rows, one after the other; keeps its memory.
class RowFigures {
public:
    /// `detailed`: also those that need values or derivatives.
    Figures take(const attnscope::AnyNormalizer& normalizer, const PlantedRow& row, bool detailed);

private:
    void weigh(Figures& figures, const PlantedRow& row);
    void select(Figures& figures, const PlantedRow& row);
    void differentiate(Figures& figures, const attnscope::AnyNormalizer& normalizer, const PlantedRow& row);
    std::span<const Index> largest_weights(const PlantedRow& row);

    AlignedRow weights_, direction_;
    attnscope::Ranking<float> ranking_;
    attnscope::SelectedSet<float> set_;
};

} // namespace scaling
