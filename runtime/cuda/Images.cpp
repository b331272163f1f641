#include "runtime/cuda/Images.h"
#include "runtime/core/Error.h"
#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>

namespace megalodon::cuda {

// Above this, shared memory must be asked for.
static constexpr uint64_t kPlainSharedBytes = 48 << 10;

namespace {

/// "sm_90a": 9, 0 and the letter, after which an image runs there only.
struct Arch {
  int major, minor;
  bool only;
};

Arch parseArch(const std::string &text) {
  const int number = std::atoi(text.c_str() + 3);
  return {number / 10, number % 10,
          !std::isdigit(static_cast<unsigned char>(text.back()))};
}

/// How well an image suits a GPU; 0: not at all.
int suitability(const plan::GpuImage &image, int major, int minor) {
  const Arch arch = parseArch(image.arch);
  const bool same = arch.major == major && arch.minor == minor;
  const bool earlier =
      arch.major < major || (arch.major == major && arch.minor <= minor);
  if (arch.only ? !same : !earlier)
    return 0;
  const int closeness = 10 * arch.major + arch.minor + 1;
  if (image.ptx)
    return closeness + (arch.only ? 500 : 0);
  if (arch.major != major)
    return 0;
  return 1000 + closeness + (arch.only ? 500 : 0);
}

} // namespace

const plan::GpuImage *chooseImage(const std::vector<plan::GpuImage> &images,
                                  int major, int minor) {
  const plan::GpuImage *best = nullptr;
  int most = 0;
  for (const plan::GpuImage &image : images)
    if (const int suits = suitability(image, major, minor); suits > most) {
      most = suits;
      best = &image;
    }
  return best;
}

std::string imageNames(const std::vector<plan::GpuImage> &images) {
  std::string names;
  for (const plan::GpuImage &image : images)
    names +=
        str(names.empty() ? "" : ", ", image.ptx ? "PTX of " : "", image.arch);
  return names.empty() ? "nothing" : names;
}

/// ".version 8.6" of a PTX text.
static std::string ptxVersion(const plan::GpuImage &image) {
  const std::string text(image.data.begin(), image.data.end());
  const size_t at = text.find(".version ");
  if (at == std::string::npos)
    return "unknown";
  const size_t end = text.find_first_of("\n\r", at);
  return text.substr(at + 9, end - at - 9);
}

Module::Module(std::shared_ptr<Context> given, const plan::LoadedPlan &plan)
    : context(std::move(given)) {
  if (plan.kernels.empty())
    return;
  const Driver &driver = context->driver;
  const Gpu &gpu = context->gpu;
  const plan::GpuImage *image = chooseImage(plan.images, gpu.major, gpu.minor);
  if (!image)
    throw Error(str(plan.path, ": compiled for ", imageNames(plan.images),
                    ", but ", gpu.name, " (GPU ", gpu.ordinal, ") is ",
                    gpu.arch(),
                    "; compile the plan with --gpu-arch=", gpu.arch()));
  if (image->ptx)
    std::fprintf(stderr,
                 "note: %s: no code for %s among %s: the driver compiles the "
                 "PTX of %s\n",
                 plan.path.c_str(), gpu.arch().c_str(),
                 imageNames(plan.images).c_str(), image->arch.c_str());
  context->makeCurrent();
  std::vector<char> log(8192);
  int names[] = {kJitErrorLog, kJitErrorLogBytes};
  void *values[] = {log.data(), reinterpret_cast<void *>(log.size() - 1)};
  const int result =
      driver.cuModuleLoadDataEx(&handle, image->data.data(), 2, names, values);
  if (result == kUnsupportedPtxVersion)
    throw Error(str(plan.path, ": the driver, made for CUDA ",
                    driver.versionText(), ", is too old for PTX ",
                    ptxVersion(*image), " of ", image->arch,
                    " (CUDA_ERROR_UNSUPPORTED_PTX_VERSION); update the "
                    "driver, or compile the plan with code for ",
                    gpu.arch(), ": --gpu-arch=", gpu.arch()));
  if (result != kSuccess)
    throw Error(str(plan.path, ": ", gpu.name, " (GPU ", gpu.ordinal, ", ",
                    gpu.arch(), ", driver for CUDA ", driver.versionText(),
                    ") refuses the ", image->ptx ? "PTX" : "code", " of ",
                    image->arch, ": ", driver.text(result),
                    log[0] ? str("\n", log.data()) : std::string()));
  for (const plan::Kernel &kernel : plan.kernels) {
    FunctionHandle function = nullptr;
    auto fail = [&](const auto &...pieces) {
      driver.cuModuleUnload(handle);
      throw Error(str(plan.path, ": kernel '", kernel.symbol, "' ", pieces...));
    };
    if (driver.cuModuleGetFunction(&function, handle, kernel.symbol.c_str()) !=
        kSuccess)
      fail("is not in the plan's code for ", image->arch);
    if (kernel.scratchBytes > uint64_t(gpu.sharedBytes))
      fail("needs ", kernel.scratchBytes, " bytes of shared memory, ", gpu.name,
           " has ", gpu.sharedBytes);
    if (kernel.scratchBytes > kPlainSharedBytes)
      driver.check(driver.cuFuncSetAttribute(function, kMaxDynamicSharedBytes,
                                             int(kernel.scratchBytes)),
                   "cuFuncSetAttribute");
    functions.push_back(function);
  }
}

Module::~Module() {
  if (handle)
    context->driver.cuModuleUnload(handle);
}

} // namespace megalodon::cuda
