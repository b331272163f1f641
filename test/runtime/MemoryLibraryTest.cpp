// Libraries that exist only in memory do not stand in for each other.
#include "runtime/core/MemoryLibrary.h"
#include <dlfcn.h>
#include <fstream>
#include <gtest/gtest.h>
#include <iterator>

using namespace megalodon;

namespace {
void *open(const char *path) {
  std::ifstream file(path, std::ios::binary);
  const std::string image((std::istreambuf_iterator<char>(file)), {});
  std::string reason;
  void *handle = openLibrary("test", image.data(), image.size(), reason);
  EXPECT_NE(handle, nullptr) << reason;
  return handle;
}
} // namespace

TEST(MemoryLibrary, KeepsLibrariesThatAreOpenAtOnceApart) {
  void *first = open(TEST_KERNELS), *second = open(TOY_KERNELS),
       *third = open(TEST_KERNELS);
  EXPECT_NE(first, second);
  EXPECT_NE(first, third);
  EXPECT_NE(::dlsym(first, "scale"), nullptr);
  EXPECT_EQ(::dlsym(second, "scale"), nullptr);
  EXPECT_NE(::dlsym(second, "toy_score"), nullptr);
  EXPECT_NE(::dlsym(third, "scale"), ::dlsym(first, "scale"));
  ::dlclose(first);
  // The first's descriptor and its place are free again.
  void *fourth = open(TOY_KERNELS);
  EXPECT_NE(::dlsym(fourth, "toy_score"), nullptr);
  for (void *handle : {second, third, fourth})
    ::dlclose(handle);
}

TEST(MemoryLibrary, OutlivesACloseThatUnloadsNothing) {
  void *first = open(TEST_KERNELS);
  // As a library with thread-local objects to destroy.
  Dl_info info;
  ASSERT_NE(::dladdr(::dlsym(first, "scale"), &info), 0);
  ASSERT_NE(::dlopen(info.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE),
            nullptr);
  ::dlclose(first);
  ::dlclose(first);
  void *second = open(TOY_KERNELS);
  EXPECT_NE(::dlsym(second, "toy_score"), nullptr);
  ::dlclose(second);
}

TEST(MemoryLibrary, SaysWhyItCannotOpen) {
  std::string reason;
  EXPECT_EQ(openLibrary("test", "no library", 10, reason), nullptr);
  EXPECT_NE(reason, "");
}
