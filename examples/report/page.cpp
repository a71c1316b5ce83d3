#include "page.hpp"

#include "page_parts.hpp"

#include <attnscope/report/page_json.hpp>

namespace report {
namespace {

/// ASCII alone, in which no tag of HTML can begin or end.
std::string inside_a_script(const nlohmann::ordered_json& json) {
    const std::string text = json.dump(-1, ' ', true, nlohmann::ordered_json::error_handler_t::replace);
    std::string safe;
    safe.reserve(text.size());
    for (const char c : text) {
        if (c == '<')
            safe += "\\u003c";
        else if (c == '>')
            safe += "\\u003e";
        else if (c == '&')
            safe += "\\u0026";
        else
            safe += c;
    }
    return safe;
}

} // namespace

std::string to_page(const attnscope::Report& report, const std::string& command, std::string_view experiments) {
    const std::string data = inside_a_script(attnscope::io::page_json(report, command));
    std::string page;
    std::string_view rest = page_html;
    for (const auto& [mark, part] :
         {std::pair<std::string_view, std::string_view>{"<!-- page.css -->", page_css},
          {"<!-- link to experiments -->",
           experiments.empty() ? "" : "<a href=\"#experiments\">Experiments</a> "},
          {"<!-- experiments -->", experiments},
          {"<!-- data -->", data},
          {"<!-- page.js -->", page_js}}) {
        const std::size_t at = rest.find(mark);
        if (at == rest.npos) throw std::logic_error(fmt::format("page.html has no {}", mark));
        page.append(rest.substr(0, at)).append(part);
        rest.remove_prefix(at + mark.size());
    }
    return page.append(rest);
}

std::string shell_line(int argc, const char* const* argv, std::string_view program) {
    std::string line(program);
    for (int i = 1; i < argc; ++i) {
        const std::string_view word = argv[i];
        line += ' ';
        const bool plain = !word.empty() && std::all_of(word.begin(), word.end(), [](char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                   std::string_view("-_./=:,+").find(c) != std::string_view::npos;
        });
        if (plain) {
            line += word;
            continue;
        }
        line += '\'';
        for (const char c : word) line += c == '\'' ? std::string("'\\''") : std::string(1, c);
        line += '\'';
    }
    return attnscope::printable(line, 4000);
}

} // namespace report
