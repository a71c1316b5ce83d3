// Safetensors files: reader and writer. Not in the umbrella: needs nlohmann-json.
#pragma once

#include <attnscope/io/safetensors_reader.hpp>
#include <attnscope/io/safetensors_writer.hpp>
