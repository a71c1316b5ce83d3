// A normaliser of your own: a class with apply, jvp and vjp goes wherever softmax goes.
#include <attnscope/attnscope.hpp>
#include <cstdio>

/// p_i = 1/n_visible: attention that looks at nothing.
struct Uniform {
    static constexpr attnscope::NormalizerTraits traits{
        .simplex = true, .shift_invariant = true, .order_preserving = true, .symmetric_jacobian = true};
    static constexpr std::string_view name() { return "uniform"; }
    template <attnscope::Real T>
    attnscope::RowStatus apply(std::span<const T> z, std::span<T> p) const {
        const auto status =
            attnscope::row_statistics<T>(z).status; // NaN, +inf and empty rows: as softmax has them
        if (status != attnscope::RowStatus::normal) return attnscope::Softmax{}.apply(z, p);
        const T visible = static_cast<T>(attnscope::row_statistics<T>(z).visible);
        for (std::size_t i = 0; i < z.size(); ++i)
            p[i] = z[i] > -std::numeric_limits<T>::infinity() ? 1 / visible : T(0);
        return status;
    }
    template <attnscope::Real T> // the weights do not move with the logits
    void jvp(std::span<const T>, std::span<const T>, std::span<const T>, std::span<T> out) const {
        std::fill(out.begin(), out.end(), T(0));
    }
    template <attnscope::Real T>
    void vjp(std::span<const T> z, std::span<const T> p, std::span<const T> w, std::span<T> out) const {
        jvp(z, p, w, out);
    }
};
static_assert(attnscope::Normalizer<Uniform, float>);

int main() {
    const Eigen::VectorXd z = Eigen::VectorXd::LinSpaced(5, 0, 4);
    std::printf("%.2f\n", attnscope::weights(Uniform{}, z)[0]);
    std::printf("of two keys only (ties: the first): %.2f\n",
                attnscope::weights(Uniform{} | attnscope::top_k(2), z)[0]);
    std::printf("|J|_2 = %.0f\n", attnscope::jacobian_norms(Uniform{}, z).spectral.value);
}
