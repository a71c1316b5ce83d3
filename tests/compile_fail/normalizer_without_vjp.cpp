// expect: n\.vjp\(z, z, z, out\)
// The message names the member that a normaliser lacks.
#include <attnscope/attention/attend.hpp>

struct Uniform {
    static constexpr attnscope::NormalizerTraits traits{};
    static constexpr std::string_view name() { return "uniform"; }
    attnscope::RowStatus apply(std::span<const double> z, std::span<double> out) const {
        for (double& p : out) p = 1.0 / static_cast<double>(z.size());
        return attnscope::RowStatus::normal;
    }
    using Row = std::span<const double>;
    void jvp(Row, Row, Row, std::span<double>) const {}
#ifdef ATTNSCOPE_COMPILE_FAIL_CONTROL
    void vjp(Row, Row, Row, std::span<double>) const {}
#endif
};

void attention(const attnscope::HeadView<double>& head) { attnscope::attend(head, Uniform{}); }
