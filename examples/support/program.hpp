// What every example program does alike: exit codes, one-line errors, results that are whole or absent,
// progress.
#pragma once

#include <attnscope/errors.hpp>
#include <attnscope/io/write_file.hpp>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include <unistd.h>
#if __has_include(<malloc.h>)
#include <malloc.h>
#endif

namespace program {

/// For programs that ask for the same large blocks again and again: glibc shall keep them instead of handing
/// them back to the system, which would have to clear them each time.
inline void keep_memory() {
#if defined(M_MMAP_THRESHOLD) && defined(M_TRIM_THRESHOLD)
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 0x7fffffff);
#endif
}

/// The caller asked for something that does not exist: exit status 2. Everything else that throws is failed
/// work, 1.
class usage_error : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// Calls work(); what the library says of an argument becomes a complaint about the option of that name: of
/// "open_capture: masked_below: ...", "--masked-below: ...". Throws `usage_error` for `invalid_argument`.
template <class Work>
auto as_options(const Work& work) {
    try {
        return work();
    } catch (const attnscope::invalid_argument& error) {
        std::string text = error.what();
        if (const auto function = text.find(": "); function < text.find(' ')) text.erase(0, function + 2);
        const auto end = text.find_first_not_of("abcdefghijklmnopqrstuvwxyz_");
        if (end != text.npos && (text[end] == ':' || text.compare(end, 5, " must") == 0)) {
            std::replace(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(end), '_', '-');
            if (text.starts_with("inputs"))
                text.replace(0, end, "INPUT");
            else
                text.insert(0, "--");
        }
        throw usage_error(text);
    }
}

/// A whole number from a command line, by hand: CLI11 wraps negative numbers around and cuts large ones. Throws
/// `usage_error` that names the option, the range and the text.
template <class T>
T whole_number(std::string_view option, std::string_view text, T least, T most) {
    T value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most)
        throw usage_error(
            fmt::format("{} must be a whole number from {} to {}, got {}", option, least, most, text));
    return value;
}

/// A number in (0, below) from a command line. Throws `usage_error` as above.
inline double positive_number(std::string_view option, std::string_view text,
                              double below = std::numeric_limits<double>::infinity()) {
    double value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size() || !(value > 0 && value < below))
        throw usage_error(std::isinf(below) ? fmt::format("{} must be a number > 0, got {}", option, text)
                                            : fmt::format("{} must be a number between 0 and {}, got {}",
                                                          option, below, text));
    return value;
}

/// "0,3-5" from a command line as 0, 3, 4, 5. Throws `usage_error` as above.
inline std::vector<std::ptrdiff_t> number_list(std::string_view option, std::string_view text) {
    using Number = std::ptrdiff_t;
    std::vector<Number> list;
    const auto fail = [&] {
        throw usage_error(fmt::format("{}: expected numbers such as 0,3-5, got {}", option, text));
    };
    const char* at = text.data();
    const char* const end = at + text.size();
    const auto read_number = [&] {
        Number value = 0;
        const auto [next, error] = std::from_chars(at, end, value);
        if (error != std::errc{} || value < 0) fail();
        at = next;
        return value;
    };
    if (at == end) fail();
    while (true) {
        const Number first = read_number();
        Number last = first;
        if (at != end && *at == '-') {
            ++at;
            last = read_number();
        }
        constexpr std::size_t most = 1'000'000;
        if (last < first || static_cast<std::size_t>(last - first) >= most - list.size()) fail();
        for (Number i = 0; i <= last - first; ++i) list.push_back(first + i);
        if (at == end) return list;
        if (*at++ != ',') fail();
    }
}

/// Is this process the one of many that tells what went wrong?
inline bool errors_are_told = true;

/// One line on standard error. Names and values from files are quoted in messages: they shall not break the
/// line, drive a terminal or fill the screen.
inline void print_line(std::string_view program, std::string_view message) {
    fmt::print(stderr, "{}: {}\n", program, attnscope::printable(message, 2000));
}

/// Says what the user should know and what keeps nobody from the result.
inline void warn(std::string_view program, std::string_view message) {
    print_line(program, fmt::format("warning: {}", message));
}

/// Signals that end the program leave no file half-written. Those that are ignored (nohup) stay so.
inline void remove_unfinished_at_signals() {
    struct sigaction action {};
    action.sa_handler = [](int signal) {
        attnscope::io::remove_unfinished_files();
        ::raise(signal); // SA_RESETHAND: it ends the program
    };
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    for (const int signal : {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGXCPU}) {
        struct sigaction before {};
        if (::sigaction(signal, nullptr, &before) == 0 && before.sa_handler == SIG_DFL)
            ::sigaction(signal, &action, nullptr);
    }
}

/// Parses the command line, runs `work` and turns exceptions into one line on stderr.
/// Exit status: 0 success, `--help` and `--version`; 2 wrong use; 1 failed work.
template <class Work>
int run(CLI::App& app, int argc, char** argv, Work&& work) {
    const auto complain = [&](std::string_view message, int status) {
        if (errors_are_told) print_line(app.get_name(), message);
        return status;
    };
#ifdef SIGXFSZ
    std::signal(SIGXFSZ, SIG_IGN); // a file that grows too large is an error of the one who writes it
#endif
    remove_unfinished_at_signals();
    app.set_version_flag("--version", fmt::format("{} {}", app.get_name(), ATTNSCOPE_VERSION));
    try {
        app.parse(argc, argv);
    } catch (const CLI::Success& request) { // --help, --version
        return app.exit(request);
    } catch (const CLI::ParseError& error) {
        return complain(fmt::format("{} (see --help)", error.what()), 2);
    }
    try {
        work();
        if (std::fflush(stdout) != 0 || std::ferror(stdout))
            throw std::runtime_error("cannot write to standard output");
        return 0;
    } catch (const usage_error& error) {
        return complain(error.what(), 2);
    } catch (const std::bad_alloc&) {
        return complain("out of memory", 1);
    } catch (const std::exception& error) {
        return complain(error.what(), 1);
    }
}

/// Writes a file as `attnscope::io::write_file` does: whole or not at all, and never in place of a device, a
/// pipe or a link. "-" is standard output.
inline void write_whole(const std::filesystem::path& path, std::string_view content) {
    if (path == "-") {
        std::fwrite(content.data(), 1, content.size(), stdout);
        return;
    }
    try {
        attnscope::io::write_file(path.string(), content);
    } catch (const attnscope::io_error& error) {
        constexpr std::string_view lead = "cannot be written: ";
        const std::string_view reason = error.reason();
        throw std::runtime_error(
            reason.starts_with(lead)
                ? fmt::format("{}: cannot be written whole: {}", path.string(), reason.substr(lead.size()))
                : fmt::format("{}: {}", path.string(), reason));
    }
}

/// Writes files of a folder, pairs of name and content, one after the other; when one fails, the message says
/// which are written.
template <class Files>
void write_all(const std::filesystem::path& folder, const Files& files) {
    std::string done;
    for (const auto& [name, content] : files) {
        try {
            write_whole(folder / name, content);
        } catch (const std::runtime_error& error) {
            throw std::runtime_error(
                fmt::format("{}; written before: {}", error.what(), done.empty() ? "nothing" : done));
        }
        done += (done.empty() ? "" : ", ") + std::string(name);
    }
}

/// Throws when an output is one of the files or folders that are read: its place would be taken before or while
/// it is read. Inputs may be written NAME=FILE; a folder stands for the files in it, too.
inline void require_not_input(std::string_view option, const std::filesystem::path& output,
                              const std::vector<std::string>& inputs) {
    namespace fs = std::filesystem;
    const auto same = [&](const fs::path& input) {
        std::error_code code;
        return (fs::is_regular_file(input, code) || fs::is_directory(input, code)) &&
               fs::equivalent(input, output, code) && !code;
    };
    for (const std::string& input : inputs) {
        std::vector<fs::path> read{input};
        if (const auto equals = input.find('='); equals != std::string::npos)
            read.emplace_back(input.substr(equals + 1));
        std::error_code code;
        if (!input.empty() && fs::is_directory(input, code))
            for (const auto& entry : fs::directory_iterator(input, code)) read.push_back(entry.path());
        for (const fs::path& path : read)
            if (same(path))
                throw usage_error(
                    fmt::format("{} {} is an input: it would be overwritten", option, output.string()));
    }
}

/// Throws unless the folder of this file exists. Called before the work.
inline void require_folder_of(const std::filesystem::path& path) {
    const auto folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
    if (path != "-" && !std::filesystem::is_directory(folder))
        throw std::runtime_error(
            fmt::format("{}: the folder {} does not exist", path.string(), folder.string()));
}

/// A file that a program is going to write, and the option that asks for it. "-" is standard output, an empty
/// path none.
struct Output {
    std::string_view option;
    std::filesystem::path path;
};

/// Throws unless all of these files can be made and nothing is lost by it: the folder of each exists, it is no
/// folder itself and none of the inputs, and no two are the same file. Called before the work.
inline void require_outputs(const std::vector<Output>& outputs, const std::vector<std::string>& inputs) {
    namespace fs = std::filesystem;
    std::map<fs::path, std::string_view> seen;
    for (const auto& [option, path] : outputs) {
        if (path.empty()) continue;
        std::error_code code;
        const fs::path place = path == "-" ? path : fs::weakly_canonical(fs::absolute(path), code);
        if (path != "-") {
            require_folder_of(path);
            require_not_input(option, path, inputs);
            if (fs::is_directory(path, code))
                throw std::runtime_error(fmt::format("{}: is a folder, not a file", path.string()));
            if (fs::exists(path, code) && !fs::is_regular_file(path, code)) continue; // may be written to twice
        }
        if (const auto [other, fresh] = seen.emplace(place, option); !fresh)
            throw usage_error(
                fmt::format("{} and {}: only one of them may be {}", other->second, option, path.string()));
    }
}

/// As above for files of these names in one folder, which is made when it is not there: it is no other kind of
/// file, and none of the folders that are read.
template <class Names>
void require_output_folder(std::string_view option, const std::filesystem::path& folder, const Names& names,
                           const std::vector<std::string>& inputs) {
    namespace fs = std::filesystem;
    require_folder_of(folder);
    if (fs::exists(folder) && !fs::is_directory(folder))
        throw std::runtime_error(fmt::format("{}: exists and is no folder", folder.string()));
    require_not_input(option, folder, inputs);
    for (const auto& name : names) require_not_input(option, folder / name, inputs);
}

/// A line on stderr that counts steps, on a terminal and only after the first second.
class Progress {
public:
    Progress(std::string_view what, std::size_t total) : what_(what), total_(total) {}
    ~Progress() {
        if (shown_) fmt::print(stderr, "\r\033[K");
    }
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    void step() { reach(done_ + 1); }
    /// `more` is shown behind the count.
    void reach(std::size_t done, std::string_view more = {}) {
        done_ = done;
        const auto now = std::chrono::steady_clock::now();
        if (!terminal_ || now - start_ < std::chrono::seconds(1) ||
            now - last_ < std::chrono::milliseconds(100))
            return;
        const double elapsed = std::chrono::duration<double>(now - start_).count();
        const double left = elapsed * static_cast<double>(total_ - done_) / static_cast<double>(done_);
        fmt::print(stderr, "\r\033[K{} {}/{}{}, {:.0f} s left", what_, done_, total_, more, left);
        std::fflush(stderr);
        last_ = now;
        shown_ = true;
    }

private:
    std::string what_;
    std::size_t total_, done_ = 0;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), last_{};
    bool terminal_ = ::isatty(STDERR_FILENO) == 1, shown_ = false;
};

} // namespace program
