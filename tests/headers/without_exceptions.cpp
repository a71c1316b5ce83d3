// Compiled without exceptions: everything works, and an error ends the program with its message.
#include <attnscope/attnscope.hpp>
#include <attnscope/runtime/registry.hpp>
#include <attnscope/streaming/threads.hpp>

#include <csignal>

int main(int count, char**) {
    using namespace attnscope;
    const Matrix<float> x = Matrix<float>::Identity(40, 40);
    const HeadView head(x, x, x);
    const auto rows = scan(head, Mask::causal(), {.output = true}, Threads(2));
    const auto attention = attend(head, make_normalizer("softmax"), Mask::causal());
    if (!rows.output.isApprox(attention.output, 1e-5f)) return 1;
    if (count == 1) return 0;
    std::signal(SIGABRT, [](int) { std::_Exit(0); }); // a test that aborts is one that failed
    scan(head, {}, {.key_tile = 0}, Threads(2));
    return 1;
}
