// What every backend of the communicator must do: one suite, run over virtual
// ranks and over MPI.
#pragma once
#include "runtime/parallel/Communicator.h"
#include <functional>
#include <gtest/gtest.h>
#include <ostream>
#include <string>

namespace megalodon::test {

struct Backend {
  std::string name;
  /// Calls the body once for every rank of a world: here, or in other
  /// processes that run the same test.
  std::function<void(const std::function<void(World &)> &body)> run;
};

inline void PrintTo(const Backend &backend, std::ostream *out) {
  *out << backend.name;
}
inline std::string nameOf(const ::testing::TestParamInfo<Backend> &info) {
  return info.param.name;
}

class Conformance : public ::testing::TestWithParam<Backend> {
protected:
  void onEveryRank(const std::function<void(World &)> &body) {
    GetParam().run(body);
  }
};

} // namespace megalodon::test
