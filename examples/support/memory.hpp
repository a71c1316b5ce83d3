// Whether what a program is about to make fits into memory, asked before any of it is taken.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string_view>

#include <sys/resource.h>
#include <unistd.h>

namespace program {

/// Bytes that this process can hold at most: the machine's memory, or the limit of its address space if that is
/// less. Infinity if the system does not say.
inline double memory_limit() {
    double most = std::numeric_limits<double>::infinity();
    const long pages = ::sysconf(_SC_PHYS_PAGES), page = ::sysconf(_SC_PAGE_SIZE);
    if (pages > 0 && page > 0) most = static_cast<double>(pages) * static_cast<double>(page);
    rlimit limit{};
    if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY)
        most = std::min(most, static_cast<double>(limit.rlim_cur));
    return most;
}

/// Throws std::runtime_error when `bytes`, an estimate from below of what `what` needs, cannot be had.
inline void require_memory(std::string_view what, double bytes) {
    const double most = memory_limit();
    if (bytes > most)
        throw std::runtime_error(
            fmt::format("{}: at least {:.3g} GB of memory are needed, {:.3g} GB can be had", what, bytes / 1e9,
                        most / 1e9));
}

} // namespace program
