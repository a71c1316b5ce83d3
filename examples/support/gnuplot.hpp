// Pictures by gnuplot.
#pragma once

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>

#include <sys/wait.h>

namespace gnuplot {

/// Throws unless a gnuplot can be started; says who needs it and how to do without.
inline void require(std::string_view needed_by, std::string_view without) {
    if (std::system("command -v gnuplot >/dev/null 2>&1") != 0)
        throw std::runtime_error(
            fmt::format("{} needs gnuplot, which is not installed (Debian, Ubuntu: apt-get "
                        "install gnuplot-nox); {}",
                        needed_by, without));
}

/// Text in quotes of gnuplot's.
inline std::string quoted(std::string_view text) {
    std::string result = "'";
    for (const char c : text) result += c == '\'' ? std::string("''") : std::string(1, c);
    return result + "'";
}

/// A number of a data block.
inline std::string number(double x) { return std::isfinite(x) ? fmt::format("{:.6g}", x) : std::string("NaN"); }

/// What gnuplot writes to its standard output. The commands go to it inside the shell command. Throws when it
/// fails.
inline std::string run(const std::string& commands) {
    const std::string shell = "gnuplot 2>/dev/null <<'end of script'\n" + commands + "\nend of script\n";
    std::FILE* const pipe = ::popen(shell.c_str(), "r");
    if (!pipe) throw std::runtime_error("gnuplot cannot be started");
    std::string picture;
    std::array<char, 4096> buffer;
    while (const std::size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe))
        picture.append(buffer.data(), count);
    const int status = ::pclose(pipe);
    if (status != 0 || picture.empty())
        throw std::runtime_error(fmt::format("gnuplot fails with exit status {}", WEXITSTATUS(status)));
    return picture;
}

} // namespace gnuplot
