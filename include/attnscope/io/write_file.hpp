// Files that are written whole or not at all.
#pragma once

#include <attnscope/errors.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <random>
#include <span>
#include <string>
#include <system_error>

namespace attnscope {
inline namespace v0_1 {
namespace io {
namespace detail {

/// Writes the parts one after the other into a new file in the same folder, then renames it to `path`: a reader
/// sees the old file or the complete new one. Throws `io_error` and removes the new file when a step fails.
inline void write_file(const std::string& path, std::span<const std::span<const std::byte>> parts) {
    namespace fs = std::filesystem;
    const auto reason = [] { return std::generic_category().message(errno); };
    std::random_device random;
    std::FILE* file = nullptr;
    fs::path partial;
    for (int attempt = 0; file == nullptr && attempt < 8; ++attempt) {
        const std::string name = ".attnscope-" + std::to_string(random()) + "-" + std::to_string(random());
        partial = fs::path(path).parent_path() / name;
        file = std::fopen(partial.string().c_str(), "wbx");
        if (file == nullptr && errno != EEXIST) break;
    }
    if (file == nullptr) throw io_error(path, 0, "no file can be created in this folder: " + reason());

    std::uint64_t written = 0;
    std::string failure;
    for (const auto& part : parts) {
        const std::size_t done = part.empty() ? 0 : std::fwrite(part.data(), 1, part.size(), file);
        written += done;
        if (done != part.size()) {
            failure = "cannot be written: " + reason();
            break;
        }
    }
    if (std::fclose(file) != 0 && failure.empty()) failure = "cannot be written: " + reason();
    std::error_code code;
    if (failure.empty()) {
        fs::rename(partial, path, code);
        if (code) failure = "the finished file cannot be given its name: " + code.message();
    }
    if (failure.empty()) return;
    fs::remove(partial, code);
    throw io_error(path, written, failure);
}

} // namespace detail
} // namespace io
} // namespace v0_1
} // namespace attnscope
