// Training through attention: the backward pass, with the gradient of the temperature.
#include <attnscope/attnscope.hpp>
#include <cstdio>

int main() {
    attnscope::SplitMix64 random(1);
    using Matrix = attnscope::Matrix<double>;
    const auto tokens = [&] { return Matrix::NullaryExpr(12, 4, [&] { return random.normal(); }).eval(); };
    Matrix q = tokens(), k = tokens(), v = tokens();
    const Matrix target = tokens();
    const auto mask = attnscope::Mask::causal();
    double temperature = 2;
    for (int step = 0; step <= 200; ++step) {
        const attnscope::Softmax softmax(temperature);
        const Matrix error = attnscope::attend(q, k, v, softmax, mask).output - target;
        if (step % 100 == 0)
            std::printf("step %3d: loss %.3f, temperature %.2f\n", step, error.squaredNorm() / 2, temperature);
        const auto d = attnscope::attend_backward(q, k, v, softmax, error, mask, {.parameter = true});
        q -= 0.1 * d.q;
        k -= 0.1 * d.k;
        v -= 0.1 * d.v;
        temperature -= 0.1 * d.parameter;
    }
}
