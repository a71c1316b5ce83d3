#include "findings.hpp"

#include <fmt/format.h>

namespace paper {
namespace {

constexpr double not_known = std::numeric_limits<double>::quiet_NaN();

Agreement within(double value, double low, double high) {
    if (std::isnan(value)) return Agreement::not_measured;
    return low <= value && value <= high ? Agreement::agrees : Agreement::differs;
}

/// Slope of a figure's mean over the heads at N = fixed_count against L, from L = 64.
double slope_against_length(const Result& result, Figure figure) {
    const auto at = result.place(result.settings.fixed_count);
    std::vector<double> x, y;
    for (std::size_t l = 0; at && l < result.settings.lengths.size(); ++l) {
        if (result.settings.lengths[l] < 64) continue;
        x.push_back(static_cast<double>(result.settings.lengths[l]));
        y.push_back(result.over_heads(figure, l, *at).mean);
    }
    return log_slope(x, y);
}

Finding linear_in_length(const Result& result) {
    const double measured = slope_against_length(result, result.distance()),
                 random = slope_against_length(result, result.random_distance());
    return {"Algorithm 1",
            "distance_length",
            "d and E d at N = 5 grow about linearly with L",
            std::isnan(measured)
                ? "the text is too short"
                : fmt::format("d ~ L^{:.2f}, {} ~ L^{:.2f} from L = 64", measured,
                              result.settings.resultant ? "root mean square of random d'" : "main sum of E d",
                              random),
            measured,
            "the exponent of d is between 0.8 and 1.2",
            within(measured, 0.8, 1.2)};
}

Finding levels_off(const Result& result) {
    const std::size_t last = result.last_length();
    const auto twenty = result.place(20), hundred = result.place(100);
    const bool known = result.settings.lengths[last] > 200 && twenty && hundred;
    const double ratio = known ? result.over_heads(result.distance(), last, *hundred).mean /
                                     result.over_heads(result.distance(), last, *twenty).mean
                               : not_known;
    std::size_t top = 0;
    double most = -1;
    for (std::size_t c = 0; c < result.settings.counts.size(); ++c)
        if (const double d = result.over_heads(result.distance(), last, c).mean; d > most) most = d, top = c;
    return {"Algorithm 2",
            "distance_count",
            "d levels off beyond N = 20",
            fmt::format("{}largest at N = {}",
                        known ? fmt::format("d(100) is {:.2f} d(20); ", ratio)
                              : std::string("the text is too short for N = 100; "),
                        result.settings.counts.empty() ? 0 : result.settings.counts[top]),
            ratio,
            "d(100)/d(20) is between 0.8 and 1.25",
            within(ratio, 0.8, 1.25)};
}

Finding critical_share(const Result& result) {
    const CriticalN critical = result.critical(result.last_length());
    const double share = critical.count
                             ? static_cast<double>(*critical.count) / static_cast<double>(critical.length)
                             : not_known;
    return {"Algorithm 3",
            "critical_count",
            "top-N and random selections cannot be told apart from N = 0.06 L on",
            critical.count ? fmt::format("critical N = {} = {:.3f} L at L = {}, {} heads", *critical.count,
                                         share, critical.length, result.heads.size())
                           : fmt::format("told apart at every N up to {}, {} heads",
                                         result.settings.counts.empty() ? 0 : result.settings.counts.back(),
                                         result.heads.size()),
            share,
            "N/L is between 0.03 and 0.12",
            critical.count ? within(share, 0.03, 0.12) : Agreement::differs};
}

Finding separable_share(const Result& result) {
    const std::size_t last = result.last_length();
    const Index half = result.settings.lengths[last] / 2;
    double low = not_known, high = not_known;
    for (std::size_t c = 0; c < result.settings.counts.size(); ++c) {
        const Index n = result.settings.counts[c];
        if (n < 16 || n > half) continue;
        const double share = result.over_heads(Figure::separable, last, c).mean;
        low = std::fmin(low, share);
        high = std::fmax(high, share);
    }
    return {"Algorithm 4",
            "separable",
            "N_s/N falls until N is about 16 and then stays between 0.70 and 0.85",
            std::isnan(low) ? "the text is too short"
                            : fmt::format("between {:.2f} and {:.2f} for N from 16 to L/2", low, high),
            low,
            "all means over heads for N from 16 to L/2 lie between 0.65 and 0.9",
            std::isnan(low)              ? Agreement::not_measured
            : low >= 0.65 && high <= 0.9 ? Agreement::agrees
                                         : Agreement::differs};
}

Finding inverse_temperature(const Result& result) {
    std::vector<double> t, g;
    for (std::size_t i = 0; i < result.settings.temperatures.size() && !result.settings.steps.empty(); ++i) {
        if (result.settings.temperatures[i] > 0.1 * (1 + 1e-9)) continue;
        t.push_back(result.settings.temperatures[i]);
        g.push_back(largest_mean(result, i, 0));
    }
    const double slope = log_slope(t, g);
    return {"Algorithm 5",
            "gradient",
            "the gradient grows like 1/T for T < 0.1",
            std::isnan(slope) ? "no two temperatures up to 0.1"
                              : fmt::format("largest mean over heads ~ T^{:.2f} at eps = {:g}, T <= 0.1", slope,
                                            result.settings.steps.front()),
            slope,
            "the exponent is between -1.2 and -0.8",
            within(slope, -1.2, -0.8)};
}

Finding gradient_limit(const Result& result) {
    const auto& record = result.audit.at(attnscope::corollary3_published_statement);
    const auto violated = record[attnscope::Verdict::violated];
    return {"Corollary 3",
            "gradient_limit",
            "|J|_2 is at most 1/(4T)",
            fmt::format("exceeded by {} of {} rows at T = 1; 1/(2T) by {}", violated, record.checked,
                        result.audit.at(attnscope::corollary3_sharp_statement)[attnscope::Verdict::violated]),
            record.checked > 0 ? static_cast<double>(violated) / static_cast<double>(record.checked)
                               : not_known,
            "no row exceeds it",
            record.checked == 0 ? Agreement::not_measured
            : violated == 0     ? Agreement::agrees
                                : Agreement::differs};
}

Finding vanishing_weights(const Result& result) {
    std::vector<double> x, y;
    for (std::size_t l = 0; l < result.settings.lengths.size(); ++l) {
        if (result.settings.lengths[l] < 64) continue;
        std::vector<double> largest;
        for (const HeadResult& head : result.heads) largest.push_back(head.at_length[l].max_weight);
        x.push_back(static_cast<double>(result.settings.lengths[l]));
        y.push_back(over(largest).mean);
    }
    const double slope = log_slope(x, y);
    return {"Corollary 1",
            "weights",
            "weights vanish like 1/L",
            std::isnan(slope) ? "the text is too short"
                              : fmt::format("mean largest weight ~ L^{:.2f} from L = 64, {:.3f} at L = {}",
                                            slope, y.back(), result.settings.lengths.back()),
            slope,
            "the exponent of the mean largest weight is between -1.2 and -0.8",
            within(slope, -1.2, -0.8)};
}

} // namespace

double log_slope(std::span<const double> x, std::span<const double> y) {
    double n = 0, sx = 0, sy = 0, sxx = 0, sxy = 0;
    for (std::size_t i = 0; i < x.size(); ++i) {
        if (!(x[i] > 0) || !(y[i] > 0)) continue;
        const double a = std::log(x[i]), b = std::log(y[i]);
        n += 1, sx += a, sy += b, sxx += a * a, sxy += a * b;
    }
    const double spread = n * sxx - sx * sx;
    return n >= 2 && spread > 0 ? (n * sxy - sx * sy) / spread : not_known;
}

double largest_mean(const Result& result, std::size_t temperature, std::size_t step) {
    double most = not_known;
    for (const HeadResult& head : result.heads)
        most = std::fmax(most, head.at_temperature[temperature].mean[step]);
    return most;
}

std::vector<Finding> findings(const Result& result) {
    return {vanishing_weights(result), linear_in_length(result), levels_off(result),
            critical_share(result),    separable_share(result),  inverse_temperature(result),
            gradient_limit(result)};
}

std::vector<std::pair<std::string, std::string>> choices(const Result& result) {
    const Settings& settings = result.settings;
    const std::array<std::string_view, 3> tokens = {
        "value vectors of the head", "residual stream that enters the layer",
        "W_O v, what the head adds to the residual stream (in coordinates that keep its inner products)"};
    const std::array<std::string_view, 3> units = {"none are", "in Algorithm 4, precision, recall and F",
                                                   "everywhere"};
    const std::size_t last = result.last_length();
    const auto five = result.place(settings.fixed_count);
    Index normal = 0, skipped = 0;
    for (const HeadResult& head : result.heads)
        normal += head.at_length[last].normal_rows, skipped += head.skipped;
    return {
        {"token vectors x_i (--vectors)", std::string(tokens[static_cast<std::size_t>(settings.token)])},
        {"divided by their length (--unit-vectors)",
         std::string(units[static_cast<std::size_t>(settings.unit)])},
        {"distance (--reading)", settings.resultant ? "resultant, |sum over the others of y_i - s|"
                                                    : "cumulative, sum over the others of |s - y_i|"},
        {"random selections",
         settings.resultant ? "sqrt(E d'^2), exact" : "main sum of E d (Theorem 1(2), eps = 0)"},
        {"rows with no more than N keys (--short-rows)",
         settings.short_rows == ShortRows::exclude
             ? fmt::format("left out; at N = {} these are {} of {} rows", five ? settings.counts[*five] : 0,
                           five ? normal - result.rows(last, *five) : 0, normal)
             : "distance 0; other figures leave them out"},
        {"rows without weights (NaN, nothing visible)",
         fmt::format("{} of {}, left out", skipped, normal + skipped)},
        {"mean", "over the query tokens of a head, then over heads"},
        {"Kolmogorov-Smirnov level (--level)",
         fmt::format("{:g}, over {} heads", settings.level, result.heads.size())},
        {"ball of Algorithm 4 (--radius)",
         settings.radius > 0 ? fmt::format("radius {:g}", settings.radius)
                             : std::string("reaches to the nearest token that is not selected")},
        {"rows of Algorithm 4 and of the statements about expectations",
         fmt::format("{}: the last of each head and {} seeded ones",
                     result.heads.size() + static_cast<std::size_t>(std::min<Index>(
                                               settings.seeded_rows,
                                               static_cast<Index>(result.heads.size()) * (result.tokens - 1))),
                     settings.seeded_rows)},
        {"directions of Algorithm 5", "one random unit vector over the visible keys for each row"},
        {"seed (--seed)", fmt::format("{}", settings.seed)},
    };
}

} // namespace paper
