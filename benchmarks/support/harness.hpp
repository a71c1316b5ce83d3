// What every benchmark program shares: contenders that are verified before they are timed, one table at the
// end, the machine and the flags above it.
#pragma once

#include <attnscope/attnscope.hpp>
#include <attnscope/problems/rows.hpp>

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace bench {

using attnscope::Index;
using attnscope::Matrix;
using attnscope::Real;
using attnscope::Row;
using attnscope::RowIn;
using attnscope::RowOut;

/// Ends the program with a message unless the result of `contender` is right: nothing wrong is timed.
inline void verify(bool right, const std::string& contender, const std::string& what) {
    if (right) return;
    std::fflush(stdout);
    std::fprintf(stderr, "%s: wrong result: %s\n", contender.c_str(), what.c_str());
    std::exit(1);
}

/// |value - expected| <= relative |expected| + absolute; NaN is never close.
inline void verify_close(long double value, long double expected, long double relative, long double absolute,
                         const std::string& contender, const std::string& what) {
    if (std::abs(value - expected) <= relative * std::abs(expected) + absolute) return;
    char text[120];
    std::snprintf(text, sizeof text, " is %.20Lg, expected %.20Lg", value, expected);
    verify(false, contender, what + text);
}

template <Real T>
RowIn<T> row_in(const Matrix<T>& m, Index i) {
    return {m.data() + i * m.cols(), static_cast<std::size_t>(m.cols())};
}
template <Real T>
RowOut<T> row_out(Matrix<T>& m, Index i) {
    return {m.data() + i * m.cols(), static_cast<std::size_t>(m.cols())};
}

/// Gaussian numbers.
template <Real T>
Matrix<T> normal_matrix(Index rows, Index cols, double deviation, attnscope::SplitMix64& random) {
    Matrix<T> m(rows, cols);
    for (Index i = 0; i < rows; ++i)
        m.row(i) = attnscope::problems::normal_row(cols, deviation, random).matrix().template cast<T>();
    return m;
}

/// Gaussian logits; with `masked`, one key in seven is -inf.
template <Real T>
Matrix<T> logits(Index rows, Index cols, bool masked, double deviation = 3) {
    attnscope::SplitMix64 random(1);
    Matrix<T> z = normal_matrix<T>(rows, cols, deviation, random);
    if (masked)
        for (Index i = 6; i < z.size(); i += 7) z.data()[i] = -std::numeric_limits<T>::infinity();
    return z;
}

/// Work that goes into one figure.
struct Work {
    double amount;           ///< elements (or rows) in one call
    double unit_in_ns = 1.0; ///< 1: ns per element, 1000: us per element
};

/// Rows of the table in the order of their registration: interleaved runs report in any order.
inline std::vector<std::string>& row_order() {
    static std::vector<std::string> rows;
    return rows;
}

/// As tests, benchmarks verify the result of one run of every contender; nothing is timed then.
inline bool checks_only() {
    static const bool set = std::getenv("ATTNSCOPE_BENCHMARK_CHECKS") != nullptr;
    return set;
}

/// What a contender is timed by. Work on several threads takes more processor time than time.
enum class Clock { processor, wall };

/// Registers `run` as `contender` in `row` of the table. `check` looks at its result once, before the timing.
/// `once`: too slow to be called more than three times.
template <class Run, class Check>
void add(const std::string& row, const std::string& contender, Work work, Run run, Check check,
         bool once = false, Clock clock = Clock::processor) {
    row_order().push_back(row);
    const auto verified = std::make_shared<bool>(false);
    auto* registered =
        benchmark::RegisterBenchmark((row + "/" + contender).c_str(), [=](benchmark::State& state) mutable {
            if (!*verified && !checks_only()) {
                run();
                check(contender + ", " + row);
                *verified = true;
            }
            for (auto _ : state) {
                run();
                benchmark::ClobberMemory();
            }
            if (checks_only()) check(contender + ", " + row);
            using C = benchmark::Counter;
            state.counters["figure"] =
                C(work.amount * work.unit_in_ns * 1e-9, C::kIsIterationInvariantRate | C::kInvert);
        });
    if (checks_only())
        registered->Iterations(1)->Repetitions(1);
    else if (once)
        registered->Iterations(1)->Repetitions(3);
    if (clock == Clock::wall) registered->UseRealTime();
}

/// What the ratio beside a figure is to: the first figure of its row or of its column.
enum class Yardstick { first_column, first_row };

/// Collects the medians and prints one table: a line per row, a column per contender, each figure with its
/// ratio.
class Table : public benchmark::BenchmarkReporter {
public:
    Table(std::string title, std::vector<std::string> column_order, Yardstick yardstick)
        : title_(std::move(title)), column_order_(std::move(column_order)), yardstick_(yardstick) {}

    bool ReportContext(const Context&) override { return true; }

    void ReportRuns(const std::vector<Run>& runs) override {
        for (const Run& run : runs) {
            const bool single = run.run_type == Run::RT_Iteration && run.repetitions <= 1;
            if (!single && run.aggregate_name != "median") continue;
            const std::string& name = run.run_name.function_name;
            const auto slash = name.rfind('/');
            const std::string row = name.substr(0, slash), column = name.substr(slash + 1);
            remember(rows_, row);
            remember(columns_, column);
            figures_[{row, column}] = run.counters.at("figure").value;
        }
    }

    void Finalize() override {
        const bool by_column = yardstick_ == Yardstick::first_row;
        std::printf("\n%s\n(in parentheses: times the figure of the first %s)\n", title_.c_str(),
                    by_column ? "row" : "column");
        const auto columns = ordered(columns_, column_order_);
        std::size_t first = 0, width = by_column ? 12 : 20;
        for (const auto& row : rows_) first = std::max(first, row.size());
        for (const auto& column : columns) width = std::max(width, column.size());
        std::printf("%-*s", static_cast<int>(first), "");
        for (const auto& column : columns) std::printf("  %*s", static_cast<int>(width), column.c_str());
        std::printf("\n");
        std::map<std::string, double> yardsticks;
        for (const auto& row : ordered(rows_, row_order())) {
            std::printf("%-*s", static_cast<int>(first), row.c_str());
            for (const auto& column : columns) {
                const auto at = figures_.find({row, column});
                std::string text = "-";
                if (at != figures_.end()) {
                    const double one =
                        yardsticks.try_emplace(by_column ? column : row, at->second).first->second;
                    text = cell(at->second, at->second / one);
                }
                std::printf("  %*s", static_cast<int>(width), text.c_str());
            }
            std::printf("\n");
        }
        std::fflush(stdout);
    }

private:
    static void remember(std::vector<std::string>& names, const std::string& name) {
        if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
    }
    static std::vector<std::string> ordered(const std::vector<std::string>& names,
                                            const std::vector<std::string>& order) {
        std::vector<std::string> result;
        for (const auto& name : order)
            if (std::find(names.begin(), names.end(), name) != names.end()) remember(result, name);
        for (const auto& name : names) remember(result, name);
        return result;
    }
    static std::string cell(double figure, double ratio) {
        char text[40];
        std::snprintf(text, sizeof text, ratio < 1000 ? "%.3g (%.2f)" : "%.3g (%.0f)", figure, ratio);
        return text;
    }

    std::string title_;
    std::vector<std::string> column_order_, rows_, columns_;
    Yardstick yardstick_;
    std::map<std::pair<std::string, std::string>, double> figures_;
};

inline std::string processor() {
    std::ifstream info("/proc/cpuinfo");
    for (std::string line; std::getline(info, line);)
        if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
    return "unknown processor";
}

/// Runs what is registered and prints the table; all of Google Benchmark's options are understood.
inline int run(int argc, char** argv, const std::string& title, std::vector<std::string> column_order,
               Yardstick yardstick = Yardstick::first_column) {
    // Given first, so that the command line has the last word. Interleaved: whatever else the machine does hits
    // all contenders alike.
    static char repetitions[] = "--benchmark_repetitions=15",
                time[] = "--benchmark_min_time=0.01" ATTNSCOPE_BENCHMARK_SECONDS,
                interleaved[] = "--benchmark_enable_random_interleaving=true",
                aggregates[] = "--benchmark_report_aggregates_only=true";
    std::vector<char*> arguments = {argv[0], repetitions, time, interleaved, aggregates};
    arguments.insert(arguments.end(), argv + 1, argv + argc);
    int count = static_cast<int>(arguments.size());
    arguments.push_back(nullptr);
    benchmark::Initialize(&count, arguments.data());
    if (benchmark::ReportUnrecognizedArguments(count, arguments.data())) return 2;

    const std::string eigen = std::to_string(EIGEN_WORLD_VERSION) + "." + std::to_string(EIGEN_MAJOR_VERSION) +
                              "." + std::to_string(EIGEN_MINOR_VERSION);
    std::string simd = Eigen::SimdInstructionSetsInUse(); // does not tell AVX2 from AVX
#if defined(__AVX2__) && !defined(__AVX512F__)
    simd = "AVX2 " + simd;
#endif
    const std::string context =
        processor() + "; Eigen " + eigen + " with " + simd + "; compiler " + __VERSION__;
    benchmark::AddCustomContext("attnscope", context);
    std::printf("%s\n", context.c_str());
    std::fflush(stdout);

    Table table(title, std::move(column_order), yardstick);
    benchmark::RunSpecifiedBenchmarks(&table);
    benchmark::Shutdown();
    return 0;
}

} // namespace bench
