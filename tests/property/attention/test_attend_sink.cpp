// Attention beside a learned sink, and the gradient of its logit: plain loops and finite differences in long double.
#include <attnscope/attention/attend_backward.hpp>
#include <attnscope/normalizer/with_sink.hpp>
#include <attnscope/runtime/registry.hpp>
#include <support/analysis_reference.hpp>

using namespace attnscope;
using namespace attnscope_test;

namespace {

using Wide = Eigen::Matrix<Ref, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
constexpr double infinity = std::numeric_limits<double>::infinity();

/// A causal head beside a sink of logit b at a temperature, behind a softcap if there is one.
struct DenseHead {
    Wide q, k, v;
    Ref scale, temperature;
    std::optional<Ref> cap;
    Index first_that_sees = 0; // queries before it see no key

    struct Pass {
        Wide p, slope, output; // slope: d(exponent)/d(q.k)
        std::vector<Ref> mass;
    };
    Pass operator()(Ref b) const {
        const Index n = q.rows();
        Pass pass{Wide::Zero(n, n), Wide::Zero(n, n), Wide::Zero(n, v.cols()), {}};
        for (Index i = 0; i < n; ++i) {
            Ref sum = std::exp(b / temperature);
            for (Index j = 0; j <= i && i >= first_that_sees; ++j) {
                const Ref z = scale * q.row(i).dot(k.row(j));
                const Ref t = cap ? std::tanh(z / *cap) : Ref(0);
                pass.p(i, j) = std::exp((cap ? *cap * t : z) / temperature);
                pass.slope(i, j) = scale * (1 - t * t) / temperature;
                sum += pass.p(i, j);
            }
            pass.p.row(i) /= sum;
            pass.mass.push_back(std::exp(b / temperature) / sum);
        }
        pass.output = pass.p * v;
        return pass;
    }
    Ref loss(Ref b, const Wide& d_output) const { return (*this)(b).output.cwiseProduct(d_output).sum(); }
};

bool near(const Wide& right, const auto& found, Ref relative) {
    return (right - found.template cast<Ref>()).cwiseAbs().maxCoeff() <=
           relative * (right.cwiseAbs().maxCoeff() + 1);
}

} // namespace

TEST_CASE("attend and attend_backward beside a sink: dense formulas and finite differences", "[attend][sink]") {
    INFO("seed " << test_seed());
    SplitMix64 random = generator(test_seed(), 31);
    const Index n = 70; // more than a block
    const ExactHead head(random, n, n, 4, 3);
    const Matrix<double> d_output = eighths(random, n, 3);
    const auto check = [&](const auto& normalizer, double b, double temperature, std::optional<double> cap) {
        INFO("sink " << b << ", temperature " << temperature << ", cap " << cap.value_or(0));
        DenseHead dense{head.q.cast<Ref>(), head.k.cast<Ref>(), head.v.cast<Ref>(), 0.5L, Ref(temperature), {}};
        if (cap) dense.cap = Ref(*cap);
        dense.first_that_sees = 1; // by the bias
        const LogitBias bias = [](Index query, Index) { return query == 0 ? -infinity : 0; };
        const auto right = dense(b);
        const HeadView<double> view(head.q, head.k, head.v);
        const auto found = attend(view, normalizer, Mask::causal(), {.weights = true, .bias = bias});
        CHECK(near(right.p, found.weights, 1e-13L));
        CHECK(near(right.output, found.output, 1e-13L));
        CHECK((found.output.row(0).array() == 0).all());

        const auto gradient =
            attend_backward(view, normalizer, d_output, Mask::causal(), {.parameter = true, .bias = bias});
        const Wide g = d_output.cast<Ref>(), w = g * dense.v.transpose();
        Wide d_z = Wide::Zero(n, n);
        Ref sink = 0, size = 0, terms = 0;
        for (Index i = 0; i < n; ++i) {
            const Ref mean = right.p.row(i).dot(w.row(i));
            for (Index j = 0; j < n; ++j) d_z(i, j) = right.p(i, j) * (w(i, j) - mean) * right.slope(i, j);
            sink -= right.mass[static_cast<std::size_t>(i)] * mean / Ref(temperature);
            terms += right.p.row(i).cwiseProduct(w.row(i)).cwiseAbs().sum();
            size += right.mass[static_cast<std::size_t>(i)] *
                    right.p.row(i).cwiseProduct(w.row(i)).cwiseAbs().sum() / Ref(temperature);
        }
        CHECK(near(d_z * dense.k, gradient.q, 1e-12L));
        CHECK(near(d_z.transpose() * dense.q, gradient.k, 1e-12L));
        CHECK(near(right.p.transpose() * g, gradient.v, 1e-12L));
        INFO("gradient " << gradient.parameter << ", right " << static_cast<double>(sink));
        CHECK(std::abs(Ref(gradient.parameter) - sink) <= 1e-13L * size);
        // Central differences, extrapolated: their error is O(h^4), and the rounding of two sums over h.
        const Ref h = 1e-3L;
        const auto slope = [&](Ref step) {
            return (dense.loss(b + step, g) - dense.loss(b - step, g)) / (2 * step);
        };
        const Ref difference = (4 * slope(h) - slope(2 * h)) / 3;
        const Ref rounding = Ref(n) * std::numeric_limits<Ref>::epsilon() * terms / h;
        CHECK(std::abs(Ref(gradient.parameter) - difference) <= 1e-9L * size + rounding);
    };
    for (const double b : {-8.0, -0.5, 1.5, 6.0}) {
        check(SinkSoftmax::from_logit(b), b, 1, {});
        check(with_sink(Softmax(), b), b, 1, {});
        check(with_sink(Softmax(0.5), b), b, 0.5, {});
        check(with_sink(softcap(3) | Softmax(), b), b, 1, 3);
        check(with_sink(softcap(3) | Softmax(2), b), b, 2, 3);
        check(make_normalizer("softmax").with_sink(b), b, 1, {});
        check(make_normalizer("softmax", 2).with_sink(b), b, 2, {});
        check(make_normalizer("softcap:3|softmax").with_sink(b), b, 1, 3);
    }
}

TEST_CASE("attend_backward: nothing to differentiate", "[attend][sink]") {
    SplitMix64 random = generator(test_seed(), 32);
    const ExactHead head(random, 5, 5, 4, 3);
    const HeadView<double> view(head.q, head.k, head.v);
    const Matrix<double> d_output = eighths(random, 5, 3);
    // A sink without weight has no gradient, and the other gradients are those of softmax.
    const auto without = attend_backward(view, Softmax(), d_output);
    const auto none = attend_backward(view, with_sink(Softmax(), -infinity), d_output, {}, {.parameter = true});
    CHECK(none.parameter == 0);
    CHECK((none.q - without.q).cwiseAbs().maxCoeff() <= 1e-14);
    for (const AnyNormalizer& any : {make_normalizer("softcap:3|softmax"), make_normalizer("stablemax")})
        CHECK(error_of([&] {
                  (void)attend_backward(view, any, d_output, {}, {.parameter = true});
              }).find("must have a parameter") != std::string::npos);
    CHECK_THROWS_AS(attend_backward(view, softcap(3) | Softmax(), d_output, {}, {.parameter = true}),
                    invalid_argument);
}

TEST_CASE("attend: heads of a group have sinks of their own", "[attend][sink]") {
    SplitMix64 random = generator(test_seed(), 33);
    const Matrix<double> q = eighths(random, 4 * 6, 4), k = eighths(random, 2 * 6, 4),
                         v = eighths(random, 2 * 6, 3);
    const HeadGroup<double> group(HeadArray<double>::contiguous(q.data(), 4, 6, 4),
                                  HeadArray<double>::contiguous(k.data(), 2, 6, 4),
                                  HeadArray<double>::contiguous(v.data(), 2, 6, 3));
    std::vector<MappedNormalizer<Temperature, SinkSoftmax>> sinks;
    for (const double b : {0.5, -infinity, 3.0, -1.0}) sinks.push_back(with_sink(Softmax(), b));
    std::vector<Matrix<double>> d_outputs;
    for (int h = 0; h < 4; ++h) d_outputs.push_back(eighths(random, 6, 3));
    const auto outputs = attend(group, sinks, Mask::causal());
    const auto gradient = attend_backward(group, sinks, d_outputs, Mask::causal(), {.parameter = true});
    double sum = 0;
    for (Index h = 0; h < 4; ++h) {
        const auto i = static_cast<std::size_t>(h);
        CHECK((outputs[i].output.array() == attend(group[h], sinks[i], Mask::causal()).output.array()).all());
        const auto one = attend_backward(group[h], sinks[i], d_outputs[i], Mask::causal(), {.parameter = true});
        CHECK((gradient.q[i].array() == one.q.array()).all());
        CHECK(gradient.parameters[i] == one.parameter);
        sum += one.parameter;
    }
    CHECK(gradient.parameter == sum);
    sinks.pop_back();
    CHECK(error_of([&] { (void)attend(group, sinks); }).find("one normaliser for each query head") !=
          std::string::npos);
    CHECK_THROWS_AS(attend_backward(group, sinks, d_outputs), invalid_argument);
}
