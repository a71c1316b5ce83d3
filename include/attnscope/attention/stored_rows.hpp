// Rows of a matrix as caches keep them: half precision, in pages, or simply side by side.
#pragma once

#include <attnscope/types.hpp>

#include <vector>

namespace attnscope {
inline namespace v0_2 {

/// A scalar in which numbers that are computed in T may be stored: T itself, for float half and bfloat16 too.
template <class S, class T>
concept StoredAs = InputScalar<S> && std::same_as<ComputeScalar<S>, T>;

/// Borrowed rows of a matrix [rows, cols] that is computed in T: together in memory, or in pages of equally many rows
/// each, as paged key-value caches keep them. They are read a few at a time.
/// Invariant. Borrowed: the memory, and the list of pages, must outlive it.
/// Throws. `invalid_argument` when shapes do not fit.
/// Example: `StoredRows<float>::paged(pages, 16, keys, d)` with `std::vector<const Eigen::half*> pages`
template <Real T>
class StoredRows {
public:
    StoredRows() = default;
    StoredRows(const MatrixView<T>& view)
        : StoredRows(view.data(), view.rows(), view.cols(), view.outer_stride()) {}
    /// `stride`: elements from the start of one row to the next, at least `cols`.
    template <StoredAs<T> S>
    StoredRows(const S* data, Index rows, Index cols, Index stride)
        : data_(data), stored_(stored<S>()), rows_(rows), cols_(cols), stride_(stride),
          page_rows_(std::max<Index>(1, rows)) {
        detail::require(rows >= 0 && cols >= 0, "StoredRows", "rows and cols must be >= 0", rows, cols);
        detail::require(stride >= cols || rows <= 1, "StoredRows", "the stride must be >= cols", stride, cols);
    }
    /// Row i is row i % page_rows of page i / page_rows; the last page may hold fewer. `pages`: the addresses of their
    /// first numbers, a `std::vector`, array or span of pointers. `stride` 0: `cols`.
    template <class Pages>
    requires StoredAs<std::remove_cvref_t<decltype(**std::data(std::declval<const Pages&>()))>, T>
    static StoredRows paged(const Pages& pages, Index page_rows, Index rows, Index cols, Index stride = 0) {
        using S = std::remove_cvref_t<decltype(**std::data(pages))>;
        const S* const* const list = std::data(pages);
        detail::require(page_rows >= 1, "StoredRows::paged", "a page must have rows", page_rows);
        detail::require(static_cast<Index>(std::size(pages)) >= (rows + page_rows - 1) / page_rows,
                        "StoredRows::paged", "there must be a page for all rows", std::size(pages), rows);
        StoredRows result(static_cast<const S*>(nullptr), rows, cols, stride > 0 ? stride : cols);
        result.data_ = list;
        result.in_pages_ = true;
        result.page_rows_ = page_rows;
        return result;
    }

    Index rows() const { return rows_; }
    Index cols() const { return cols_; }
    bool has_data() const { return data_ != nullptr || cols_ > 0; }

    /// Rows begin, begin + 1, ...: a view of them where they stand together in T, else a copy in `room`.
    MatrixView<T> read(Index begin, Index count, std::vector<T>& room) const {
        if (stored_ == Stored::same && (count == 0 || begin / page_rows_ == (begin + count - 1) / page_rows_))
            return {count > 0 ? row<T>(begin) : nullptr, count, cols_, std::max(stride_, cols_)};
        if (static_cast<Index>(room.size()) < count * cols_)
            room.resize(static_cast<std::size_t>(count * cols_));
        for (Index i = 0; i < count; ++i) {
            T* const to = room.data() + i * cols_;
            if constexpr (std::same_as<T, float>) {
                if (stored_ == Stored::half) copy(row<Eigen::half>(begin + i), to);
                if (stored_ == Stored::bfloat16) copy(row<Eigen::bfloat16>(begin + i), to);
            }
            if (stored_ == Stored::same) copy(row<T>(begin + i), to);
        }
        return {room.data(), count, cols_};
    }
    bool all_finite() const {
        std::vector<T> room;
        constexpr Index at_once = 256;
        for (Index i = 0; i < rows_; i += at_once)
            if (!read(i, std::min(at_once, rows_ - i), room).map().allFinite()) return false;
        return true;
    }

private:
    enum class Stored { same, half, bfloat16 };
    template <class S>
    static constexpr Stored stored() {
        return std::same_as<S, T>             ? Stored::same
               : std::same_as<S, Eigen::half> ? Stored::half
                                              : Stored::bfloat16;
    }
    template <class S>
    const S* row(Index i) const {
        const S* const page =
            in_pages_ ? static_cast<const S* const*>(data_)[i / page_rows_] : static_cast<const S*>(data_);
        return page + (in_pages_ ? i % page_rows_ : i) * stride_;
    }
    template <class S>
    void copy(const S* from, T* to) const {
        Eigen::Map<Row<T>>(to, 1, cols_) =
            Eigen::Map<const Eigen::Array<S, 1, Eigen::Dynamic>>(from, 1, cols_).template cast<T>();
    }

    const void* data_ = nullptr; ///< of S, or of pointers to pages of S
    Stored stored_ = Stored::same;
    bool in_pages_ = false;
    Index rows_ = 0, cols_ = 0, stride_ = 0, page_rows_ = 1;
};

namespace detail {

/// What a head looks at: numbers of a kernel's scalar, or others.
template <class S>
struct RowsOf {
    using type = StoredRows<ComputeScalar<S>>;
};
template <Real T>
struct RowsOf<T> {
    using type = MatrixView<T>;
};

} // namespace detail
} // namespace v0_2
} // namespace attnscope
