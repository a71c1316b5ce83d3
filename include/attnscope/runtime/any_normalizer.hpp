// A normaliser chosen at run time: one object that answers what its class answers at compile time. Names for it
// are in registry.hpp.
#pragma once

#include <attnscope/audit/row.hpp>
#include <attnscope/normalizer/with_sink.hpp>

#include <memory>

namespace attnscope {
inline namespace v0_2 {

class AnyNormalizer;

namespace detail {

/// Has a normaliser norms of its own, in O(n)? (Behind a temperature, those of what stands there.)
template <class N>
struct LinearNorms {
    static constexpr bool known = FamilyGradient<N>::known || std::derived_from<N, Entmax> ||
                                  std::same_as<N, SinkSoftmax> || std::same_as<N, SigmoidAttention>;
    static bool value(const N&) { return known; }
};
template <class N>
struct LinearNorms<MappedNormalizer<Temperature, N>> {
    static constexpr bool known = LinearNorms<N>::known;
    static bool value(const MappedNormalizer<Temperature, N>& normalizer) {
        return LinearNorms<N>::value(normalizer.inner());
    }
};

/// A scalar in which an `AnyNormalizer` computes.
template <class T>
concept ErasedScalar = std::same_as<T, float> || std::same_as<T, double>;

} // namespace detail

/// What an `AnyNormalizer` may hold. (The first test ends the second for `AnyNormalizer` itself. Whether N can be
/// copied is no part of the question: a class with a constructor from `AnyNormalizer` would ask it of itself.)
template <class N>
concept Erasable = !std::same_as<N, AnyNormalizer> && detail::NormalizerMembers<N, float> &&
                   detail::NormalizerMembers<N, double>;

/// Any normaliser, behind one virtual call a row. It satisfies `Normalizer` over float and double; its static
/// `traits` promise nothing, `promises()` tells those of what it holds.
/// Invariant. Cheap to copy; what it holds does not change.
/// Example, with a row z of float:
///     AnyNormalizer any = ScalableSoftmax(0.43); // or make_normalizer("softcap:50|ssmax:0.43|topk:64")
///     const std::string name = any.name();
///     const auto p = weights(any, z);
///     any = Sparsemax();
///     const bool is_softmax = any.target<Softmax>() != nullptr;
class AnyNormalizer {
public:
    static constexpr NormalizerTraits traits{};

    /// Softmax.
    AnyNormalizer() : AnyNormalizer(Softmax()) {}
    /// Holds `normalizer` under its own name.
    template <Erasable N>
    AnyNormalizer(N normalizer) : AnyNormalizer(normalizer, std::string(normalizer.name())) {}
    /// Holds `normalizer` under another name.
    template <Erasable N>
    AnyNormalizer(N normalizer, std::string name)
        : name_(std::move(name)), promises_(promises_of(normalizer)), model_(model_of(std::move(normalizer))) {}

    /// Holds `normalizer`, an adaptor around another `AnyNormalizer`, under a name and with promises that its
    /// class does not tell.
    template <class N>
    static AnyNormalizer with_promises(N normalizer, std::string name, NormalizerTraits promises) {
        return AnyNormalizer(std::move(normalizer), std::move(name), promises);
    }

    /// As `make_normalizer` reads it.
    const std::string& name() const { return name_; }
    NormalizerTraits promises() const { return promises_; }

    template <detail::ErasedScalar T>
    RowStatus apply(std::span<const T> z, std::span<T> out) const {
        return model_->apply(z, out);
    }
    template <detail::ErasedScalar T>
    void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
        model_->jvp(z, p, v, out);
    }
    template <detail::ErasedScalar T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        model_->vjp(z, p, w, out);
    }

    /// What it holds if that is an N, else null, as `std::function` tells it.
    /// Example: `if (const auto* softmax = any.target<Softmax>()) use(softmax->temperature());`
    template <Erasable N>
    const N* target() const {
        const auto* const model = dynamic_cast<const Model<N>*>(model_.get());
        return model ? &model->held() : nullptr;
    }

    /// Norms of dp/dz at the row, from the weights p: see `jacobian_norms`.
    template <detail::ErasedScalar T>
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
    template <detail::ErasedScalar T>
    T log_sum_exp(std::span<const T> z) const {
        return model_->log_sum_exp(z);
    }

    /// Has it a sink, and the weight on it; NaN where the normaliser has none.
    bool has_sink() const { return model_->has_sink(); }
    double sink_slope() const { return model_->sink_slope(); } ///< see `attnscope::sink_slope`
    template <detail::ErasedScalar T>
    double sink_mass(std::span<const T> z) const {
        return model_->sink_mass(z);
    }
    /// Can it have one beside it, and the normaliser that it then is: see `attnscope::with_sink`. It keeps its name.
    /// Throws. `invalid_argument` for what is no softmax behind softcaps and temperatures, and as `with_sink` does.
    bool takes_sink() const { return model_->takes_sink(); }
    AnyNormalizer with_sink(double logit) const {
        detail::require(takes_sink(), "AnyNormalizer::with_sink",
                        "only softmax has a sink beside it, behind softcaps and temperatures", name_);
        return model_->with_sink(logit, name_);
    }

    /// The logits that softmax sees behind softcaps and temperatures, and that of a sink among them: see
    /// `attnscope::softmax_logits`.
    /// Throws. `invalid_argument` for what takes no sink, as it is no softmax behind those.
    void softmax_logits(RowIn<double> z, RowOut<double> out) const {
        detail::require(takes_sink(), "AnyNormalizer::softmax_logits",
                        "only softmax has them, behind softcaps and temperatures", name_);
        model_->softmax_logits(z, out);
    }
    double softmax_sink_logit(double logit) const {
        detail::require(takes_sink(), "AnyNormalizer::softmax_sink_logit",
                        "only softmax has one, behind softcaps and temperatures", name_);
        return model_->softmax_sink_logit(logit);
    }

    /// Has it a parameter of its own that people train, and which?
    bool has_parameter() const { return !model_->parameter_name().empty(); }
    std::string_view parameter_name() const { return model_->parameter_name(); }
    /// dp/d(parameter).
    /// Throws. `invalid_argument` if there is none.
    template <detail::ErasedScalar T>
    void parameter_derivative(std::span<const T> z, std::span<const T> p, std::span<T> out) const {
        detail::require(has_parameter(), "AnyNormalizer::parameter_derivative",
                        "the normaliser must have a parameter", name_);
        model_->parameter_derivative(z, p, out);
    }

    /// Holds the statements about this normaliser against one row: `RowAuditor` calls it.
    void audit(Audit& audit, RowIn<double> z, const RowFacts& facts, RowAuditor& auditor) const {
        model_->audit(audit, z, facts, auditor);
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
        virtual float log_sum_exp(In<float> z) const = 0;
        virtual double log_sum_exp(In<double> z) const = 0;
        virtual bool has_sink() const = 0;
        virtual double sink_slope() const = 0;
        virtual double sink_mass(In<float> z) const = 0;
        virtual double sink_mass(In<double> z) const = 0;
        virtual bool takes_sink() const = 0;
        virtual AnyNormalizer with_sink(double logit, const std::string& name) const = 0;
        virtual void softmax_logits(In<double> z, Out<double> out) const = 0;
        virtual double softmax_sink_logit(double logit) const = 0;
        virtual std::string_view parameter_name() const = 0;
        virtual void parameter_derivative(In<float> z, In<float> p, Out<float> out) const = 0;
        virtual void parameter_derivative(In<double> z, In<double> p, Out<double> out) const = 0;
        virtual void audit(Audit& audit, In<double> z, const RowFacts& facts, RowAuditor& auditor) const = 0;
        virtual bool is_family_member() const = 0;
        virtual void family_gradient(In<double> z, In<double> p, Out<double> g) const = 0;
    };

    /// What is known of a normaliser whose norms come from its products: compiled once for all.
    struct Products {
        const Base* base;
        static constexpr NormalizerTraits traits{};
        static constexpr std::string_view name() { return "products"; }
        template <detail::ErasedScalar T>
        RowStatus apply(std::span<const T> z, std::span<T> out) const {
            return base->apply(z, out);
        }
        template <detail::ErasedScalar T>
        void jvp(std::span<const T> z, std::span<const T> p, std::span<const T> v, std::span<T> out) const {
            base->jvp(z, p, v, out);
        }
        template <detail::ErasedScalar T>
        void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
            base->vjp(z, p, w, out);
        }
    };

    template <class N>
    class Model final : public Base {
        static_assert(Normalizer<N, float> && Normalizer<N, double>,
                      "a normaliser must be a type that can be copied");

    public:
        explicit Model(N normalizer) : normalizer_(std::move(normalizer)) {}
        const N& held() const { return normalizer_; }
        RowStatus apply(In<float> z, Out<float> out) const override { return normalizer_.apply(z, out); }
        RowStatus apply(In<double> z, Out<double> out) const override { return normalizer_.apply(z, out); }
        void jvp(In<float> z, In<float> p, In<float> v, Out<float> out) const override {
            normalizer_.jvp(z, p, v, out);
        }
        void jvp(In<double> z, In<double> p, In<double> v, Out<double> out) const override {
            normalizer_.jvp(z, p, v, out);
        }
        void vjp(In<float> z, In<float> p, In<float> w, Out<float> out) const override {
            normalizer_.vjp(z, p, w, out);
        }
        void vjp(In<double> z, In<double> p, In<double> w, Out<double> out) const override {
            normalizer_.vjp(z, p, w, out);
        }
        JacobianNorms<double> norms(In<double> z, In<double> p) const override {
            if constexpr (detail::LinearNorms<N>::known)
                return jacobian_norms(normalizer_, z, p);
            else
                return jacobian_norms(Products{this}, z, p);
        }
        bool has_linear_norms() const override { return detail::LinearNorms<N>::value(normalizer_); }
        float log_sum_exp(In<float> z) const override { return logarithm(z); }
        double log_sum_exp(In<double> z) const override { return logarithm(z); }
        bool has_sink() const override { return attnscope::has_sink(normalizer_); }
        double sink_slope() const override { return attnscope::sink_slope(normalizer_); }
        double sink_mass(In<float> z) const override { return mass_on_sink(z); }
        double sink_mass(In<double> z) const override { return mass_on_sink(z); }
        bool takes_sink() const override { return attnscope::takes_sink(normalizer_); }
        AnyNormalizer with_sink(double logit, const std::string& name) const override {
            if constexpr (std::same_as<N, Softmax>)
                if (normalizer_.temperature() == 1) return {SinkSoftmax::from_logit(logit), name};
            if constexpr (TakesSink<N>)
                return {attnscope::with_sink(normalizer_, logit), name};
            else
                return {SinkSoftmax(), name}; // `takes_sink` was false
        }
        void softmax_logits(In<double> z, Out<double> out) const override { // of those that `takes_sink`
            if constexpr (TakesSink<N>) attnscope::softmax_logits(normalizer_, z, out);
        }
        double softmax_sink_logit(double logit) const override {
            if constexpr (TakesSink<N>)
                return attnscope::softmax_sink_logit(normalizer_, logit);
            else
                return logit;
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
        void audit(Audit& audit, In<double> z, const RowFacts& facts, RowAuditor& auditor) const override {
            auditor(audit, normalizer_, z, facts);
        }
        bool is_family_member() const override { return detail::FamilyGradient<N>::known; }
        void family_gradient(In<double> z, In<double> p, Out<double> g) const override {
            if constexpr (detail::FamilyGradient<N>::known)
                detail::FamilyGradient<N>::template fill<double>(normalizer_, z, p, g);
        }

    private:
        template <class T>
        T logarithm(In<T> z) const {
            if constexpr (HasLogSumExp<N, T>)
                return normalizer_.log_sum_exp(z);
            else
                return std::numeric_limits<T>::quiet_NaN();
        }
        template <class T>
        double mass_on_sink(In<T> z) const {
            if constexpr (HasSink<N, T>)
                return normalizer_.sink_mass(z);
            else
                return std::numeric_limits<double>::quiet_NaN();
        }
        template <class T>
        void derivative(In<T> z, In<T> p, Out<T> out) const {
            if constexpr (HasParameter<N, T>) normalizer_.parameter_derivative(z, p, out);
        }
        N normalizer_;
    };

    template <class N>
    AnyNormalizer(N normalizer, std::string name, NormalizerTraits promises)
        : name_(std::move(name)), promises_(promises), model_(model_of(std::move(normalizer))) {}

    /// Compiles all that is asked of an N. Not inline, so that a program can have it once: see precompiled.hpp.
    template <class N>
    static std::shared_ptr<const Base> model_of(N normalizer);

    std::string name_;
    NormalizerTraits promises_;
    std::shared_ptr<const Base> model_;
};

template <class N>
std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(N normalizer) {
    return std::make_shared<const Model<N>>(std::move(normalizer));
}

/// See `AnyNormalizer::with_sink`; of no normaliser that only converts to one.
template <std::same_as<AnyNormalizer> N>
AnyNormalizer with_sink(const N& normalizer, double logit) {
    return normalizer.with_sink(logit);
}

/// See `AnyNormalizer::softmax_logits`.
template <std::same_as<AnyNormalizer> N>
void softmax_logits(const N& normalizer, RowIn<double> z, RowOut<double> out) {
    normalizer.softmax_logits(z, out);
}
/// See `AnyNormalizer::softmax_sink_logit`.
template <std::same_as<AnyNormalizer> N>
double softmax_sink_logit(const N& normalizer, double logit) {
    return normalizer.softmax_sink_logit(logit);
}

/// Norms of dp/dz of what an `AnyNormalizer` holds: formula, special rows and cost are those of its own
/// overload.
template <Real T>
JacobianNorms<double> jacobian_norms(const AnyNormalizer& normalizer, RowIn<T> z, RowIn<T> p) {
    return normalizer.norms<T>(z, p);
}

#ifdef ATTNSCOPE_PRECOMPILED
extern template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(Softmax);
extern template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(SinkSoftmax);
extern template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(ScalableSoftmax);
extern template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(LogLengthSoftmax);
extern template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(SigmoidAttention);
extern template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(Sparsemax);
extern template std::shared_ptr<const AnyNormalizer::Base> AnyNormalizer::model_of(Entmax);
#endif

} // namespace v0_2
} // namespace attnscope
