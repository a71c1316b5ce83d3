// The randomised Hadamard rotation is orthogonal, and a rotated cache gives the logits and outputs of an engine that
// rotates queries, keys and values.
#include <attnscope/attention/attend.hpp>
#include <attnscope/cache/format.hpp>
#include <attnscope/normalizer/softmax.hpp>
#include <support/scalars.hpp>

#include <bit>

using namespace attnscope_test;
using namespace attnscope;

namespace {

template <class T>
Matrix<T> normal(SplitMix64& random, Index rows, Index cols) {
    return Matrix<T>::NullaryExpr(rows, cols, [&] { return static_cast<T>(random.normal()); });
}

/// R of a width, in long double from its definition: the sign of entry (i, j) of a block is that of the common bits.
Matrix<Ref> dense_rotation(Index width, std::uint64_t seed) {
    Matrix<Ref> rotation = Matrix<Ref>::Zero(width, width);
    Index block = 1;
    while (width % (2 * block) == 0) block *= 2;
    SplitMix64 random(seed);
    for (Index j = 0; j < width; ++j) {
        const bool minus = (random() >> 63) != 0 && seed != 0;
        for (Index i = j / block * block; i < j / block * block + block; ++i) {
            const bool odd = std::popcount(static_cast<std::uint64_t>(i % block & j % block)) % 2 != 0;
            rotation(i, j) = (odd != minus ? -1 : 1) / std::sqrt(static_cast<Ref>(block));
        }
    }
    return rotation;
}

} // namespace

TEMPLATE_TEST_CASE("a Hadamard rotation keeps every inner product", "[cache][hadamard][law]", float, double) {
    using T = TestType;
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    Worst products, entries, back, orthogonal;
    for (const Index width : {1, 2, 3, 8, 12, 40, 64, 96, 128, 256}) {
        SplitMix64 random = generator(seed, width, 31);
        const std::uint64_t sign_seed = width == 12 || width == 128 ? 0 : random();
        const Matrix<T> q = normal<T>(random, 9, width), k = normal<T>(random, 11, width);
        const Matrix<T> rq = hadamard_rotate(q, sign_seed), rk = hadamard_rotate(k, sign_seed);
        const Matrix<Ref> rotation = dense_rotation(width, sign_seed);
        orthogonal.meet(
            (rotation * rotation.transpose() - Matrix<Ref>::Identity(width, width)).cwiseAbs().maxCoeff(),
            1e-17L * width, Where{"R R^T", static_cast<std::size_t>(width)});
        const int stages =
            static_cast<int>(std::bit_width(static_cast<std::uint64_t>(hadamard_block(width)))) - 1;
        const Matrix<T> again = hadamard_rotate_back(rk, sign_seed);
        for (Index j = 0; j < k.rows(); ++j) {
            const Where where{scalar_name<T>(), static_cast<std::size_t>(width), static_cast<double>(j), seed};
            const Matrix<Ref> exact = k.row(j).template cast<Ref>() * rotation.transpose();
            const Ref length = k.row(j).template cast<Ref>().norm();
            entries.meet((rk.row(j).template cast<Ref>() - exact).norm(),
                         Ref(stages + 3) * unit_roundoff<T> * length * 1.001L, where);
            back.meet((again.row(j) - k.row(j)).template cast<Ref>().norm(),
                      Ref(2 * stages + 6) * unit_roundoff<T> * length * 1.001L, where);
            for (Index i = 0; i < q.rows(); ++i) {
                const Ref before = q.row(i).template cast<Ref>().dot(k.row(j).template cast<Ref>()),
                          after = rq.row(i).template cast<Ref>().dot(rk.row(j).template cast<Ref>());
                products.meet(std::abs(after - before),
                              Ref(2 * stages + 6) * unit_roundoff<T> * length *
                                  q.row(i).template cast<Ref>().norm() * 1.001L,
                              where);
            }
        }
    }
    ATTNSCOPE_CHECK_WORST(products);
    ATTNSCOPE_CHECK_WORST(entries);
    ATTNSCOPE_CHECK_WORST(back);
    ATTNSCOPE_CHECK_WORST(orthogonal);
    CHECK(hadamard_block(0) == 0);
    CHECK(hadamard_block(7) == 1);
    CHECK(hadamard_block(96) == 32);
    // The seed decides, and an odd width changes signs only.
    SplitMix64 random(3);
    const Matrix<T> x = normal<T>(random, 2, 64), odd = normal<T>(random, 2, 7);
    CHECK(hadamard_rotate(x, 1) != hadamard_rotate(x, 2));
    CHECK(hadamard_rotate(odd, 1).cwiseAbs() == odd.cwiseAbs());
}

TEST_CASE("a rotated cache is what rotated queries, keys and values give", "[cache][hadamard][law]") {
    const std::uint64_t seed = test_seed();
    CAPTURE(seed);
    for (const CacheFormat plain : {CacheFormat{CacheNumber::q4_0}, CacheFormat{CacheNumber::q8_0},
                                    kivi_values(2), kivi_keys(3), integer_cache(4, CacheScale::token)}) {
        SplitMix64 random = generator(seed, static_cast<int>(plain.number), 32);
        const Matrix<double> q = normal<double>(random, 20, 64), k = normal<double>(random, 64, 64),
                             v = normal<double>(random, 64, 64);
        const CacheFormat keys = rotated(plain, 5), values = rotated(plain, 6);
        const Head<double> stored = through_cache(HeadView<double>(q, k, v), keys, values);
        const Matrix<double> output = attend(stored.view()).output;
        // The engine: queries rotated, what is stored of rotated keys and values, outputs rotated back.
        const Matrix<double> rq = hadamard_rotate(q, 5), rk = through_cache(hadamard_rotate(k, 5), plain),
                             rv = through_cache(hadamard_rotate(v, 6), plain);
        const Matrix<double> rotated_output = attend(HeadView<double>(rq, rk, rv)).output;
        const Matrix<double> engine = hadamard_rotate_back(rotated_output, 6);
        // Logits of 64 terms of this size, weights, and outputs: a few hundred units.
        CHECK((output - engine).cwiseAbs().maxCoeff() <= 1000 * 0x1p-53 * (1 + v.cwiseAbs().maxCoeff()));
        CHECK((output - attend(HeadView<double>(q, k, v)).output).cwiseAbs().maxCoeff() > 1e-4);
        CHECK_THROWS_WITH(through_cache(HeadView<double>(q, k), keys, values),
                          "through_cache: there must be values to store");
    }
}
