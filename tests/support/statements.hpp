// Statements of the audit by name, for tests that go through a list of them.
#pragma once

#include <attnscope/audit/statements.hpp>

#include <stdexcept>
#include <string>

namespace attnscope_test {

inline const attnscope::Statement& named_statement(std::string_view id, attnscope::Form form) {
    for (const attnscope::Statement* statement : attnscope::statements)
        if (statement->id == id && statement->form == form) return *statement;
    throw std::runtime_error("no statement " + std::string(id) + ", " + std::string(name_of(form)));
}

} // namespace attnscope_test
