// The audit as an assertion in a test of your own.
#include <attnscope/attnscope.hpp>
#include <cstdio>

int main() {
    attnscope::SplitMix64 random(1);
    attnscope::Audit audit;
    for (int row = 0; row < 1000; ++row) // logits of your engine
        attnscope::audit_row(audit, attnscope::Softmax{},
                             Eigen::VectorXd::NullaryExpr(64, [&] { return 5 * random.normal(); }).eval());

    // No sharp statement is ever violated: if one is, it is a bug, or news.
    if (audit.sharp_violations() != 0) return 1;
    const auto& record = audit.at(attnscope::corollary3_published_statement); // |J|_2 <= min{1/(4T), sqrt 2}
    std::printf("published gradient limit: violated by %zu of %zu rows\n", record[attnscope::Verdict::violated],
                record.checked);
    std::printf("corrected, %s: by %zu\n", std::string(attnscope::corollary3_sharp_statement.text).c_str(),
                audit.at(attnscope::corollary3_sharp_statement)[attnscope::Verdict::violated]);
}
