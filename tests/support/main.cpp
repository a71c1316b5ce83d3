// Catch2 2.x compiles its implementation and main() here, once. Catch2 3 brings them as a library.
#define CATCH_CONFIG_MAIN
#include <catch2/catch.hpp>
