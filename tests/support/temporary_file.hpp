// A folder of its own for the files of one test.
#pragma once

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace attnscope_test {

class TemporaryFolder {
public:
    TemporaryFolder() {
        std::random_device random;
        do {
            folder_ = std::filesystem::temp_directory_path() /
                      ("attnscope-test-" + std::to_string(random()) + "-" + std::to_string(random()));
        } while (!std::filesystem::create_directory(folder_));
    }
    ~TemporaryFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;

    std::string path(const std::string& name) const { return (folder_ / name).string(); }
    std::string path() const { return folder_.string(); }

    /// Writes a file and returns its path.
    std::string write(const std::string& name, std::string_view content) const {
        std::ofstream(path(name), std::ios::binary)
            .write(content.data(), static_cast<std::streamsize>(content.size()));
        return path(name);
    }

    std::size_t count() const {
        const std::filesystem::directory_iterator first(folder_);
        return static_cast<std::size_t>(std::distance(begin(first), end(first)));
    }

private:
    std::filesystem::path folder_;
};

inline std::string read_text(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

inline std::vector<std::byte> to_bytes(std::string_view text) {
    std::vector<std::byte> bytes(text.size());
    for (std::size_t i = 0; i < text.size(); ++i) bytes[i] = static_cast<std::byte>(text[i]);
    return bytes;
}

} // namespace attnscope_test
