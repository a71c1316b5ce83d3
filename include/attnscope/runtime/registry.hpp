// Normalisers by name, for programs: "softcap:50|ssmax:0.43|topk:64" becomes an `AnyNormalizer`. Not in the
// umbrella: it compiles every normaliser, so include it where names are read and any_normalizer.hpp elsewhere.
#pragma once

#include <attnscope/normalizer/adaptive_softmax.hpp>
#include <attnscope/normalizer/self_adjusted_softmax.hpp>
#include <attnscope/normalizer/softpick.hpp>
#include <attnscope/normalizer/target_softmax.hpp>
#include <attnscope/runtime/any_normalizer.hpp>

#include <optional>

namespace attnscope {
inline namespace v0_2 {

namespace detail {

/// What adaptors must know of a normaliser at compile time.
enum class NormalizerKind {
    family,  ///< Jacobian (I - p 1^T) diag(g): restrictable, simplex
    simplex, ///< other weights that sum to 1
    other
};

/// An `AnyNormalizer` whose kind is known at compile time, so that adaptors can be put around it at run time.
template <NormalizerKind kind>
class Typed {
public:
    static constexpr NormalizerTraits traits{.simplex = kind != NormalizerKind::other,
                                             .restrictable = kind == NormalizerKind::family};
    explicit Typed(AnyNormalizer normalizer) : any_(std::move(normalizer)) {}
    const AnyNormalizer& any() const { return any_; }
    const std::string& name() const { return any_.name(); }
    NormalizerTraits promises() const { return any_.promises(); }
    template <ErasedScalar T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        return any_.apply(z, out);
    }
    template <ErasedScalar T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        any_.jvp(z, p, v, out);
    }
    template <ErasedScalar T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        any_.vjp(z, p, w, out);
    }
    template <ErasedScalar T>
    T log_sum_exp(std::span<const T> z) const {
        return any_.log_sum_exp(z);
    }
    template <ErasedScalar T>
    double sink_mass(std::span<const T> z) const {
        return any_.sink_mass(z);
    }
    bool has_sink() const { return any_.has_sink(); }
    double sink_slope() const { return any_.sink_slope(); }
    bool takes_sink() const { return any_.takes_sink(); }
    void audit(Audit& audit, RowIn<double> z, const RowFacts& facts, RowAuditor& auditor) const {
        any_.audit(audit, z, facts, auditor);
    }

private:
    AnyNormalizer any_;
};
template <NormalizerKind kind>
Typed<NormalizerKind::other> with_sink(const Typed<kind>& normalizer, double logit) {
    return Typed<NormalizerKind::other>(normalizer.any().with_sink(logit));
}
template <NormalizerKind kind>
void softmax_logits(const Typed<kind>& normalizer, RowIn<double> z, RowOut<double> out) {
    normalizer.any().softmax_logits(z, out);
}
template <NormalizerKind kind>
double softmax_sink_logit(const Typed<kind>& normalizer, double logit) {
    return normalizer.any().softmax_sink_logit(logit);
}
template <Real T, NormalizerKind kind>
JacobianNorms<double> jacobian_norms(const Typed<kind>& normalizer, RowIn<T> z, RowIn<T> p) {
    return normalizer.any().template norms<T>(z, p);
}
template <>
struct FamilyGradient<Typed<NormalizerKind::family>> {
    static constexpr bool known = true, closed = false;
    template <Real A>
    static void fill(const Typed<NormalizerKind::family>& normalizer, RowIn<A> z, RowIn<A> p, RowOut<A> g) {
        normalizer.any().family_gradient(z, p, g);
    }
};

template <NormalizerKind kind>
struct LinearNorms<MappedNormalizer<Temperature, Typed<kind>>> {
    static constexpr bool known = true;
    static bool value(const MappedNormalizer<Temperature, Typed<kind>>& normalizer) {
        return normalizer.inner().any().has_linear_norms();
    }
};

/// Calls f(Typed<kind>) with the kind that the normaliser has.
template <class F>
AnyNormalizer with_kind(const AnyNormalizer& normalizer, F&& f) {
    if (normalizer.is_family_member()) return f(Typed<NormalizerKind::family>(normalizer));
    if (normalizer.promises().simplex) return f(Typed<NormalizerKind::simplex>(normalizer));
    return f(Typed<NormalizerKind::other>(normalizer));
}

} // namespace detail

/// Where a name stands in the text of a normaliser.
enum class NormalizerPlace { front, core, back };

/// A name that `make_normalizer` knows.
struct NormalizerName {
    std::string_view name;
    std::string_view syntax;  ///< such as "ssmax:S"; what stands in brackets may be left out
    std::string_view formula; ///< of the weights
    std::string_view example;
    NormalizerPlace place = NormalizerPlace::core;
};

/// All names, in the order of the documentation.
inline std::span<const NormalizerName> known_normalizers() {
    static constexpr std::array<NormalizerName, 22> names = {{
        {"softmax", "softmax", "e^z / sum e^z", "softmax"},
        {"ssmax", "ssmax[:S]", "softmax(S log n z), n visible keys", "ssmax:0.43"},
        {"logn", "logn:KAPPA", "softmax(KAPPA log n z)", "logn:0.2"},
        {"yarn", "yarn:N", "softmax((0.1 log(n/N) + 1)^2 z) beyond N keys", "yarn:1024"},
        {"adaptive", "adaptive", "softmax(beta(H) z), H the entropy of softmax(z)", "adaptive"},
        {"entropy", "entropy:H", "softmax(beta z) of entropy H nats", "entropy:2"},
        {"participation", "participation:K", "softmax(beta z) of participation ratio K keys",
         "participation:8"},
        {"sink", "sink[:N0]", "e^z / (N0 + sum e^z)", "sink:1"},
        {"sigmoid", "sigmoid[:BIAS]", "1/(1 + e^-(z + BIAS)), BIAS = -log n", "sigmoid"},
        {"relu", "relu[:K]", "max(z, 0)^K / sum", "relu:2"},
        {"softplus", "softplus", "log(1 + e^z) / sum", "softplus"},
        {"stablemax", "stablemax", "s(z) / sum, s = z + 1 or 1/(1 - z)", "stablemax"},
        {"quadratic", "quadratic[:C]", "(z^2 + C) / sum", "quadratic"},
        {"softpick", "softpick[:EPS]", "max(e^z - 1, 0) / (sum |e^z - 1| + EPS)", "softpick"},
        {"selfadjusted", "selfadjusted", "(z - lo)/(hi - lo) softmax(z)", "selfadjusted"},
        {"sparsemax", "sparsemax", "max(z - tau, 0), sum 1", "sparsemax"},
        {"entmax", "entmax[:ALPHA]", "max(1 + (ALPHA-1)(z - theta), 0)^(1/(ALPHA-1)), sum 1", "entmax:1.5"},
        {"sigmoidsum", "sigmoidsum", "1/(1 + e^-z) / sum", "sigmoidsum"},
        {"softcap", "softcap:C", "z -> C tanh(z/C) in front", "softcap:50", NormalizerPlace::front},
        {"temperature", "temperature:T", "z -> z/T in front", "temperature:2", NormalizerPlace::front},
        {"topk", "topk:K", "the K largest weights, behind", "topk:64", NormalizerPlace::back},
        {"topp", "topp:P", "the largest weights that have the share P, behind", "topp:0.9",
         NormalizerPlace::back},
    }};
    return names;
}

namespace detail {

/// One part of the text of a normaliser: a name and its parameter.
struct NormalizerPart {
    std::string_view text;
    const NormalizerName* entry;
    std::optional<double> parameter;
};

inline NormalizerPart parse_normalizer_part(std::string_view text) {
    const std::size_t colon = text.find(':');
    const std::string_view name = text.substr(0, colon);
    NormalizerPart part{text, nullptr, {}};
    for (const NormalizerName& entry : known_normalizers())
        if (entry.name == name) part.entry = &entry;
    if (!part.entry) {
        std::string rule = "a normaliser must be one of ";
        for (const NormalizerName& entry : known_normalizers()) {
            if (&entry != known_normalizers().data()) rule += ", ";
            rule += entry.syntax;
        }
        fail("make_normalizer", rule, name.empty() ? std::string_view("nothing") : name);
    }
    const std::string syntax = "the form is " + std::string(part.entry->syntax);
    const bool takes_one = part.entry->syntax.find(':') != std::string_view::npos;
    if (colon == std::string_view::npos) {
        require(!takes_one || part.entry->syntax.find('[') != std::string_view::npos, "make_normalizer", syntax,
                text);
        return part;
    }
    require(takes_one, "make_normalizer", syntax, text);
    const std::string_view number = text.substr(colon + 1);
    double value = 0;
    const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
    require(error == std::errc{} && end == number.data() + number.size(), "make_normalizer",
            syntax + " with a number", text);
    part.parameter = value;
    return part;
}

inline Index whole_number(std::string_view what, double x) {
    const std::string rule = std::string(what) + " must be a whole number >= 1";
    require(x >= 1 && x == std::floor(x) && x < 0x1p53, "make_normalizer", rule, x);
    return static_cast<Index>(x);
}

// What follows compiles every normaliser: templates of no choice, so that a program can have them once, see
// precompiled.hpp.
template <class Part>
AnyNormalizer make_core_normalizer(const Part& part, double temperature) {
    const std::string_view name = part.entry->name;
    const std::string text(part.text);
    const double x = part.parameter.value_or(0);
    const bool given = part.parameter.has_value();
    const auto any = [&](auto normalizer) { return AnyNormalizer(std::move(normalizer), text); };
    if (name == "softmax") return any(Softmax(temperature));
    if (name == "ssmax") return any(given ? ScalableSoftmax(x) : ScalableSoftmax());
    if (name == "logn") return any(LogLengthSoftmax(x));
    if (name == "yarn") return any(YarnSoftmax(whole_number("n_train of yarn", x)));
    if (name == "adaptive") return any(AdaptiveSoftmax());
    if (name == "entropy") return any(EntropyTargetSoftmax(x));
    if (name == "participation") return any(ParticipationTargetSoftmax(x));
    if (name == "sink") return any(given ? SinkSoftmax(x) : SinkSoftmax());
    if (name == "sigmoid") return any(given ? SigmoidAttention(x) : SigmoidAttention());
    if (name == "relu") return any(PointwiseNormalizer<ReluPower>(given ? ReluPower(x) : ReluPower()));
    if (name == "softplus") return any(PointwiseNormalizer<Softplus>());
    if (name == "stablemax") return any(PointwiseNormalizer<StableExponential>());
    if (name == "quadratic") return any(PointwiseNormalizer<Quadratic>(given ? Quadratic(x) : Quadratic()));
    if (name == "sigmoidsum") return any(PointwiseNormalizer<Sigmoid>());
    if (name == "softpick") return any(given ? Softpick(x) : Softpick());
    if (name == "selfadjusted") return any(SelfAdjustedSoftmax());
    if (name == "sparsemax") return any(Sparsemax());
    if (name == "entmax") return any(given ? Entmax(x) : Entmax());
    fail("make_normalizer", "this name has no normaliser", name);
}

/// Puts an adaptor around a normaliser.
template <class Part>
AnyNormalizer adapt_normalizer(const Part& part, const AnyNormalizer& inner) {
    const std::string_view name = part.entry->name;
    const double x = *part.parameter;
    const bool front = part.entry->place == NormalizerPlace::front;
    const std::string text =
        front ? std::string(part.text) + "|" + inner.name() : inner.name() + "|" + std::string(part.text);
    return with_kind(inner, [&](auto typed) {
        const auto adapted_as = [&](auto adapted, NormalizerTraits promises) {
            return AnyNormalizer::with_promises(std::move(adapted), text, promises);
        };
        if (name == "softcap") return adapted_as(softcap(x) | typed, mapped_traits(inner.promises(), false));
        if (name == "temperature")
            return adapted_as(attnscope::temperature(x) | typed, mapped_traits(inner.promises(), true));
        if (name == "topk")
            return adapted_as(typed | top_k(whole_number("k of topk", x)), restricted_traits(inner.promises()));
        return adapted_as(typed | top_p(x), restricted_traits(inner.promises()));
    });
}

template <class Text>
AnyNormalizer read_normalizer(Text text, double temperature) {
    checked_temperature("make_normalizer", temperature);
    std::vector<NormalizerPart> front, back;
    std::optional<NormalizerPart> core;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find('|', begin), text.size());
        const NormalizerPart part = parse_normalizer_part(text.substr(begin, end - begin));
        begin = end + 1;
        switch (part.entry->place) {
        case NormalizerPlace::front:
            require(!core && back.empty(), "make_normalizer",
                    "softcap and temperature stand in front of the normaliser", text);
            front.push_back(part);
            break;
        case NormalizerPlace::core:
            require(!core, "make_normalizer", "there must be one normaliser, with adaptors around it", text);
            require(back.empty(), "make_normalizer", "topk and topp stand behind the normaliser", text);
            core = part;
            break;
        case NormalizerPlace::back:
            back.push_back(part);
            break;
        }
    }
    if (!core) core = parse_normalizer_part("softmax");
    // Softmax has a temperature of its own, which costs no rounding of the logits.
    const bool own = front.empty() && core->entry->name == "softmax";
    AnyNormalizer result = make_core_normalizer(*core, own ? temperature : 1);
    for (const auto& part : back) result = adapt_normalizer(part, result);
    for (std::size_t i = front.size(); i-- > 0;) result = adapt_normalizer(front[i], result);
    if (own || temperature == 1) return result;
    return with_kind(result, [&](auto typed) {
        return AnyNormalizer::with_promises(attnscope::temperature(temperature) | typed, result.name(),
                                            mapped_traits(result.promises(), true));
    });
}

} // namespace detail

/// The normaliser that `text` names: adaptors in front, one normaliser, adaptors behind, joined by `|`;
/// adaptors alone stand around softmax.
/// Shapes and units. `temperature` divides the logits before all of it.
/// Throws. `invalid_argument` that says what is wrong, for an unknown name with a list of the known ones; and
/// unless the temperature is > 0 and finite.
/// Example: `make_normalizer("softcap:50|ssmax:0.43|topk:64")`
inline AnyNormalizer make_normalizer(std::string_view text, double temperature = 1) {
    return detail::read_normalizer(text, temperature);
}

#ifdef ATTNSCOPE_PRECOMPILED
extern template AnyNormalizer detail::read_normalizer(std::string_view, double);
#endif

} // namespace v0_2
} // namespace attnscope
