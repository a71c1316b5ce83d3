// Every front door with adaptors around normalisers.
#include <support/front_doors.hpp>

using namespace attnscope_test;

namespace {

template <class T, class N>
void open_doors_with_adaptors(const Case<T>& c, const N& normalizer) {
    open_doors(c, attnscope::temperature(0.7) | normalizer);
    open_doors(c, attnscope::softcap(5) | normalizer);
    open_doors(c, normalizer | attnscope::top_k(3));
    open_doors(c, normalizer | attnscope::top_p(0.9));
}

} // namespace

TEST_CASE("every front door takes adaptors around normalisers", "[doors]") {
    open_doors_with_adaptors(Case<double>(), Softmax());
    open_doors_with_adaptors(Case<double>(), attnscope::SigmoidAttention());
    open_doors_with_adaptors(Case<float>(), attnscope::Entmax(1.5));
    open_doors_with_adaptors(Case<float>(), AnyNormalizer());
}
