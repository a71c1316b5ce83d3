// What arXiv:2508.17821 reports of GPT-2, beside what the experiments found.
#pragma once

#include <attnscope/analysis/experiments.hpp>
#include <attnscope/audit/statements.hpp>

#include <charconv>

namespace attnscope {
inline namespace v0_2 {

/// Does a figure agree with what the paper reports?
enum class Agreement { agrees, differs, not_measured };
inline constexpr std::array<std::string_view, 3> agreement_names = {"agrees", "differs", "not measured"};
/// "agrees", "differs" or "not measured".
constexpr std::string_view name_of(Agreement agreement) {
    return agreement_names[static_cast<std::size_t>(agreement)];
}

/// One statement of the paper about GPT-2, and the same figure here.
struct Finding {
    std::string_view experiment; ///< "Algorithm 1"
    std::string_view id;         ///< stable name
    std::string_view paper;      ///< what the paper says
    std::string here;            ///< what was measured, in words
    double value = 0;            ///< the figure that is compared, NaN if there is none
    std::string_view rule;       ///< when it counts as agreement
    Agreement agreement = Agreement::not_measured;
};

/// Slope of log y against log x by least squares over the points where both are positive; NaN for fewer than
/// two.
inline double log_slope(std::span<const double> x, std::span<const double> y) {
    double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        if (!(x[i] > 0) || !(y[i] > 0)) continue;
        const double a = std::log(x[i]), b = std::log(y[i]);
        n += 1, sx += a, sy += b, sxx += a * a, sxy += a * b;
    }
    const double spread = n * sxx - sx * sx;
    return n >= 2 && spread > 0 ? (n * sxy - sx * sy) / spread : std::numeric_limits<double>::quiet_NaN();
}

namespace detail {

/// What each finding compares.
class FindingsOf {
public:
    explicit FindingsOf(const Experiments& found) : found_(found), options_(found.options) {}

    Finding vanishing_weights() const {
        std::vector<double> x, y;
        for (std::size_t l = 0; l < options_.lengths.size(); ++l) {
            if (options_.lengths[l] < 64) continue;
            std::vector<double> largest;
            for (const ExperimentHead& head : found_.heads) largest.push_back(head.at_length[l].max_weight);
            x.push_back(static_cast<double>(options_.lengths[l]));
            y.push_back(over_heads(std::move(largest)).mean);
        }
        const double slope = log_slope(x, y);
        return {"Corollary 1",
                "weights",
                "weights vanish like 1/L",
                std::isnan(slope) ? "the text is too short"
                                  : "mean largest weight ~ L^" + fixed(slope, 2) + " from L = 64, " +
                                        fixed(y.back(), 3) + " at L = " + to_text(options_.lengths.back()),
                slope,
                "the exponent of the mean largest weight is between -1.2 and -0.8",
                within(slope, -1.2, -0.8)};
    }
    Finding linear_in_length() const {
        const double measured = slope_against_length(found_.distance()),
                     random = slope_against_length(found_.random_distance());
        return {"Algorithm 1",
                "distance_length",
                "d and E d at N = 5 grow about linearly with L",
                std::isnan(measured)
                    ? "the text is too short"
                    : "d ~ L^" + fixed(measured, 2) + ", " +
                          (options_.reading == Reading::resultant ? "root mean square of random d'"
                                                                  : "main sum of E d") +
                          " ~ L^" + fixed(random, 2) + " from L = 64",
                measured,
                "the exponent of d is between 0.8 and 1.2",
                within(measured, 0.8, 1.2)};
    }
    Finding levels_off() const {
        const std::size_t last = found_.last_length();
        const auto twenty = found_.place(20), hundred = found_.place(100);
        const bool known = options_.lengths[last] > 200 && twenty && hundred;
        const double ratio =
            known ? mean(found_.distance(), *hundred) / mean(found_.distance(), *twenty) : not_known;
        std::size_t top = 0;
        double most = -1;
        for (std::size_t c = 0; c < options_.counts.size(); ++c)
            if (const double d = mean(found_.distance(), c); d > most) most = d, top = c;
        return {"Algorithm 2",
                "distance_count",
                "d levels off beyond N = 20",
                (known ? "d(100) is " + fixed(ratio, 2) + " d(20); "
                       : std::string("the text is too short for N = 100; ")) +
                    "largest at N = " + to_text(options_.counts.empty() ? 0 : options_.counts[top]),
                ratio,
                "d(100)/d(20) is between 0.8 and 1.25",
                within(ratio, 0.8, 1.25)};
    }
    Finding critical_share() const {
        const CriticalCount critical = found_.critical(found_.last_length());
        const double share = critical.count
                                 ? static_cast<double>(*critical.count) / static_cast<double>(critical.length)
                                 : not_known;
        const std::string heads = to_text(found_.heads.size()) + " heads";
        return {"Algorithm 3",
                "critical_count",
                "top-N and random selections cannot be told apart from N = 0.06 L on",
                critical.count
                    ? "critical N = " + to_text(*critical.count) + " = " + fixed(share, 3) +
                          " L at L = " + to_text(critical.length) + ", " + heads
                    : "told apart at every N up to " +
                          to_text(options_.counts.empty() ? 0 : options_.counts.back()) + ", " + heads,
                share,
                "N/L is between 0.03 and 0.12",
                critical.count ? within(share, 0.03, 0.12) : Agreement::differs};
    }
    Finding separable_share() const {
        const Index half = options_.lengths.back() / 2;
        double low = not_known, high = not_known;
        for (std::size_t c = 0; c < options_.counts.size(); ++c) {
            const Index n = options_.counts[c];
            if (n < 16 || n > half) continue;
            const double share = mean(CurveFigure::separable, c);
            low = std::fmin(low, share);
            high = std::fmax(high, share);
        }
        return {"Algorithm 4",
                "separable",
                "N_s/N falls until N is about 16 and then stays between 0.70 and 0.85",
                std::isnan(low)
                    ? "the text is too short"
                    : "between " + fixed(low, 2) + " and " + fixed(high, 2) + " for N from 16 to L/2",
                low,
                "all means over heads for N from 16 to L/2 lie between 0.65 and 0.9",
                std::isnan(low)              ? Agreement::not_measured
                : low >= 0.65 && high <= 0.9 ? Agreement::agrees
                                             : Agreement::differs};
    }
    Finding inverse_temperature() const {
        std::vector<double> t, g;
        for (std::size_t i = 0; i < options_.temperatures.size() && !options_.steps.empty(); ++i) {
            if (options_.temperatures[i] > 0.1 * (1 + 1e-9)) continue;
            double largest = not_known;
            for (const ExperimentHead& head : found_.heads)
                largest = std::fmax(largest, head.at_temperature[i].mean[0]);
            t.push_back(options_.temperatures[i]);
            g.push_back(largest);
        }
        const double slope = log_slope(t, g);
        return {"Algorithm 5",
                "gradient",
                "the gradient grows like 1/T for T < 0.1",
                std::isnan(slope) ? "no two temperatures up to 0.1"
                                  : "largest mean over heads ~ T^" + fixed(slope, 2) +
                                        " at eps = " + to_text(options_.steps.front()) + ", T <= 0.1",
                slope,
                "the exponent is between -1.2 and -0.8",
                within(slope, -1.2, -0.8)};
    }
    Finding gradient_limit() const {
        const AuditRecord& published = found_.audit.at(corollary3_published_statement);
        const std::size_t violated = published[Verdict::violated];
        return {"Corollary 3",
                "gradient_limit",
                "|J|_2 is at most 1/(4T)",
                "exceeded by " + to_text(violated) + " of " + to_text(published.checked) +
                    " rows at T = 1; 1/(2T) by " +
                    to_text(found_.audit.at(corollary3_sharp_statement)[Verdict::violated]),
                published.checked > 0 ? static_cast<double>(violated) / static_cast<double>(published.checked)
                                      : not_known,
                "no row exceeds it",
                published.checked == 0 ? Agreement::not_measured
                : violated == 0        ? Agreement::agrees
                                       : Agreement::differs};
    }

private:
    static constexpr double not_known = std::numeric_limits<double>::quiet_NaN();

    static std::string fixed(double x, int digits) {
        std::array<char, 400> text{};
        const auto [end, error] =
            std::to_chars(text.data(), text.data() + text.size(), x, std::chars_format::fixed, digits);
        return error == std::errc{} ? std::string(text.data(), end) : std::string("?");
    }
    static Agreement within(double value, double low, double high) {
        if (std::isnan(value)) return Agreement::not_measured;
        return low <= value && value <= high ? Agreement::agrees : Agreement::differs;
    }
    /// Over the heads, on the whole text.
    double mean(CurveFigure figure, std::size_t count) const {
        return found_.over(figure, found_.last_length(), count).mean;
    }
    /// Slope of a figure's mean over the heads at N = fixed_count against L, from L = 64.
    double slope_against_length(CurveFigure figure) const {
        const auto at = found_.place(options_.fixed_count);
        std::vector<double> x, y;
        for (std::size_t l = 0; at && l < options_.lengths.size(); ++l) {
            if (options_.lengths[l] < 64) continue;
            x.push_back(static_cast<double>(options_.lengths[l]));
            y.push_back(found_.over(figure, l, *at).mean);
        }
        return log_slope(x, y);
    }

    const Experiments& found_;
    const ExperimentOptions& options_;
};

} // namespace detail

/// What the paper reports of GPT-2, each statement beside the same figure of these heads.
/// Special rows. What the text is too short for, or no head has, is not measured.
/// Cost. O(heads lengths counts), and the test of Algorithm 3: O(heads^2 counts).
/// Throws. `invalid_argument` while a layer is missing.
/// Source. P Corollaries 1 and 3, Algorithms 1 to 5.
inline std::vector<Finding> findings(const Experiments& found) {
    found.require_all("findings");
    const detail::FindingsOf of(found);
    return {of.vanishing_weights(), of.linear_in_length(),    of.levels_off(),    of.critical_share(),
            of.separable_share(),   of.inverse_temperature(), of.gradient_limit()};
}

} // namespace v0_2
} // namespace attnscope
