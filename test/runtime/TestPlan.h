// Builds small plans by hand, so that the loader and the executor can be tested
// without the compiler.
//
// Where the stand-in of a GPU's driver (cuda/FakeCuda.cpp) is found all plans
// are for GPUs: the tests that run them are the suite that every device must
// pass.
#pragma once
#include "runtime/plan/LoadedPlan.h"
#include "runtime/plan/Plan_generated.h"
#include "runtime/session.h"
#include "test/runtime/Messages.h"
#include <gtest/gtest.h>
#include <optional>

namespace megalodon::test {

/// The schema's object form of the test plan; a test may damage it before
/// sealing.
///
/// Variables: 0 w [8, 8] parameter, 1 in [B, L, 8] input, 2 out [B, L, 8], 3
/// state.count i64 [B], 4 grad.w [8] (persistent), 5 bias [8] parameter, 6
/// loss_scale optional input. Functions: `forward` (any shape up to B = 2, L =
/// 16): out = copy of
/// ((3 in + 1) w); `step` (exact): grad.w = column sums of in, then bias -=
/// grad.w.
struct Damage {
  int64_t outShape0 = 2;
  uint32_t kernel = 0, argument = 0, outputVariable = 2, productA = 1,
           updateSegment = 1, waitEvent = 7, copyQueue = 1, waitQueue = 0;
  int64_t divisor = 4, productN = 8, tileM = 3;
  uint64_t arenaOffset = 1024, copyBytes = 32, scratchBytes = 256;
  int8_t role = int8_t(plan::fb::Role::Output);
  const char *symbol = "scale", *library = nullptr, *target = nullptr;
  const char *arch = "sm_80";          ///< of the image
  std::optional<std::string> ptx = {}; ///< instead of the image
  std::vector<std::string> cpuFeatures;
  bool object = true, grid = true;
  uint64_t features = ~uint64_t(0); ///< all ones: those that it needs
};

/// Whether the tests' plans are for GPUs.
bool onCuda();

/// What a plan for the device under test says of itself, and its kernels as the
/// device takes them.
struct TestKernel {
  const char *symbol;
  uint64_t scratchBytes;
  int words, buffers;
};
inline constexpr uint32_t kTestThreads = 32; ///< of a workgroup, on cuda
struct TestCode {
  const char *target, *library;
  uint64_t features;
  std::vector<uint8_t> object; ///< cpu
  std::vector<uint8_t> image;  ///< cuda, for sm_80
};
/// `object`: file with a shared object, empty without kernels.
TestCode testCode(const std::string &object,
                  const std::vector<TestKernel> &kernels);

/// A plan file's bytes.
std::vector<uint8_t> buildPlan(const Damage &damage = {});

std::shared_ptr<const plan::LoadedPlan> loadPlan(const Damage &damage = {});

/// Runs megalodon-run; gives its exit code and everything it printed.
std::pair<int, std::string> runTool(const std::string &arguments);

/// A path in the test's temporary folder.
std::string temporaryPath(const std::string &name);

} // namespace megalodon::test
