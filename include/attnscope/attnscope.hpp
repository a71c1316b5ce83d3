// Everything that needs Eigen only. Further headers: io/ (files), fmt.hpp (formatting).
#pragma once

#include <attnscope/attention.hpp>
#include <attnscope/audit.hpp>
#include <attnscope/bound.hpp>
#include <attnscope/concentration/capacity.hpp>
#include <attnscope/concentration/entropy.hpp>
#include <attnscope/concentration/hill.hpp>
#include <attnscope/concentration/row_statistics.hpp>
#include <attnscope/concentration/sinks.hpp>
#include <attnscope/concentration/weight_range.hpp>
#include <attnscope/config.hpp>
#include <attnscope/errors.hpp>
#include <attnscope/head.hpp>
#include <attnscope/mask.hpp>
#include <attnscope/normalizer/concept.hpp>
#include <attnscope/normalizer/pointwise.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <attnscope/random.hpp>
#include <attnscope/row_audit.hpp>
#include <attnscope/sensitivity/finite_difference.hpp>
#include <attnscope/sensitivity/gradient_bounds.hpp>
#include <attnscope/sensitivity/jacobian_norms.hpp>
#include <attnscope/sensitivity/spectral_norm.hpp>
#include <attnscope/types.hpp>
