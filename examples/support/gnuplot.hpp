// Pictures by gnuplot.
#pragma once

#include <attnscope/io/gnuplot.hpp>

#include <fmt/format.h>

#include <array>
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

using attnscope::io::gnuplot::number;
using attnscope::io::gnuplot::quoted;

/// Exit status and what comes out of gnuplot. The commands go to it inside the shell command.
inline int run_script(const std::string& commands, std::string_view redirection, std::string& output) {
    const std::string shell =
        fmt::format("gnuplot {} <<'end of script'\n{}\nend of script\n", redirection, commands);
    std::FILE* const pipe = ::popen(shell.c_str(), "r");
    if (!pipe) throw std::runtime_error("gnuplot cannot be started");
    std::array<char, 4096> buffer;
    while (const std::size_t count = std::fread(buffer.data(), 1, buffer.size(), pipe))
        output.append(buffer.data(), count);
    return WEXITSTATUS(::pclose(pipe));
}

/// What gnuplot writes to its standard output. Throws when it fails, with what it complains about.
inline std::string run(const std::string& commands) {
    std::string picture;
    if (const int status = run_script(commands, "2>/dev/null", picture); status == 0 && !picture.empty())
        return picture;
    std::string complaint;
    const int status = run_script(commands, "2>&1 >/dev/null", complaint);
    throw std::runtime_error(fmt::format("gnuplot fails with exit status {}: {}", status, complaint));
}

} // namespace gnuplot
