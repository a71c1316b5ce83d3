// Every front door with every normaliser, in float.
#include <support/front_doors.hpp>

using namespace attnscope_test;
using attnscope::PointwiseNormalizer;

TEST_CASE("every front door takes every normaliser in float", "[doors]") {
    using T = float;
    const Case<T> c;
    open_doors(c, Softmax(0.9));
    open_doors(c, attnscope::ScalableSoftmax());
    open_doors(c, attnscope::LogLengthSoftmax(16));
    open_doors(c, attnscope::YarnSoftmax(16));
    open_doors(c, attnscope::AdaptiveSoftmax());
    open_doors(c, attnscope::EntropyTargetSoftmax(0.5));
    open_doors(c, attnscope::ParticipationTargetSoftmax(2));
    open_doors(c, attnscope::SinkSoftmax());
    open_doors(c, attnscope::SelfAdjustedSoftmax());
    open_doors(c, attnscope::SigmoidAttention());
    open_doors(c, attnscope::Softpick());
    open_doors(c, attnscope::Sparsemax());
    open_doors(c, attnscope::Entmax(1.3));
    open_doors(c, PointwiseNormalizer<attnscope::Softplus>());
    open_doors(c, PointwiseNormalizer<attnscope::StableExponential>());
    open_doors(c, PointwiseNormalizer<attnscope::Quadratic>());
    open_doors(c, PointwiseNormalizer<attnscope::Sigmoid>());
    open_doors(c, Uniform<T>());
    open_doors(c, attnscope::temperature(2) | Uniform<T>());
    open_doors(c, Uniform<T>() | attnscope::top_k(2));
    open_doors(c, UniformBoth());
    open_doors(c, AnyNormalizer(UniformBoth()));
    for (const auto text :
         {"softmax", "ssmax:0.5", "sigmoid", "entmax:1.5", "softpick", "softcap:3|softmax|topk:4"})
        open_doors(c, attnscope::make_normalizer(text));
}
