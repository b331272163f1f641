// The cuda device alone, against the stand-ins: which image runs, what errors
// say, what moves between host and GPU, and when graphs replay.
#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/cuda/CublasLt.h"
#include "runtime/cuda/Images.h"
#include "test/runtime/TestPlan.h"
#include "test/runtime/cuda/FakeCuda.h"
#include <algorithm>
#include <cstring>
#include <dlfcn.h>
#include <tuple>
#include <type_traits>
#include <utility>

/// The header gives this name to a later version.
using ElapsedTime = decltype(megalodon::cuda::DriverApi::cuEventElapsedTime);

#if __has_include(<cuda.h>)
#include <cuda.h>
#endif
#if __has_include(<cublasLt.h>)
#include <cublasLt.h>
#endif

using namespace megalodon;
using namespace megalodon::test;

//===-- The declarations, against the real headers ------------------------===//

/// How a type is passed: two types of one kind look the same to a call.
template <typename T>
using Passed = std::conditional_t<
    std::is_pointer_v<T>, void *,
    std::conditional_t<
        std::is_enum_v<T>, int,
        std::conditional_t<std::is_class_v<T>, char[sizeof(T)], T>>>;
template <typename Function> struct Signature;
template <typename Result, typename... Arguments>
struct Signature<Result (*)(Arguments...)> {
  using Kind = std::tuple<Passed<Result>, Passed<Arguments> *...>;
};
template <typename Result, typename... Arguments>
struct Signature<Result(Arguments...)> : Signature<Result (*)(Arguments...)> {};
template <typename Ours, typename Real>
constexpr bool alike = std::is_same_v<typename Signature<Ours>::Kind,
                                      typename Signature<Real>::Kind>;
// The headers' macros stand for the exported names that ours spell out.
#define ALIKE(ours, real)                                                      \
  static_assert(alike<decltype(cuda::DriverApi::ours), decltype(real)>)
#ifdef CUDA_VERSION
ALIKE(cuInit, cuInit);
ALIKE(cuDriverGetVersion, cuDriverGetVersion);
ALIKE(cuGetErrorName, cuGetErrorName);
ALIKE(cuDeviceGetCount, cuDeviceGetCount);
ALIKE(cuDeviceGet, cuDeviceGet);
ALIKE(cuDeviceGetName, cuDeviceGetName);
ALIKE(cuDeviceGetAttribute, cuDeviceGetAttribute);
ALIKE(cuDevicePrimaryCtxRetain, cuDevicePrimaryCtxRetain);
ALIKE(cuCtxSetCurrent, cuCtxSetCurrent);
ALIKE(cuMemFreeHost, cuMemFreeHost);
ALIKE(cuMemsetD8Async, cuMemsetD8Async);
ALIKE(cuStreamCreate, cuStreamCreate);
ALIKE(cuStreamSynchronize, cuStreamSynchronize);
ALIKE(cuStreamWaitEvent, cuStreamWaitEvent);
ALIKE(cuStreamEndCapture, cuStreamEndCapture);
ALIKE(cuEventCreate, cuEventCreate);
ALIKE(cuEventRecord, cuEventRecord);
ALIKE(cuEventSynchronize, cuEventSynchronize);
ALIKE(cuGraphInstantiateWithFlags, cuGraphInstantiateWithFlags);
ALIKE(cuGraphLaunch, cuGraphLaunch);
ALIKE(cuGraphDestroy, cuGraphDestroy);
ALIKE(cuGraphExecDestroy, cuGraphExecDestroy);
ALIKE(cuModuleLoadDataEx, cuModuleLoadDataEx);
ALIKE(cuModuleUnload, cuModuleUnload);
ALIKE(cuModuleGetFunction, cuModuleGetFunction);
ALIKE(cuFuncSetAttribute, cuFuncSetAttribute);
ALIKE(cuLaunchKernel, cuLaunchKernel);
// These names are macros for the versions that ours name.
#define VERSIONED(ours, arguments)                                             \
  static_assert(alike<decltype(cuda::DriverApi::ours), CUresult arguments>)
VERSIONED(cuDeviceTotalMem_v2, (size_t *, CUdevice));
VERSIONED(cuDeviceGetUuid_v2, (CUuuid *, CUdevice));
VERSIONED(cuDevicePrimaryCtxRelease_v2, (CUdevice));
VERSIONED(cuMemGetInfo_v2, (size_t *, size_t *));
VERSIONED(cuMemAlloc_v2, (CUdeviceptr *, size_t));
VERSIONED(cuMemFree_v2, (CUdeviceptr));
VERSIONED(cuMemAllocHost_v2, (void **, size_t));
VERSIONED(cuMemcpyHtoDAsync_v2, (CUdeviceptr, const void *, size_t, CUstream));
VERSIONED(cuMemcpyDtoHAsync_v2, (void *, CUdeviceptr, size_t, CUstream));
VERSIONED(cuMemcpyDtoDAsync_v2, (CUdeviceptr, CUdeviceptr, size_t, CUstream));
VERSIONED(cuMemcpy2DAsync_v2, (const CUDA_MEMCPY2D *, CUstream));
VERSIONED(cuStreamDestroy_v2, (CUstream));
VERSIONED(cuStreamBeginCapture_v2, (CUstream, CUstreamCaptureMode));
VERSIONED(cuEventDestroy_v2, (CUevent));
static_assert(alike<ElapsedTime, CUresult(float *, CUevent, CUevent)>);
static_assert(
    sizeof(cuda::Copy2D) == sizeof(CUDA_MEMCPY2D) &&
    offsetof(cuda::Copy2D, fromHost) == offsetof(CUDA_MEMCPY2D, srcHost) &&
    offsetof(cuda::Copy2D, fromPitch) == offsetof(CUDA_MEMCPY2D, srcPitch) &&
    offsetof(cuda::Copy2D, toDevice) == offsetof(CUDA_MEMCPY2D, dstDevice) &&
    offsetof(cuda::Copy2D, height) == offsetof(CUDA_MEMCPY2D, Height));
static_assert(sizeof(cuda::Uuid) == sizeof(CUuuid));
static_assert(
    cuda::kOutOfMemory == CUDA_ERROR_OUT_OF_MEMORY &&
    cuda::kNoDevice == CUDA_ERROR_NO_DEVICE &&
    cuda::kUnsupportedPtxVersion == CUDA_ERROR_UNSUPPORTED_PTX_VERSION &&
    cuda::kIllegalAddress == CUDA_ERROR_ILLEGAL_ADDRESS &&
    cuda::kLaunchFailed == CUDA_ERROR_LAUNCH_FAILED &&
    cuda::kClockRate == CU_DEVICE_ATTRIBUTE_CLOCK_RATE &&
    cuda::kMultiprocessors == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT &&
    cuda::kCapabilityMajor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR &&
    cuda::kCapabilityMinor == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR &&
    cuda::kSharedBytesPerBlock ==
        CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN &&
    cuda::kJitErrorLog == CU_JIT_ERROR_LOG_BUFFER &&
    cuda::kJitErrorLogBytes == CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES &&
    cuda::kHost == CU_MEMORYTYPE_HOST &&
    cuda::kDevice == CU_MEMORYTYPE_DEVICE &&
    cuda::kMaxDynamicSharedBytes ==
        CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES &&
    cuda::kNonBlocking == CU_STREAM_NON_BLOCKING &&
    cuda::kEventTiming == CU_EVENT_DEFAULT &&
    cuda::kEventNoTiming == CU_EVENT_DISABLE_TIMING &&
    cuda::kCaptureThreadLocal == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
#endif
#ifdef CUBLASLT_VER_MAJOR
#define ALIKE_LT(name)                                                         \
  static_assert(alike<decltype(cuda::lt::Api::name), decltype(name)>)
ALIKE_LT(cublasLtCreate);
ALIKE_LT(cublasLtDestroy);
ALIKE_LT(cublasLtGetVersion);
ALIKE_LT(cublasLtGetStatusString);
ALIKE_LT(cublasLtMatmulDescCreate);
ALIKE_LT(cublasLtMatmulDescDestroy);
ALIKE_LT(cublasLtMatmulDescSetAttribute);
ALIKE_LT(cublasLtMatrixLayoutCreate);
ALIKE_LT(cublasLtMatrixLayoutDestroy);
ALIKE_LT(cublasLtMatmulPreferenceCreate);
ALIKE_LT(cublasLtMatmulPreferenceDestroy);
ALIKE_LT(cublasLtMatmulPreferenceSetAttribute);
ALIKE_LT(cublasLtMatmulAlgoGetHeuristic);
ALIKE_LT(cublasLtMatmul);
static_assert(sizeof(cuda::lt::Algorithm) == sizeof(cublasLtMatmulAlgo_t) &&
              sizeof(cuda::lt::Heuristic) ==
                  sizeof(cublasLtMatmulHeuristicResult_t) &&
              offsetof(cuda::lt::Heuristic, status) ==
                  offsetof(cublasLtMatmulHeuristicResult_t, state));
static_assert(
    cuda::lt::kFloat32 == CUDA_R_32F && cuda::lt::kBfloat16 == CUDA_R_16BF &&
    cuda::lt::kCompute32 == CUBLAS_COMPUTE_32F &&
    cuda::lt::kTransposeA == CUBLASLT_MATMUL_DESC_TRANSA &&
    cuda::lt::kTransposeB == CUBLASLT_MATMUL_DESC_TRANSB &&
    cuda::lt::kMaxWorkspaceBytes == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES &&
    cuda::lt::kReductionSchemes == CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK &&
    cuda::lt::kAlignmentA == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES &&
    cuda::lt::kAlignmentA + 3 == CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES &&
    cuda::lt::kReduceInComputeType == CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE);
#endif

//===-- Tests -------------------------------------------------------------===//

/// A setting of the stand-in, for one test.
class Setting {
public:
  Setting(const char *name, const char *value) : name(name) {
    ::setenv(name, value, 1);
  }
  ~Setting() { ::unsetenv(name); }

private:
  const char *const name;
};

static FakeCudaCounts counts() {
  static const auto get = reinterpret_cast<decltype(&fakeCudaCounts)>(
      ::dlsym(::dlopen("libcuda.so.1", RTLD_NOW), "fakeCudaCounts"));
  FakeCudaCounts counts;
  get(&counts);
  return counts;
}

static std::string chosen(std::vector<std::pair<const char *, bool>> list,
                          int major, int minor) {
  std::vector<plan::GpuImage> images;
  for (auto [arch, ptx] : list)
    images.push_back({arch, ptx, {0}});
  const plan::GpuImage *image = cuda::chooseImage(images, major, minor);
  return image ? (image->ptx ? "ptx " : "") + image->arch : "none";
}

TEST(Images, TheBestOneRuns) {
  const std::vector<std::pair<const char *, bool>> all = {
      {"sm_80", false}, {"sm_90a", false}, {"sm_100a", false}, {"sm_80", true}};
  EXPECT_EQ(chosen(all, 8, 0), "sm_80");
  EXPECT_EQ(chosen(all, 8, 9), "sm_80"); // later of the same major version
  EXPECT_EQ(chosen(all, 9, 0), "sm_90a");
  EXPECT_EQ(chosen(all, 10, 0), "sm_100a");
  EXPECT_EQ(chosen(all, 10, 3), "ptx sm_80"); // sm_100a is for 10.0 alone
  EXPECT_EQ(chosen(all, 12, 0), "ptx sm_80");
  EXPECT_EQ(chosen(all, 7, 5), "none");
  EXPECT_EQ(chosen({{"sm_86", false}, {"sm_80", false}}, 8, 6), "sm_86");
  EXPECT_EQ(chosen({{"sm_86", false}, {"sm_80", false}}, 8, 0), "sm_80");
  EXPECT_EQ(chosen({{"sm_90a", true}, {"sm_80", true}}, 9, 0), "ptx sm_90a");
  EXPECT_EQ(chosen({{"sm_90a", true}, {"sm_80", true}}, 10, 0), "ptx sm_80");
  EXPECT_EQ(chosen({{"sm_90a", true}}, 10, 0), "none");
}

TEST(Images, ErrorsSayWhatToDo) {
  {
    const Setting gpu("FAKE_CUDA_CAPABILITY", "7.5");
    EXPECT_ERROR(Session(loadPlan(), {1}),
                 "test.plan: compiled for sm_80, but Stand-in 0 (GPU 0) is "
                 "sm_75; compile the plan with --gpu-arch=sm_75");
  }
  {
    // The stand-in knows what the code was made for.
    Damage damage;
    damage.arch = "sm_90";
    const Setting gpu("FAKE_CUDA_CAPABILITY", "9.0");
    EXPECT_ERROR(Session(loadPlan(damage), {1}),
                 "refuses the code of sm_90: CUDA_ERROR_NO_BINARY_FOR_GPU");
  }
  Damage damage;
  damage.ptx = ".version 9.1\n.target sm_80\n";
  EXPECT_ERROR(Session(loadPlan(damage), {1}),
               "test.plan: the driver, made for CUDA 13.0, is too old for PTX "
               "9.1 of sm_80 (CUDA_ERROR_UNSUPPORTED_PTX_VERSION); update");
  damage.ptx = ".version 8.0\nnothing\nsm_80";
  EXPECT_ERROR(Session(loadPlan(damage), {1}),
               "refuses the PTX of sm_80: CUDA_ERROR_INVALID_IMAGE");
}

TEST(Images, AreChecked) {
  auto refusal = [](auto change) {
    Damage damage;
    change(damage);
    return [damage] { loadPlan(damage); };
  };
  EXPECT_ERROR(refusal([](Damage &d) { d.arch = "x86"; })(),
               "images: expected an architecture such as sm_90a, got 'x86'");
  EXPECT_ERROR(refusal([](Damage &d) { d.object = false; })(),
               "images: expected the code of 4 kernels, got nothing");
  EXPECT_ERROR(refusal([](Damage &d) { d.target = "cpu"; })(),
               "target: 'cpu' is not what the header's feature bits say");
  EXPECT_ERROR(refusal([](Damage &d) { d.library = "onednn"; })(),
               "library: expected 'cublaslt', got 'onednn'");
  EXPECT_ERROR(refusal([](Damage &d) { d.features = 2; })(),
               "the header lacks the feature bit of cublaslt");
  EXPECT_ERROR(refusal([](Damage &d) { d.scratchBytes = 228 << 10; })(),
               "expected at most 232448 of shared memory, got 233472");
}

TEST(Images, TheDriverCompilesText) {
  const std::string object = temporaryPath("object");
  const TestCode code = testCode(TEST_KERNELS, {{"scale", 256, 9, 2},
                                                {"gather", 0, 8, 2},
                                                {"advance", 0, 8, 1},
                                                {"update", 0, 8, 2}});
  writeText(object, {reinterpret_cast<const char *>(code.image.data()),
                     code.image.size()});
  Damage damage;
  damage.ptx = ".version 8.0\n.target sm_80\n// object " + object + "\n";
  const Setting gpu("FAKE_CUDA_CAPABILITY", "12.0");
  testing::internal::CaptureStderr();
  Session session(loadPlan(damage), {1});
  EXPECT_NE(testing::internal::GetCapturedStderr().find(
                "no code for sm_120 among PTX of sm_80: the driver compiles "
                "the PTX of sm_80"),
            std::string::npos);
  session.run(session.function("forward"));
  session.device().finish();
}

TEST(CudaDevice, SaysWhatMemoryIsMissing) {
  const Setting memory("FAKE_CUDA_MEMORY", "40000000");
  EXPECT_ERROR(
      {
        Session first(loadPlan(), {1});
        Session second(loadPlan(), {1});
      },
      "Stand-in 0 (GPU 0) is out of memory: asked for 33554432 bytes for "
      "cuBLASLt, free ");
}

TEST(CudaDevice, MovesOnlyWhatChanged) {
  Session session(loadPlan(), {1});
  const size_t forward = session.function("forward");
  const TensorView w = session.parameters()[0],
                   in = session.variable(forward, "in"),
                   out = session.variable(forward, "out");
  std::memset(w.overwrite(), 0, w.bytes);
  session.run(forward);
  const FakeCudaCounts before = counts();
  for (int call = 0; call < 5; ++call) {
    std::memset(in.overwrite(), 0, in.bytes);
    session.run(forward);
    EXPECT_EQ(reinterpret_cast<const float *>(out.read())[0], 0.0f);
    (void)out.read();
    (void)w.read();
  }
  const FakeCudaCounts after = counts();
  EXPECT_EQ(after.uploads - before.uploads, 5);
  EXPECT_EQ(after.uploadedBytes - before.uploadedBytes, 5 * 1024);
  EXPECT_EQ(after.downloads - before.downloads, 5);
  EXPECT_EQ(after.downloadedBytes - before.downloadedBytes, 5 * 1024);
}

TEST(CudaDevice, ReplaysGraphsOfEveryShape) {
  Session session(loadPlan(), {1});
  const size_t forward = session.function("forward");
  const FakeCudaCounts before = counts();
  // Each shape: by itself, captured and launched, launched.
  for (int round = 0; round < 3; ++round)
    for (int64_t length : {16, 5, 1})
      session.run(forward, {2, length});
  session.device().finish();
  FakeCudaCounts after = counts();
  EXPECT_EQ(after.captures - before.captures, 3);
  EXPECT_EQ(after.graphLaunches - before.graphLaunches, 6);
  EXPECT_EQ(after.launches - before.launches, 9 * 2);
  // More shapes than graphs are kept.
  for (int round = 0; round < 3; ++round)
    for (int64_t batch : {1, 2})
      for (int64_t length = 1; length <= 16; ++length)
        session.run(forward, {batch, length});
  session.device().finish();
  const auto *count = reinterpret_cast<const int64_t *>(
      session.variable(forward, "state.count").read());
  EXPECT_EQ(count[1], 3 * (16 + 5 + 1) + 3 * 136);
  EXPECT_EQ(count[0], 3 * (16 + 5 + 1) + 6 * 136);
}

TEST(CudaDevice, UploadsBesideTheCallBefore) {
  Session session(loadPlan(), {1});
  const size_t forward = session.function("forward");
  const TensorView in = session.variable(forward, "in");
  const int64_t before = counts().launches;
  for (int64_t call = 0; call < 6; ++call) {
    std::memset(in.overwrite(), int(call), in.bytes);
    in.flush();
    // Two launches a call; those of the last one nobody has waited for.
    EXPECT_LE(counts().launches - before, 2 * std::max<int64_t>(0, call - 1));
    session.run(forward);
  }
  session.device().finish();
  EXPECT_EQ(counts().launches - before, 2 * 6);
}

/// Writes x on one stream and copies it to y on another, with or without an
/// event between the two. What y is then.
static int copyOfX(bool inGraph, bool ordered) {
  auto context = std::make_shared<cuda::Context>(cuda::listGpus()[0]);
  const cuda::Driver &driver = context->driver;
  const cuda::Stream first(context), second(context);
  const Block x = context->allocate(1, "x"), y = context->allocate(1, "y");
  const cuda::Event forked(context), written(context), copied(context);
  auto set = [&](const Block &block, uint8_t value) {
    driver.check(driver.cuMemsetD8Async(cuda::addressOf(block.data()), value, 1,
                                        first.handle),
                 "cuMemsetD8Async");
  };
  set(x, 0);
  set(y, 0);
  first.synchronize();
  if (inGraph) {
    driver.check(
        driver.cuStreamBeginCapture_v2(first.handle, cuda::kCaptureThreadLocal),
        "cuStreamBeginCapture");
    first.record(forked);
    second.wait(forked);
  }
  set(x, 1);
  if (ordered) {
    first.record(written);
    second.wait(written);
  }
  driver.check(driver.cuMemcpyDtoDAsync_v2(cuda::addressOf(y.data()),
                                           cuda::addressOf(x.data()), 1,
                                           second.handle),
               "cuMemcpyDtoDAsync");
  if (inGraph) {
    second.record(copied);
    first.wait(copied);
    cuda::GraphHandle graph = nullptr;
    cuda::GraphExecHandle exec = nullptr;
    driver.check(driver.cuStreamEndCapture(first.handle, &graph),
                 "cuStreamEndCapture");
    driver.check(driver.cuGraphInstantiateWithFlags(&exec, graph, 0),
                 "cuGraphInstantiate");
    driver.check(driver.cuGraphLaunch(exec, second.handle), "cuGraphLaunch");
    driver.cuGraphDestroy(graph);
    driver.cuGraphExecDestroy(exec);
  }
  uint8_t value = 0xff;
  driver.check(driver.cuMemcpyDtoHAsync_v2(&value, cuda::addressOf(y.data()), 1,
                                           second.handle),
               "cuMemcpyDtoHAsync");
  second.synchronize();
  return value;
}

TEST(StandIn, AMissingEventShows) {
  for (bool inGraph : {false, true}) {
    EXPECT_EQ(copyOfX(inGraph, true), 1) << inGraph;
    EXPECT_EQ(copyOfX(inGraph, false), 0) << inGraph;
  }
}

TEST(CudaDevice, FaultsAreErrorsOfTheNextWait) {
  Session session(loadPlan(), {1});
  session.run(session.function("forward"));
  reinterpret_cast<decltype(&fakeCudaFault)>(
      ::dlsym(::dlopen("libcuda.so.1", RTLD_NOW), "fakeCudaFault"))();
  EXPECT_ERROR(session.device().finish(),
               "cuStreamSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal "
               "memory access was encountered; a kernel did what it must not: "
               "compute-sanitizer");
}

TEST(CudaDevice, TakesTheGpuOfTheOptions) {
  const Setting devices("FAKE_CUDA_DEVICES", "2");
  SessionOptions options;
  options.gpu = 1;
  EXPECT_EQ(Session(loadPlan(), options).device().name(), "Stand-in 1 (GPU 1)");
  options.gpu = 2;
  EXPECT_ERROR(Session(loadPlan(), options),
               "expected a GPU from 0 to 1, got 2");
}

/// c = op(a) op(b) + c of any types, against plain loops.
static void checkProduct(cuda::Products &products,
                         const std::shared_ptr<cuda::Context> &context,
                         const cuda::ProductShape &shape) {
  auto value = [](size_t i) { return float(int(i * 37 % 17) - 8) / 4; };
  auto encode = [](ElementType type, size_t count, auto value) {
    std::vector<std::byte> bytes(count * elementBytes(type));
    for (size_t i = 0; i < count; ++i) {
      const float number = value(i);
      uint32_t bits;
      std::memcpy(&bits, &number, 4);
      const uint16_t half = uint16_t(bits >> 16);
      if (type == ElementType::F32)
        std::memcpy(&bytes[4 * i], &bits, 4);
      else
        std::memcpy(&bytes[2 * i], &half, 2);
    }
    return bytes;
  };
  const size_t m = size_t(shape.m), n = size_t(shape.n), k = size_t(shape.k);
  const auto a = encode(shape.type, m * k, value);
  const auto b =
      encode(shape.type, k * n, [&](size_t i) { return value(i + 5); });
  auto c =
      encode(shape.resultType, m * n, [](size_t i) { return float(i % 3); });
  const cuda::Stream stream(context);
  std::vector<Block> blocks;
  for (const std::vector<std::byte> *host : {&a, &b, &std::as_const(c)}) {
    blocks.push_back(context->allocate(host->size(), "a test"));
    context->driver.check(context->driver.cuMemcpyHtoDAsync_v2(
                              cuda::addressOf(blocks.back().data()),
                              host->data(), host->size(), stream.handle),
                          "copy");
  }
  products.run(shape, blocks[0].data(), blocks[1].data(), blocks[2].data(),
               stream);
  context->driver.check(
      context->driver.cuMemcpyDtoHAsync_v2(
          c.data(), cuda::addressOf(blocks[2].data()), c.size(), stream.handle),
      "copy");
  stream.synchronize();
  std::vector<std::byte> want = encode(shape.resultType, m * n, [&](size_t at) {
    const size_t row = at / n, column = at % n;
    float sum = shape.accumulate ? float(at % 3) : 0;
    for (size_t i = 0; i < k; ++i)
      sum += value(shape.transA ? i * m + row : row * k + i) *
             value((shape.transB ? column * k + i : i * n + column) + 5);
    return sum; // small multiples of 1/16: exact
  });
  EXPECT_EQ(c, want) << shape.transA << shape.transB << shape.accumulate;
}

TEST(CublasLt, AllProductsMatchPlainLoops) {
  auto context = std::make_shared<cuda::Context>(cuda::listGpus()[0]);
  cuda::Products products(context);
  for (bool transA : {false, true})
    for (bool transB : {false, true})
      for (bool accumulate : {false, true})
        for (auto [type, result] :
             {std::pair(ElementType::F32, ElementType::F32),
              std::pair(ElementType::BF16, ElementType::F32),
              std::pair(ElementType::BF16, ElementType::BF16)})
          for (int repeat = 0; repeat < 2; ++repeat)
            checkProduct(products, context,
                         {transA, transB, accumulate, 7, 5, 3, type, result});
  EXPECT_ERROR(checkProduct(products, context,
                            {false, false, false, 2, 3, 4, ElementType::F32,
                             ElementType::BF16}),
               "cuBLASLt has no way to multiply 2 x 4 by 4 x 3 of F32 to BF16");
}
