// NumPy's .npz files (numpy.savez), read: zip archives of .npy members. Not in the umbrella.
//
// Format (PKWARE, APPNOTE.TXT 6.3.10, https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT,
// sections 4.3.7 to 4.3.16, 4.5.3): the members, each behind a local header; the central directory, which says
// where they are; the end of central directory, of 22 bytes and a comment, before it those of zip64 for what 32
// bits cannot hold.
#pragma once

#include <attnscope/errors.hpp>
#include <attnscope/io/file.hpp>
#include <attnscope/io/file_kind.hpp>
#include <attnscope/io/npy.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace attnscope {
inline namespace v0_2 {
namespace io {
namespace detail {

/// CRC-32 as zip has it (polynomial 0xEDB88320, reflected), continued from `sum`, which begins with 0.
inline std::uint32_t crc32(std::uint32_t sum, std::span<const std::byte> bytes) noexcept {
    static constexpr auto table = [] {
        std::array<std::uint32_t, 256> values{};
        for (std::uint32_t i = 0; i < 256; ++i) {
            std::uint32_t value = i;
            for (int bit = 0; bit < 8; ++bit) value = (value & 1) != 0 ? 0xEDB88320u ^ value >> 1 : value >> 1;
            values[i] = value;
        }
        return values;
    }();
    sum = ~sum;
    for (const std::byte b : bytes) sum = table[(sum ^ std::to_integer<std::uint32_t>(b)) & 0xff] ^ sum >> 8;
    return ~sum;
}

} // namespace detail

/// An .npz file, open for reading. The constructor checks the directory; `read` checks the member it reads,
/// with its CRC-32. Move-only; reading from several threads at once is safe.
/// Throws. `io_error` with the position: no zip archive (with what the file is instead), a directory that
/// does not fit the file, an encrypted member, a name that appears twice, a member that is not .npy, a
/// checksum that is wrong, and what `read_npy` refuses. Compressed members (numpy.savez_compressed) are
/// refused when they are read, with the Python that saves them as they are read here.
/// Example:
///     const io::NpzFile file("head.npz");
///     const io::NpyArray<float> q = file.read<float>("q");
///     const Eigen::Map<const Matrix<float>> queries(q.data.data(), q.shape[0], q.shape[1]);
class NpzFile {
public:
    explicit NpzFile(const std::string& path) : NpzFile(File::open(path)) {}
    explicit NpzFile(File file) : file_(std::move(file)) { read_directory(); }

    const std::string& path() const noexcept { return file_.path(); }

    /// Names of the arrays without ".npy", sorted.
    std::vector<std::string> names() const {
        std::vector<std::string> names;
        for (const auto& [name, member] : members_) names.push_back(name);
        return names;
    }
    bool contains(std::string_view name) const { return members_.contains(name); }

    /// One array, as `read_npy` gives it.
    /// Throws. `io_error` when there is none of this name, and for a member that is not as the class says.
    template <NpyScalar T>
    NpyArray<T> read(std::string_view name, NpyOptions options = {}) const {
        const auto found = members_.find(name);
        if (found == members_.end()) throw io_error(path(), 0, "there is no array " + detail::in_quotes(name));
        const Member& member = found->second;
        try {
            const std::uint64_t start = data_of(name, member);
            check_sum(start, member);
            return detail::read_npy_part<T>(file_, start, member.size, options);
        } catch (const io_error& error) {
            throw io_error(path(), error.offset(), "array " + detail::in_quotes(name) + ": " + error.reason());
        }
    }

private:
    struct Member {
        std::uint64_t header = 0, size = 0,
                      stored = 0; ///< offset of the local header, bytes of the .npy and here
        std::uint64_t entry = 0;  ///< place in the directory, for messages
        std::uint32_t sum = 0;
        std::uint16_t method = 0;
    };

    static constexpr std::uint32_t local_header = 0x04034b50, directory_entry = 0x02014b50,
                                   end_record = 0x06054b50, end_record_64 = 0x06064b50,
                                   end_locator_64 = 0x07064b50;
    static constexpr std::uint64_t most_directory = std::uint64_t{1} << 26, unset_32 = 0xffffffff;

    [[noreturn]] void fail(std::uint64_t offset, const std::string& reason) const {
        throw io_error(path(), offset, reason);
    }

    /// The `width`-byte little-endian number at `at`, which the caller has checked to be inside.
    static std::uint64_t number(std::span<const std::byte> bytes, std::size_t at, std::size_t width) {
        std::uint64_t value = 0;
        for (std::size_t i = width; i-- > 0;)
            value = value << 8 | std::to_integer<std::uint64_t>(bytes[at + i]);
        return value;
    }
    std::vector<std::byte> bytes(std::uint64_t offset, std::uint64_t count) const {
        if (offset > file_.size() || count > file_.size() - offset)
            fail(std::min(offset, file_.size()), "the archive is cut off or its directory is wrong");
        std::vector<std::byte> read(static_cast<std::size_t>(count));
        file_.read(offset, read);
        return read;
    }

    void read_directory() {
        // The end record is the last thing in the file, but for a comment of at most 65535 bytes.
        constexpr std::uint64_t record = 22;
        const std::uint64_t tail = std::min<std::uint64_t>(file_.size(), record + 65535);
        const std::vector<std::byte> last = bytes(file_.size() - tail, tail);
        std::size_t at = last.size();
        for (std::size_t i = last.size() < record ? 0 : last.size() - record + 1; i-- > 0 && at == last.size();)
            if (number(last, i, 4) == end_record && number(last, i + 20, 2) == last.size() - i - record) at = i;
        if (at == last.size())
            detail::fail_as_kind(file_, 0, file_.size(),
                                 "this is no zip archive: the end of its directory is missing");

        const std::uint64_t end = file_.size() - tail + at;
        std::uint64_t count = number(last, at + 10, 2), size = number(last, at + 12, 4),
                      start = number(last, at + 16, 4);
        std::uint64_t directory_end = end;
        if (end >= 20) {
            const std::vector<std::byte> locator = bytes(end - 20, 20);
            if (number(locator, 0, 4) == end_locator_64) {
                const std::uint64_t place = number(locator, 8, 8);
                const std::vector<std::byte> wide = bytes(place, 56);
                if (number(wide, 0, 4) != end_record_64)
                    fail(place, "the zip64 end of the directory is missing");
                count = number(wide, 32, 8), size = number(wide, 40, 8), start = number(wide, 48, 8);
                directory_end = place;
            }
        }
        if (start > directory_end || size != directory_end - start)
            fail(end,
                 "the directory does not end where its end record says, so bytes are missing or were added");
        if (size > most_directory) fail(start, "the directory is over the limit of 64 MiB");

        const std::vector<std::byte> directory = bytes(start, size);
        std::size_t next = 0;
        for (std::uint64_t i = 0; i < count; ++i) next = read_entry(directory, next, start);
        if (next != directory.size()) fail(start + next, "the directory holds more than its entries");
    }

    std::size_t read_entry(std::span<const std::byte> directory, std::size_t at, std::uint64_t start) {
        constexpr std::size_t fixed = 46;
        const std::uint64_t place = start + at;
        if (directory.size() - at < fixed || number(directory, at, 4) != directory_entry)
            fail(place, "an entry of the directory is missing");
        const auto name_length = static_cast<std::size_t>(number(directory, at + 28, 2)),
                   extra_length = static_cast<std::size_t>(number(directory, at + 30, 2)),
                   comment_length = static_cast<std::size_t>(number(directory, at + 32, 2));
        if (directory.size() - at - fixed < name_length + extra_length + comment_length)
            fail(place, "an entry of the directory is cut off");
        std::string name(reinterpret_cast<const char*>(directory.data()) + at + fixed, name_length);
        Member member;
        member.entry = place;
        member.method = static_cast<std::uint16_t>(number(directory, at + 10, 2));
        member.sum = static_cast<std::uint32_t>(number(directory, at + 16, 4));
        member.stored = number(directory, at + 20, 4);
        member.size = number(directory, at + 24, 4);
        member.header = number(directory, at + 42, 4);
        const std::size_t extra = at + fixed + name_length;
        read_wide_fields(directory.subspan(extra, extra_length), start + extra, member);

        const std::string what = "member " + detail::in_quotes(name);
        if ((number(directory, at + 8, 2) & 1) != 0) fail(place, what + " is encrypted");
        constexpr std::string_view suffix = ".npy";
        if (!name.ends_with(suffix)) {
            const bool torch =
                kind_of("PK\x03\x04" + std::string(22, '\0') + static_cast<char>(name_length & 0xff) +
                        static_cast<char>(name_length >> 8) + "  " + name) == FileKind::torch_archive;
            fail(place, what + (torch ? ": this is " + std::string(description(FileKind::torch_archive))
                                      : " is not .npy: the archive was not made by numpy.savez"));
        }
        name.resize(name.size() - suffix.size());
        if (!members_.emplace(name, member).second) fail(place, what + " appears twice");
        return extra + extra_length + comment_length;
    }

    /// zip64: what is all ones in the entry stands in the extra field 1, in this order.
    void read_wide_fields(std::span<const std::byte> extra, std::uint64_t place, Member& member) const {
        for (std::size_t at = 0; at + 4 <= extra.size();) {
            const std::uint64_t id = number(extra, at, 2);
            const auto length = static_cast<std::size_t>(number(extra, at + 2, 2));
            if (length > extra.size() - at - 4) fail(place + at, "an extra field is cut off");
            if (id == 1) {
                std::span<const std::byte> fields = extra.subspan(at + 4, length);
                for (std::uint64_t* const field : {&member.size, &member.stored, &member.header}) {
                    if (*field != unset_32) continue;
                    if (fields.size() < 8) fail(place + at, "the zip64 field is too short");
                    *field = number(fields, 0, 8);
                    fields = fields.subspan(8);
                }
            }
            at += 4 + length;
        }
    }

    /// Where the bytes of a member begin.
    std::uint64_t data_of(std::string_view name, const Member& member) const {
        constexpr std::uint64_t fixed = 30;
        const std::vector<std::byte> header = bytes(member.header, fixed);
        if (number(header, 0, 4) != local_header) fail(member.header, "the local header is missing");
        const std::uint64_t name_length = number(header, 26, 2);
        const std::vector<std::byte> local = bytes(member.header + fixed, name_length);
        if (std::string_view(reinterpret_cast<const char*>(local.data()), local.size()) !=
            std::string(name) + ".npy")
            fail(member.header, "the local header has another name than the directory");
        if (member.method != 0)
            fail(member.header,
                 "it is compressed, which is not read here; save it with numpy.savez: import numpy; "
                 "numpy.savez('OUT.npz', **numpy.load('IN.npz'))");
        if (member.stored != member.size)
            fail(member.entry, "it is stored, yet has two sizes: " + std::to_string(member.stored) + " and " +
                                   std::to_string(member.size));
        const std::uint64_t start = member.header + fixed + name_length + number(header, 28, 2);
        if (start > file_.size() || member.size > file_.size() - start)
            fail(member.entry, "it ends behind the end of the file");
        return start;
    }

    void check_sum(std::uint64_t start, const Member& member) const {
        std::vector<std::byte> block(
            static_cast<std::size_t>(std::min<std::uint64_t>(member.size, std::uint64_t{1} << 18)));
        std::uint32_t sum = 0;
        for (std::uint64_t done = 0; done < member.size;) {
            const auto part = std::span(block).first(
                static_cast<std::size_t>(std::min<std::uint64_t>(block.size(), member.size - done)));
            file_.read(start + done, part);
            sum = detail::crc32(sum, part);
            done += part.size();
        }
        if (sum != member.sum) fail(start, "its checksum (CRC-32) is wrong: the file is damaged");
    }

    File file_;
    std::map<std::string, Member, std::less<>> members_;
};

} // namespace io
} // namespace v0_2
} // namespace attnscope
