// What the fuzz targets share: a target gets bytes, ends quietly when a reader refuses them with an exception
// that its documentation lists, and stops the program when a promise is broken.
#pragma once

#include <support/temporary_file.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <string>
#include <string_view>

namespace fuzz {

inline void require(bool promise, const char* what) {
    if (promise) return;
    std::fprintf(stderr, "broken promise: %s\n", what);
    std::abort();
}

/// A refusal is one printable line of bounded length that begins with the name of a file.
inline void require_message(const std::string& message, const std::string& file) {
    require(message.starts_with(file), "a message begins with the file's name");
    require(message.size() < file.size() + 4096, "a message is bounded");
    for (const char c : message)
        require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f, "a message is one printable line");
}

/// The next part of an input, up to a zero byte or the end.
inline std::string_view next_part(std::string_view& rest) {
    const std::size_t end = std::min(rest.find('\0'), rest.size());
    const std::string_view part = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return part;
}

template <class T>
bool same_bytes(std::span<const T> a, std::span<const T> b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), a.size_bytes()) == 0);
}

inline const attnscope_test::TemporaryFolder& folder() {
    static const attnscope_test::TemporaryFolder made;
    return made;
}

} // namespace fuzz

/// What a target defines.
void fuzz_one(std::string_view input);

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    fuzz_one({reinterpret_cast<const char*>(data), size});
    return 0;
}
