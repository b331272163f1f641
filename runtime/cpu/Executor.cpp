#include "runtime/cpu/Executor.h"
#include "runtime/cpu/OneDnn.h"
#include "runtime/plan/Header.h"
#include <algorithm>
#include <chrono>
#include <cstring>

namespace megalodon::cpu {

// One task of a copy. A multiple of the page size, large enough to hide the
// cost of claiming it.
static constexpr uint64_t kCopyBytes = 1 << 20;

// Added to each worker's stride so that the workers' scratch buffers do not
// fall on the same cache sets.
static constexpr size_t kScratchSkew = 9 * 64;

Executor::Executor(std::shared_ptr<const plan::LoadedPlan> loaded, int threads)
    : plan(std::move(loaded)), kernels(*plan), pool(threads) {
  if (plan->features & plan::kFeatureOneDnn)
    oneDnn = &OneDnn::get();
  uint64_t most = 0;
  for (const plan::Kernel &kernel : plan->kernels)
    most = std::max(most, kernel.scratchBytes);
  scratchStride = (most + 4095) / 4096 * 4096 + kScratchSkew;
  scratch = Memory(scratchStride * size_t(pool.size()), "the kernels' scratch");
}

void Executor::run(const plan::Dispatch &dispatch,
                   const std::vector<std::byte *> &buffers, const Call &call) {
  std::vector<int64_t> parameters(plan::kFirstImmediate +
                                  dispatch.immediates.size());
  parameters[plan::kBatch] = call.batch;
  parameters[plan::kLength] = call.length;
  parameters[plan::kTokens] = call.batch * call.length;
  parameters[plan::kAccumulate] = call.accumulate;
  std::copy(dispatch.immediates.begin(), dispatch.immediates.end(),
            parameters.begin() + plan::kFirstImmediate);

  // One argument list a worker; they differ in the scratch only.
  const size_t count = dispatch.args.size() + 2;
  std::vector<void *> args(count * size_t(pool.size()));
  for (size_t worker = 0; worker < size_t(pool.size()); ++worker) {
    void **list = args.data() + worker * count;
    list[0] = parameters.data();
    for (size_t i = 0; i < dispatch.args.size(); ++i)
      list[i + 1] = buffers[dispatch.args[i]];
    list[count - 1] = scratch.data() + worker * scratchStride;
  }
  const KernelFunction kernel = kernels[dispatch.kernel];
  pool.run(dispatch.grid.workgroups(call.batch, call.length),
           [&](int64_t workgroup, int worker) {
             kernel(args.data() + size_t(worker) * count, workgroup);
           });
}

void Executor::run(const plan::Product &product,
                   const std::vector<std::byte *> &buffers, const Call &call) {
  const int64_t tokens = call.batch * call.length;
  const int64_t m = product.m < 0 ? tokens : product.m,
                n = product.n < 0 ? tokens : product.n,
                k = product.k < 0 ? tokens : product.k;
  const auto *a = reinterpret_cast<const float *>(buffers[product.a]);
  const auto *b = reinterpret_cast<const float *>(buffers[product.b]);
  auto *c = reinterpret_cast<float *>(buffers[product.c]);
  const int64_t tileRows = (m + product.tileM - 1) / product.tileM,
                tileColumns = (n + product.tileN - 1) / product.tileN;
  pool.run(tileRows * tileColumns, [&](int64_t tile, int) {
    const int64_t row = tile / tileColumns * product.tileM,
                  column = tile % tileColumns * product.tileN;
    oneDnn->product(
        product.transA, product.transB, std::min(product.tileM, m - row),
        std::min(product.tileN, n - column), k,
        product.transA ? a + row : a + row * k, product.transA ? m : k,
        product.transB ? b + column * k : b + column, product.transB ? k : n,
        product.accumulate ? 1.0f : 0.0f, c + row * n + column, n);
  });
}

void Executor::run(const plan::CopyStart &copy,
                   const std::vector<std::byte *> &buffers, const Call &call) {
  const uint64_t times = copy.dynamic == plan::Dynamic::Batch
                             ? uint64_t(call.batch)
                         : copy.dynamic == plan::Dynamic::BatchLength
                             ? uint64_t(call.batch * call.length)
                             : 1;
  const uint64_t bytes = copy.bytes * times;
  pool.run(int64_t((bytes + kCopyBytes - 1) / kCopyBytes),
           [&](int64_t piece, int) {
             const uint64_t begin = uint64_t(piece) * kCopyBytes;
             std::memcpy(buffers[copy.to] + begin, buffers[copy.from] + begin,
                         std::min(kCopyBytes, bytes - begin));
           });
}

void Executor::run(const plan::Function &function,
                   const std::vector<std::byte *> &buffers, const Call &call,
                   std::vector<double> *seconds) {
  using Clock = std::chrono::steady_clock;
  for (size_t i = call.begin; i < call.end; ++i) {
    const Clock::time_point start =
        seconds ? Clock::now() : Clock::time_point();
    std::visit([&](const auto &operation) { run(operation, buffers, call); },
               function.commands[i].operation);
    if (seconds)
      (*seconds)[i] =
          std::chrono::duration<double>(Clock::now() - start).count();
  }
}

} // namespace megalodon::cpu
