#include "peers_folder.hpp"

std::string bench::peers_folder() { return ATTNSCOPE_PEERS_DIR; }
