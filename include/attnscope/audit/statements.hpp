// The statements that the audit knows, as published and in their sharpest true form, in the order of its table.
#pragma once

#include <attnscope/concentration/box_bounds.hpp>
#include <attnscope/concentration/critical_temperature.hpp>
#include <attnscope/concentration/entmax_support.hpp>
#include <attnscope/concentration/gap_counting.hpp>
#include <attnscope/concentration/leading_weight.hpp>
#include <attnscope/concentration/log_n_phase.hpp>
#include <attnscope/concentration/score_deficit.hpp>
#include <attnscope/concentration/sink_necessity.hpp>
#include <attnscope/concentration/weight_range.hpp>
#include <attnscope/selection/missed_tokens.hpp>
#include <attnscope/selection/separability_bounds.hpp>
#include <attnscope/selection/theorem1_fixed.hpp>
#include <attnscope/selection/theorem1_random.hpp>
#include <attnscope/selection/truncation.hpp>
#include <attnscope/sensitivity/gradient_bounds.hpp>
#include <attnscope/sensitivity/head_jacobian.hpp>
#include <attnscope/sensitivity/lp_norm.hpp>
#include <attnscope/sensitivity/perturbation.hpp>
#include <attnscope/sensitivity/rank_collapse.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Each stands beside the function that evaluates it. Sources: arXiv:2508.17821 (P), where no other is given.
inline constexpr auto statements = std::to_array<const Statement*>({
    &lemma1_published_statement,
    &lemma1_sharp_statement,
    &corollary1_published_statement,
    &corollary1_sharp_statement,
    &theorem1_fixed_published_statement,
    &theorem1_fixed_sharp_statement,
    &theorem1_random_published_statement,
    &theorem1_random_sharp_statement,
    &corollary2_published_statement,
    &corollary2_sharp_statement,
    &theorem2_lower_published_statement,
    &theorem2_lower_sharp_statement,
    &theorem2_upper_published_statement,
    &theorem2_upper_sharp_statement,
    &lemma2_sharp_statement,
    &corollary3_published_statement,
    &corollary3_sharp_statement,
    &jacobian_inf_to_1_sharp_statement,
    &finite_difference_published_statement,
    &finite_difference_sharp_statement,
    &lp_lipschitz_published_statement,
    &lp_lipschitz_sharp_statement,
    &ssmax_sharp_statement,
    &sigmoid_gradient_sharp_statement,
    &entmax_support_sharp_statement,
    &entmax_non_dispersion_sharp_statement,
    &box_sharp_statement,
    &critical_temperature_sharp_statement,
    &gap_counting_sharp_statement,
    &log_n_phase_statement,
    &score_deficit_sharp_statement,
    &spectral_bracket_sharp_statement,
    &truncation_gap_statement,
    &truncation_output_statement,
    &missed_tokens_sharp_statement,
    &perturbation_tv_sharp_statement,
    &perturbation_kl_sharp_statement,
    &perturbation_output_sharp_statement,
    &perturbation_gap_sharp_statement,
    &perturbation_mean_kl_sharp_statement,
    &perturbation_mean_tv_sharp_statement,
    &token_jacobian_sharp_statement,
    &rank_collapse_sharp_statement,
    &dobrushin_sharp_statement,
    &sink_necessity_statement,
});

} // namespace v0_2
} // namespace attnscope
