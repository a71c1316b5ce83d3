// What a file is that a reader cannot read: told by its first bytes, with what to do.
#pragma once

#include <attnscope/io/file.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace attnscope {
inline namespace v0_2 {
namespace io {

/// What a file can be that is no safetensors file.
enum class FileKind {
    unknown,
    npy,           ///< one NumPy array
    npz,           ///< several: a zip archive of .npy members
    torch_archive, ///< torch.save: a zip archive around a pickle
    zip,           ///< any other zip archive
    pickle,        ///< of Python: torch.save before torch 1.6, pickle.dump
    gguf,          ///< llama.cpp
    hdf5,
    git_lfs_pointer,
    html,
    compressed, ///< by gzip, bzip2, xz or zstd
};

/// What the first bytes of a file say it is; 512 of them are enough.
inline FileKind kind_of(std::string_view start) {
    using namespace std::string_view_literals;
    if (start.starts_with("\x93NUMPY"sv)) return FileKind::npy;
    if (start.starts_with("PK\x03\x04"sv) || start.starts_with("PK\x05\x06"sv)) {
        // The name of the first member begins at byte 30, its length is stored at byte 26.
        const auto byte = [&](std::size_t i) {
            return i < start.size() ? static_cast<std::size_t>(static_cast<unsigned char>(start[i])) : 0;
        };
        const std::string_view name =
            start.size() < 30 ? ""sv : start.substr(30, std::min<std::size_t>(byte(26) | byte(27) << 8, 400));
        if (name.ends_with(".npy") || start.starts_with("PK\x05\x06"sv)) return FileKind::npz;
        for (const std::string_view part : {"/data.pkl"sv, "/version"sv, "/byteorder"sv, "/.format_version"sv,
                                            "/.storage_alignment"sv, "/constants.pkl"sv})
            if (name.ends_with(part)) return FileKind::torch_archive;
        return FileKind::zip;
    }
    if (start.size() > 2 && start[0] == '\x80' && start[1] >= 2 && start[1] <= 5) return FileKind::pickle;
    if (start.starts_with("GGUF"sv)) return FileKind::gguf;
    if (start.starts_with("\x89HDF\r\n"sv)) return FileKind::hdf5;
    for (const std::string_view magic : {"\x1f\x8b\x08"sv, "BZh"sv, "\xfd\x37zXZ\0"sv, "\x28\xb5\x2f\xfd"sv})
        if (start.starts_with(magic)) return FileKind::compressed;
    if (start.starts_with("version https://git-lfs"sv)) return FileKind::git_lfs_pointer;
    std::string lower(start.substr(std::min(start.find_first_not_of("\xef\xbb\xbf \t\r\n"), start.size()), 9));
    for (char& c : lower)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (lower == "<!doctype" || lower.starts_with("<html") || lower.starts_with("<head")) return FileKind::html;
    return FileKind::unknown;
}

/// The sentence of a message: what it is, and what to do about it. Empty for `unknown`.
inline std::string_view description(FileKind kind) {
    switch (kind) {
    case FileKind::npy:
        return "a NumPy array (.npy), which has no name; give it as one of the parts q=FILE k=FILE v=FILE, or "
               "read it with read_npy";
    case FileKind::npz:
        return "an archive of NumPy arrays (.npz); NpzFile reads it";
    case FileKind::torch_archive:
    case FileKind::pickle:
        return "a Python pickle (torch.save), which only Python can read; save its tensors as safetensors: "
               "from "
               "safetensors.torch import save_file; save_file({name: t.contiguous() for name, t in "
               "torch.load(FILE, weights_only=True).items()}, 'FILE.safetensors')";
    case FileKind::zip:
        return "a zip archive; unpack it first";
    case FileKind::gguf:
        return "a GGUF file of llama.cpp, which is not read here; use the .safetensors files that it was made "
               "of";
    case FileKind::hdf5:
        return "an HDF5 file, which is not read here; save its arrays with numpy.save";
    case FileKind::git_lfs_pointer:
        return "a Git LFS pointer, not the file itself; run git lfs pull in its folder";
    case FileKind::html:
        return "an HTML page; the download failed, or its address is that of a page about the file";
    case FileKind::compressed:
        return "a compressed file (gzip, bzip2, xz or zstd); unpack it first";
    case FileKind::unknown:
        break;
    }
    return {};
}

namespace detail {

/// Throws `io_error`: what the file is from byte `start` on if that is known, else `reason` at byte `offset`.
[[noreturn]] inline void fail_as_kind(const File& file, std::uint64_t start, std::uint64_t offset,
                                      const std::string& reason) {
    std::string first(512, '\0');
    first.resize(file.read_some(start, std::as_writable_bytes(std::span(first))));
    const std::string_view known = description(kind_of(first));
    if (known.empty()) throw io_error(file.path(), offset, reason);
    throw io_error(file.path(), start, "this is " + std::string(known));
}

} // namespace detail
} // namespace io
} // namespace v0_2
} // namespace attnscope
