// Looks at the message of the Error that a statement throws.
#pragma once
#include "runtime/core/Error.h"
#include <functional>
#include <gtest/gtest.h>
#include <string>

namespace megalodon::test {

/// The message of the Error that body() throws; empty when it throws none.
inline std::string messageOf(const std::function<void()> &body) {
  try {
    body();
  } catch (const Error &error) {
    return error.what();
  }
  return "";
}

} // namespace megalodon::test

#define EXPECT_ERROR(statement, text)                                          \
  do {                                                                         \
    const std::string message =                                                \
        megalodon::test::messageOf([&] { statement; });                        \
    EXPECT_NE(message.find(text), std::string::npos)                           \
        << "message: '" << message << "'";                                     \
  } while (false)
