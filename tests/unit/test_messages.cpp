// Every broken precondition of the core is refused with function, rule and value.
#include <attnscope/attnscope.hpp>
#include <support/catch.hpp>

#include <array>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace {

using namespace attnscope;

constexpr double inf = std::numeric_limits<double>::infinity();
constexpr double not_a_number = std::numeric_limits<double>::quiet_NaN();

struct Case {
    std::string message;
    std::function<void()> action;
};

void check(const std::vector<Case>& cases) {
    for (const Case& c : cases) {
        std::string message = "nothing thrown";
        try {
            c.action();
        } catch (const invalid_argument& error) {
            message = error.what();
        }
        CHECK(message == c.message);
    }
}

/// Rows of 2, 3 and 3 logits.
struct Rows {
    std::vector<double> two = {0, 1}, three = {0, 1, 2}, out = {0, 0, 0};
    RowIn<double> in2() const { return two; }
    RowIn<double> in3() const { return three; }
    RowOut<double> out3() { return out; }
};

struct Negative {
    static constexpr std::string_view name() { return "negative"; }
    template <Real T>
    T operator()(T z) const {
        return z;
    }
    template <Real T>
    T derivative(T) const {
        return T(1);
    }
};

} // namespace

TEST_CASE("messages of matrix views and heads", "[messages]") {
    const std::vector<double> data(64);
    const auto view = [&](Index rows, Index cols) { return MatrixView<double>(data.data(), rows, cols); };
    const auto heads = [&](Index n, Index rows, Index cols) {
        return HeadArray<double>::contiguous(data.data(), n, rows, cols);
    };
    std::vector<double> out(3);
    const HeadView<double> head(view(2, 2), view(3, 2));
    check({
        {"MatrixView: rows and cols must be >= 0, got -1 and 2", [&] { view(-1, 2); }},
        {"MatrixView: rows and cols must be >= 0, got 1 and -2", [&] { view(1, -2); }},
        {"MatrixView: outer stride must be >= cols, got 2 and 3",
         [&] { MatrixView<double>(data.data(), 2, 3, 2); }},
        {"HeadView: q and k must have the same width, got 3 and 4",
         [&] { HeadView<double>(view(2, 3), view(2, 4)); }},
        {"HeadView: k and v must have the same number of rows, got 2 and 3",
         [&] { HeadView<double>(view(2, 3), view(2, 3), view(3, 3)); }},
        {"HeadView: scale must be finite, got inf",
         [&] { HeadView<double>(view(2, 3), view(2, 3), view(2, 3), inf); }},
        {"HeadView: scale must be finite, got nan",
         [&] { HeadView<double>(view(2, 3), view(2, 3), {}, not_a_number); }},
        {"HeadGroup: the number of key heads must divide the number of query heads, got 4 and 3",
         [&] { HeadGroup<double>(heads(4, 2, 2), heads(3, 2, 2)); }},
        {"HeadGroup: the number of key heads must divide the number of query heads, got 2 and 4",
         [&] { HeadGroup<double>(heads(2, 2, 2), heads(4, 2, 2)); }},
        {"HeadGroup: the number of key heads must divide the number of query heads, got 4 and 0",
         [&] { HeadGroup<double>(heads(4, 2, 2), heads(0, 2, 2)); }},
        {"HeadGroup: k and v must have the same number of heads, got 2 and 1",
         [&] { HeadGroup<double>(heads(2, 2, 2), heads(2, 2, 2), heads(1, 2, 2)); }},
        {"HeadView: q and k must have the same width, got 2 and 3",
         [&] { HeadGroup<double>(heads(2, 2, 2), heads(1, 2, 3)); }},
        {"logits_of: query must be in [0, queries), got 2 and 2",
         [&] { logits_of<double>(head, Mask{}, 2, RowOut<double>(out)); }},
        {"logits_of: query must be in [0, queries), got -1 and 2",
         [&] { logits_of<double>(head, Mask{}, -1, RowOut<double>(out)); }},
        {"logits_of: out must have one element for each key, got 2 and 3",
         [&] { logits_of<double>(head, Mask{}, 0, RowOut<double>(out).first(2)); }},
    });
}

TEST_CASE("messages of masks", "[messages]") {
    const Mask mask;
    check({
        {"Mask::with_window: width must be >= 1, got 0", [&] { (void)mask.with_window(0); }},
        {"Mask::with_window: width must be >= 1, got -3", [&] { (void)Mask::sliding_window(-3); }},
        {"Mask::with_sinks: count must be >= 0, got -1", [&] { (void)mask.with_sinks(-1); }},
        {"Mask::with_length: length must be >= 0, got -1", [&] { (void)mask.with_length(-1); }},
        {"Mask::with_prefix: prefix must be >= 0, got -1", [&] { (void)mask.with_prefix(-1); }},
        {"Mask::with_segments: the first segment must start at key 0, got -1",
         [&] { (void)mask.with_segments({}); }},
        {"Mask::with_segments: the first segment must start at key 0, got 2",
         [&] {
             (void)mask.with_segments({2, 4});
         }},
        {"Mask::with_segments: starts must be strictly ascending, got 4 and 4",
         [&] {
             (void)mask.with_segments({0, 4, 4});
         }},
        {"Mask::with_segments: starts must be strictly ascending, got 5 and 3",
         [&] {
             (void)mask.with_segments({0, 5, 3});
         }},
    });
}

TEST_CASE("messages of normalisers", "[messages]") {
    Rows rows;
    const Softmax softmax;
    const PointwiseNormalizer<Softplus> softplus;
    const Eigen::VectorXd two = Eigen::VectorXd::Zero(2), three = Eigen::VectorXd::Zero(3);
    const std::string same = ": rows must have the same length, got 3 and 2";
    const auto short_out = [&] { return rows.out3().first(2); };
    check({
        {"Softmax: temperature must be > 0 and finite, got 0", [] { Softmax(0); }},
        {"Softmax: temperature must be > 0 and finite, got -0.5", [] { Softmax(-0.5); }},
        {"Softmax: temperature must be > 0 and finite, got inf", [] { Softmax{inf}; }},
        {"Softmax: temperature must be > 0 and finite, got nan", [] { Softmax{not_a_number}; }},
        {"log_sum_exp: temperature must be > 0 and finite, got 0", [&] { log_sum_exp<double>(rows.in3(), 0); }},
        {"Quadratic: c must be > 0 and finite, got 0", [] { Quadratic(0); }},
        {"Quadratic: c must be > 0 and finite, got nan", [] { Quadratic{not_a_number}; }},
        {"PointwiseNormalizer: F must be positive, got -2",
         [] { weights(PointwiseNormalizer<Negative>{}, Eigen::Vector2d(3, -2)); }},
        {"Softmax::apply" + same, [&] { softmax.apply<double>(rows.in3(), short_out()); }},
        {"Softmax::jvp" + same, [&] { softmax.jvp<double>(rows.in3(), rows.in2(), rows.in3(), rows.out3()); }},
        {"Softmax::jvp" + same, [&] { softmax.jvp<double>(rows.in3(), rows.in3(), rows.in2(), rows.out3()); }},
        {"Softmax::vjp" + same, [&] { softmax.vjp<double>(rows.in3(), rows.in3(), rows.in3(), short_out()); }},
        {"PointwiseNormalizer::apply" + same, [&] { softplus.apply<double>(rows.in3(), short_out()); }},
        {"PointwiseNormalizer::jvp" + same,
         [&] { softplus.jvp<double>(rows.in3(), rows.in3(), rows.in2(), rows.out3()); }},
        {"PointwiseNormalizer::vjp" + same,
         [&] { softplus.vjp<double>(rows.in3(), rows.in2(), rows.in3(), rows.out3()); }},
        {"jvp" + same, [&] { jvp(softmax, three, two); }},
        {"vjp" + same, [&] { vjp(softmax, three, two); }},
    });
}

TEST_CASE("messages of concentration", "[messages]") {
    Rows rows;
    const Matrix<double> weights = Matrix<double>::Zero(2, 3);
    const MatrixView<double> view(weights);
    check({
        {"row_statistics: temperature must be > 0 and finite, got 0",
         [&] { row_statistics<double>(rows.in3(), 0); }},
        {"matrix_statistics: temperature must be > 0 and finite, got 0",
         [&] { matrix_statistics(Matrix<double>(2, 3), 0); }},
        {"row_statistics: temperature must be > 0 and finite, got -1",
         [&] { entropy_nats(Eigen::Vector2d(1, 2), -1); }},
        {"centred_norm: temperature must be > 0 and finite, got -1",
         [&] { centred_norm<double>(rows.in3(), -1); }},
        {"renyi_entropy_nats: order must be >= 0, got -0.5",
         [&] { renyi_entropy_nats<double>(rows.in3(), -0.5); }},
        {"renyi_entropy_nats: order must be >= 0, got nan",
         [&] { hill_number(Eigen::Vector2d(1, 2), not_a_number); }},
        {"published_weight_range: n must be >= 1, got 0", [] { published_weight_range<double>(0, 1); }},
        {"published_weight_range: log kappa must be >= 0, got -1",
         [] { published_weight_range<double>(1, -1); }},
        {"weight_range: n must be >= 1, got 0", [] { weight_range<double>(0, 1); }},
        {"weight_range: log kappa must be >= 0, got nan", [] { weight_range<double>(1, not_a_number); }},
        {"entropy_floor_by_norm: n must be >= 1, got 0", [] { entropy_floor_by_norm<double>(0, 1); }},
        {"entropy_floor_by_norm: sigma must be >= 0, got -1", [] { entropy_floor_by_norm<double>(2, -1); }},
        {"entropy_floor_by_range: n must be >= 1, got -4", [] { entropy_floor_by_range<double>(-4, 1); }},
        {"entropy_floor_by_range: spread must be >= 0, got -1", [] { entropy_floor_by_range<double>(2, -1); }},
        {"entropy_range_by_max_weight: n must be >= 1, got 0",
         [] { entropy_range_by_max_weight<double>(0, 0.5, 0.5); }},
        {"entropy_range_by_max_weight: p1 must be in (0,1], got 0",
         [] { entropy_range_by_max_weight<double>(2, 0, 1); }},
        {"entropy_range_by_max_weight: p1 must be in (0,1], got 1.5",
         [] { entropy_range_by_max_weight<double>(2, 1.5, 0); }},
        {"longest_context: spread must be >= 0, got -1", [] { longest_context<double>(-1, 1, 0.5); }},
        {"longest_context: temperature must be > 0, got 0", [] { longest_context<double>(1, 0, 0.5); }},
        {"longest_context: tau must be in (0,1], got 0", [] { longest_context<double>(1, 1, 0); }},
        {"longest_context: tau must be in (0,1], got 1.5", [] { longest_context<double>(1, 1, 1.5); }},
        {"highest_temperature: n must be >= 1, got 0", [] { highest_temperature<double>(0, 1, 0.5); }},
        {"highest_temperature: spread must be >= 0, got -1", [] { highest_temperature<double>(2, -1, 0.5); }},
        {"highest_temperature: tau must be in (0,1], got nan",
         [] { highest_temperature<double>(2, 1, not_a_number); }},
        {"needed_spread: n must be >= 1, got 0", [] { needed_spread<double>(0, 1, 0.5); }},
        {"needed_spread: temperature must be > 0, got -2", [] { needed_spread<double>(2, -2, 0.5); }},
        {"needed_spread: tau must be in (0,1], got -0.25", [] { needed_spread<double>(2, 1, -0.25); }},
        {"column_mass: excluded must be in [0, keys], got 4 and 3", [&] { column_mass(view, {}, 4); }},
        {"column_mass: excluded must be in [0, keys], got -1 and 3", [&] { column_mass(view, {}, -1); }},
        {"leading_mass: k must be >= 0, got -1", [&] { leading_mass(view, -1); }},
    });
}

TEST_CASE("messages of sensitivity", "[messages]") {
    Rows rows;
    SplitMix64 generator(1);
    const Softmax softmax;
    const PointwiseNormalizer<Softplus> softplus;
    const std::string same = ": rows must have the same length, got 3 and 2";
    const auto step = [&](RowIn<double> v, double eps) {
        finite_difference<double>(softmax, rows.in3(), rows.in3(), v, eps, rows.out3());
    };
    check({
        {"random_direction" + same,
         [&] { random_direction<double>(rows.in3(), generator, rows.out3().first(2)); }},
        {"finite_difference" + same, [&] { step(rows.in2(), 1); }},
        {"finite_difference: eps must be > 0 and finite, got 0", [&] { step(rows.in3(), 0); }},
        {"finite_difference: eps must be > 0 and finite, got -1", [&] { step(rows.in3(), -1); }},
        {"finite_difference: eps must be > 0 and finite, got inf", [&] { step(rows.in3(), inf); }},
        {"jacobian_norms" + same, [&] { jacobian_norms<double>(softmax, rows.in3(), rows.in2()); }},
        {"jacobian_norms" + same, [&] { jacobian_norms<Softplus, double>(softplus, rows.in3(), rows.in2()); }},
    });
}

TEST_CASE("messages of attention", "[messages]") {
    const Matrix<double> q = Matrix<double>::Zero(2, 3), k = Matrix<double>::Zero(4, 3),
                         v = Matrix<double>::Zero(4, 5), narrow = Matrix<double>::Zero(4, 2),
                         wrong = Matrix<double>::Zero(2, 4), right = Matrix<double>::Zero(2, 5);
    const HeadView<double> head{MatrixView<double>(q), MatrixView<double>(k), MatrixView<double>(v)};
    const HeadView<double> bare{MatrixView<double>(q), MatrixView<double>(k)};
    const HeadGroup<double> group(HeadArray<double>::contiguous(q.data(), 1, 2, 3),
                                  HeadArray<double>::contiguous(k.data(), 1, 4, 3),
                                  HeadArray<double>::contiguous(v.data(), 1, 4, 5));
    check({
        {"HeadView: q and k must have the same width, got 3 and 2", [&] { attend(q, narrow, v, Softmax{}); }},
        {"HeadView: k and v must have the same number of rows, got 4 and 2",
         [&] { attend(q, k, q, Softmax{}); }},
        {"attend_backward: the head must have values, got 4",
         [&] { attend_backward(bare, Softmax{}, MatrixView<double>(right)); }},
        {"attend_backward: d_output must have the shape of the output, got 2 and 4",
         [&] { attend_backward(head, Softmax{}, MatrixView<double>(wrong)); }},
        {"attend_backward: there must be one d_output for each query head, got 0 and 1",
         [&] { attend_backward(group, Softmax{}, std::span<const Matrix<double>>{}); }},
    });
}

TEST_CASE("accepted at the edge of what is allowed", "[messages]") {
    const std::vector<double> data(8);
    CHECK_NOTHROW(MatrixView<double>(data.data(), 1, 3, 0)); // one row: the stride does not matter
    CHECK_NOTHROW(MatrixView<double>(data.data(), 0, 0));
    CHECK_NOTHROW(Softmax(std::numeric_limits<double>::denorm_min()));
    CHECK_NOTHROW(Softmax(std::numeric_limits<double>::max()));
    CHECK_NOTHROW(Mask{}.with_window(1).with_sinks(0).with_length(0).with_prefix(0).with_segments({0}));
    CHECK_NOTHROW(weight_range<double>(1, 0));
    CHECK_NOTHROW(longest_context<double>(0, 1, 1));
    const Matrix<double> weights = Matrix<double>::Zero(2, 3);
    CHECK_NOTHROW(column_mass(MatrixView<double>(weights), {}, 3));
    CHECK_NOTHROW(leading_mass(MatrixView<double>(weights), 0));
}
