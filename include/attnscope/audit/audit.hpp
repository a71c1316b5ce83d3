// The paper's statements as published and in their sharp form, those about other normalisers, and a tally of
// what rows say about them.
#pragma once

#include <attnscope/bound.hpp>

#include <string>
#include <vector>

namespace attnscope {
inline namespace v0_1 {

/// A statement as the paper prints it, or in its sharpest true form.
enum class Form { published, sharp };

/// How sure we are of the text of a published statement.
enum class Provenance {
    verbatim,      ///< verbatim, or agreeing paraphrases
    reconstructed, ///< from prose, proofs and partial formulas: a verdict is one on the reconstruction
    not_recovered, ///< the published constant is not known; only our sharp form exists
    derived        ///< ours: the sharp form of a published statement
};

constexpr std::string_view name_of(Form form) { return form == Form::published ? "published" : "sharp"; }
constexpr std::string_view name_of(Provenance provenance) {
    switch (provenance) {
    case Provenance::verbatim:
        return "verbatim";
    case Provenance::reconstructed:
        return "reconstructed";
    case Provenance::not_recovered:
        return "not_recovered";
    case Provenance::derived:
        return "derived";
    }
    return "?";
}

/// One numbered statement in one form. Source: arXiv:2508.17821 (P), where no other is given.
struct Statement {
    std::string_view id;
    Form form;
    Provenance provenance;
    std::string_view text;       ///< the inequality
    std::string_view conditions; ///< what it assumes
    std::string_view source;     ///< where it stands
};

/// The statements that the audit knows, in the order of its table.
inline constexpr std::array<Statement, 34> statements = {{
    {"lemma1", Form::published, Provenance::verbatim,
     "1/(kappa L) <= p_i <= kappa/L, kappa = max F/min F on [-a,a]",
     "p_i = F(z_i)/sum F, F > 0 continuous on [-a,a], a = max|z_i|", "P Lemma 1"},
    {"lemma1", Form::sharp, Provenance::derived,
     "1/(1+(L-1)kappa) <= p_i <= 1/(1+(L-1)/kappa), kappa = max F(z_i)/min F(z_i) of the row", "F > 0",
     "sharp form of P Lemma 1"},
    {"corollary1", Form::published, Provenance::verbatim,
     "e^{-2 Delta/T}/L <= p_i <= e^{2 Delta/T}/L, Delta = |q| max_j |k_j|/sqrt(d)", "softmax of q.k/sqrt(d)",
     "P Corollary 1"},
    {"corollary1", Form::sharp, Provenance::derived,
     "1/(1+(L-1)e^{D/T}) <= p_i <= 1/(1+(L-1)e^{-D/T}), D = max z - min z", "softmax",
     "sharp form of P Corollary 1"},
    {"theorem1_fixed", Form::published, Provenance::reconstructed,
     "d <= (1-A) d1 + max|x_j| |A(L-N) - (1-A)|, d1 = max |x_i - x_j| over i outside, j inside",
     "a fixed set of N keys: the top N, and one random set", "P Theorem 1(1)"},
    {"theorem1_fixed", Form::sharp, Provenance::derived,
     "cumulative: d <= (1-A) d1 + max|x_j| sum |A - p_i|; resultant: the last factor is |2A-1|",
     "a fixed set of N keys: the top N, and one random set", "corrected form of P Theorem 1(1)"},
    {"theorem1_random", Form::published, Provenance::reconstructed,
     "E d = (L-N)/L sum |y_i - N/(L-1) S_i| + eps, checked with eps = 0 (its bound was not recovered)",
     "a uniformly random set of N keys; cumulative reading", "P Theorem 1(2)"},
    {"theorem1_random", Form::sharp, Provenance::derived,
     "(L-N)/L sum mu_i <= E d <= (L-N)/L sum sqrt(mu_i^2 + V_i)",
     "a uniformly random set of N keys; cumulative reading", "rigorous form of P Theorem 1(2)"},
    {"corollary2", Form::published, Provenance::reconstructed,
     "E d -> sum |y_i| as L grows, held against this L", "N fixed; cumulative reading", "P Corollary 2(i)"},
    {"corollary2", Form::sharp, Provenance::derived,
     "(L-N)/L [sum |y_i - N/L o| - N/(L-1)(|o| + sum |y_i|)] <= E d <= (N+1)(1-N/L) max|x_i| sum p",
     "cumulative reading", "corrected form of P Corollary 2"},
    {"theorem2_lower", Form::published, Provenance::reconstructed, "1 - (1/(rN)) sum xi_i <= E N_s/N",
     "x_i uniform on a sphere: simulated; undefined on the row's own vectors", "P Theorem 2"},
    {"theorem2_lower", Form::sharp, Provenance::derived,
     "(1/N) sum max(0, 1 - M^2 sum_{I\\i} p_j^2/r^2) <= E N_s/N",
     "x_i uniform on a sphere: simulated; undefined on the row's own vectors", "sharper form of P Theorem 2"},
    {"theorem2_upper", Form::published, Provenance::reconstructed,
     "E N_s/N <= (1/N) sum exp(-(xi_i-r)^2/(2M^2))",
     "x_i uniform on a sphere: simulated; undefined on the row's own vectors", "P Theorem 2"},
    {"theorem2_upper", Form::sharp, Provenance::derived,
     "E N_s/N <= mean of 1 where r >= e_i, else exp(-(d-1)(e_i-r)^2/(2M^2 m_i)), m_i = sum_{I\\i} p_j^2 - "
     "max_{I\\i} p_j^2",
     "x_i uniform on a sphere: simulated; undefined on the row's own vectors", "corrected form of P Theorem 2"},

    {"lemma2", Form::sharp, Provenance::not_recovered, "|J|_2 <= 1/2 max|F'/F|",
     "p_i = F(z_i)/sum F, F > 0 differentiable", "P Lemma 2; its published constant was not recovered"},
    {"corollary3", Form::published, Provenance::verbatim, "|J|_2 <= min{1/(4T), sqrt 2}", "softmax",
     "P Corollary 3"},
    {"corollary3", Form::sharp, Provenance::derived, "|J|_2 <= 1/(2T)", "softmax",
     "corrected form of P Corollary 3"},
    {"finite_difference", Form::published, Provenance::reconstructed,
     "|p(z+eps v)-p(z)|/eps <= min{1/(4T), sqrt 2}", "softmax, |v| = 1",
     "P Corollary 3 as used by P Algorithm 5"},
    {"finite_difference", Form::sharp, Provenance::derived,
     "|p(z+eps v)-p(z)|/eps <= (sqrt(2)/eps) tanh(eps/(2 sqrt(2) T))", "softmax, |v| = 1",
     "corrected form of P Corollary 3"},

    {"ssmax", Form::sharp, Provenance::derived, "1/(1+(n-1)n^{-s(z1-z2)}) <= p1 <= 1/(1+(n-1)n^{-sD})",
     "softmax(s log n z), n visible keys", "scalable softmax, arXiv:2501.19399"},
    {"sigmoid_gradient", Form::sharp, Provenance::derived, "|J|_2 <= 1/4", "sigmoid attention",
     "sigmoid attention, arXiv:2409.04431"},
    {"entmax_support", Form::sharp, Provenance::derived,
     "#{max z - z_i < n^{1-alpha}/(alpha-1)} <= support <= #{max z - z_i < 1/(alpha-1)}", "alpha-entmax",
     "alpha-entmax, arXiv:1905.05702"},

    {"box", Form::sharp, Provenance::derived,
     "1/(1+sum_{j!=i} e^{u_j-l_i}) <= p_i <= 1/(1+sum_{j!=i} e^{l_j-u_i})",
     "softmax, z_i/T in [l_i, u_i]: a random box around the row", "after arXiv:2303.01713"},
    {"critical_temperature", Form::sharp, Provenance::derived,
     "1/sum k^{-beta/beta*} <= p1 <= 1/(1+(k*-1)k*^{-beta/beta*}), beta* = max log k/(z_(1)-z_(k)), at k*",
     "softmax", "log-n scaling"},
    {"score_deficit", Form::sharp, Provenance::derived, "max z - E_p z <= T W0((L-1)/e)", "softmax",
     "maximum over all rows of L keys"},
    {"spectral_bracket", Form::sharp, Provenance::derived,
     "(s1/S)(R+m) <= |J|_2 <= (s1/S)(R+s2), R = S - s1, m = sum_{j>=2} s_j^2/R",
     "softmax: s = p/T; alpha-entmax: s = p^{2-alpha} on the support", "secular equation"},
    {"missed_tokens", Form::sharp, Provenance::derived, "m (N-K+m) <= Inv",
     "K useful tokens, m of them not among the first N of a ranking with Inv inversions",
     "arXiv:2609.37879, Proposition 1"},
    {"perturbation_tv", Form::sharp, Provenance::derived, "TV(p, p') <= tanh(r/4)",
     "softmax, r = range of (z'-z)/T: a random logit error", "two-point distributions"},
    {"perturbation_kl", Form::sharp, Provenance::derived,
     "KL <= log(sinh h/h) + h coth h - 1, h = r/2 (r^2/8 for small r)", "as above", "two-point distributions"},
    {"perturbation_output", Form::sharp, Provenance::derived, "|o'-o| <= diam(V) tanh(r/4)", "as above",
     "two-point distributions"},
    {"perturbation_gap", Form::sharp, Provenance::derived, "gap' >= gap - r", "as above", "definition of r"},
    {"token_jacobian", Form::sharp, Provenance::derived,
     "|do/dx|_2 <= max |scale Cov_i(v,k) W_Q^T| + sqrt(max column mass) |W_V| + sqrt(sum p_ij^2 |v_j-o_i|^2 "
     "|a_i|^2)",
     "softmax head of known projections", "product rule, block by block"},
    {"rank_collapse", Form::sharp, Provenance::derived,
     "diam(P V) <= delta(P) diam(V), delta = max TV(P_i, P_j)", "rows of weights that sum to 1", "Dobrushin"},
    {"dobrushin", Form::sharp, Provenance::derived, "delta(P) <= tanh(max_ij range(z_i - z_j)/4)",
     "softmax; 1 where two queries see different keys", "perturbation_tv"},
}};

/// Tally of one statement over many rows.
struct AuditRecord {
    const Statement* statement = nullptr;
    std::size_t checked = 0;            ///< rows
    std::array<std::size_t, 5> count{}; ///< rows by verdict, indexed by `Verdict`
    std::vector<double> tightness;      ///< one for each side of each row, NaN left out

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
class Audit {
public:
    Audit() {
        for (std::size_t i = 0; i < statements.size(); ++i) records_[i].statement = &statements[i];
    }

    /// Adds the sides of one statement on one row. Throws `invalid_argument` for an unknown statement.
    template <Real T>
    void add(Form form, std::span<const Bound<T>> sides) {
        if (sides.empty()) return;
        AuditRecord& record = find(sides.front().id, form);
        Verdict worst = Verdict::holds;
        for (const Bound<T>& bound : sides) {
            worst = std::max(worst, bound.verdict());
            const T tightness = bound.tightness();
            if (bound.verdict() != Verdict::undefined)
                record.tightness.push_back(static_cast<double>(tightness));
        }
        ++record.checked;
        ++record.count[static_cast<std::size_t>(worst)];
    }
    template <Real T>
    void add(Form form, const Bound<T>& bound) {
        add(form, std::span<const Bound<T>>(&bound, 1));
    }
    template <Real T, std::size_t N>
    void add(Form form, const std::array<Bound<T>, N>& sides) {
        add(form, std::span<const Bound<T>>(sides));
    }

    /// Adds the rows of another audit; for audits made side by side.
    void merge(const Audit& other) {
        for (std::size_t i = 0; i < records_.size(); ++i) {
            records_[i].checked += other.records_[i].checked;
            for (std::size_t v = 0; v < 5; ++v) records_[i].count[v] += other.records_[i].count[v];
            records_[i].tightness.insert(records_[i].tightness.end(), other.records_[i].tightness.begin(),
                                         other.records_[i].tightness.end());
        }
    }

    /// Counts every check of another audit as `undefined`, without its tightness: for rows that do not meet
    /// what its statements assume.
    void add_undefined(const Audit& other) {
        for (std::size_t i = 0; i < records_.size(); ++i) {
            records_[i].checked += other.records_[i].checked;
            records_[i].count[static_cast<std::size_t>(Verdict::undefined)] += other.records_[i].checked;
        }
    }

    std::span<const AuditRecord> records() const { return records_; }

    /// The tally of one statement. Throws `invalid_argument` if there is no such statement.
    const AuditRecord& at(std::string_view id, Form form) const {
        for (const AuditRecord& record : records_)
            if (record.statement->id == id && record.statement->form == form) return record;
        detail::fail("Audit", "statement must be one of the table `statements`", id, name_of(form));
    }

    /// Rows that violate a sharp statement: a finding when it is not 0.
    std::size_t sharp_violations() const {
        std::size_t sum = 0;
        for (const AuditRecord& record : records_)
            if (record.statement->form == Form::sharp) sum += record[Verdict::violated];
        return sum;
    }

private:
    AuditRecord& find(std::string_view id, Form form) {
        return const_cast<AuditRecord&>(std::as_const(*this).at(id, form));
    }

    std::array<AuditRecord, statements.size()> records_;
};

/// The audit as a table in plain text, one statement a line. Statements that were never checked show a dash.
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
    const std::array<std::size_t, 11> width = {21, 10, 14, 9, 9, 9, 9, 10, 9, 8, 8};
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
    return text;
}

} // namespace v0_1
} // namespace attnscope
