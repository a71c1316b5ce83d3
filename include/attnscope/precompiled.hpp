// What takes a compiler long, compiled once for a program of many files: the analysis of a head, and the normalisers by
// name. Define ATTNSCOPE_PRECOMPILED for all files and include this in one of them; all with the same flags.
#pragma once

#ifdef ATTNSCOPE_PRECOMPILED

#include <attnscope/analysis/analyze.hpp>
#include <attnscope/runtime/registry.hpp>

namespace attnscope {
inline namespace v0_2 {

template HeadAnalysis detail::analyze_head<ExecutorRef>(const HeadView<double>&, const AnalysisOptions&,
                                                        ExecutorRef);
template HeadAnalysis detail::analyze_matrix<ExecutorRef>(const Matrix<double>&, const Matrix<double>*,
                                                          StoredScalar, MatrixView<double>,
                                                          const AnalysisOptions&, ExecutorRef);
template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(Softmax);
template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(SinkSoftmax);
template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(ScalableSoftmax);
template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(LogLengthSoftmax);
template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(SigmoidAttention);
template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(Sparsemax);
template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(Entmax);
template class detail::RowAnalyzer<double>;
template void audit_rank_collapse(Audit&, MatrixView<double>, MatrixView<double>, std::optional<double>);
template ForcedSinks audit_sinks(Audit&, MatrixView<double>, MatrixView<double>);
template AnyNormalizer detail::read_normalizer(std::string_view, double);

} // namespace v0_2
} // namespace attnscope

#else
#error "precompiled.hpp: ATTNSCOPE_PRECOMPILED must be defined for all files of the program"
#endif
