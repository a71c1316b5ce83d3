// States: every analysis comes back bit for bit, and what is damaged, foreign or cut is refused by file, byte and reason.
#include <support/catch.hpp>
#include <support/damaged_bytes.hpp>
#include <support/scalars.hpp>
#include <support/temporary_file.hpp>

#include <attnscope/analysis/analyze.hpp>
#include <attnscope/io/analysis_state.hpp>

namespace {

using namespace attnscope_test;
using namespace attnscope;
using io::read_head_analysis;
using io::StateReader;
using io::StateWriter;

Matrix<double> normal(SplitMix64& random, Index rows, Index cols) {
    Matrix<double> m(rows, cols);
    for (Index i = 0; i < m.size(); ++i) m.data()[i] = random.normal();
    return m;
}

/// Analyses of every kind: of q and k, with a sink, of stored weights, streamed, stopped, with rows that are no numbers.
std::vector<HeadAnalysis> analyses() {
    SplitMix64 random(7);
    const Matrix<double> q = normal(random, 12, 4), k = normal(random, 12, 4), v = normal(random, 12, 3);
    AnalysisOptions causal;
    causal.mask = Mask::causal();
    std::vector<HeadAnalysis> heads;
    heads.push_back(analyze(q, k, v, causal));
    heads.push_back(analyze(q, k, causal));
    AnalysisOptions sink = causal;
    sink.sink_logit = 0.5;
    sink.reading = Reading::resultant;
    sink.radius = 0.7;
    heads.push_back(analyze(q, k, v, sink));
    AnalysisOptions streamed = causal;
    streamed.streamed_above = 0;
    heads.push_back(analyze(q, k, v, streamed));
    Matrix<double> logits = q * k.transpose();
    logits.row(3).setConstant(-std::numeric_limits<double>::infinity());
    logits(4, 2) = std::numeric_limits<double>::quiet_NaN();
    logits(5, 1) = std::numeric_limits<double>::infinity();
    heads.push_back(analyze_logits(logits, v));
    Matrix<double> p = Matrix<double>::Constant(6, 6, 0.15);
    p(2, 3) = -0.1;
    heads.push_back(analyze_weights(p, AnalysisOptions()));
    AnalysisOptions stopped = causal;
    stopped.progress = [](Index done, Index) { return done < 4; };
    heads.push_back(analyze(q, k, v, stopped));
    return heads;
}

std::vector<std::byte> bytes_of(const HeadAnalysis& head) {
    StateWriter out;
    io::write(out, head);
    return out.bytes();
}

bool same(const Column& a, const Column& b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](double x, double y) {
               return std::bit_cast<std::uint64_t>(x) == std::bit_cast<std::uint64_t>(y);
           });
}

} // namespace

TEST_CASE("an analysis comes back from its state bit for bit", "[io][state]") {
    for (const HeadAnalysis& head : analyses()) {
        const std::vector<std::byte> bytes = bytes_of(head);
        StateReader in("memory", bytes);
        const HeadAnalysis again = read_head_analysis(in);
        in.finish();
        CHECK(bytes_of(again) == bytes);
        CHECK(again.queries == head.queries);
        CHECK(again.keys == head.keys);
        CHECK(again.rows.status == head.rows.status);
        CHECK((again.rows.visible == head.rows.visible).all());
        CHECK((again.rows.argmax == head.rows.argmax).all());
        for (const RowFigure& figure : figures_of(head.rows))
            CHECK(same(again.rows.*figure.values, head.rows.*figure.values));
        REQUIRE(again.selections.size() == head.selections.size());
        for (std::size_t i = 0; i < head.selections.size(); ++i) {
            CHECK(again.selections[i].n == head.selections[i].n);
            for (const SelectionFigure& figure : selection_figures)
                CHECK(same(again.selections[i].*figure.values, head.selections[i].*figure.values));
        }
        CHECK(to_table(again.audit) == to_table(head.audit));
        for (std::size_t i = 0; i < statements.size(); ++i) {
            const AuditCase &a = again.audit.records()[i].closest, &b = head.audit.records()[i].closest;
            CHECK((a.query == b.query && a.verdict == b.verdict && a.side == b.side && a.use == b.use));
        }
        CHECK(again.normalizer == head.normalizer);
        CHECK(again.temperature == head.temperature);
        CHECK(again.sink_logit == head.sink_logit);
        CHECK(again.scale == head.scale);
        CHECK(again.reading == head.reading);
        CHECK(again.radius == head.radius);
        CHECK(again.streamed == head.streamed);
        CHECK(again.examined == head.examined);
        CHECK(again.extent.all == head.extent.all);
        CHECK(again.extent.done == head.extent.done);
        CHECK(again.extent.cancelled == head.extent.cancelled);
        CHECK(again.extent.missing == head.extent.missing);
    }
}

TEST_CASE("damaged states are refused or are states, never more", "[io][state]") {
    const std::uint64_t seed = test_seed();
    INFO("seed " << seed);
    SplitMix64 random(seed);
    std::size_t refused = 0, read = 0;
    for (const HeadAnalysis& head : analyses()) {
        const std::vector<std::byte> bytes = bytes_of(head);
        for (int round = 0; round < 400; ++round) {
            const std::vector<std::byte> bad = damaged(random, bytes);
            try {
                StateReader in("memory", bad);
                const HeadAnalysis found = read_head_analysis(in);
                in.finish();
                CHECK(bytes_of(found) == bad); // what is read is what stands there
                ++read;
            } catch (const io_error& error) {
                CHECK(error.offset() <= bad.size());
                CHECK(!error.reason().empty());
                ++refused;
            }
        }
    }
    CHECK(refused > 1000);
    CHECK(read > 100); // a changed figure is a figure
}

TEST_CASE("state files: what is whole is read, what is not is named", "[io][state]") {
    const TemporaryFolder folder;
    StateWriter content;
    content.text("some content");
    content.real(-0.0);
    const std::string path = folder.path("a.state");
    const io::StateLabel label{3, 17, 99};
    io::write_state(path, label, content);
    const io::StateContent state = io::read_state(path);
    CHECK(state.label == label);
    StateReader in = state.reader(path);
    CHECK(in.text() == "some content");
    CHECK(std::signbit(in.real()));
    in.finish();

    const std::string whole = read_text(path);
    // The documented bytes of the frame.
    CHECK(whole.substr(0, 8) == "ATNSTATE");
    CHECK(whole.size() == 40 + 8 + 12 + 8 + 8);
    const auto message = [&](const std::string& text) {
        const std::string bad = folder.write("bad.state", text);
        try {
            (void)io::read_state(bad);
        } catch (const io_error& error) {
            return std::string(error.what());
        }
        return std::string("nothing");
    };
    for (std::size_t size = 0; size < whole.size(); ++size) {
        const std::string said = message(whole.substr(0, size));
        CAPTURE(size, said);
        CHECK(said.find("bad.state") != std::string::npos);
        CHECK(said.find(size < 8 ? "no state file" : "not whole") != std::string::npos);
    }
    CHECK_THAT(message(whole + "x"), Catch::Matchers::ContainsSubstring("not whole"));
    CHECK_THAT(message("something else, and long enough to hold a header and a hash"),
               Catch::Matchers::ContainsSubstring("no state file"));
    for (std::size_t place = 8; place < whole.size(); ++place) {
        std::string changed = whole;
        changed[place] = static_cast<char>(changed[place] ^ 4);
        CAPTURE(place);
        CHECK_THAT(message(changed),
                   Catch::Matchers::ContainsSubstring(place < 12                  ? "version"
                                                      : place >= 32 && place < 40 ? "not whole"
                                                                                  : "changed"));
    }
    CHECK_THROWS_AS(io::read_state(folder.path("none.state")), io_error);
}
