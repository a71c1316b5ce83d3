// The analysis of a head as bytes of a state file, and back: nothing is lost or rounded. Not in the umbrella.
#pragma once

#include <attnscope/analysis/head_analysis.hpp>
#include <attnscope/io/state_bytes.hpp>

namespace attnscope {
inline namespace v0_2 {
namespace io {

/// Writes an audit: the number of statements, of each its id and form, the rows by verdict, the tightness of every side, and the row that came closest.
/// Cost. 8 bytes a side.
inline void write(StateWriter& out, const Audit& audit) {
    out.number(audit.records().size());
    for (const AuditRecord& record : audit) {
        out.text(record.statement->id);
        out.text(name_of(record.statement->form));
        for (const std::size_t count : record.count) out.number(count);
        out.reals(record.tightness);
        const AuditCase& closest = record.closest;
        out.index(closest.query);
        out.number(static_cast<std::uint64_t>(closest.verdict), 1);
        out.number(static_cast<std::uint64_t>(closest.side), 1);
        for (const double x : {closest.limit, closest.measured, closest.use}) out.real(x);
    }
    out.number(audit.unknown_rows());
}

/// Reads an audit.
/// Throws. `io_error` for other statements than this library has, and as `StateReader` does.
inline Audit read_audit(StateReader& in) {
    if (const std::uint64_t size = in.number(); size != statements.size())
        in.fail("an audit of " + std::to_string(size) + " statements; this library has " +
                std::to_string(statements.size()));
    std::vector<AuditRecord> records(statements.size());
    for (std::size_t i = 0; i < records.size(); ++i) {
        AuditRecord& record = records[i];
        record.statement = statements[i];
        const std::string id = in.text(), form = in.text();
        if (id != record.statement->id || form != name_of(record.statement->form))
            in.fail("a statement must be " + std::string(record.statement->id) + " " +
                    std::string(name_of(record.statement->form)) + ", is " + detail::in_quotes(id) + " " +
                    detail::in_quotes(form));
        for (std::size_t& count : record.count) {
            count = static_cast<std::size_t>(in.count());
            record.checked += count;
        }
        record.tightness = in.reals();
        AuditCase& closest = record.closest;
        closest.query = static_cast<Index>(in.index());
        const std::uint64_t verdict = in.number(1), side = in.number(1);
        if (verdict >= verdict_names.size() || side > 1 || closest.query < -1)
            in.fail("the closest row must have a verdict, a side and a query");
        closest.verdict = static_cast<Verdict>(verdict);
        closest.side = static_cast<Side>(side);
        for (double* const x : {&closest.limit, &closest.measured, &closest.use}) *x = in.real();
    }
    return Audit::of_records(records, static_cast<std::size_t>(in.count()));
}

namespace detail {

/// Columns that a head may be without: of size 0, or one entry a query.
inline void read_column(StateReader& in, Index queries, bool may_be_missing, Column& column) {
    const std::vector<double> list = in.reals();
    if (static_cast<Index>(list.size()) != queries && !(may_be_missing && list.empty()))
        in.fail("a column must have " + std::to_string(queries) + " entries, has " +
                std::to_string(list.size()));
    column = Eigen::Map<const Column>(list.data(), static_cast<Index>(list.size()));
}
inline void read_indices(StateReader& in, Index queries, bool may_be_missing,
                         Eigen::Array<Index, Eigen::Dynamic, 1>& column) {
    const std::vector<std::int64_t> list = in.indices();
    if (static_cast<Index>(list.size()) != queries && !(may_be_missing && list.empty()))
        in.fail("a column must have " + std::to_string(queries) + " entries, has " +
                std::to_string(list.size()));
    column.resize(static_cast<Index>(list.size()));
    std::copy(list.begin(), list.end(), column.data());
}

} // namespace detail

/// Writes the analysis of a head, in the order of its members.
/// Cost. 8 bytes a figure and row.
inline void write(StateWriter& out, const HeadAnalysis& head) {
    out.index(head.queries);
    out.index(head.keys);
    for (const RowStatus status : head.rows.status) out.number(static_cast<std::uint64_t>(status), 1);
    out.indices(head.rows.visible);
    out.indices(head.rows.argmax);
    for (const RowFigure& figure : row_figures) out.reals(head.rows.*figure.values);
    for (const RowFigure& figure : stored_figures) out.reals(head.rows.*figure.values);
    out.indices(head.rows.negative);
    for (const RowFigure& figure : sink_figures) out.reals(head.rows.*figure.values);
    out.number(head.selections.size());
    for (const SelectionColumns& selection : head.selections) {
        out.index(selection.n);
        for (const SelectionFigure& figure : selection_figures) out.reals(selection.*figure.values);
    }
    write(out, head.audit);
    out.text(head.normalizer);
    out.optional_real(head.temperature);
    out.optional_real(head.sink_logit);
    out.optional_real(head.scale);
    out.number(head.reading == Reading::resultant ? 1 : 0, 1);
    out.optional_real(head.radius);
    out.flag(head.single_precision);
    out.flag(head.streamed);
    out.indices(head.examined);
    out.index(head.extent.all);
    out.index(head.extent.done);
    out.flag(head.extent.cancelled);
    out.number(head.extent.missing.size());
    for (const bool missing : head.extent.missing) out.flag(missing);
}

/// Reads the analysis of a head.
/// Throws. `io_error` with the byte, for columns of other lengths than the head has queries, unknown numbers of a status or
/// reading, and as `read_audit` does.
inline HeadAnalysis read_head_analysis(StateReader& in) {
    HeadAnalysis head;
    head.queries = in.count();
    head.keys = in.count();
    for (Index i = 0; i < head.queries; ++i) {
        const std::uint64_t status = in.number(1);
        if (status > static_cast<std::uint64_t>(RowStatus::nan))
            in.fail("a status must be from 0 to 3, got " + std::to_string(status));
        head.rows.status.push_back(static_cast<RowStatus>(status));
    }
    detail::read_indices(in, head.queries, false, head.rows.visible);
    detail::read_indices(in, head.queries, false, head.rows.argmax);
    for (const RowFigure& figure : row_figures)
        detail::read_column(in, head.queries, true, head.rows.*figure.values);
    for (const RowFigure& figure : stored_figures)
        detail::read_column(in, head.queries, true, head.rows.*figure.values);
    detail::read_indices(in, head.queries, true, head.rows.negative);
    for (const RowFigure& figure : sink_figures)
        detail::read_column(in, head.queries, true, head.rows.*figure.values);
    const std::int64_t selections = in.count();
    for (std::int64_t i = 0; i < selections; ++i) {
        SelectionColumns& selection = head.selections.emplace_back();
        selection.n = in.count();
        for (const SelectionFigure& figure : selection_figures)
            detail::read_column(in, head.queries, true, selection.*figure.values);
    }
    head.audit = read_audit(in);
    head.normalizer = in.text();
    head.temperature = in.optional_real();
    head.sink_logit = in.optional_real();
    head.scale = in.optional_real();
    const std::uint64_t reading = in.number(1);
    if (reading > 1) in.fail("a reading must be 0 or 1, got " + std::to_string(reading));
    head.reading = reading == 1 ? Reading::resultant : Reading::cumulative;
    head.radius = in.optional_real();
    head.single_precision = in.flag();
    head.streamed = in.flag();
    for (const std::int64_t query : in.indices()) {
        if (query < 0 || query >= head.queries)
            in.fail("a query must be from 0 to " + std::to_string(head.queries - 1) + ", got " +
                    std::to_string(query));
        head.examined.push_back(static_cast<Index>(query));
    }
    head.extent.all = in.count();
    head.extent.done = in.count();
    head.extent.cancelled = in.flag();
    const std::int64_t missing = in.count();
    if (missing != 0 && missing != head.extent.all) in.fail("what is missing must be told of all rows");
    for (std::int64_t i = 0; i < missing; ++i) head.extent.missing.push_back(in.flag());
    return head;
}

} // namespace io
} // namespace v0_2
} // namespace attnscope
