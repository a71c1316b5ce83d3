// Files that have a name before they are finished: what a handler of signals finds.
#include <support/catch.hpp>
#include <support/temporary_file.hpp>

#include <attnscope/io/write_file.hpp>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#if ATTNSCOPE_DETAIL_POSIX_FILES
#include <csignal>
#include <sys/wait.h>
#endif

namespace {

using attnscope::io::write_file;
using attnscope::io::detail::NewFile;
using attnscope_test::read_text;
using attnscope_test::TemporaryFolder;

} // namespace

#if ATTNSCOPE_DETAIL_POSIX_FILES
TEST_CASE("a handler removes what is unfinished under a name of its own", "[file]") {
    // As on a file system without unnamed files; ended in the middle, and between the last byte and the name.
    for (const bool written : {false, true}) {
        const TemporaryFolder folder;
        const std::string path = folder.write("old", "old content");
        const ::pid_t child = ::fork();
        REQUIRE(child >= 0);
        if (child == 0) {
            std::signal(SIGTERM, [](int signal) {
                attnscope::io::remove_unfinished_files();
                std::signal(signal, SIG_DFL);
                std::raise(signal);
            });
            NewFile before(folder.path(), false); // another that has come to its end
            std::fputs("other content", before.get());
            if (!before.publish(folder.path("other"))) ::_exit(1);
            NewFile file(folder.path(), false);
            std::fputs("new content", file.get());
            if (written) std::fflush(file.get());
            for (;;) ::pause();
        }
        // There are "old", "other" and the unfinished one.
        for (int i = 0; i < 2000 && folder.count() < 3; ++i)
            std::this_thread::sleep_for(std::chrono::milliseconds(5));
        CHECK(folder.count() == 3);
        ::kill(child, SIGTERM);
        int status = 0;
        REQUIRE(::waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status));
        CHECK(WTERMSIG(status) == SIGTERM);
        CHECK(read_text(path) == "old content");
        CHECK(read_text(folder.path("other")) == "other content");
        CHECK(folder.count() == 2);
    }
}
#endif

TEST_CASE("of unfinished files as many are known as a handler has room for", "[file]") {
    const TemporaryFolder folder;
    std::vector<std::unique_ptr<NewFile>> files;
    for (int i = 0; i < 70; ++i) files.push_back(std::make_unique<NewFile>(folder.path(), false));
    CHECK(folder.count() == 70);
    CHECK(files[3]->publish(folder.path("kept")));
    files.push_back(std::make_unique<NewFile>(folder.path(), false)); // in its place
    attnscope::io::remove_unfinished_files();
    CHECK(folder.count() == 7); // six were too many, one is finished
    CHECK_FALSE(files[4]->publish(folder.path("lost")));
    files.clear();
    CHECK(folder.count() == 1);
    write_file(folder.path("next"), "next"); // the places are free again
    attnscope::io::remove_unfinished_files();
    CHECK(read_text(folder.path("next")) == "next");
}
