// A regular file open for reading, and a whole file at once.
#pragma once

#include <attnscope/errors.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

// ATTNSCOPE_NO_POSIX_FILES (the same in every translation unit of a program): standard C++ only.
#if !defined(ATTNSCOPE_NO_POSIX_FILES) && __has_include(<sys/stat.h>) && __has_include(<unistd.h>)
#define ATTNSCOPE_DETAIL_POSIX_FILES 1
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#else
#define ATTNSCOPE_DETAIL_POSIX_FILES 0
#endif
#if ATTNSCOPE_DETAIL_POSIX_FILES && __has_include(<sys/mman.h>)
#define ATTNSCOPE_DETAIL_MMAP 1
#include <sys/mman.h>
#else
#define ATTNSCOPE_DETAIL_MMAP 0
#endif

#if !defined(__cpp_exceptions) && !defined(_CPPUNWIND)
#error "attnscope/io needs exceptions: compile without -fno-exceptions what reads or writes files"
#endif

namespace attnscope {
inline namespace v0_2 {
namespace io {
namespace detail {

/// Text of a file as part of a message: one line of printable ASCII, quoted, cut after 60 bytes.
inline std::string in_quotes(std::string_view text) {
    constexpr std::string_view hex = "0123456789abcdef";
    constexpr std::size_t limit = 60;
    std::string out = "'";
    for (const char c : text.substr(0, limit)) {
        const auto byte = static_cast<unsigned char>(c);
        if (byte >= 0x20 && byte < 0x7f && c != '\\' && c != '\'')
            out += c;
        else
            (((out += "\\x") += hex[byte >> 4]) += hex[byte & 15]);
    }
    return out + (text.size() > limit ? "'..." : "'");
}

struct Unmap {
    std::size_t size = 0;
    void operator()([[maybe_unused]] void* address) const noexcept {
#if ATTNSCOPE_DETAIL_MMAP
        ::munmap(address, size);
#endif
    }
};

} // namespace detail

/// A regular file, open for reading. Move-only. Reading from several threads at once is safe.
/// Example:
///     const io::File file = io::File::open("head.safetensors");
///     std::vector<std::byte> start(8);
///     file.read(0, start);
class File {
public:
    /// Bytes are copied out of the file when they are asked for, so that a file which somebody else shortens
    /// meanwhile is an `io_error` and not the end of the program.
    /// Throws. `io_error` when the file is missing, unreadable or no regular file: a directory, a device, or
    /// a pipe, for whose writer it does not wait.
    static File open(const std::string& path) { return File(path); }

    /// As `open`, with the bytes in memory for `SafetensorsFile::view`: mapped where the system can, read
    /// elsewhere. Only for files that nobody shortens while they are open: the system ends a program that
    /// touches a mapped page behind the end of its file (SIGBUS).
    static File map(const std::string& path) {
        File file(path);
        if (file.size_ == 0) return file;
#if ATTNSCOPE_DETAIL_MMAP
        if (file.size_ <= std::numeric_limits<std::size_t>::max()) {
            const auto size = static_cast<std::size_t>(file.size_);
            void* const mapped = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file.descriptor_, 0);
            if (mapped != MAP_FAILED) {
                file.mapping_ = {mapped, detail::Unmap{size}};
                file.memory_ = {static_cast<const std::byte*>(mapped), size};
                return file;
            }
        }
#endif
        std::vector<std::byte> bytes(static_cast<std::size_t>(file.size_));
        file.read(0, bytes);
        return from_bytes(path, std::move(bytes));
    }

    /// Bytes that are in memory already, treated as the file `name`.
    static File from_bytes(std::string name, std::vector<std::byte> bytes) {
        File file;
        file.path_ = std::move(name);
        file.size_ = bytes.size();
        file.owned_ = std::move(bytes);
        file.memory_ = file.owned_;
        return file;
    }

    File(File&& other) noexcept { swap(other); }
    File& operator=(File&& other) noexcept {
        swap(other);
        return *this;
    }
    File(const File&) = delete;
    File& operator=(const File&) = delete;
    ~File() { close(); }

    const std::string& path() const noexcept { return path_; }
    std::uint64_t size() const noexcept { return size_; } ///< when it was opened
    /// All bytes, of a file that `map` or `from_bytes` made; else empty. They stay where they are for as long
    /// as this object, or the one it is moved into, lives.
    std::span<const std::byte> memory() const noexcept { return memory_; }

    /// Fills `out` with the bytes from `offset` on.
    /// Throws. `io_error` when the file ends before, or cannot be read.
    void read(std::uint64_t offset, std::span<std::byte> out) const {
        if (const std::size_t got = read_some(offset, out); got < out.size())
            throw io_error(path_, offset + got,
                           "the file ends here, and had " + std::to_string(size_) +
                               " bytes when it was opened: it was shortened meanwhile");
    }

    /// As `read`, but stops at the end of the file; the number of bytes.
    /// Throws. `io_error` when the file cannot be read.
    std::size_t read_some(std::uint64_t offset, std::span<std::byte> out) const {
        std::size_t done = 0;
        if (!memory_.empty() || !is_open()) {
            if (offset < memory_.size()) {
                done = std::min(out.size(), memory_.size() - static_cast<std::size_t>(offset));
                std::copy_n(memory_.begin() + static_cast<std::ptrdiff_t>(offset), done, out.begin());
            }
            return done;
        }
#if ATTNSCOPE_DETAIL_POSIX_FILES
        while (done < out.size()) {
            // Linux reads at most 2 GiB at once, macOS refuses more.
            const std::size_t most = std::min(out.size() - done, std::size_t{1} << 30);
            const ::ssize_t got =
                ::pread(descriptor_, out.data() + done, most, static_cast<::off_t>(offset + done));
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) throw io_error(path_, offset + done, "cannot be read: " + reason(errno));
            if (got == 0) break;
            done += static_cast<std::size_t>(got);
        }
#else
        std::ifstream stream(path_, std::ios::binary);
        stream.seekg(static_cast<std::streamoff>(offset));
        stream.read(reinterpret_cast<char*>(out.data()), static_cast<std::streamsize>(out.size()));
        if (stream.bad() || !stream.is_open()) throw io_error(path_, offset, "cannot be read");
        done = static_cast<std::size_t>(stream.gcount());
#endif
        return done;
    }

private:
    File() = default;
    explicit File(const std::string& path) : path_(path) {
#if ATTNSCOPE_DETAIL_POSIX_FILES
        // O_NONBLOCK: opening a named pipe must not wait for its writer.
        descriptor_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
        if (descriptor_ < 0) throw io_error(path, 0, "cannot be opened: " + reason(errno));
        struct ::stat status {};
        const int failed = ::fstat(descriptor_, &status);
        if (failed != 0 || !S_ISREG(status.st_mode)) {
            close();
            refuse(path, failed == 0 && S_ISDIR(status.st_mode));
        }
        size_ = static_cast<std::uint64_t>(status.st_size);
#else
        std::error_code code;
        const auto status = std::filesystem::status(path, code);
        if (!std::filesystem::exists(status)) throw io_error(path, 0, "cannot be opened: " + code.message());
        if (!std::filesystem::is_regular_file(status)) refuse(path, std::filesystem::is_directory(status));
        size_ = std::filesystem::file_size(path, code);
        descriptor_ = 0;
        if (code) throw io_error(path, 0, "cannot be opened: " + code.message());
#endif
    }

    [[noreturn]] static void refuse(const std::string& path, bool directory) {
        throw io_error(path, 0, directory ? "is a directory, not a file" : "is not a regular file");
    }

    static std::string reason(int code) { return std::generic_category().message(code); }

    bool is_open() const noexcept { return descriptor_ >= 0; }
    void swap(File& other) noexcept {
        std::swap(path_, other.path_);
        std::swap(size_, other.size_);
        std::swap(descriptor_, other.descriptor_);
        std::swap(owned_, other.owned_);
        std::swap(mapping_, other.mapping_);
        std::swap(memory_, other.memory_);
    }
    void close() noexcept {
#if ATTNSCOPE_DETAIL_POSIX_FILES
        if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
#endif
    }

    std::string path_;
    std::uint64_t size_ = 0;
    int descriptor_ = -1; // without POSIX 0 when open: the file is opened again for each reading
    std::vector<std::byte> owned_;
    std::unique_ptr<void, detail::Unmap> mapping_;
    std::span<const std::byte> memory_; // of owned_ or mapping_
};

/// All bytes of a regular file, up to its end whatever size the system gives.
/// Throws. `io_error` as `File::open` does, and when there are more than `limit` bytes.
inline std::string read_file(const std::string& path, std::uint64_t limit = std::uint64_t{1} << 30) {
    const File file = File::open(path);
    std::string content;
    for (;;) {
        if (std::max<std::uint64_t>(file.size(), content.size()) > limit)
            throw io_error(path, limit, "the file is over the limit of " + std::to_string(limit) + " bytes");
        // One byte beyond the size shows the end; a size of 0 may be a file of the system whose size is
        // unknown.
        const std::size_t before = content.size();
        content.resize(std::max(static_cast<std::size_t>(file.size()) + 1, before + (std::size_t{1} << 16)));
        const auto room = std::as_writable_bytes(std::span(content)).subspan(before);
        const std::size_t got = file.read_some(before, room);
        content.resize(before + got);
        if (got < room.size()) break;
    }
    if (content.size() > limit)
        throw io_error(path, limit, "the file is over the limit of " + std::to_string(limit) + " bytes");
    return content;
}

} // namespace io
} // namespace v0_2
} // namespace attnscope
