#include "runtime/cuda/Probes.h"
#include "runtime/cuda/CudaDevice.h"
#include <algorithm>

namespace megalodon::cuda {

static constexpr int kRepeats = 8;

/// The shortest of some runs of body().
template <typename Body>
static double shortest(const std::shared_ptr<Context> &context,
                       const Stream &stream, Body body) {
  double best = 1e30;
  for (int repeat = 0; repeat <= kRepeats; ++repeat) {
    const Event begin(context, true), end(context, true);
    stream.record(begin);
    body();
    stream.record(end);
    end.synchronize();
    if (repeat > 0) // the first loads code
      best = std::min(best, std::max(end.since(begin), 1e-9));
  }
  return best;
}

double measureCopies(const std::shared_ptr<Context> &context) {
  context->makeCurrent();
  const Stream stream(context);
  size_t free = 0, total = 0;
  context->driver.check(context->driver.cuMemGetInfo_v2(&free, &total),
                        "cuMemGetInfo");
  const size_t bytes = std::min<size_t>(size_t(256) << 20, free / 8);
  const Block from = context->allocate(bytes, "the memory probe"),
              to = context->allocate(bytes, "the memory probe");
  const double seconds = shortest(context, stream, [&] {
    context->driver.check(
        context->driver.cuMemcpyDtoDAsync_v2(
            addressOf(to.data()), addressOf(from.data()), bytes, stream.handle),
        "cuMemcpyDtoDAsync");
  });
  return 2 * double(bytes) / seconds;
}

double measureProducts(const std::shared_ptr<Context> &context,
                       Products &products, ElementType type, int64_t size) {
  context->makeCurrent();
  const Stream stream(context);
  const size_t bytes = size_t(size * size) * elementBytes(type);
  const Block a = context->allocate(bytes, "the probe of products"),
              b = context->allocate(bytes, "the probe of products"),
              c = context->allocate(bytes, "the probe of products");
  // Zeros would draw less power than numbers do, and so run faster.
  for (const Block *block : {&a, &b})
    context->driver.check(
        context->driver.cuMemsetD8Async(addressOf(block->data()), 0x3f, bytes,
                                        stream.handle),
        "cuMemsetD8Async");
  const double seconds = shortest(context, stream, [&] {
    products.run({false, true, false, size, size, size, type, type}, a.data(),
                 b.data(), c.data(), stream);
  });
  return 2.0 * double(size) * double(size) * double(size) / seconds;
}

int64_t probeSize(const Gpu &gpu) {
  // About 64 tiles of 128 x 128 a multiprocessor; little for a small GPU.
  return gpu.multiprocessors >= 64  ? 8192
         : gpu.multiprocessors >= 8 ? 2048
                                    : 64;
}

double multiplyAddPeak(const Gpu &gpu) {
  // Lanes a multiprocessor: 64 on 8.0, 128 on all later ones.
  const double lanes = gpu.major == 8 && gpu.minor == 0 ? 64 : 128;
  return 2 * lanes * gpu.multiprocessors * gpu.clockKilohertz * 1e3;
}

DeviceLimits CudaDevice::measure() {
  finish();
  DeviceLimits limits{measureCopies(context), multiplyAddPeak(context->gpu), 0};
  if (products) {
    const bool narrow = plan->precision == "bf16";
    limits.productsPerSecond = measureProducts(
        context, *products, narrow ? ElementType::BF16 : ElementType::F32,
        probeSize(context->gpu));
    // The tensor cores' rate, which no plain kernel reaches.
    if (narrow)
      limits.flopsPerSecond = limits.productsPerSecond;
  }
  return limits;
}

} // namespace megalodon::cuda
