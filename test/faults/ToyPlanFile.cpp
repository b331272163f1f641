// Writes the toy plan of the runtime's tests, so that whole programs can be
// tested without the compiler.
//
//   megalodon-toy-plan OUT
#include "runtime/core/File.h"
#include "test/runtime/ToyPlan.h"
#include <cstdio>

int main(int argc, char **argv) {
  if (argc != 2)
    return 2;
  try {
    const std::vector<uint8_t> bytes = megalodon::test::buildToyPlan();
    megalodon::writeText(
        argv[1], {reinterpret_cast<const char *>(bytes.data()), bytes.size()});
    return 0;
  } catch (const std::exception &error) {
    std::fprintf(stderr, "megalodon-toy-plan: %s\n", error.what());
    return 1;
  }
}
