// attnscope-merge: the report of heads that many processes have analysed, from their states alone.

#include <attnscope/io/json.hpp>
#include <support/program.hpp>

#include <unistd.h>

int main(int argc, char** argv) {
    CLI::App app("The report of heads whose states stand in a folder (attnscope-report --states FOLDER --shard "
                 "I/N), without "
                 "analysing any: the same bytes as of one process. Other options are those of "
                 "attnscope-report's outputs.",
                 "attnscope-merge");
    std::string folder, json, csv, qk_clip;
    bool rows = false;
    app.add_option("FOLDER", folder, "where the states are, and the file run.json")->required();
    app.add_option("--json", json, "write JSON to this file; - for standard output instead of the text");
    app.add_option("--csv", csv,
                   "write heads.csv, selection.csv, audit.csv (with --rows also the rows) into this folder");
    app.add_flag("--rows", rows, "every row in JSON and CSV");
    app.add_option("--qk-clip", qk_clip, "as of attnscope-report");

    return program::run(app, argc, argv, [&] {
        namespace fs = std::filesystem;
        const std::string file = (fs::path(folder) / "run.json").string();
        const auto run = attnscope::io::read_json(file);
        std::vector<std::string> words;
        if (!run.is_object() || run.value("schema", "") != "attnscope.run/1" || !run.contains("arguments") ||
            !run["arguments"].is_array())
            throw std::runtime_error(fmt::format("{}: must be what attnscope-report --states wrote", file));
        // The report stands beside this program.
        std::error_code code;
        const fs::path own = fs::read_symlink("/proc/self/exe", code);
        const fs::path beside = (code ? fs::absolute(argv[0]) : own).parent_path() / "attnscope-report";
        words.push_back(fs::exists(beside) ? beside.string() : std::string("attnscope-report"));
        for (const auto& word : run["arguments"]) {
            if (!word.is_string()) throw std::runtime_error(fmt::format("{}: arguments must be texts", file));
            words.push_back(word.get<std::string>());
        }
        for (const char* const word : {"--states", folder.c_str(), "--merge"}) words.emplace_back(word);
        for (const auto& [name, value] :
             {std::pair("--json", &json), std::pair("--csv", &csv), std::pair("--qk-clip", &qk_clip)})
            if (!value->empty()) words.insert(words.end(), {name, *value});
        if (rows) words.emplace_back("--rows");
        std::vector<char*> pointers;
        for (std::string& word : words) pointers.push_back(word.data());
        pointers.push_back(nullptr);
        ::execvp(pointers.front(), pointers.data());
        throw std::runtime_error(fmt::format("{}: cannot be run", words.front()));
    });
}
