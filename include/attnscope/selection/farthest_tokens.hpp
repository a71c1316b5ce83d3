// Of each of the first tokens of a head, the one that is farthest from it.
#pragma once

#include <attnscope/detail/lanes.hpp>

namespace attnscope {
inline namespace v0_2 {

/// Of each of the first n tokens, the one among them that is farthest from it, by their Gram matrix; for an n that
/// grows from row to row, as in a causal head.
/// Invariant. Everything is about the n of the last `reach`. A distance that is NaN is farther than none.
/// Cost. Memory O(n). The Gram matrix is borrowed.
/// Example:
///     FarthestTokens<double> farthest(gram);
///     farthest.reach(5);
///     const Index key = farthest.token(0); // of tokens 0 to 4
template <Real A>
class FarthestTokens {
public:
    explicit FarthestTokens(const Matrix<A>& gram) : gram_(&gram) {}
    explicit FarthestTokens(Matrix<A>&&) = delete; // would be gone

    /// Cost. O(n) for each token more than before; an n that is smaller starts anew.
    /// Throws. `invalid_argument` when the Gram matrix has fewer than n rows or columns.
    void reach(Index n) {
        detail::require(n >= 0 && n <= gram_->rows() && n <= gram_->cols(), "FarthestTokens",
                        "the Gram matrix must cover the tokens", n, gram_->rows(), gram_->cols());
        if (n < size()) {
            for (auto* row : {&norms_, &squares_, &tokens_}) row->clear();
            largest_ = 0;
        }
        while (size() < n) add(*gram_);
    }

    const Matrix<A>& gram() const { return *gram_; }
    Index size() const { return static_cast<Index>(norms_.size()); }
    /// |x_i|^2 of each.
    RowIn<A> norms() const { return norms_; }
    /// The largest of them; NaN if one is NaN.
    A largest() const { return largest_; }
    /// Largest |x_i - x_j|^2 over the j: -inf while n = 1.
    A square(Index i) const { return detail::at(squares_, i); }
    /// The j of it, the first if there are several; -1 while n = 1.
    Index token(Index i) const { return static_cast<Index>(detail::at(tokens_, i)); }

private:
    void add(const Matrix<A>& gram) {
        using P = detail::Packet<A>;
        constexpr A none = -std::numeric_limits<A>::infinity();
        const Index m = size();
        const A own = gram(m, m);
        const A* const products = gram.data() + m * gram.cols();
        apart_.resize(static_cast<std::size_t>(m));
        const P minus_two = A(-2), whole = own, place = static_cast<A>(m);
        P far = none;
        detail::for_each_lane<A>(m, [&](const auto& lane) {
            const auto apart = madd(minus_two, lane(products, A(0)), whole + lane(norms_.data(), none));
            const auto before = lane(squares_.data(), none);
            lane.store(apart_.data(), apart);
            lane.store(tokens_.data(), select_below(before, apart, place, lane(tokens_.data(), A(0))));
            lane.store(squares_.data(), select_below(before, apart, apart, before));
            far = select_below(far, apart, apart, far);
        });
        const A square = reduce_max(far);
        const std::size_t at = square > none ? detail::first_not_below<A>(RowIn<A>(apart_), square) : 0;
        norms_.push_back(own);
        squares_.push_back(square);
        tokens_.push_back(square > none ? static_cast<A>(at) : A(-1));
        if (!(own <= largest_) && largest_ == largest_) largest_ = own;
    }

    const Matrix<A>* gram_;
    std::vector<A> norms_, squares_, apart_;
    std::vector<A> tokens_; ///< as numbers of the same width, for packets
    A largest_ = 0;
};

} // namespace v0_2
} // namespace attnscope
