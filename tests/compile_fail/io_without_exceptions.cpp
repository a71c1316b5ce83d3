// expect: attnscope/io needs exceptions
// flags: -fno-exceptions
#include <attnscope/io/file.hpp>
