#include "selection.hpp"

#include <attnscope/audit/certificates.hpp>

namespace report {

using attnscope::MatrixView;
using attnscope::RowIn;

void SelectionAnalyser::begin_head(const std::optional<attnscope::Matrix<double>>& values) {
    constexpr Index longest = 8192; // 512 MB; beyond, inner products are taken when they are needed
    values_ = values ? &*values : nullptr;
    has_gram_ = values_ && values_->rows() <= longest;
    if (has_gram_) gram_ = attnscope::gram_matrix(MatrixView<double>(*values_));
}

std::vector<SelectionFigures> SelectionAnalyser::row(RowIn<double> p, RowIn<double> logits, bool expectations,
                                                     attnscope::Audit& audit, attnscope::SplitMix64& random) {
    const double not_known = std::numeric_limits<double>::quiet_NaN();
    const auto sees = [](double z) { return z > -std::numeric_limits<double>::infinity(); };
    const Index visible = std::count_if(logits.begin(), logits.end(), sees);
    // Causal rows see a prefix, whose weights, values and inner products need no copy.
    const bool prefix = std::all_of(logits.begin(), logits.begin() + visible, sees);
    RowIn<double> weights = p.first(static_cast<std::size_t>(visible));
    MatrixView<double> x;
    if (prefix) {
        if (values_) x = MatrixView<double>(values_->data(), visible, values_->cols());
    } else {
        gathered_.clear();
        if (values_) gathered_values_.resize(visible, values_->cols());
        for (std::size_t key = 0; key < p.size(); ++key) {
            if (!sees(logits[key])) continue;
            if (values_)
                gathered_values_.row(static_cast<Index>(gathered_.size())) =
                    values_->row(static_cast<Index>(key));
            gathered_.push_back(p[key]);
        }
        weights = gathered_;
        if (values_) x = MatrixView<double>(gathered_values_);
    }
    const attnscope::Matrix<double>* const gram = prefix && has_gram_ ? &gram_ : nullptr;
    ranking_.rank(weights);

    std::vector<SelectionFigures> result;
    std::optional<attnscope::RandomSubsetMoments<double>> moments;
    if (values_ && !settings_.counts.empty() && settings_.counts.front() < visible) moments.emplace(weights, x);
    for (const Index n : settings_.counts) {
        if (n >= visible) break;
        const auto selected = ranking_.order().first(static_cast<std::size_t>(n));
        SelectionFigures figures{};
        figures.n = n;
        if (!values_) {
            double mass = 0;
            for (const Index key : selected) mass += weights[static_cast<std::size_t>(key)];
            for (const SelectionFigure& figure : selection_figures) figures.*figure.value = not_known;
            figures.mass = mass;
        } else {
            set_.assign(weights, x, selected);
            const auto geometry = attnscope::fixed_set_geometry(set_, gram);
            const auto expected = moments->expected_distance(n);
            const auto separable = attnscope::separability(set_, settings_.radius);
            figures = {n,
                       set_.mass(),
                       attnscope::selection_distance(set_, attnscope::Reading::cumulative),
                       attnscope::selection_distance(set_, attnscope::Reading::resultant),
                       attnscope::theorem1_fixed_limit(set_, geometry, attnscope::Reading::cumulative),
                       expected.lower,
                       expected.upper,
                       attnscope::truncation_error(set_),
                       separable.separable_fraction,
                       separable.precision,
                       separable.recall,
                       separable.f_score,
                       separable.margin};
        }
        result.push_back(figures);
    }
    if (values_) {
        const attnscope::Row<double> merit = attnscope::contributions(weights, x);
        for (const SelectionFigures& figures : result)
            attnscope::audit_missed_tokens(audit, ranking_.order(),
                                           RowIn<double>(merit.data(), static_cast<std::size_t>(visible)),
                                           figures.n);
        attnscope::audit_selection(audit, weights, x, ranking_.order(), settings_.counts,
                                   {.reading = settings_.reading, .expectations = expectations}, random,
                                   scratch_, gram);
    }
    return result;
}

} // namespace report
