// Files are written whole or not at all, and never in place of a device, a pipe or a link; messages are one
// line of UTF-8.
#include <support/catch.hpp>
#include <support/temporary_file.hpp>

#include <attnscope/errors.hpp>
#include <attnscope/io/npy.hpp>
#include <attnscope/io/safetensors.hpp>
#include <attnscope/io/write_file.hpp>

#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#if ATTNSCOPE_DETAIL_POSIX_FILES
#include <csignal>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#endif

namespace {

namespace fs = std::filesystem;
using attnscope::io_error;
using attnscope::printable;
using attnscope::io::write_file;
using attnscope_test::read_text;
using attnscope_test::TemporaryFolder;

template <class Work>
std::string message_of(Work&& work) {
    try {
        work();
    } catch (const std::exception& error) {
        return error.what();
    }
    return "";
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

} // namespace

TEST_CASE("a file is created, replaced, and nothing else is left", "[file]") {
    const TemporaryFolder folder;
    const std::string path = folder.path("f");
    for (const std::string& content : {std::string("one"), std::string(), std::string(1'000'000, 'x')}) {
        write_file(path, content);
        CHECK(read_text(path) == content);
        CHECK(folder.count() == 1);
    }
    // In the working folder, without a slash.
    const fs::path before = fs::current_path();
    fs::current_path(folder.path());
    write_file("f", "here");
    fs::current_path(before);
    CHECK(read_text(path) == "here");
    CHECK(folder.count() == 1);

    fs::create_directory(folder.path("taken"));
    CHECK(has(message_of([&] { write_file(folder.path("taken"), "x"); }), "cannot be given its name: "));
    CHECK(has(message_of([&] { write_file(folder.path("no/file"), "x"); }), "cannot be created: "));
    CHECK(folder.count() == 2);
}

#if ATTNSCOPE_DETAIL_POSIX_FILES
TEST_CASE("links stay links, pipes pipes, and a planted name is not followed", "[file]") {
    const TemporaryFolder folder, other;
    const std::string target = other.write("target", "old"), link = folder.path("link");
    fs::create_symlink(target, link);
    for (const char* writer : {"text", "npy", "safetensors"}) {
        if (writer == std::string("text"))
            write_file(link, "new");
        else if (writer == std::string("npy"))
            attnscope::io::write_npy(link, std::vector<float>{1}, std::vector<Eigen::Index>{1});
        else
            attnscope::io::SafetensorsWriter().write(link);
        CHECK(fs::is_symlink(link));
        CHECK(read_text(target) != "old");
        CHECK(other.count() == 1);
        other.write("target", "old");
    }
    // A link to nothing creates what it names.
    fs::create_symlink(other.path("none"), folder.path("dangling"));
    write_file(folder.path("dangling"), "made");
    CHECK(fs::is_symlink(folder.path("dangling")));
    CHECK(read_text(other.path("none")) == "made");

    REQUIRE(::mkfifo(folder.path("pipe").c_str(), 0600) == 0);
    std::string piped;
    std::thread reader([&] { piped = read_text(folder.path("pipe")); });
    write_file(folder.path("pipe"), "through");
    reader.join();
    CHECK(piped == "through");
    CHECK(fs::is_fifo(folder.path("pipe")));

    if (fs::is_character_file("/dev/full"))
        CHECK(has(message_of([] { write_file("/dev/full", "x"); }),
                  "/dev/full: at byte 1: cannot be written: No space left on device"));

    // Whoever guesses a name of the process finds his link untouched.
    const std::string victim = other.write("victim", "precious");
    fs::create_symlink(victim, folder.path("out.partial-" + std::to_string(::getpid())));
    write_file(folder.path("out"), "x");
    CHECK(read_text(victim) == "precious");
}

TEST_CASE("a limit of size and the end of the program leave no partial file", "[file]") {
    const TemporaryFolder folder;
    const std::string path = folder.write("old", "old content"), big(1'000'000, 'x');
    struct ::rlimit before {};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    struct ::rlimit small = before;
    small.rlim_cur = 50'000;
    const auto handler = std::signal(SIGXFSZ, SIG_IGN);
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &small) == 0);
    const std::string message = message_of([&] { write_file(path, big); });
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &before) == 0);
    std::signal(SIGXFSZ, handler);
    CHECK(has(message, "cannot be written: File too large"));
    CHECK(read_text(path) == "old content");
    CHECK(folder.count() == 1);

#if defined(O_TMPFILE)
    const int trial = ::open(folder.path().c_str(), O_TMPFILE | O_WRONLY, 0600);
    if (trial < 0) return; // a file system without unnamed files
    ::close(trial);
    const ::pid_t child = ::fork();
    REQUIRE(child >= 0);
    if (child == 0) { // the signal of the limit ends it in the middle of the file
        std::signal(SIGXFSZ, SIG_DFL);
        ::setrlimit(RLIMIT_FSIZE, &small);
        write_file(path, big);
        ::_exit(0);
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK(read_text(path) == "old content");
    CHECK(folder.count() == 1);
#endif
}
#endif

TEST_CASE("messages are one line of UTF-8, whole and bounded", "[file]") {
    CHECK(printable("plain, \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80") ==
          "plain, \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80");
    CHECK(printable(std::string("a\0b\n\x1b\x7f\xff", 7)) == "a\\x00b\\x0a\\x1b\\x7f\\xff");
    CHECK(printable("\xc2\x9b[m") == "\\xc2\\x9b[m"); // a control character of Latin-1
    for (const char* wrong : {"\x80", "\xc0\xaf", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xc3"})
        CHECK(printable(wrong).starts_with("\\x"));
    CHECK(printable(std::string(5'000'000, 'a'), 100).size() < 120);
    // Cut between characters.
    for (std::size_t shift = 0; shift < 4; ++shift) {
        std::string text(shift, 'a');
        for (int i = 0; i < 1000; ++i) text += "\xf0\x9f\x98\x80";
        CHECK_FALSE(has(printable(text, 100), "\\x"));
    }
    const std::string name("n\0\xff", 3);
    const io_error error(name, 7, "bad\nreason");
    CHECK(error.what() == std::string("n\\x00\\xff: at byte 7: bad\\x0areason"));
    CHECK(error.file() == name);
    CHECK(error.reason() == "bad\nreason");
}
