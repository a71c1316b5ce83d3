// Files that are written whole or not at all.
#pragma once

#include <attnscope/errors.hpp>
#include <attnscope/io/file.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace attnscope {
inline namespace v0_2 {
namespace io {
namespace detail {

/// Names of files that have one before they are finished, and how many handlers of signals are taking them out.
inline std::array<std::atomic<char*>, 64> unfinished_names{};
inline std::atomic<int> removals_going_on{0};
static_assert(std::atomic<char*>::is_always_lock_free && std::atomic<int>::is_always_lock_free);

/// One name in this list; the 65th at once is not in it.
class UnfinishedName {
public:
    UnfinishedName() = default;
    ~UnfinishedName() { withdraw(); }
    UnfinishedName(const UnfinishedName&) = delete;
    UnfinishedName& operator=(const UnfinishedName&) = delete;

    /// Called before the file exists, so that no moment is left out.
    void announce(const std::string& name) {
        withdraw();
        auto copy = std::make_unique<char[]>(name.size() + 1);
        std::copy(name.begin(), name.end(), copy.get());
        for (std::atomic<char*>& slot : unfinished_names)
            if (char* none = nullptr; slot.compare_exchange_strong(none, copy.get())) {
                slot_ = &slot;
                name_ = copy.release();
                return;
            }
    }
    void withdraw() noexcept {
        if (char* mine = name_; slot_ && !slot_->compare_exchange_strong(mine, nullptr))
            while (removals_going_on > 0) {
            } // a handler in another thread took it out and may still read it
        delete[] name_;
        name_ = nullptr;
        slot_ = nullptr;
    }

private:
    std::atomic<char*>* slot_ = nullptr;
    char* name_ = nullptr;
};

/// A new file in a folder, under no name where the system knows such files (Linux: then nothing is left of it
/// whatever ends the program), else, or where `unnamed` is false, under a random one that nobody else had.
class NewFile {
public:
    explicit NewFile(std::filesystem::path folder, [[maybe_unused]] bool unnamed = true)
        : folder_(std::move(folder)) {
        if (folder_.empty()) folder_ = ".";
#if ATTNSCOPE_DETAIL_POSIX_FILES && defined(O_TMPFILE)
        const int descriptor = unnamed ? ::open(folder_.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666) : -1;
        if (descriptor >= 0) {
            file_.reset(::fdopen(descriptor, "wb"));
            if (!file_) ::close(descriptor);
            named_ = false;
        }
#endif
        for (int attempt = 0; !file_ && attempt < 8; ++attempt) {
            name_ = random_name();
            unfinished_.announce(name_.string());
            file_.reset(std::fopen(name_.string().c_str(), "wbx")); // x: only if there is none
            named_ = file_ != nullptr;
            if (!file_ && errno != EEXIST) break;
        }
        if (!file_) failure_ = "cannot be created: no file can be created in its folder: " + reason();
    }
    ~NewFile() {
        file_.reset();
        std::error_code ignored;
        if (named_) std::filesystem::remove(name_, ignored);
    }
    NewFile(const NewFile&) = delete;
    NewFile& operator=(const NewFile&) = delete;

    std::FILE* get() const noexcept { return file_.get(); }
    const std::string& failure() const noexcept { return failure_; }

    /// Gives the finished file its name, in place of what is there. False, with `failure()`, when that fails.
    bool publish(const std::filesystem::path& path) {
#if ATTNSCOPE_DETAIL_POSIX_FILES && defined(O_TMPFILE)
        if (!named_) {
            if (std::fflush(file_.get()) != 0) return fail("cannot be written: " + reason());
            name_ = random_name();
            unfinished_.announce(name_.string());
            const std::string open_file = "/proc/self/fd/" + std::to_string(::fileno(file_.get()));
            if (::linkat(AT_FDCWD, open_file.c_str(), AT_FDCWD, name_.c_str(), AT_SYMLINK_FOLLOW) != 0)
                return fail("the finished file cannot be given its name: " + reason());
            named_ = true;
        }
#endif
        if (std::fclose(file_.release()) != 0) return fail("cannot be written: " + reason());
        std::error_code code;
        std::filesystem::rename(name_, path, code);
        if (code) return fail("the finished file cannot be given its name: " + code.message());
        named_ = false;
        unfinished_.withdraw();
        return true;
    }

private:
    struct Close {
        void operator()(std::FILE* file) const noexcept { std::fclose(file); }
    };
    static std::string reason() { return std::generic_category().message(errno); }
    std::filesystem::path random_name() const {
        std::random_device random;
        return folder_ /
               (".attnscope-" + std::to_string(random()) + "-" + std::to_string(random()) + ".partial");
    }
    bool fail(std::string failure) {
        failure_ = std::move(failure);
        return false;
    }

    std::filesystem::path folder_, name_;
    bool named_ = false;
    UnfinishedName unfinished_;
    std::unique_ptr<std::FILE, Close> file_;
    std::string failure_;
};

/// Writes the parts one after the other; the number of bytes and why there are no more of them.
inline std::uint64_t write_parts(std::FILE* file, std::span<const std::span<const std::byte>> parts,
                                 std::string& failure) {
    std::uint64_t written = 0;
    for (const auto& part : parts) {
        const std::size_t done = part.empty() ? 0 : std::fwrite(part.data(), 1, part.size(), file);
        written += done;
        if (done != part.size()) {
            failure = "cannot be written: " + std::generic_category().message(errno);
            return written;
        }
    }
    if (std::fflush(file) != 0) failure = "cannot be written: " + std::generic_category().message(errno);
    return written;
}

} // namespace detail

/// Removes the files that are being written and have a name already (all the while where the system knows no
/// files without one, else between the last byte and the file's own name). For handlers of signals that end the
/// program: async-signal-safe on POSIX systems. The library installs no handler.
inline void remove_unfinished_files() noexcept {
    ++detail::removals_going_on;
    for (std::atomic<char*>& slot : detail::unfinished_names)
        if (const char* const name = slot.exchange(nullptr)) {
#if ATTNSCOPE_DETAIL_POSIX_FILES
            ::unlink(name);
#else
            std::remove(name);
#endif
        }
    --detail::removals_going_on;
}

/// Writes the parts, one after the other, as the file `path`. A regular file is replaced in one step, when
/// the new one is finished: a reader sees the old or the whole new one, and nothing is left when a step fails
/// (a signal that ends the program: see `remove_unfinished_files`). At the end of a link it is the file the
/// link leads to; the link stays. What is no regular file (a device, a pipe) is written to as it stands.
/// Throws. `io_error` with the system's reason.
inline void write_file(const std::string& path, std::span<const std::span<const std::byte>> parts) {
    namespace fs = std::filesystem;
    std::error_code code;
    fs::path target = path;
    const fs::file_type at_end = fs::status(target, code).type();
    const bool link = fs::symlink_status(target, code).type() == fs::file_type::symlink;
    // A folder is refused when the new file shall get its name, what cannot be looked at when it is created.
    bool replace = at_end != fs::file_type::fifo && at_end != fs::file_type::character &&
                   at_end != fs::file_type::block && at_end != fs::file_type::socket;
    if (link && replace) {
        target = fs::canonical(path, code);
        if (code) replace = false; // a link to nothing: what it names is created
    }

    std::string failure;
    std::uint64_t written = 0;
    if (replace) {
        detail::NewFile file(target.parent_path());
        failure = file.failure();
        if (failure.empty()) {
            written = detail::write_parts(file.get(), parts, failure);
            if (failure.empty() && !file.publish(target)) failure = file.failure();
        }
    } else if (std::FILE* const file = std::fopen(path.c_str(), "wb")) {
        written = detail::write_parts(file, parts, failure);
        if (std::fclose(file) != 0 && failure.empty())
            failure = "cannot be written: " + std::generic_category().message(errno);
    } else {
        failure = "cannot be created: " + std::generic_category().message(errno);
    }
    if (!failure.empty()) throw io_error(path, written, failure);
}

/// As above, of one text.
inline void write_file(const std::string& path, std::string_view content) {
    const std::array<std::span<const std::byte>, 1> parts{std::as_bytes(std::span(content))};
    write_file(path, parts);
}

} // namespace io
} // namespace v0_2
} // namespace attnscope
