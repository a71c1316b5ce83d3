// Normalisers by name: parsing, composition at run time, and float against double on real heads.
#include <attnscope/io/safetensors.hpp>
#include <attnscope/runtime/registry.hpp>
#include <support/paths.hpp>
#include <support/rows.hpp>

#include <filesystem>

using namespace attnscope_test;
using namespace attnscope;

namespace {

template <class T, class N>
std::vector<T> weights(const N& normalizer, const std::vector<T>& z, RowStatus* status = nullptr) {
    std::vector<T> p(z.size(), T(-7));
    const RowStatus found = normalizer.apply(in(z), out(p));
    if (status) *status = found;
    return p;
}

/// The same formula: compilers may fuse products and sums differently in two instantiations, which the
/// condition of a row magnifies; the root of epsilon of the largest number tells such roundings from another
/// formula.
template <class T>
bool same(const std::vector<T>& a, const std::vector<T>& b) {
    T largest = 1;
    for (const T x : b)
        if (std::abs(x) <= std::numeric_limits<T>::max()) largest = std::max(largest, std::abs(x));
    const T tolerance = std::sqrt(std::numeric_limits<T>::epsilon()) * largest;
    return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                      [&](T x, T y) { return x == y || (x != x && y != y) || std::abs(x - y) <= tolerance; });
}

std::string message_of(const std::string& text, double temperature = 1) {
    try {
        make_normalizer(text, temperature);
    } catch (const invalid_argument& error) {
        return error.what();
    }
    return "nothing thrown";
}

/// Some rows of every family.
template <class F>
void for_some_rows(F&& f) {
    constexpr std::array<std::size_t, 3> some_lengths = {2, 9, 40};
    for_each_row<double>(test_seed(), some_lengths, 1, [&](const Where& where, const std::vector<double>& z) {
        CAPTURE(where.text());
        f(z);
    });
}

/// The normaliser made from `text` does what `expected` does.
template <class N>
void check_same(const std::string& text, const N& expected, double temperature = 1) {
    const AnyNormalizer any = make_normalizer(text, temperature);
    CAPTURE(text);
    CHECK(any.promises().simplex == N::traits.simplex);
    CHECK(any.promises().shift_invariant == N::traits.shift_invariant);
    CHECK(any.promises().order_preserving == N::traits.order_preserving);
    CHECK(any.promises().symmetric_jacobian == N::traits.symmetric_jacobian);
    CHECK(any.promises().sparse == N::traits.sparse);
    CHECK(any.has_parameter() == HasParameter<N, double>);
    std::size_t differences = 0, norm_differences = 0;
    for_some_rows([&](const std::vector<double>& z) {
        RowStatus status{}, expected_status{};
        const std::vector<double> p = weights(any, z, &status), q = weights(expected, z, &expected_status);
        differences += !same(p, q) || status != expected_status;
        const std::vector<float> narrow_z(z.begin(), z.end());
        differences += !same(weights(any, narrow_z), weights(expected, narrow_z));
        std::vector<double> v(z.size()), a(z.size()), b(z.size());
        for (std::size_t i = 0; i < v.size(); ++i) v[i] = std::sin(static_cast<double>(i + 1));
        any.jvp(in(z), in(p), in(v), out(a));
        expected.template jvp<double>(in(z), in(p), in(v), out(b));
        differences += !same(a, b);
        any.vjp(in(z), in(p), in(v), out(a));
        expected.template vjp<double>(in(z), in(p), in(v), out(b));
        differences += !same(a, b);
        if constexpr (HasParameter<N, double>) {
            any.parameter_derivative(in(z), in(p), out(a));
            expected.template parameter_derivative<double>(in(z), in(p), out(b));
            differences += !same(a, b);
        }
        if constexpr (HasLogSumExp<N, double>) {
            const double x = any.log_sum_exp(in(z)), y = expected.template log_sum_exp<double>(in(z));
            differences += !same<double>({x}, {y});
        }
        const auto norms = any.norms<double>(in(z), in(p));
        const auto exact = jacobian_norms(expected, in(z), in(p));
        // Compositions may come to their norms another way: both are exact to rounding.
        const auto differ = [](double x, double y) {
            return !(std::abs(x - y) <= 1e-10 * std::abs(y) + 1e-300);
        };
        norm_differences += differ(norms.frobenius, exact.frobenius) || differ(norms.one, exact.one) ||
                            differ(norms.column, exact.column);
        if (exact.spectral.converged && norms.spectral.converged)
            norm_differences += differ(norms.spectral.value, exact.spectral.value);
    });
    CHECK(differences == 0);
    CHECK(norm_differences == 0);
}

} // namespace

TEST_CASE("io registry: every name is the class it stands for", "[io][registry]") {
    check_same("softmax", Softmax());
    check_same("softmax", Softmax(0.5), 0.5);
    check_same("ssmax", ScalableSoftmax());
    check_same("ssmax:0.7", ScalableSoftmax(0.7));
    check_same("logn:0.2", LogLengthSoftmax(0.2));
    check_same("yarn:4", YarnSoftmax(4));
    check_same("adaptive", AdaptiveSoftmax());
    check_same("entropy:1.5", EntropyTargetSoftmax(1.5));
    check_same("participation:3", ParticipationTargetSoftmax(3));
    check_same("sink", SinkSoftmax());
    check_same("sink:0.5", SinkSoftmax(0.5));
    check_same("sigmoid", SigmoidAttention());
    check_same("sigmoid:-2", SigmoidAttention(-2));
    check_same("relu", PointwiseNormalizer<ReluPower>());
    check_same("relu:2.5", PointwiseNormalizer<ReluPower>(ReluPower(2.5)));
    check_same("softplus", PointwiseNormalizer<Softplus>());
    check_same("stablemax", PointwiseNormalizer<StableExponential>());
    check_same("quadratic:2", PointwiseNormalizer<Quadratic>(Quadratic(2)));
    check_same("sigmoidsum", PointwiseNormalizer<Sigmoid>());
    check_same("softpick", Softpick());
    check_same("softpick:0.5", Softpick(0.5));
    check_same("selfadjusted", SelfAdjustedSoftmax());
    check_same("sparsemax", Sparsemax());
    check_same("entmax", Entmax());
    check_same("entmax:1", Entmax(1));
    check_same("entmax:1.33", Entmax(1.33));
}

TEST_CASE("io registry: what it holds is known by its type", "[io][registry]") {
    const attnscope::AnyNormalizer softmax = make_normalizer("softmax", 0.5);
    REQUIRE(softmax.target<Softmax>() != nullptr);
    CHECK(softmax.target<Softmax>()->temperature() == 0.5);
    CHECK(softmax.target<Entmax>() == nullptr);
    REQUIRE(make_normalizer("entmax:1.33").target<Entmax>() != nullptr);
    CHECK(make_normalizer("entmax:1.33").target<Entmax>()->alpha() == 1.33);
    CHECK(make_normalizer("softmax|topk:3").target<Softmax>() == nullptr);
    CHECK(attnscope::AnyNormalizer(Softmax(), "another name").target<Softmax>() != nullptr);
}

TEST_CASE("io registry: adaptors around it are those of the operators", "[io][registry]") {
    check_same("softcap:50|ssmax:0.43|topk:64", softcap(50) | ScalableSoftmax(0.43) | top_k(64));
    check_same("softcap:2|ssmax:0.43|topk:4", softcap(2) | ScalableSoftmax(0.43) | top_k(4));
    check_same("topp:0.9", Softmax() | top_p(0.9));
    check_same("softcap:3", softcap(3) | Softmax());
    check_same("softcap:3|sink|topk:2", softcap(3) | SinkSoftmax() | top_k(2));
    check_same("sparsemax|topp:0.5", Sparsemax() | top_p(0.5));
    check_same("softcap:3|sigmoid", softcap(3) | SigmoidAttention());
    check_same("relu:2", attnscope::temperature(2) | PointwiseNormalizer<ReluPower>(ReluPower(2)), 2);
    check_same("softcap:3|entmax", attnscope::temperature(0.5) | (softcap(3) | Entmax()), 0.5);
    check_same("temperature:2|adaptive", attnscope::temperature(2) | AdaptiveSoftmax());
    // Several, applied from the inside out.
    check_same("softcap:9|softcap:3|softmax|topk:5|topk:2",
               softcap(9) | (softcap(3) | (Softmax() | top_k(5) | top_k(2))));
}

TEST_CASE("io registry: names are read back, and all that is known can be made", "[io][registry]") {
    std::size_t cores = 0;
    for (const NormalizerName& entry : known_normalizers()) {
        const AnyNormalizer any = make_normalizer(entry.example);
        CAPTURE(std::string(entry.name));
        CHECK(make_normalizer(any.name()).name() == any.name());
        CHECK(std::string(entry.syntax).find(std::string(entry.name)) == 0);
        CHECK(!entry.formula.empty());
        if (entry.place != NormalizerPlace::core) continue;
        ++cores;
        CHECK(any.name() == entry.example);
        // The temperature divides the logits before everything.
        const std::vector<double> z = {0.5, 3, -1, 2.25}, half = {0.25, 1.5, -0.5, 1.125};
        const std::vector<double> p = weights(make_normalizer(entry.example, 2), z), q = weights(any, half);
        for (std::size_t i = 0; i < p.size(); ++i) CHECK(std::abs(p[i] - q[i]) <= 1e-14);
    }
    CHECK(cores == 18);
}

TEST_CASE("io registry: statements hold for whatever has a name", "[io][registry][audit]") {
    for (const NormalizerName& entry : known_normalizers())
        for (const double temperature : {1.0, 0.3}) {
            const AnyNormalizer any = make_normalizer(entry.example, temperature);
            CAPTURE(any.name(), temperature);
            Audit audit;
            RowAuditor auditor;
            for_some_rows([&](const std::vector<double>& z) { auditor(audit, any, in(z)); });
            CHECK(audit.sharp_violations() == 0);
        }
}

TEST_CASE("io registry: what cannot be made says why", "[io][registry]") {
    const auto check = [](const std::string& text, const std::string& part) {
        CAPTURE(text, message_of(text));
        CHECK(message_of(text).find(part) != std::string::npos);
    };
    for (const NormalizerName& entry : known_normalizers()) check("softmacks", std::string(entry.name));
    check("softmacks", "got softmacks");
    check("", "got nothing");
    check("softmax|", "got nothing");
    check("|softmax", "got nothing");
    check("logn", "the form is logn:KAPPA, got logn");
    check("softmax:2", "the form is softmax, got softmax:2");
    check("ssmax:", "the form is ssmax[:S] with a number, got ssmax:");
    check("ssmax:0.4x", "got ssmax:0.4x");
    check("ssmax: 0.4", "got ssmax: 0.4");
    check("relu|softmax", "one normaliser");
    check("softmax|softcap:3", "stand in front");
    check("topk:3|softmax", "stand behind");
    check("entmax:0.9", "alpha must be >= 1 and finite, got 0.9");
    check("entmax:nan", "alpha must be >= 1 and finite, got nan");
    check("softmax|topk:0", "whole number >= 1, got 0");
    check("softmax|topk:2.5", "got 2.5");
    check("topp:0", "(0, 1], got 0");
    check("softcap:-1", "got -1");
    check("entropy:-1", "got -1");
    check("yarn:0.5", "got 0.5");
    CHECK(message_of("softmax", 0).find("temperature must be > 0") != std::string::npos);
}

TEST_CASE("io registry: float agrees with double on real heads", "[io][registry][data]") {
    const std::string path = data_folder() + "/gpt2-heads/john_smith_n9.safetensors";
    if (!std::filesystem::exists(path))
        ATTNSCOPE_SKIP("no gpt2-heads/john_smith_n9.safetensors (ATTNSCOPE_DATA_DIR names the data folder)");
    const attnscope::io::SafetensorsFile file(path);
    const std::vector<float> q = file.read<float>("q"), k = file.read<float>("k");
    constexpr std::size_t heads = 144, n = 9, width = 64;
    REQUIRE(q.size() == heads * n * width);
    for (const NormalizerName& entry : known_normalizers()) {
        const AnyNormalizer any = make_normalizer(entry.example);
        Worst worst;
        for (std::size_t head = 0; head < heads; ++head)
            for (std::size_t query = 1; query < n; ++query) {
                std::vector<float> z(query + 1);
                float largest = 0;
                for (std::size_t key = 0; key <= query; ++key) {
                    double sum = 0;
                    for (std::size_t c = 0; c < width; ++c)
                        sum +=
                            double(q[(head * n + query) * width + c]) * double(k[(head * n + key) * width + c]);
                    z[key] = static_cast<float>(sum / 8);
                    largest = std::max(largest, std::abs(z[key]));
                }
                const std::vector<double> wide(z.begin(), z.end());
                const std::vector<double> exact = weights(any, wide);
                const std::vector<float> p = weights(any, z);
                // The kernels round each logit a few times beside the largest, which J turns into weights; no J
                // here changes by more than a factor of 4 within such a distance. Then a few units for each
                // weight.
                const Ref u = unit_roundoff<float>;
                const auto norms = any.norms<double>(in(wide), in(exact));
                const Ref moved = 12 * u * (2 * Ref(largest) + 1) * std::sqrt(static_cast<Ref>(z.size()));
                const Ref tolerance = 4 * std::max(Ref(norms.spectral.value), Ref(1)) * moved;
                for (std::size_t i = 0; i < z.size(); ++i)
                    worst.meet(std::abs(Ref(p[i]) - Ref(exact[i])), tolerance + 64 * u * Ref(exact[i]),
                               Where{"john_smith_n9", z.size(), 1, 0, "float", any.name()});
            }
        ATTNSCOPE_CHECK_WORST(worst);
    }
}
