#include "runtime/cuda/Driver.h"
#include "runtime/core/Error.h"
#include <cstring>
#include <dlfcn.h>

namespace megalodon::cuda {

static constexpr const char *kLibrary = "libcuda.so.1";

Driver::Driver() {
  void *library = ::dlopen(kLibrary, RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char *reason = ::dlerror();
    throw Error(
        str("no driver for NVIDIA GPUs: ", reason ? reason : "not found",
            "; install NVIDIA's driver, or compile the plan with "
            "--target=cpu"));
  }
  auto find = [&](auto &into, const char *name) {
    into =
        reinterpret_cast<std::decay_t<decltype(into)>>(::dlsym(library, name));
    if (!into)
      throw Error(str(kLibrary, " has no ", name,
                      ": the driver is too old; update it to one for CUDA 12 "
                      "or later"));
  };
#define FIND(name) find(name, #name)
  FIND(cuInit);
  FIND(cuDriverGetVersion);
  FIND(cuGetErrorName);
  FIND(cuGetErrorString);
  FIND(cuDeviceGetCount);
  FIND(cuDeviceGet);
  FIND(cuDeviceGetName);
  FIND(cuDeviceGetAttribute);
  FIND(cuDeviceTotalMem_v2);
  FIND(cuDeviceGetUuid_v2);
  FIND(cuDevicePrimaryCtxRetain);
  FIND(cuDevicePrimaryCtxRelease_v2);
  FIND(cuCtxSetCurrent);
  FIND(cuMemGetInfo_v2);
  FIND(cuMemAlloc_v2);
  FIND(cuMemFree_v2);
  FIND(cuMemAllocHost_v2);
  FIND(cuMemFreeHost);
  FIND(cuMemcpyHtoDAsync_v2);
  FIND(cuMemcpyDtoHAsync_v2);
  FIND(cuMemcpyDtoDAsync_v2);
  FIND(cuMemcpy2DAsync_v2);
  FIND(cuMemsetD8Async);
  FIND(cuStreamCreate);
  FIND(cuStreamDestroy_v2);
  FIND(cuStreamSynchronize);
  FIND(cuStreamWaitEvent);
  FIND(cuStreamBeginCapture_v2);
  FIND(cuStreamEndCapture);
  FIND(cuEventCreate);
  FIND(cuEventDestroy_v2);
  FIND(cuEventRecord);
  FIND(cuEventSynchronize);
  FIND(cuEventElapsedTime);
  FIND(cuGraphInstantiateWithFlags);
  FIND(cuGraphLaunch);
  FIND(cuGraphDestroy);
  FIND(cuGraphExecDestroy);
  FIND(cuModuleLoadDataEx);
  FIND(cuModuleUnload);
  FIND(cuModuleGetFunction);
  FIND(cuFuncSetAttribute);
  FIND(cuLaunchKernel);
#undef FIND
  const int result = cuInit(0);
  if (result == kNoDevice)
    throw Error("NVIDIA's driver is here, but no GPU: nvidia-smi lists those "
                "it sees, CUDA_VISIBLE_DEVICES may hide them");
  check(result, "cuInit");
  check(cuDriverGetVersion(&cudaVersion), "cuDriverGetVersion");
}

const Driver &Driver::get() {
  static const Driver driver;
  return driver;
}

std::string Driver::versionText() const {
  return str(cudaVersion / 1000, ".", cudaVersion % 1000 / 10);
}

std::string Driver::text(int result) const {
  const char *name = nullptr, *words = nullptr;
  if (cuGetErrorName(result, &name) != kSuccess || !name)
    return str("error ", result);
  if (cuGetErrorString(result, &words) != kSuccess || !words)
    return name;
  return str(name, ": ", words);
}

void Driver::check(int result, const char *call) const {
  if (result == kSuccess)
    return;
  const bool fault = result >= kIllegalAddress && result <= kLaunchFailed;
  throw Error(str(call, ": ", text(result),
                  fault ? "; a kernel did what it must not: compute-sanitizer "
                          "megalodon-run ... names it"
                        : ""));
}

std::string Gpu::arch() const { return str("sm_", major, minor); }

std::vector<Gpu> listGpus() {
  const Driver &driver = Driver::get();
  int count = 0;
  driver.check(driver.cuDeviceGetCount(&count), "cuDeviceGetCount");
  std::vector<Gpu> gpus;
  for (int ordinal = 0; ordinal < count; ++ordinal) {
    Gpu gpu;
    gpu.ordinal = ordinal;
    int device = 0;
    driver.check(driver.cuDeviceGet(&device, ordinal), "cuDeviceGet");
    char name[256] = {};
    driver.check(driver.cuDeviceGetName(name, sizeof(name) - 1, device),
                 "cuDeviceGetName");
    gpu.name = name;
    auto attribute = [&](int &value, int which) {
      driver.check(driver.cuDeviceGetAttribute(&value, which, device),
                   "cuDeviceGetAttribute");
    };
    attribute(gpu.major, kCapabilityMajor);
    attribute(gpu.minor, kCapabilityMinor);
    attribute(gpu.multiprocessors, kMultiprocessors);
    attribute(gpu.clockKilohertz, kClockRate);
    attribute(gpu.sharedBytes, kSharedBytesPerBlock);
    driver.check(driver.cuDeviceTotalMem_v2(&gpu.memoryBytes, device),
                 "cuDeviceTotalMem");
    driver.check(driver.cuDeviceGetUuid_v2(&gpu.uuid, device),
                 "cuDeviceGetUuid");
    gpus.push_back(std::move(gpu));
  }
  if (gpus.empty())
    throw Error("NVIDIA's driver is here, but no GPU: nvidia-smi lists those "
                "it sees, CUDA_VISIBLE_DEVICES may hide them");
  return gpus;
}

Context::Context(Gpu which) : gpu(std::move(which)), driver(Driver::get()) {
  driver.check(driver.cuDevicePrimaryCtxRetain(&handle, gpu.ordinal),
               "cuDevicePrimaryCtxRetain");
  makeCurrent();
}

Context::~Context() { driver.cuDevicePrimaryCtxRelease_v2(gpu.ordinal); }

void Context::makeCurrent() const {
  driver.check(driver.cuCtxSetCurrent(handle), "cuCtxSetCurrent");
}

Block Context::allocate(size_t bytes, const std::string &purpose) {
  if (bytes == 0)
    return {};
  makeCurrent();
  Address address = 0;
  const int result = driver.cuMemAlloc_v2(&address, bytes);
  if (result == kOutOfMemory) {
    size_t free = 0, total = 0;
    driver.cuMemGetInfo_v2(&free, &total);
    throw Error(str(gpu.name, " (GPU ", gpu.ordinal,
                    ") is out of memory: asked for ", bytes, " bytes for ",
                    purpose, ", free ", free, " of ", total,
                    "; compile the plan for a smaller batch or length, or for "
                    "a mesh of more GPUs"));
  }
  driver.check(result, "cuMemAlloc");
  return {std::shared_ptr<std::byte>(
              reinterpret_cast<std::byte *>(address),
              [context = shared_from_this()](std::byte *memory) {
                context->driver.cuCtxSetCurrent(context->handle);
                context->driver.cuMemFree_v2(addressOf(memory));
              }),
          bytes};
}

Block Context::allocatePinned(size_t bytes, const std::string &purpose) {
  if (bytes == 0)
    return {};
  makeCurrent();
  void *memory = nullptr;
  const int result = driver.cuMemAllocHost_v2(&memory, bytes);
  if (result == kOutOfMemory)
    throw Error(str("the host is out of memory that a GPU can reach: asked "
                    "for ",
                    bytes, " bytes for ", purpose));
  driver.check(result, "cuMemAllocHost");
  std::memset(memory, 0, bytes);
  return {std::shared_ptr<std::byte>(
              static_cast<std::byte *>(memory),
              [context = shared_from_this()](std::byte *memory) {
                context->driver.cuCtxSetCurrent(context->handle);
                context->driver.cuMemFreeHost(memory);
              }),
          bytes};
}

Event::Event(std::shared_ptr<Context> given, bool timing)
    : context(std::move(given)) {
  context->driver.check(context->driver.cuEventCreate(
                            &handle, timing ? kEventTiming : kEventNoTiming),
                        "cuEventCreate");
}

Event::~Event() { context->driver.cuEventDestroy_v2(handle); }

double Event::since(const Event &begin) const {
  float milliseconds = 0;
  context->driver.check(
      context->driver.cuEventElapsedTime(&milliseconds, begin.handle, handle),
      "cuEventElapsedTime");
  return double(milliseconds) * 1e-3;
}

void Event::synchronize() const {
  context->makeCurrent();
  context->driver.check(context->driver.cuEventSynchronize(handle),
                        "cuEventSynchronize");
}

Stream::Stream(std::shared_ptr<Context> given) : context(std::move(given)) {
  context->makeCurrent();
  context->driver.check(context->driver.cuStreamCreate(&handle, kNonBlocking),
                        "cuStreamCreate");
}

Stream::~Stream() { context->driver.cuStreamDestroy_v2(handle); }

void Stream::record(const Event &event) const {
  context->driver.check(context->driver.cuEventRecord(event.handle, handle),
                        "cuEventRecord");
}

void Stream::wait(const Event &event) const {
  context->driver.check(
      context->driver.cuStreamWaitEvent(handle, event.handle, 0),
      "cuStreamWaitEvent");
}

void Stream::synchronize() const {
  context->driver.check(context->driver.cuStreamSynchronize(handle),
                        "cuStreamSynchronize");
}

} // namespace megalodon::cuda
