// The adversary of docs/bounds.md: for every sharp statement a search for a point at which it is violated.
//
//     attnscope_attack [--seconds S] [--seed N] [--mutants FACTOR] [--only ID]
//
// Starts are random numbers of all sizes and adversarial patterns (equal numbers, two levels, one apart from the others,
// zeros); from each a random search climbs the ratio of the two sides, in long double. What comes within 1e-9 of 1, or
// above, is computed again in 50 digits, and that counts. Prints the largest ratio of each side of each statement.
// Status 1: a ratio above 1, a statement whose limit is said to be attained below 0.999, one of the audit that is
// not attacked, or a limit of the library that is not the formula's. With --mutants every limit is moved by the factor
// towards the other side, and status 1 says that one of these wrong statements was not found out.
#include "library.hpp"
#include "statements.hpp"

#include <attnscope/audit/statements.hpp>
#include <attnscope/random.hpp>

#include <boost/multiprecision/cpp_bin_float.hpp>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <set>
#include <string>

namespace {

using attack::Point;
using attnscope::Index;
using attnscope::SplitMix64;
using Exact =
    boost::multiprecision::number<boost::multiprecision::cpp_bin_float<50>, boost::multiprecision::et_off>;

/// One side of one statement, and how many coordinates it reads: `extra`, and `each` for every key.
struct Target {
    std::string_view id, side;
    std::size_t extra, each;
    long double (*fast)(const Point&, double factor);
    /// The ratio in 50 digits, and whether it is above 1.
    std::pair<long double, bool> (*exact)(const Point&, double factor);
    /// How far the library's limit is from the formula, beside what rounding may do: above 1 they are not the same.
    /// Null where the library is not asked.
    double (*apart)(const Point&);
};

/// In double, where numbers of one size may cancel down to their roundings' roots.
template <class Statement>
double distance_to_library(const Point& point) {
    const auto formula = Statement::template at<long double>(point);
    const double limit = static_cast<double>(formula.limit), size = static_cast<double>(formula.size);
    // A formula says 0 <= 1 where it is not asked; lower limits below 0 are 0 in the library.
    if (formula.upper && formula.measured == 0) return 0;
    const double found = attack::Library<Statement>::limit(point);
    const double apart = std::abs(found - (formula.upper ? limit : std::max(limit, 0.0)));
    return apart == 0 ? 0 : apart / (1e-9 * std::abs(limit) + 1e-6 * size);
}

template <class Statement>
Target target(std::string_view id, std::string_view side, std::size_t extra, std::size_t each) {
    return {id,
            side,
            extra,
            each,
            [](const Point& point, double factor) {
                return Statement::template at<long double>(point).ratio(static_cast<long double>(factor));
            },
            [](const Point& point, double factor) {
                const Exact ratio = Statement::template at<Exact>(point).ratio(Exact(factor));
                return std::pair(static_cast<long double>(ratio), ratio > 1);
            },
            [] {
                if constexpr (requires(Point point) { attack::Library<Statement>::limit(point); })
                    return &distance_to_library<Statement>;
                else
                    return static_cast<double (*)(const Point&)>(nullptr);
            }()};
}

const std::vector<Target> targets = {
    target<attack::Lemma1<false>>("lemma1", "lower", 0, 1),
    target<attack::Lemma1<true>>("lemma1", "upper", 0, 1),
    target<attack::Corollary1<false>>("corollary1", "lower", 1, 1),
    target<attack::Corollary1<true>>("corollary1", "upper", 1, 1),
    target<attack::Box<false>>("box", "lower", 0, 3),
    target<attack::Box<true>>("box", "upper", 0, 3),
    target<attack::Ssmax<false>>("ssmax", "lower", 1, 1),
    target<attack::Ssmax<true>>("ssmax", "upper", 1, 1),
    target<attack::CriticalTemperature<false>>("critical_temperature", "lower", 1, 1),
    target<attack::CriticalTemperature<true>>("critical_temperature", "upper", 1, 1),
    target<attack::GapCounting<false>>("gap_counting", "lower", 2, 1),
    target<attack::GapCounting<true>>("gap_counting", "upper", 2, 1),
    target<attack::LogNPhase<false>>("log_n_phase", "lower", 0, 1),
    target<attack::LogNPhase<true>>("log_n_phase", "upper", 0, 1),
    target<attack::SphereKeys<false>>("sphere_keys", "lower", 3, 0),
    target<attack::SphereKeys<true>>("sphere_keys", "upper", 3, 0),
    target<attack::EntmaxSupport<false>>("entmax_support", "lower", 1, 1),
    target<attack::EntmaxSupport<true>>("entmax_support", "upper", 1, 1),
    target<attack::EntmaxNonDispersion>("entmax_non_dispersion", "upper", 1, 1),
    target<attack::EntropyFloorNorm>("entropy_floor_norm", "lower", 0, 1),
    target<attack::EntropyFloorRange>("entropy_floor_range", "lower", 0, 1),
    target<attack::EntropyMaxWeight<false>>("entropy_max_weight", "lower", 0, 1),
    target<attack::EntropyMaxWeight<true>>("entropy_max_weight", "upper", 0, 1),
    target<attack::ScoreDeficit>("score_deficit", "upper", 1, 1),
    target<attack::SinkNecessity>("sink_necessity", "lower", 0, 2),
    target<attack::Theorem1Fixed<false, true>>("theorem1_fixed", "lower, cumulative", 1, 3),
    target<attack::Theorem1Fixed<true, true>>("theorem1_fixed", "upper, cumulative", 1, 3),
    target<attack::Theorem1Fixed<false, false>>("theorem1_fixed", "lower, resultant", 1, 3),
    target<attack::Theorem1Fixed<true, false>>("theorem1_fixed", "upper, resultant", 1, 3),
    target<attack::Theorem1Random<false>>("theorem1_random", "lower", 1, 3),
    target<attack::Theorem1Random<true>>("theorem1_random", "upper", 1, 3),
    target<attack::Corollary2<false>>("corollary2", "lower", 1, 3),
    target<attack::Corollary2<true>>("corollary2", "upper", 1, 3),
    target<attack::Theorem2<false>>("theorem2_lower", "lower", 4, 0),
    target<attack::Theorem2<true>>("theorem2_upper", "upper", 4, 0),
    target<attack::TruncationGap>("truncation_gap", "upper", 1, 1),
    target<attack::TruncationOutput>("truncation_output", "upper", 1, 3),
    target<attack::BlockRecall>("block_recall", "lower", 3, 1),
    target<attack::BlockOutput>("block_output", "upper", 1, 3),
    target<attack::MissedTokens>("missed_tokens", "upper", 1, 1),
    target<attack::Corollary3>("corollary3", "upper", 1, 1),
    target<attack::Lemma2>("lemma2", "upper", 0, 2),
    target<attack::FiniteDifference>("finite_difference", "upper", 2, 2),
    target<attack::LpLipschitz>("lp_lipschitz", "upper", 1, 2),
    target<attack::JacobianInfinityToOne<false>>("jacobian_inf_to_1", "lower", 0, 1),
    target<attack::JacobianInfinityToOne<true>>("jacobian_inf_to_1", "upper", 0, 1),
    target<attack::SigmoidGradient>("sigmoid_gradient", "upper", 0, 1),
    target<attack::SpectralBracket<false>>("spectral_bracket", "lower", 0, 1),
    target<attack::SpectralBracket<true>>("spectral_bracket", "upper", 0, 1),
    target<attack::PerturbationTv>("perturbation_tv", "upper", 0, 2),
    target<attack::PerturbationKl>("perturbation_kl", "upper", 0, 2),
    target<attack::PerturbationOutput>("perturbation_output", "upper", 0, 4),
    target<attack::CacheOutput>("cache_output", "upper", 0, 6),
    target<attack::PerturbationGap>("perturbation_gap", "lower", 0, 2),
    target<attack::PerturbationMean<true>>("perturbation_mean_kl", "upper", 1, 2),
    target<attack::PerturbationMean<false>>("perturbation_mean_tv", "upper", 1, 2),
    target<attack::TokenJacobian<false>>("token_jacobian", "upper", 13, 2),
    target<attack::TokenJacobian<true>>("data_free_lipschitz", "upper", 13, 2),
    target<attack::RankCollapse>("rank_collapse", "upper", 0, 5),
    target<attack::Dobrushin<false>>("dobrushin", "equal masks", 0, 3),
    target<attack::Dobrushin<true>>("dobrushin", "own keys", 2, 3),
};

constexpr std::array<std::size_t, 6> sizes = {2, 3, 2, 4, 7, 16};
constexpr long double attained = 0.999L; // what a limit that is attained must come to

class Search {
public:
    Search(const Target& target, std::uint64_t seed, double factor)
        : target_(target), random_(seed), factor_(factor) {}

    /// Until the time is over; for a statement whose limit is attained no sooner than that, and up to eight times as
    /// long. Stops at a violation.
    void run(double seconds) {
        const auto begin = std::chrono::steady_clock::now();
        const auto spent = [&] {
            return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
        };
        for (std::size_t round = 0; !violated && !differs; ++round) {
            const double now = spent();
            if (now > (best < attained * factor_ || (factor_ < 1 && best <= 1) ? 8 : 1) * seconds) return;
            climb(sizes[round % sizes.size()], [&] { return spent() - now > std::max(seconds / 4, 0.02); });
        }
    }

    long double best = 0;
    bool violated = false;
    std::pair<std::size_t, std::vector<double>> at; ///< where: keys and coordinates
    std::size_t evaluations = 0;
    bool differs = false; ///< the library has another limit

private:
    double magnitude() { return std::pow(10.0, 3 * random_.uniform() - 2); }
    double some_number() {
        switch (random_.below(5)) {
        case 0:
            return 0;
        case 1:
            return random_.below(2) == 0 ? 1 : -1;
        default:
            return magnitude() * random_.normal();
        }
    }
    std::size_t place() { return static_cast<std::size_t>(random_.below(static_cast<Index>(x_.size()))); }

    void start(std::size_t size) {
        x_.assign(target_.extra + target_.each * size, 0.0);
        const double scale = magnitude(), level = some_number(), other = some_number();
        const Index pattern = random_.below(5);
        for (double& value : x_) switch (pattern) {
            case 0: // numbers of one size
                value = scale * random_.normal();
                break;
            case 1: // equal, or of two levels
                value = random_.below(2) == 0 ? level : other;
                break;
            case 2: // equal but for a few
                value = random_.below(4) == 0 ? some_number() : level;
                break;
            case 3:
                value = 0;
                break;
            default:
                value = some_number();
            }
    }

    void change(double step) {
        switch (random_.below(12)) {
        case 0: // two equal numbers
            x_[place()] = x_[place()];
            return;
        case 1:
            x_[place()] = 0;
            return;
        case 2:
            std::swap(x_[place()], x_[place()]);
            return;
        case 3: {
            double& value = x_[place()];
            value = -value;
            return;
        }
        case 4:
            x_[place()] = some_number();
            return;
        case 5: { // all of one value, or one number moved to make it so
            const double from = x_[place()], to = x_[place()];
            for (double& value : x_)
                if (value == from) value = to;
            return;
        }
        case 6: {
            const double factor = std::exp(step * random_.normal());
            for (double& value : x_) value *= factor;
            return;
        }
        case 7:
        case 8:
            for (double& value : x_) value += step * random_.normal();
            return;
        default:
            x_[place()] += step * random_.normal();
        }
    }

    /// The ratio at x_, where it is more than `least`; else any number that is not.
    long double measure(std::size_t size, long double least) {
        const Point point(x_, size);
        ++evaluations;
        long double ratio = target_.fast(point, factor_);
        if (!(ratio > least)) return ratio == least ? ratio : 0;
        if (ratio > 1 - 1e-9L) {
            bool above = false;
            std::tie(ratio, above) = target_.exact(point, factor_);
            violated = violated || above;
        }
        return ratio == ratio ? ratio : 0;
    }

    void compare(std::size_t size) {
        if (!target_.apart || differs || target_.apart(Point(x_, size)) <= 1) return;
        differs = true;
        at = {size, x_};
    }

    template <class Over>
    void climb(std::size_t size, const Over& over) {
        start(size);
        if (x_.empty()) return;
        long double here = measure(size, 0);
        compare(size);
        double step = magnitude();
        std::size_t idle = 0;
        while (idle < 400 + 40 * x_.size() && !violated && (evaluations % 16 != 0 || !over())) {
            const std::vector<double> before = x_;
            change(step);
            for (double& value : x_) value = std::clamp(value, -1e3, 1e3);
            const long double found = measure(size, here);
            if (found >= here && found > 0) {
                idle = found > here * (1 + 1e-9L) ? 0 : idle + 1;
                step = std::min(step * 1.3, 100.0);
                here = found;
            } else {
                x_ = before;
                ++idle;
                step = step < 1e-12 ? magnitude() : step * 0.93;
            }
        }
        compare(size);
        best = std::max(best, here);
        if (violated) at = {size, x_};
    }

    const Target& target_;
    SplitMix64 random_;
    double factor_;
    std::vector<double> x_;
};

double number_after(int count, char** words, const char* name, double otherwise) {
    for (int i = 1; i + 1 < count; ++i)
        if (std::strcmp(words[i], name) == 0) return std::atof(words[i + 1]);
    return otherwise;
}

} // namespace

int main(int count, char** words) {
    const double seconds = number_after(count, words, "--seconds", 40);
    const double factor = number_after(count, words, "--mutants", 1);
    const auto seed = static_cast<std::uint64_t>(number_after(count, words, "--seed", 25082017));
    std::string_view only;
    for (int i = 1; i + 1 < count; ++i)
        if (std::strcmp(words[i], "--only") == 0) only = words[i + 1];
    if (!(seconds > 0) || !(factor > 0 && factor <= 1)) {
        std::fprintf(stderr, "--seconds must be > 0 and --mutants in (0, 1]\n");
        return 2;
    }

    int failed = 0;
    std::set<std::string_view> attacked;
    for (const Target& target : targets) attacked.insert(target.id);
    for (const attnscope::Statement* statement : attnscope::statements)
        if (statement->form == attnscope::Form::sharp && !attacked.contains(statement->id)) {
            std::printf("%s: not attacked\n", std::string(statement->id).c_str());
            failed = 1;
        }
    std::printf("%-22s %-18s %14s %12s\n", "statement", "side", "largest ratio", "evaluations");
    for (const Target& target : targets) {
        if (!only.empty() && only != target.id) continue;
        Search search(target, seed, factor);
        search.run(seconds / static_cast<double>(only.empty() ? targets.size() : 1));
        const char* verdict = "";
        if (factor < 1 ? !search.violated : search.violated) {
            verdict = factor < 1 ? "  NOT FOUND OUT" : "  VIOLATED";
            failed = 1;
        } else if (search.differs) {
            verdict = "  THE LIBRARY HAS ANOTHER LIMIT";
            failed = 1;
        } else if (factor == 1 && search.best < attained) {
            verdict = "  NOT ATTAINED";
            failed = 1;
        }
        std::printf("%-22s %-18s %14.10Lf %12zu%s\n", std::string(target.id).c_str(),
                    std::string(target.side).c_str(), search.best, search.evaluations, verdict);
        if (factor == 1 && (search.violated || search.differs)) {
            std::printf("    at %zu keys:", search.at.first);
            for (const double value : search.at.second) std::printf(" %.17g", value);
            std::printf("\n");
        }
        std::fflush(stdout);
    }
    return failed;
}
