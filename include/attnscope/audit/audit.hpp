// A tally of what rows say about the statements.
#pragma once

#include <attnscope/audit/statements.hpp>

#include <string>
#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// The side of a statement that came closest to its limit, or went furthest beyond it, and on which row.
struct AuditCase {
    Index query = -1; ///< of the row; -1: not told, or a statement about a whole head
    Verdict verdict = Verdict::undefined;
    Side side = Side::upper;
    double limit = std::numeric_limits<double>::quiet_NaN();
    double measured = std::numeric_limits<double>::quiet_NaN();
    /// The tightness; where the side is violated 1 and what lies beyond the limit, in parts of the limit. -1: no side has
    /// been defined.
    double use = -1;

    /// A side of a row. Its use is -1 where the verdict is `undefined`.
    template <Real T>
    static AuditCase of(const Bound<T>& bound, Index query) {
        AuditCase result{query,
                         bound.verdict(),
                         bound.side,
                         static_cast<double>(bound.value),
                         static_cast<double>(bound.measured),
                         -1};
        if (result.verdict == Verdict::violated) {
            const double part = -static_cast<double>(bound.slack()) / std::abs(result.limit);
            result.use = part >= 0 ? 1 + part : std::numeric_limits<double>::infinity();
        } else if (result.verdict != Verdict::undefined) {
            result.use = static_cast<double>(bound.tightness());
        }
        return result;
    }
};

/// Tally of one statement over many rows.
struct AuditRecord {
    const Statement* statement = nullptr;
    std::size_t checked = 0;            ///< rows
    std::array<std::size_t, 5> count{}; ///< rows by verdict, indexed by `Verdict`
    std::vector<double> tightness;      ///< one for each side of each row, NaN left out
    AuditCase closest;                  ///< the first of several

    std::size_t operator[](Verdict verdict) const { return count[static_cast<std::size_t>(verdict)]; }

    /// Largest tightness seen, NaN if there is none.
    double max_tightness() const {
        return tightness.empty() ? std::numeric_limits<double>::quiet_NaN()
                                 : *std::max_element(tightness.begin(), tightness.end());
    }
    /// Median tightness (mean of the middle two), NaN if there is none. O(n) time and copy.
    double median_tightness() const {
        if (tightness.empty()) return std::numeric_limits<double>::quiet_NaN();
        std::vector<double> sorted = tightness;
        const auto middle = sorted.begin() + static_cast<std::ptrdiff_t>(sorted.size() / 2);
        std::nth_element(sorted.begin(), middle, sorted.end());
        if (sorted.size() % 2 == 1) return *middle;
        return (*middle + *std::max_element(sorted.begin(), middle)) / 2;
    }
};

/// Collects what rows say about every statement. A row's verdict is the worst of its sides, in the order of
/// `Verdict`; its tightness is kept for each side.
/// Example:
///     Audit audit;
///     audit_row(audit, Softmax(0.5), z);
///     for (const AuditRecord& record : audit)
///         if (record[Verdict::violated] > 0) std::cout << record.statement->id << '\n';
///     std::cout << to_table(audit);
class Audit {
public:
    Audit() {
        for (std::size_t i = 0; i < statements.size(); ++i) records_[i].statement = statements[i];
    }

    /// The audit that has these records, as `records()` gave them, and so many `unknown_rows()`.
    /// Throws. `invalid_argument` unless there is one record for each statement, in the order of the table, whose verdicts add
    /// up to the rows that were checked.
    static Audit of_records(std::span<const AuditRecord> records, std::size_t unknown_rows) {
        detail::require(records.size() == statements.size(), "Audit::of_records",
                        "there must be a record for each statement", records.size(), statements.size());
        Audit audit;
        for (std::size_t i = 0; i < records.size(); ++i) {
            std::size_t verdicts = 0;
            for (const std::size_t count : records[i].count) verdicts += count;
            detail::require(records[i].statement == statements[i] && verdicts == records[i].checked,
                            "Audit::of_records", "records must stand in the order of the table, and add up",
                            statements[i]->id);
            audit.records_[i] = records[i];
        }
        audit.unknown_rows_ = unknown_rows;
        return audit;
    }

    /// Says of which query the rows are that are added from now on; -1: of none. `AuditRecord::closest` tells it.
    void set_query(Index query) { query_ = query; }

    /// Adds the sides of one statement on one row.
    /// Throws. `invalid_argument` unless all of them point to one statement of the table `statements`.
    template <Real T>
    void add(std::span<const Bound<T>> sides) {
        if (sides.empty()) return;
        AuditRecord& record = records_[place_of(sides.front().statement)];
        for (const Bound<T>& bound : sides)
            detail::require(bound.statement == record.statement, "Audit", "sides must be of one statement",
                            record.statement->id, bound.id());
        Verdict worst = Verdict::holds;
        for (const Bound<T>& bound : sides) {
            worst = std::max(worst, bound.verdict());
            const T tightness = bound.tightness();
            if (bound.verdict() != Verdict::undefined)
                record.tightness.push_back(static_cast<double>(tightness));
            if (const AuditCase here = AuditCase::of(bound, query_); here.use > record.closest.use)
                record.closest = here;
        }
        ++record.checked;
        ++record.count[static_cast<std::size_t>(worst)];
    }
    template <Real T>
    void add(const Bound<T>& bound) {
        add(std::span<const Bound<T>>(&bound, 1));
    }
    template <Real T, std::size_t N>
    void add(const std::array<Bound<T>, N>& sides) {
        add(std::span<const Bound<T>>(sides));
    }

    /// Adds the rows of another audit; for audits made side by side.
    void merge(const Audit& other) {
        for (std::size_t i = 0; i < records_.size(); ++i) {
            records_[i].checked += other.records_[i].checked;
            for (std::size_t v = 0; v < 5; ++v) records_[i].count[v] += other.records_[i].count[v];
            records_[i].tightness.insert(records_[i].tightness.end(), other.records_[i].tightness.begin(),
                                         other.records_[i].tightness.end());
            if (other.records_[i].closest.use > records_[i].closest.use)
                records_[i].closest = other.records_[i].closest;
        }
        unknown_rows_ += other.unknown_rows_;
    }

    /// Counts every check of another audit as `undefined`, without its tightness: for rows that do not meet
    /// what its statements assume.
    void add_undefined(const Audit& other) {
        for (std::size_t i = 0; i < records_.size(); ++i) {
            records_[i].checked += other.records_[i].checked;
            records_[i].count[static_cast<std::size_t>(Verdict::undefined)] += other.records_[i].checked;
        }
        unknown_rows_ += other.unknown_rows_;
    }

    /// Counts a row of a normaliser about which there is no statement.
    void add_unknown_row() { ++unknown_rows_; }

    /// Rows of normalisers about which there is no statement: nothing was held against them.
    std::size_t unknown_rows() const { return unknown_rows_; }

    /// One record for each statement, in the order of the table `statements`; an audit is a range of them.
    std::span<const AuditRecord> records() const { return records_; }
    auto begin() const { return records_.begin(); }
    auto end() const { return records_.end(); }

    /// The tally of one statement.
    /// Throws. `invalid_argument` unless it is one of the table `statements`.
    const AuditRecord& at(const Statement& statement) const { return records_[place_of(&statement)]; }

    /// Rows that violate a sharp statement: a finding when it is not 0.
    std::size_t sharp_violations() const {
        std::size_t sum = 0;
        for (const AuditRecord& record : records_)
            if (record.statement->form == Form::sharp) sum += record[Verdict::violated];
        return sum;
    }

private:
    static std::size_t place_of(const Statement* statement) {
        const auto place = std::find(statements.begin(), statements.end(), statement);
        if (place == statements.end())
            detail::fail("Audit", "statement must be one of the table `statements`",
                         statement ? statement->id : std::string_view("none"));
        return static_cast<std::size_t>(place - statements.begin());
    }

    std::array<AuditRecord, statements.size()> records_;
    std::size_t unknown_rows_ = 0;
    Index query_ = -1;
};

/// The audit as a table in plain text, one statement a line. Statements that were never checked show a dash;
/// a last line tells of rows about whose normaliser there is no statement.
inline std::string to_table(const Audit& audit) {
    const auto pad = [](std::string text, std::size_t width, bool left) {
        const std::string fill(width > text.size() ? width - text.size() : 0, ' ');
        return left ? text + fill : fill + text;
    };
    const auto ratio = [](double x) {
        if (std::isnan(x)) return std::string("-");
        char buffer[32];
        const auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, x, std::chars_format::fixed, 4);
        return error == std::errc{} ? std::string(buffer, end) : std::string("?");
    };
    const std::array<std::string_view, 11> head = {"statement", "form",     "provenance", "rows",
                                                   "holds",     "rounding", "vacuous",    "undefined",
                                                   "violated",  "median",   "max"};
    std::size_t longest = 0;
    for (const Statement* statement : statements) longest = std::max(longest, statement->id.size());
    const std::array<std::size_t, 11> width = {longest + 1, 10, 14, 9, 9, 9, 9, 10, 9, 8, 8};
    std::string text;
    for (std::size_t i = 0; i < head.size(); ++i) text += pad(std::string(head[i]), width[i], i < 3);
    text += '\n';
    for (const AuditRecord& record : audit.records()) {
        const bool any = record.checked > 0;
        const auto number = [&](std::size_t n) { return any ? detail::to_text(n) : std::string("-"); };
        const std::array<std::string, 11> cell = {std::string(record.statement->id),
                                                  std::string(name_of(record.statement->form)),
                                                  std::string(name_of(record.statement->provenance)),
                                                  number(record.checked),
                                                  number(record[Verdict::holds]),
                                                  number(record[Verdict::within_rounding]),
                                                  number(record[Verdict::vacuous]),
                                                  number(record[Verdict::undefined]),
                                                  number(record[Verdict::violated]),
                                                  ratio(record.median_tightness()),
                                                  ratio(record.max_tightness())};
        for (std::size_t i = 0; i < cell.size(); ++i) text += pad(cell[i], width[i], i < 3);
        text += '\n';
    }
    if (audit.unknown_rows() > 0)
        text += detail::to_text(audit.unknown_rows()) +
                " rows are of a normaliser about whose rows there is no statement.\n";
    return text;
}

} // namespace v0_2
} // namespace attnscope
