// What every consumer builds: the version, as proof that the library was found.
#include <attnscope/config.hpp>

#include <iostream>

int main() { std::cout << "attnscope " << attnscope::version << '\n'; }
