// The whole analysis of a head in one call: figures of every row, selections, sensitivity, and what the rows say about
// the statements.
#pragma once

#include <attnscope/analysis/head_summary.hpp>
#include <attnscope/analysis/row_analyzer.hpp>
#include <attnscope/detail/workspace_pool.hpp>
#include <attnscope/streaming/jacobian_scan.hpp>
#include <attnscope/streaming/row_scan.hpp>
#include <attnscope/streaming/scan.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace detail {

/// Queries whose rows one task analyses.
inline constexpr Index analysis_block = 16;

/// The rows of a streamed head that are examined: evenly spaced, the last among them, at most 16, fewer where rows
/// are long.
inline std::vector<Index> examined_rows(Index queries, Index keys) {
    const Index count =
        std::min(queries, std::clamp<Index>((Index(1) << 18) / std::max<Index>(1, keys), 1, 16));
    std::vector<Index> rows;
    for (Index i = 1; i <= count; ++i) rows.push_back(queries * i / count - 1);
    return rows;
}

inline void check_options(const AnalysisOptions& options, Index queries) {
    require(options.sink_logits.empty(), "analyze", "sink_logits are of a group; one head has a sink_logit",
            options.sink_logits.size());
    for (const Index n : options.counts) require(n >= 1, "analyze", "counts must be >= 1", n);
    const std::vector<Index>& some = options.expectation_queries;
    for (std::size_t i = 0; i < some.size(); ++i)
        require(some[i] >= 0 && some[i] < queries && (i == 0 || some[i] > some[i - 1]), "analyze",
                "expectation_queries must ascend within the queries", some[i], queries);
    if (options.radius)
        require(*options.radius > 0 && std::isfinite(*options.radius), "analyze",
                "radius must be > 0 and finite", *options.radius);
    const auto count = static_cast<std::size_t>(queries);
    require(options.delta.empty() || options.delta.size() == count, "analyze",
            "delta must have one entry for each query", options.delta.size(), queries);
    for (const double delta : options.delta)
        require(!(delta < 0), "analyze", "delta must be >= 0, or NaN where it is not known", delta);
    require(options.padding.empty() || options.padding.size() == count, "analyze",
            "padding must have one entry for each query", options.padding.size(), queries);
}

/// Values of a key each, or none.
template <Real T>
void check_values(std::string_view function, MatrixView<T> values, Index keys) {
    const bool none = values.data() == nullptr && values.cols() == 0;
    require(none || values.rows() == keys, function, "values must have one row for each key", values.rows(),
            keys);
}

/// Only logits that are given can have finite masks.
inline void check_no_masked_below(std::string_view function, const AnalysisOptions& options) {
    if (options.masked_below)
        fail(function, "masked_below is for logits that are given", *options.masked_below);
}

/// Where logits or weights are given, a scale would change nothing.
inline void check_no_scale(std::string_view function, const AnalysisOptions& options) {
    if (options.scale) fail(function, "scale must be left out where there is no q.k", *options.scale);
}

/// How far an analysis came. Rows that it has not reached have not been examined.
inline void set_extent(HeadAnalysis& result, const ScanExtent& extent) {
    result.extent = extent;
    std::erase_if(result.examined, [&](Index query) { return !result.extent.reached(query); });
}

/// Columns without figures yet, and how everything is computed.
inline HeadAnalysis empty_analysis(const HeadContext& head, Index queries, Index keys, bool stored) {
    const AnalysisOptions& options = head.options;
    HeadAnalysis result;
    result.queries = queries;
    result.keys = keys;
    RowColumns& rows = result.rows;
    rows.status.assign(static_cast<std::size_t>(queries), RowStatus::nan);
    rows.visible.setZero(queries);
    rows.argmax.setConstant(queries, -1);
    const Column none = Column::Constant(queries, std::numeric_limits<double>::quiet_NaN());
    for (const RowFigure& figure : row_figures) rows.*figure.values = none;
    if (stored) {
        for (const RowFigure& figure : stored_figures) rows.*figure.values = none;
        rows.negative.setZero(queries);
    }
    if (head.has_sink())
        for (const RowFigure& figure : sink_figures) rows.*figure.values = none;
    for (const Index n : head.counts) {
        SelectionColumns& columns = result.selections.emplace_back();
        columns.n = n;
        for (const SelectionFigure& figure : selection_figures) columns.*figure.values = none;
    }
    result.normalizer = head.normalizer.name();
    result.temperature = head.softmax_temperature ? head.softmax_temperature : options.temperature;
    result.sink_logit = options.sink_logit;
    result.reading = options.reading;
    result.radius = options.radius;
    result.single_precision = options.single_precision;
    result.streamed = keys > 0 && queries > options.streamed_above / keys;
    if (result.streamed) {
        result.examined = examined_rows(queries, keys);
    } else {
        result.examined.resize(static_cast<std::size_t>(queries));
        std::iota(result.examined.begin(), result.examined.end(), Index(0));
    }
    return result;
}

/// What only the caller knows of a row.
inline std::optional<double> given_delta(const AnalysisOptions& options, Index query) {
    if (options.delta.empty()) return std::nullopt;
    return detail::at(options.delta, query);
}

/// Statements about the head as a whole, from some of its rows: evenly spaced, at most 128. `logits_of_row(query, z)`
/// fills a row of logits before the temperature. `assumption_met`: false counts what is found as undefined.
template <class LogitsOfRow>
void audit_whole_head(Audit& audit, const HeadAnalysis& result, const HeadContext& given, bool assumption_met,
                      const LogitsOfRow& logits_of_row) {
    const AsSoftmax* const as_softmax = given.as_softmax.get();
    const HeadContext& head = as_softmax ? as_softmax->context : given;
    if (!head.options.certificates || !head.is_softmax() || !head.has_values() || result.streamed ||
        head.values.rows() > most_diameter_keys)
        return;
    const Index queries = result.queries, count = std::min<Index>(queries, 128);
    Matrix<double> some(count, head.keys);
    std::vector<double> own(static_cast<std::size_t>(result.keys)), extended;
    for (Index i = 0; i < count; ++i) {
        const Index query = queries * (i + 1) / count - 1;
        if (is_padding(head.options, query))
            std::fill(own.begin(), own.end(), -std::numeric_limits<double>::infinity());
        else
            logits_of_row(query, RowOut<double>(own));
        const RowIn<double> row = as_softmax ? as_softmax->row(own, extended) : RowIn<double>(own);
        std::transform(row.begin(), row.end(), some.data() + i * head.keys,
                       [&](double z) { return z / *head.temperature; });
    }
    Audit found;
    audit_rank_collapse(found, MatrixView<double>(some), head.values, head.diameter);
    audit_sinks(found, MatrixView<double>(some), head.values);
    if (assumption_met)
        audit.merge(found);
    else
        audit.add_undefined(found);
}

/// Analyses the queries of `chosen` (ascending) in blocks of consecutive places, on the executor; results do not depend
/// on it. rows(queries, visit) calls visit(query, analyze_row) for each query of a block, and
/// analyze_row(analyzer, depth, audit) is then called once. whole(audit) audits the head as a whole, beside the rows.
template <class Rows, class Whole, Executor E>
void analyze_blocks(HeadAnalysis& result, const HeadContext& head, std::span<const Index> chosen,
                    const Rows& rows, const Whole& whole, E&& executor, ProgressGate& gate) {
    const Index count = static_cast<Index>(chosen.size()),
                blocks = (count + analysis_block - 1) / analysis_block;
    std::vector<Audit> audits(static_cast<std::size_t>(blocks));
    Audit of_whole;
    WorkspacePool<std::optional<RowAnalyzer<>>> workspaces;
    const auto is_examined = [&](Index query) {
        return !result.streamed || std::binary_search(result.examined.begin(), result.examined.end(), query);
    };
    const std::vector<Index>& asked = head.options.expectation_queries;
    const auto has_expectations = [&](Index query) {
        return asked.empty() ? query == result.queries - 1
                             : std::binary_search(asked.begin(), asked.end(), query);
    };
    const auto task = [&](Index number) {
        if (gate.stopped()) return;
        // The longest come first: the head as a whole, then the block that has the expectations as a rule.
        if (number == 0) return whole(of_whole);
        const Index block = number == 1 ? blocks - 1 : number - 2, begin = block * analysis_block,
                    end = std::min(count, begin + analysis_block);
        workspaces.use([&](std::optional<RowAnalyzer<>>& analyzer) {
            if (!analyzer) analyzer.emplace(head);
            rows(chosen.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin)),
                 [&](Index query, const auto& analyze_row) {
                     const auto depth = !is_examined(query)       ? RowAnalyzer<>::Depth::figures
                                        : has_expectations(query) ? RowAnalyzer<>::Depth::expectations
                                                                  : RowAnalyzer<>::Depth::selections;
                     analyze_row(*analyzer, depth, detail::at(audits, block));
                 });
        });
        gate.pass(begin, end);
    };
    executor(blocks + 1, task);
    for (const Audit& audit : audits) result.audit.merge(audit);
    if (!gate.stopped()) result.audit.merge(of_whole);
}

/// Rows of logits in double from a source of tiles of T.
/// delta(query): see `RowFacts`.
template <Real T, LogitSource<T> Source, class Delta, class Whole, Executor E>
void analyze_source(HeadAnalysis& result, const HeadContext& head, const Mask& mask, const Source& source,
                    std::span<const Index> chosen, const Delta& delta, const Whole& whole, E&& executor,
                    ProgressGate& gate) {
    const auto rows = [&](std::span<const Index> queries, const auto& visit) {
        std::vector<double> z;
        scan_rows_of<T>(
            queries, result.keys, source,
            [&](Index query, Index first, RowOut<T> logits) {
                // From the first key on, whether it is seen or not: what is told of key 0 is told of key 0.
                z.assign(static_cast<std::size_t>(first), -std::numeric_limits<double>::infinity());
                if (!is_padding(head.options, query)) z.insert(z.end(), logits.begin(), logits.end());
                if (head.options.masked_below) mask_at_or_below(z, *head.options.masked_below);
                const RowIn<double> row = seen_part(z);
                visit(query, [&](RowAnalyzer<>& analyzer, RowAnalyzer<>::Depth depth, Audit& audit) {
                    analyzer.logits(query, row, delta(query), depth, result, audit);
                    if (head.options.visit) head.options.visit(query, row, analyzer.weights());
                });
            },
            mask);
    };
    analyze_blocks(result, head, chosen, rows, whole, executor, gate);
}

/// Figures of rows of softmax(z/T), beside a sink or none, from a scan of z/T and the norms of its Jacobian.
template <Real A>
void set_scanned(Index query, const SinkStatistics<A>& with_sink, const JacobianNorms<A>& norms,
                 double temperature, RowColumns& rows) {
    const RowStatistics<A>& row = with_sink.keys();
    detail::at(rows.status, query) = with_sink.status();
    rows.visible[query] = row.visible;
    if (rows.sink_mass.size() > 0) {
        rows.sink_mass[query] = with_sink.sink_mass();
        rows.entropy_with_sink_nats[query] = with_sink.entropy_with_sink_nats();
    }
    if (!with_sink.normal()) return;
    rows.argmax[query] = row.argmax;
    rows.log_sum_exp[query] = with_sink.log_sum_exp();
    rows.max_logit[query] = row.max_logit * temperature;
    rows.entropy_nats[query] = row.entropy_nats();
    rows.max_weight[query] = with_sink.max_weight();
    if (row.visible > 1) rows.second_weight[query] = with_sink.second_weight();
    rows.participation_ratio[query] = row.participation_ratio();
    rows.logit_spread[query] = row.logit_spread() * temperature;
    rows.spectral[query] = norms.spectral.value / temperature;
    rows.frobenius[query] = norms.frobenius / temperature;
    rows.one[query] = norms.one / temperature;
    rows.column[query] = norms.column / temperature;
    rows.max_entry[query] = norms.max_entry / temperature;
}

/// Are all logits of a head and of its sink over a temperature finite in T, with room?
template <Real T>
bool fits_scan(const HeadView<double>& head, const HeadContext& context) {
    const auto longest = [](const auto& rows) {
        double most = 0;
        for (Index i = 0; i < rows.rows(); ++i)
            if (const double length = rows.row(i).stableNorm(); std::isfinite(length))
                most = std::max(most, length);
        return most;
    };
    const double temperature = *context.softmax_temperature, factor = std::abs(head.scale()) / temperature,
                 most = double(std::numeric_limits<T>::max()) / 4;
    const double sink = context.options.sink_logit.value_or(0);
    return (!std::isfinite(sink) || std::abs(sink) / temperature <= most) && factor <= most &&
           longest(head.q().map()) * factor * longest(head.k().map()) <= most;
}

/// All rows of a softmax head, beside a sink or none, by scans in T. False if `progress` stopped it: rows that it has
/// reached then have no norms.
template <Real T, Executor E>
bool scan_figures(HeadAnalysis& result, const HeadContext& context, const HeadView<double>& head,
                  const Mask& mask, E&& executor) {
    const double temperature = *context.softmax_temperature;
    const std::optional<double> sink = context.options.sink_logit;
    const Matrix<T> q = head.q().map().cast<T>(), k = head.k().map().cast<T>();
    const HeadView<T> scaled(q, k, {}, static_cast<T>(head.scale() / temperature));
    ScanOptions options{.progress = context.options.progress};
    if (sink) options.sink_logit = *sink / temperature;
    const auto found = scan(scaled, mask, options, executor);
    result.extent = found;
    JacobianScan<T> norms;
    if (context.options.sensitivity && !found.cancelled)
        norms = context.is_softmax() ? scan_jacobian_norms(scaled, Softmax(), mask, {}, executor)
                                     : scan_jacobian_norms(scaled, SinkSoftmax::from_logit(*options.sink_logit),
                                                           mask, {}, executor);
    norms.rows.resize(found.rows.size());
    // Logits of the first key in the arithmetic of the rows, whose sums they are held against.
    std::vector<T> first(found.rows.size());
    if (result.keys > 0)
        ProductTiles<T>(scaled, executor)(
            0, 0, TileOut<T>(first.data(), std::ssize(first), 1, Eigen::OuterStride<>(1)));
    for (Index query = 0; query < result.queries; ++query) {
        const auto at = static_cast<std::size_t>(query);
        if (!found.reached(query)) continue;
        if (is_padding(context.options, query)) {
            result.rows.status[at] = RowStatus::empty;
            continue;
        }
        const auto row = found.with_sink(query);
        set_scanned(query, row, norms.rows[at], temperature, result.rows);
        if (result.rows.status[at] == RowStatus::normal && mask.visible(query, result.keys).contains(0))
            result.rows.first_key_weight[query] = row.weight_of(Accumulator<T>(first[at]));
    }
    if (found.cancelled) result.examined.clear();
    return !found.cancelled;
}

/// E is `ExecutorRef`: a template so that a program can compile it once, see precompiled.hpp.
template <Executor E>
HeadAnalysis analyze_head(const HeadView<double>& given, const AnalysisOptions& options, E executor) {
    const HeadView<double> head(given.q(), given.k(), given.v(), options.scale.value_or(given.scale()));
    const Index queries = head.queries(), keys = head.keys();
    check_options(options, queries);
    check_no_masked_below("analyze", options);
    const HeadContext context(options, head.v(), options.mask, queries, keys);
    HeadAnalysis result = empty_analysis(context, queries, keys, false);
    result.scale = head.scale();

    // Lengths by stableNorm: their squares could underflow.
    std::vector<double> key_lengths;
    for (Index j = 0; j < keys; ++j) key_lengths.push_back(head.k().map().row(j).stableNorm());
    const auto delta = [&](Index query) -> std::optional<double> {
        if (!options.delta.empty()) return given_delta(options, query);
        double longest = 0;
        options.mask.visible(query, keys).for_each([&](Index key) {
            longest = std::max(longest, detail::at(key_lengths, key));
        });
        return head.q().map().row(query).stableNorm() * longest * std::abs(head.scale());
    };
    const ProductTiles<double> source(head, executor);
    // At the smallest temperatures logits over T overflow: such heads are analysed row by row.
    const bool scanned =
        result.streamed && context.softmax_temperature && !options.visit && fits_scan<double>(head, context);
    if (scanned) {
        const bool whole = options.single_precision && fits_scan<float>(head, context)
                               ? scan_figures<float>(result, context, head, options.mask, executor)
                               : scan_figures<double>(result, context, head, options.mask, executor);
        if (!whole) return result;
    }
    std::vector<Index> chosen = result.examined;
    if (!scanned) {
        chosen.resize(static_cast<std::size_t>(queries));
        std::iota(chosen.begin(), chosen.end(), Index(0));
    }
    const ScanProgress& progress = scanned ? ScanProgress() : options.progress;
    ProgressGate gate(progress, static_cast<Index>(chosen.size()));
    if (scanned) {
        // The figures of all rows are the scan's, those of examined ones too.
        HeadAnalysis examined = result;
        analyze_source<double>(
            examined, context, options.mask, source, chosen, delta, [](Audit&) {}, executor, gate);
        result.selections = std::move(examined.selections);
        result.audit = std::move(examined.audit);
        return result;
    }
    const auto whole = [&](Audit& audit) {
        audit_whole_head(audit, result, context, true, [&](Index query, RowOut<double> z) {
            logits_of<double>(head, options.mask, query, z);
        });
    };
    analyze_source<double>(result, context, options.mask, source, chosen, delta, whole, executor, gate);
    detail::set_extent(result, gate.extent());
    return result;
}

/// The scale of a head in double; 1/sqrt(d) is that in double, too.
template <class Head>
double scale_of(const Head& head) {
    using T = decltype(head.scale());
    const Index width = head.q().cols();
    return head.scale() == HeadView<T>::default_scale(width) ? HeadView<double>::default_scale(width)
                                                             : static_cast<double>(head.scale());
}

/// A head of which no row was reached.
template <class Head>
HeadAnalysis unreached_analysis(const Head& head, const AnalysisOptions& options) {
    const Index queries = head.queries();
    HeadAnalysis result = empty_analysis(HeadContext(options, {}, options.mask, queries, head.keys()), queries,
                                         head.keys(), false);
    result.scale = options.scale.value_or(scale_of(head));
    set_extent(result, {queries, 0, queries > 0, std::vector<bool>(static_cast<std::size_t>(queries), true)});
    return result;
}

} // namespace detail

/// Everything about one head: see `HeadAnalysis` for what it tells, `AnalysisOptions` for what can be asked.
/// Formula. Logits z = scale q k^T, -inf where the mask hides a key; weights of each row by the normaliser.
/// With a sink (`sink_logit`) the weights are those of the keys, which lack `sink_mass` from 1, and the norms those of
/// their Jacobian. The statements about softmax are held against the rows in which the sink is one more key, of value 0.
/// Shapes and units. q [queries, d], k [keys, d], v [keys, d_v] or none. Any scalar; computed in double.
/// Special rows. Those that see no key, hold NaN or +inf have their status, and NaN as figures.
/// Cost. O(queries keys (d + N d_v)) for the sets of N; memory O((queries + keys) d + keys^2) up to 8192
/// keys. Beyond `options.streamed_above` logits selections and statements are those of some rows only, and
/// the result says so.
/// Throws. `invalid_argument` for shapes that do not fit, counts < 1, and what else options cannot be.
template <Real T, Executor E = Sequential>
HeadAnalysis analyze(const HeadView<T>& head, const AnalysisOptions& options = {}, E&& executor = {}) {
    if constexpr (std::same_as<T, double>) {
        return detail::analyze_head(head, options, ExecutorRef(executor));
    } else {
        const Matrix<double> q = detail::row_major_copy<double>(head.q().map()),
                             k = detail::row_major_copy<double>(head.k().map());
        const double scale = detail::scale_of(head);
        if (!head.has_values())
            return detail::analyze_head(HeadView<double>(q, k, {}, scale), options, ExecutorRef(executor));
        const Matrix<double> v = detail::row_major_copy<double>(head.v().map());
        return detail::analyze_head(HeadView<double>(q, k, v, scale), options, ExecutorRef(executor));
    }
}

/// The same of half or bfloat16, or of keys and values in pages: see `StoredHead`. They are read once.
template <Real T, Executor E = Sequential>
HeadAnalysis analyze(const StoredHead<T>& head, const AnalysisOptions& options = {}, E&& executor = {}) {
    const detail::ReadHead<T> read(head);
    return analyze(read.view(), options, executor);
}

/// The same from any Eigen expressions.
/// Example: `const auto head = analyze(q, k, v, {.mask = Mask::causal()});`
template <MatrixExpr Q, MatrixExpr K, MatrixExpr V, Executor E = Sequential>
HeadAnalysis analyze(const Q& q, const K& k, const V& v, const AnalysisOptions& options = {},
                     E&& executor = {}) {
    const Matrix<double> wide_q = detail::row_major_copy<double>(q), wide_k = detail::row_major_copy<double>(k),
                         wide_v = detail::row_major_copy<double>(v);
    return detail::analyze_head(HeadView<double>(wide_q, wide_k, wide_v), options, ExecutorRef(executor));
}

/// Without values: what needs them is NaN, or not counted.
template <MatrixExpr Q, MatrixExpr K, Executor E = Sequential>
HeadAnalysis analyze(const Q& q, const K& k, const AnalysisOptions& options = {}, E&& executor = {}) {
    const Matrix<double> wide_q = detail::row_major_copy<double>(q), wide_k = detail::row_major_copy<double>(k);
    return detail::analyze_head(HeadView<double>(wide_q, wide_k), options, ExecutorRef(executor));
}

/// The heads of a layer, grouped queries included. Drawn numbers are another head's each. `options.progress`
/// is told of the rows of all heads; when it stops, heads that were not begun have no figures.
/// Cost. That of `analyze` of one head, for each.
/// Throws. `invalid_argument` as `analyze` of one head does.
template <InputScalar S, Executor E = Sequential>
LayerAnalysis analyze(const HeadGroup<S>& group, const AnalysisOptions& options = {}, E&& executor = {}) {
    const std::vector<double>& sinks = options.sink_logits;
    detail::require(sinks.empty() || (std::ssize(sinks) == group.heads() && !options.sink_logit), "analyze",
                    "sink_logits must have one entry for each head, or sink_logit be the same for all",
                    sinks.size(), group.heads());
    LayerAnalysis layer;
    Index before = 0;
    bool stopped = false;
    for (Index i = 0; i < group.heads(); ++i) {
        AnalysisOptions own = options;
        own.sink_logits.clear();
        if (!sinks.empty()) own.sink_logit = detail::at(sinks, i);
        own.seed = mixed_seed(options.seed, static_cast<std::uint64_t>(i));
        if (options.progress)
            own.progress = [&](Index done, Index all) {
                stopped = !options.progress(before + done, all * group.heads());
                return !stopped;
            };
        layer.heads.push_back(stopped ? detail::unreached_analysis(group[i], own)
                                      : analyze(group[i], own, executor));
        before += group.queries();
    }
    return layer;
}

/// One head whose logits come in tiles of T from any engine: see `LogitSource`.
/// Shapes and units. Logits [queries, keys] before the temperature; values [keys, d_v] or none.
/// Special rows. As of `analyze`.
/// Cost. That of `analyze`, with the engine in place of the product.
/// Throws. `invalid_argument` as `analyze` does, and for a scale, which would change nothing.
/// Example: `analyze_tiles(queries, keys, engine, values, {.mask = Mask::causal()})`, values a `MatrixView<float>`.
template <Real T, LogitSource<T> Source, Executor E = Sequential>
HeadAnalysis analyze_tiles(Index queries, Index keys, const Source& source, MatrixView<T> values = {},
                           const AnalysisOptions& options = {}, E&& executor = {}) {
    detail::require(queries >= 0 && keys >= 0, "analyze_tiles", "queries and keys must be >= 0", queries, keys);
    detail::check_values("analyze_tiles", values, keys);
    detail::check_options(options, queries);
    detail::check_no_scale("analyze_tiles", options);
    Matrix<double> wide;
    if (values.data() != nullptr) wide = detail::row_major_copy<double>(values.map());
    const detail::HeadContext context(
        options, values.data() != nullptr ? MatrixView<double>(wide) : MatrixView<double>(), options.mask,
        queries, keys);
    HeadAnalysis result = detail::empty_analysis(context, queries, keys, false);
    std::vector<Index> all(static_cast<std::size_t>(queries));
    std::iota(all.begin(), all.end(), Index(0));
    detail::ProgressGate gate(options.progress, queries);
    const auto whole = [&](Audit& audit) {
        detail::audit_whole_head(audit, result, context, true, [&](Index query, RowOut<double> z) {
            std::fill(z.begin(), z.end(), -std::numeric_limits<double>::infinity());
            const std::array<Index, 1> one = {query};
            scan_rows_of<T>(
                one, keys, source,
                [&](Index, Index first, RowOut<T> row) {
                    std::copy(row.begin(), row.end(), z.begin() + first);
                },
                options.mask);
            if (options.masked_below) mask_at_or_below<double>(z, *options.masked_below);
        });
    };
    detail::analyze_source<T>(
        result, context, options.mask, source, all,
        [&](Index query) { return detail::given_delta(options, query); }, whole, ExecutorRef(executor), gate);
    detail::set_extent(result, gate.extent());
    return result;
}

/// The same without values, of a source that takes tiles of one scalar only.
template <class Source, Executor E = Sequential, Real T = detail::TileScalar<void, Source>>
HeadAnalysis analyze_tiles(Index queries, Index keys, const Source& source, const AnalysisOptions& options = {},
                           E&& executor = {}) {
    return analyze_tiles<T>(queries, keys, source, MatrixView<T>(), options, executor);
}

namespace detail {

/// In which scalar weights can have been stored that come as an expression.
template <MatrixExpr P>
constexpr StoredScalar stored_type() {
    using T = std::remove_const_t<typename P::Scalar>;
    return std::same_as<T, Eigen::half>       ? StoredScalar::float16
           : std::same_as<T, Eigen::bfloat16> ? StoredScalar::bfloat16
           : std::same_as<T, float>           ? StoredScalar::float32
                                              : StoredScalar::float64;
}

/// A head of which the matrix of logits is there, or that of weights p, stored in `type` or
/// something narrower, whose logits are log p.
/// E is `ExecutorRef`, as of `analyze_head`.
template <Executor E>
HeadAnalysis analyze_matrix(const Matrix<double>& logits, const Matrix<double>* p, StoredScalar type,
                            MatrixView<double> values, const AnalysisOptions& options, E executor) {
    const Index queries = logits.rows(), keys = logits.cols();
    const std::string_view function = p ? "analyze_weights" : "analyze_logits";
    check_values(function, values, keys);
    check_options(options, queries);
    check_no_scale(function, options);
    if (p) check_no_masked_below(function, options);
    if (p && options.sink_logit)
        fail(function, "sink_logit must be left out: weights are what a sink has left of them",
             *options.sink_logit);

    std::vector<StoredRow> stored;
    Mask mask = options.mask;
    if (p) {
        const StoredScalar scalar =
            options.stored_scalar ? *options.stored_scalar : narrowest_scalar(MatrixView<double>(*p), type);
        bool hidden = false;
        for (Index i = 0; i < queries; ++i) {
            const RowIn<double> row(p->data() + i * keys, static_cast<std::size_t>(keys));
            stored.push_back(is_padding(options, i) ? StoredRow()
                                                    : stored_row(row, options.mask.visible(i, keys), scalar));
            hidden = hidden || (std::isfinite(stored.back().sum) && stored.back().hides_weight);
        }
        // Weights on keys that the mask hides are weights: the mask is then no mask of this head.
        if (hidden && !options.normalise_weights) mask = Mask::none();
    }

    const HeadContext context(options, values, mask, queries, keys);
    if (p)
        require(
            context.normalizer.promises().shift_invariant, function,
            "stored weights tell the logits of softmax up to a constant only, which this normaliser would feel",
            context.normalizer.name());
    HeadAnalysis result = empty_analysis(context, queries, keys, p != nullptr);
    const auto fill = [&](Index query, RowOut<double> z) {
        std::fill(z.begin(), z.end(), -std::numeric_limits<double>::infinity());
        mask.visible(query, keys).for_each([&](Index key) { detail::at(z, key) = logits(query, key); });
        if (options.masked_below) mask_at_or_below<double>(z, *options.masked_below);
    };
    const auto rows = [&](std::span<const Index> queries_of_block, const auto& visit) {
        std::vector<double> z(static_cast<std::size_t>(keys));
        for (const Index query : queries_of_block) {
            fill(query, RowOut<double>(z));
            const RowIn<double> row =
                is_padding(options, query) ? RowIn<double>() : seen_part(RowIn<double>(z));
            visit(query, [&](RowAnalyzer<>& analyzer, RowAnalyzer<>::Depth depth, Audit& audit) {
                if (p && !is_padding(options, query)) {
                    const RowIn<double> weights(p->data() + query * keys, row.size());
                    analyzer.stored(query, detail::at(stored, query), weights, row, options.normalise_weights,
                                    depth, result, audit);
                } else {
                    analyzer.logits(query, row, given_delta(options, query), depth, result, audit);
                }
                if (options.visit) options.visit(query, row, analyzer.weights());
            });
        }
    };
    std::vector<Index> all(static_cast<std::size_t>(queries));
    std::iota(all.begin(), all.end(), Index(0));
    ProgressGate gate(options.progress, queries);
    const auto whole = [&](Audit& audit) {
        const RowAnalyzer<> one(context);
        const bool sums_to_one = std::none_of(stored.begin(), stored.end(), [&](const StoredRow& row) {
            return one.taken_as_it_is(row, options.normalise_weights);
        });
        audit_whole_head(audit, result, context, sums_to_one, fill);
    };
    analyze_blocks(result, context, all, rows, whole, executor, gate);
    detail::set_extent(result, gate.extent());
    return result;
}

} // namespace detail

/// One head from the matrix of its logits.
/// Shapes and units. z [queries, keys] before the temperature, -inf where a key is masked; v [keys, d_v].
/// Special rows. As of `analyze`.
/// Cost. That of `analyze` without its product; memory for the logits in double.
/// Throws. `invalid_argument` as `analyze` does, and for a scale, which would change nothing.
template <MatrixExpr Z, MatrixExpr V, Executor E = Sequential>
HeadAnalysis analyze_logits(const Z& z, const V& v, const AnalysisOptions& options = {}, E&& executor = {}) {
    const Matrix<double> logits = detail::row_major_copy<double>(z), values = detail::row_major_copy<double>(v);
    return detail::analyze_matrix(logits, nullptr, {}, values, options, ExecutorRef(executor));
}

/// The same without values.
template <MatrixExpr Z, Executor E = Sequential>
HeadAnalysis analyze_logits(const Z& z, const AnalysisOptions& options = {}, E&& executor = {}) {
    return detail::analyze_matrix(detail::row_major_copy<double>(z), nullptr, {}, {}, options,
                                  ExecutorRef(executor));
}

/// One head from its weights p [queries, keys], as somebody stored them. Their logits are known up to a
/// constant, so that `log_sum_exp` and `max_logit` are NaN.
/// Special rows. A row that does not sum to 1 (beyond the rounding of the stored scalar) is taken as it is,
/// and statements that assume 1 are undefined on it, unless `options.normalise_weights` or another
/// temperature or normaliser than softmax at 1 is asked for, which makes other weights of log p; negative
/// weights have no entropy and no statements.
/// Throws. `invalid_argument` as `analyze` does, and for a normaliser that is not invariant under shifts.
template <MatrixExpr P, MatrixExpr V, Executor E = Sequential>
HeadAnalysis analyze_weights(const P& p, const V& v, const AnalysisOptions& options = {}, E&& executor = {}) {
    const Matrix<double> weights = detail::row_major_copy<double>(p),
                         values = detail::row_major_copy<double>(v);
    return detail::analyze_matrix(weights.array().log().matrix(), &weights, detail::stored_type<P>(), values,
                                  options, ExecutorRef(executor));
}

/// The same without values.
template <MatrixExpr P, Executor E = Sequential>
HeadAnalysis analyze_weights(const P& p, const AnalysisOptions& options = {}, E&& executor = {}) {
    const Matrix<double> weights = detail::row_major_copy<double>(p);
    return detail::analyze_matrix(weights.array().log().matrix(), &weights, detail::stored_type<P>(), {},
                                  options, ExecutorRef(executor));
}

namespace detail {

/// What is taken for a matrix by mistake: a pointer, a container, or an Eigen expression of integers or complex numbers.
template <class M>
concept WrongMatrix =
    !MatrixExpr<M> && (
                          std::is_pointer_v<M> || requires(const M& matrix) { std::data(matrix); } ||
                          requires(const M& matrix) { dense(matrix); });

template <class...>
inline constexpr bool is_matrix_of_numbers = false;

} // namespace detail

/// Only says what is wrong, where the compiler would list all that a call is not.
template <class Q, class K, class V, class... E>
requires(detail::WrongMatrix<Q> || detail::WrongMatrix<K> || detail::WrongMatrix<V>)
HeadAnalysis analyze(const Q&, const K&, const V&, const AnalysisOptions& = {}, const E&...) {
    static_assert(
        detail::is_matrix_of_numbers<Q, K, V>,
        "analyze: q, k and v must be Eigen expressions of float, double, long double, half or bfloat16 "
        "(Eigen::Map views a container or a pointer; HeadGroup, of HeadArray, the heads of a layer)");
    return {};
}
/// The same without values.
template <class Q, class K, class... E>
requires(detail::WrongMatrix<Q> || detail::WrongMatrix<K>)
HeadAnalysis analyze(const Q&, const K&, const AnalysisOptions& = {}, const E&...) {
    static_assert(detail::is_matrix_of_numbers<Q, K>,
                  "analyze: q and k must be Eigen expressions of float, double, long double, half or bfloat16 "
                  "(Eigen::Map views a container or a pointer; HeadGroup, of HeadArray, the heads of a layer)");
    return {};
}
/// The same of a mask in the place of the options.
template <class H, class... Rest>
requires(std::same_as<Rest, Mask> || ...)
HeadAnalysis analyze(const H&, const Rest&...) {
    static_assert(detail::is_matrix_of_numbers<H>,
                  "analyze: a mask is one of the AnalysisOptions: {.mask = Mask::causal()}");
    return {};
}

#ifdef ATTNSCOPE_PRECOMPILED
extern template HeadAnalysis detail::analyze_head<ExecutorRef>(const HeadView<double>&, const AnalysisOptions&,
                                                               ExecutorRef);
extern template HeadAnalysis detail::analyze_matrix<ExecutorRef>(const Matrix<double>&, const Matrix<double>*,
                                                                 StoredScalar, MatrixView<double>,
                                                                 const AnalysisOptions&, ExecutorRef);
#endif

} // namespace v0_2
} // namespace attnscope
