// Where the peers' scripts lie: in a file of its own, so that what is compiled for one clone serves another.
#pragma once

#include <string>

namespace bench {

std::string peers_folder();

} // namespace bench
