// Normalisers by name, for programs: "softcap:50|ssmax:0.43|topk:64" becomes an object that answers at run time
// what its class answers at compile time. Not in the umbrella: it compiles every normaliser.
#pragma once

#include <attnscope/normalizer/adaptive_softmax.hpp>
#include <attnscope/normalizer/self_adjusted_softmax.hpp>
#include <attnscope/normalizer/softpick.hpp>
#include <attnscope/normalizer/target_softmax.hpp>
#include <attnscope/row_audit.hpp>

#include <memory>
#include <optional>

namespace attnscope {
inline namespace v0_1 {

class AnyNormalizer;
AnyNormalizer make_normalizer(std::string_view text, double temperature = 1);

namespace detail {
template <class N>
struct LinearNorms;
}

/// What an `AnyNormalizer` may hold. (The first test ends the second for `AnyNormalizer` itself.)
template <class N>
concept Erasable = !std::same_as<N, AnyNormalizer> && Normalizer<N, float> && Normalizer<N, double>;

/// Any normaliser, behind one virtual call a row. Cheap to copy; what it holds does not change. It satisfies
/// `Normalizer` over float and double; its static `traits` promise nothing, `promises()` tells those of what it
/// holds.
class AnyNormalizer {
public:
    static constexpr NormalizerTraits traits{};

    /// Softmax.
    AnyNormalizer() : AnyNormalizer(Softmax()) {}
    /// Holds `normalizer` under its own name.
    template <Erasable N>
    explicit AnyNormalizer(N normalizer) : AnyNormalizer(normalizer, std::string(normalizer.name())) {}
    /// Holds `normalizer` under another name.
    template <Erasable N>
    AnyNormalizer(N normalizer, std::string name)
        : AnyNormalizer(std::move(normalizer), std::move(name), N::traits) {}

    /// Holds `normalizer`, an adaptor around another `AnyNormalizer`, under a name and with promises that its
    /// class does not tell.
    template <class N>
    static AnyNormalizer with_promises(N normalizer, std::string name, NormalizerTraits promises) {
        return AnyNormalizer(std::move(normalizer), std::move(name), promises);
    }

    /// As `make_normalizer` reads it.
    const std::string& name() const { return name_; }
    NormalizerTraits promises() const { return promises_; }

    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        return model_->apply(z, out);
    }
    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        model_->jvp(z, p, v, out);
    }
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        model_->vjp(z, p, w, out);
    }

    /// Norms of dp/dz at the row, from the weights p: see `jacobian_norms`.
    template <Real T>
    JacobianNorms<double> norms(RowIn<T> z, RowIn<T> p) const {
        if constexpr (std::same_as<T, double>) {
            return model_->norms(z, p);
        } else {
            const std::vector<double> logits(z.begin(), z.end()), weights(p.begin(), p.end());
            return model_->norms(RowIn<double>(logits), RowIn<double>(weights));
        }
    }
    /// Are the norms found in O(n)? Else in O(n^2).
    bool has_linear_norms() const { return model_->has_linear_norms(); }

    /// The logarithm of what the weights are divided by; NaN where the normaliser has none.
    double log_normalizer(std::span<const double> z) const { return model_->log_normalizer(z); }

    /// Has it a parameter of its own that people train, and which?
    bool has_parameter() const { return !model_->parameter_name().empty(); }
    std::string_view parameter_name() const { return model_->parameter_name(); }
    /// dp/d(parameter). Throws `invalid_argument` if there is none.
    template <Real T>
    void parameter_derivative(std::span<const T> z, std::span<const T> p, std::span<T> out) const {
        detail::require(has_parameter(), "AnyNormalizer::parameter_derivative",
                        "the normaliser must have a parameter", name_);
        model_->parameter_derivative(z, p, out);
    }

    /// Holds the statements about this normaliser against one row: see `audit_row`.
    void audit(Audit& audit, RowIn<double> z, const RowAuditOptions& options, SplitMix64& generator,
               RowAuditScratch& scratch) const {
        model_->audit(audit, z, options, generator, scratch);
    }

    /// For composition at run time: g of the general family, if the normaliser belongs to it.
    bool is_family_member() const { return model_->is_family_member(); }
    void family_gradient(RowIn<double> z, RowIn<double> p, RowOut<double> g) const {
        model_->family_gradient(z, p, g);
    }

private:
    template <class T>
    using In = std::span<const T>;
    template <class T>
    using Out = std::span<T>;

    struct Base {
        virtual ~Base() = default;
        virtual RowStatus apply(In<float> z, Out<float> out) const = 0;
        virtual RowStatus apply(In<double> z, Out<double> out) const = 0;
        virtual void jvp(In<float> z, In<float> p, In<float> v, Out<float> out) const = 0;
        virtual void jvp(In<double> z, In<double> p, In<double> v, Out<double> out) const = 0;
        virtual void vjp(In<float> z, In<float> p, In<float> w, Out<float> out) const = 0;
        virtual void vjp(In<double> z, In<double> p, In<double> w, Out<double> out) const = 0;
        virtual JacobianNorms<double> norms(In<double> z, In<double> p) const = 0;
        virtual bool has_linear_norms() const = 0;
        virtual double log_normalizer(In<double> z) const = 0;
        virtual std::string_view parameter_name() const = 0;
        virtual void parameter_derivative(In<float> z, In<float> p, Out<float> out) const = 0;
        virtual void parameter_derivative(In<double> z, In<double> p, Out<double> out) const = 0;
        virtual void audit(Audit& audit, In<double> z, const RowAuditOptions& options, SplitMix64& generator,
                           RowAuditScratch& scratch) const = 0;
        virtual bool is_family_member() const = 0;
        virtual void family_gradient(In<double> z, In<double> p, Out<double> g) const = 0;
    };

    /// What is known of a normaliser whose norms come from its products: compiled once for all.
    struct Products {
        const Base* base;
        static constexpr NormalizerTraits traits{};
        static constexpr std::string_view name() { return "products"; }
        template <Real T>
        RowStatus apply(std::span<const T> z, std::span<T> out) const {
            return base->apply(z, out);
        }
        template <Real T>
        void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
            base->jvp(z, p, v, out);
        }
        template <Real T>
        void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
            base->vjp(z, p, w, out);
        }
    };

    template <class N>
    class Model final : public Base {
    public:
        explicit Model(N normalizer) : normalizer_(std::move(normalizer)) {}
        RowStatus apply(In<float> z, Out<float> out) const override {
            return normalizer_.template apply<float>(z, out);
        }
        RowStatus apply(In<double> z, Out<double> out) const override {
            return normalizer_.template apply<double>(z, out);
        }
        void jvp(In<float> z, In<float> p, In<float> v, Out<float> out) const override {
            normalizer_.template jvp<float>(z, p, v, out);
        }
        void jvp(In<double> z, In<double> p, In<double> v, Out<double> out) const override {
            normalizer_.template jvp<double>(z, p, v, out);
        }
        void vjp(In<float> z, In<float> p, In<float> w, Out<float> out) const override {
            normalizer_.template vjp<float>(z, p, w, out);
        }
        void vjp(In<double> z, In<double> p, In<double> w, Out<double> out) const override {
            normalizer_.template vjp<double>(z, p, w, out);
        }
        JacobianNorms<double> norms(In<double> z, In<double> p) const override {
            if constexpr (detail::LinearNorms<N>::known)
                return jacobian_norms(normalizer_, z, p);
            else
                return jacobian_norms(Products{this}, z, p);
        }
        bool has_linear_norms() const override { return detail::LinearNorms<N>::value(normalizer_); }
        double log_normalizer(In<double> z) const override {
            if constexpr (HasLogNormalizer<N, double>)
                return normalizer_.template log_normalizer<double>(z);
            else
                return std::numeric_limits<double>::quiet_NaN();
        }
        std::string_view parameter_name() const override {
            if constexpr (HasParameter<N, double>)
                return N::parameter_name();
            else
                return {};
        }
        void parameter_derivative(In<float> z, In<float> p, Out<float> out) const override {
            derivative(z, p, out);
        }
        void parameter_derivative(In<double> z, In<double> p, Out<double> out) const override {
            derivative(z, p, out);
        }
        void audit(Audit& audit, In<double> z, const RowAuditOptions& options, SplitMix64& generator,
                   RowAuditScratch& scratch) const override {
            audit_row(audit, normalizer_, z, options, generator, scratch);
        }
        bool is_family_member() const override { return detail::FamilyGradient<N>::known; }
        void family_gradient(In<double> z, In<double> p, Out<double> g) const override {
            if constexpr (detail::FamilyGradient<N>::known)
                detail::FamilyGradient<N>::template fill<double>(normalizer_, z, p, g);
        }

    private:
        template <class T>
        void derivative(In<T> z, In<T> p, Out<T> out) const {
            if constexpr (HasParameter<N, T>) normalizer_.template parameter_derivative<T>(z, p, out);
        }
        N normalizer_;
    };

    template <class N>
    AnyNormalizer(N normalizer, std::string name, NormalizerTraits promises)
        : name_(std::move(name)), promises_(promises),
          model_(std::make_shared<const Model<N>>(std::move(normalizer))) {}

    std::string name_;
    NormalizerTraits promises_;
    std::shared_ptr<const Base> model_;
};

/// Norms of what an `AnyNormalizer` holds.
template <Real T>
JacobianNorms<double> jacobian_norms(const AnyNormalizer& normalizer, RowIn<T> z, RowIn<T> p) {
    return normalizer.norms<T>(z, p);
}

/// Audits one row of what an `AnyNormalizer` holds.
inline void audit_row(Audit& audit, const AnyNormalizer& normalizer, RowIn<double> z,
                      const RowAuditOptions& options, SplitMix64& generator, RowAuditScratch& scratch) {
    normalizer.audit(audit, z, options, generator, scratch);
}

namespace detail {

/// What adaptors must know of a normaliser at compile time.
enum class Kind {
    family,  ///< Jacobian (I - p 1^T) diag(g): restrictable, simplex
    simplex, ///< other weights that sum to 1
    other
};

/// An `AnyNormalizer` whose kind is known at compile time, so that adaptors can be put around it at run time.
template <Kind kind>
class Typed {
public:
    static constexpr NormalizerTraits traits{.simplex = kind != Kind::other,
                                             .restrictable = kind == Kind::family};
    explicit Typed(AnyNormalizer normalizer) : any_(std::move(normalizer)) {}
    const AnyNormalizer& any() const { return any_; }
    const std::string& name() const { return any_.name(); }
    template <Real T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        return any_.apply<T>(z, out);
    }
    template <Real T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        any_.jvp<T>(z, p, v, out);
    }
    template <Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        any_.vjp<T>(z, p, w, out);
    }
    template <class T>
    requires std::same_as<T, double> T log_normalizer(std::span<const T> z)
    const { return any_.log_normalizer(z); }

private:
    AnyNormalizer any_;
};
template <Real T, Kind kind>
JacobianNorms<double> jacobian_norms(const Typed<kind>& normalizer, RowIn<T> z, RowIn<T> p) {
    return normalizer.any().template norms<T>(z, p);
}
template <Kind kind>
void audit_row(Audit& audit, const Typed<kind>& normalizer, RowIn<double> z, const RowAuditOptions& options,
               SplitMix64& generator, RowAuditScratch& scratch) {
    normalizer.any().audit(audit, z, options, generator, scratch);
}
template <>
struct FamilyGradient<Typed<Kind::family>> {
    static constexpr bool known = true, closed = false;
    template <Real A>
    static void fill(const Typed<Kind::family>& normalizer, RowIn<A> z, RowIn<A> p, RowOut<A> g) {
        normalizer.any().family_gradient(z, p, g);
    }
};

/// Has a normaliser norms of its own, in O(n)? (Behind a temperature, those of what stands there.)
template <class N>
struct LinearNorms {
    static constexpr bool known = FamilyGradient<N>::known || std::derived_from<N, Entmax> ||
                                  std::same_as<N, SinkSoftmax> || std::same_as<N, SigmoidAttention>;
    static bool value(const N&) { return known; }
};
template <Kind kind>
struct LinearNorms<MappedNormalizer<Temperature, Typed<kind>>> {
    static constexpr bool known = true;
    static bool value(const MappedNormalizer<Temperature, Typed<kind>>& normalizer) {
        return normalizer.inner().any().has_linear_norms();
    }
};

/// Calls f(Typed<kind>) with the kind that the normaliser has.
template <class F>
AnyNormalizer with_kind(const AnyNormalizer& normalizer, F&& f) {
    if (normalizer.is_family_member()) return f(Typed<Kind::family>(normalizer));
    if (normalizer.promises().simplex) return f(Typed<Kind::simplex>(normalizer));
    return f(Typed<Kind::other>(normalizer));
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

inline AnyNormalizer make_core_normalizer(const NormalizerPart& part, double temperature) {
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
inline AnyNormalizer adapt_normalizer(const NormalizerPart& part, const AnyNormalizer& inner) {
    const std::string_view name = part.entry->name;
    const double x = *part.parameter;
    const bool front = part.entry->place == NormalizerPlace::front;
    const std::string text =
        front ? std::string(part.text) + "|" + inner.name() : inner.name() + "|" + std::string(part.text);
    return with_kind(inner, [&](auto typed) {
        const auto with = [&](auto adapted, NormalizerTraits promises) {
            return AnyNormalizer::with_promises(std::move(adapted), text, promises);
        };
        if (name == "softcap") return with(softcap(x) | typed, mapped_traits(inner.promises(), false));
        if (name == "temperature")
            return with(attnscope::temperature(x) | typed, mapped_traits(inner.promises(), true));
        if (name == "topk")
            return with(typed | top_k(whole_number("k of topk", x)), restricted_traits(inner.promises()));
        return with(typed | top_p(x), restricted_traits(inner.promises()));
    });
}

} // namespace detail

/// The normaliser that `text` names: adaptors in front, one normaliser, adaptors behind, joined by `|`, as in
/// "softcap:50|ssmax:0.43|topk:64"; adaptors alone stand around softmax. `temperature` > 0 divides the logits
/// before all of it. Throws `invalid_argument` that says what is wrong; for an unknown name it lists the known
/// ones.
inline AnyNormalizer make_normalizer(std::string_view text, double temperature) {
    detail::checked_temperature("make_normalizer", temperature);
    std::vector<detail::NormalizerPart> front, back;
    std::optional<detail::NormalizerPart> core;
    for (std::size_t begin = 0; begin <= text.size();) {
        const std::size_t end = std::min(text.find('|', begin), text.size());
        const detail::NormalizerPart part = detail::parse_normalizer_part(text.substr(begin, end - begin));
        begin = end + 1;
        switch (part.entry->place) {
        case NormalizerPlace::front:
            detail::require(!core && back.empty(), "make_normalizer",
                            "softcap and temperature stand in front of the normaliser", text);
            front.push_back(part);
            break;
        case NormalizerPlace::core:
            detail::require(!core, "make_normalizer", "there must be one normaliser, with adaptors around it",
                            text);
            detail::require(back.empty(), "make_normalizer", "topk and topp stand behind the normaliser", text);
            core = part;
            break;
        case NormalizerPlace::back:
            back.push_back(part);
            break;
        }
    }
    if (!core) core = detail::parse_normalizer_part("softmax");
    // Softmax has a temperature of its own, which costs no rounding of the logits.
    const bool own = front.empty() && core->entry->name == "softmax";
    AnyNormalizer result = detail::make_core_normalizer(*core, own ? temperature : 1);
    for (const auto& part : back) result = detail::adapt_normalizer(part, result);
    for (std::size_t i = front.size(); i-- > 0;) result = detail::adapt_normalizer(front[i], result);
    if (own || temperature == 1) return result;
    return detail::with_kind(result, [&](auto typed) {
        return AnyNormalizer::with_promises(attnscope::temperature(temperature) | typed, result.name(),
                                            detail::mapped_traits(result.promises(), true));
    });
}

} // namespace v0_1
} // namespace attnscope
