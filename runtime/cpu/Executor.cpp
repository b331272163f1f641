#include "runtime/cpu/Executor.h"
#include "runtime/cpu/OneDnn.h"
#include "runtime/cpu/Probes.h"
#include "runtime/plan/Header.h"
#include "runtime/plan/Traffic.h"
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <mutex>

namespace megalodon::cpu {

// One task of a copy. A multiple of the page size, large enough to hide the
// cost of claiming it.
static constexpr uint64_t kCopyBytes = 1 << 20;

// Added to each worker's stride so that the workers' scratch buffers do not
// fall on the same cache sets.
static constexpr size_t kScratchSkew = 9 * 64;

/// Throws Error naming what the processor lacks.
static std::shared_ptr<const plan::LoadedPlan>
runnableHere(std::shared_ptr<const plan::LoadedPlan> plan) {
  const std::vector<std::string> missing = plan::missingCpuFeatures(*plan);
  if (missing.empty())
    return plan;
  std::string names;
  for (const std::string &name : missing)
    names += (names.empty() ? "" : ", ") + name;
  throw Error(str(plan->path, ": compiled for cpu '", plan->cpu,
                  "', but this processor lacks: ", names,
                  "; compile the plan for this machine (--cpu=native) or for "
                  "an older one"));
}

Executor::Executor(std::shared_ptr<const plan::LoadedPlan> loaded, int threads)
    : plan(runnableHere(std::move(loaded))), kernels(*plan), pool(threads) {
  if (plan->features & plan::kFeatureOneDnn)
    oneDnn = &OneDnn::get();
  if (oneDnn && plan->precision == "bf16") {
    static std::once_flag said;
    std::call_once(said, [&] {
      if (std::string remark = oneDnn->bf16Remark(); !remark.empty())
        std::fprintf(stderr, "note: %s\n", remark.c_str());
    });
  }
  uint64_t most = 0;
  for (const plan::Kernel &kernel : plan->kernels)
    most = std::max(most, kernel.scratchBytes);
  scratchStride = (most + 4095) / 4096 * 4096 + kScratchSkew;
  scratch = Memory(scratchStride * size_t(pool.size()), "the kernels' scratch");
}

Block Executor::allocate(size_t bytes, const std::string &purpose) {
  auto memory = std::make_shared<Memory>(bytes, purpose);
  return {std::shared_ptr<std::byte>(memory, memory->data()), bytes};
}

Block Executor::allocateHost(size_t bytes, const std::string &purpose) {
  return allocate(bytes, purpose);
}

void Executor::fill(std::byte *at, uint8_t value, size_t bytes) {
  std::memset(at, value, bytes);
}

Device::Ticket Executor::upload(std::byte *to, const std::byte *from,
                                size_t bytes) {
  std::memcpy(to, from, bytes);
  return nullptr;
}

Device::Ticket Executor::uploadBeside(std::byte *to, const std::byte *from,
                                      size_t bytes, const Ticket &) {
  return upload(to, from, bytes);
}

Device::Ticket Executor::copyAfter(std::byte *to, const std::byte *from,
                                   size_t bytes, const Ticket &) {
  return upload(to, from, bytes);
}

void Executor::download(std::byte *to, const std::byte *from, size_t bytes) {
  std::memcpy(to, from, bytes);
}

DeviceLimits Executor::measure() {
  const MachineLimits limits = measureMachine(pool);
  return {limits.bytesPerSecond,
          plan->precision == "f64" ? limits.flops64PerSecond
                                   : limits.flopsPerSecond,
          oneDnn ? measureProducts(pool, plan->precision == "bf16") : 0};
}

void Executor::connect(std::vector<Communicator *> list,
                       std::chrono::milliseconds limit) {
  communicators = std::move(list);
  timeout = limit;
}

void Executor::execute(const plan::Dispatch &dispatch, const plan::Command &,
                       Run &run) {
  const SegmentCall &call = run.call;
  std::vector<int64_t> parameters = parameterBlock(dispatch, call);

  // One argument list a worker; they differ in the scratch only.
  const size_t count = dispatch.args.size() + 2;
  std::vector<void *> args(count * size_t(pool.size()));
  for (size_t worker = 0; worker < size_t(pool.size()); ++worker) {
    void **list = args.data() + worker * count;
    list[0] = parameters.data();
    for (size_t i = 0; i < dispatch.args.size(); ++i)
      list[i + 1] = run.buffers[dispatch.args[i]];
    list[count - 1] = scratch.data() + worker * scratchStride;
  }
  const KernelFunction kernel = kernels[dispatch.kernel];
  pool.run(dispatch.grid.workgroups(call.batch, call.length),
           [&](int64_t workgroup, int worker) {
             kernel(args.data() + size_t(worker) * count, workgroup);
           });
}

template <typename Operand, typename Result>
void Executor::multiply(const plan::Product &product, Run &run) {
  const std::vector<std::byte *> &buffers = run.buffers;
  const int64_t tokens = run.call.batch * run.call.length;
  const int64_t m = product.m < 0 ? tokens : product.m,
                n = product.n < 0 ? tokens : product.n,
                k = product.k < 0 ? tokens : product.k;
  const auto *a = reinterpret_cast<const Operand *>(buffers[product.a]);
  const auto *b = reinterpret_cast<const Operand *>(buffers[product.b]);
  auto *c = reinterpret_cast<Result *>(buffers[product.c]);
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

void Executor::execute(const plan::Product &product, const plan::Command &,
                       Run &run) {
  if (product.type == ElementType::F32)
    multiply<float, float>(product, run);
  else if (product.resultType == ElementType::F32)
    multiply<BFloat16, float>(product, run);
  else
    multiply<BFloat16, BFloat16>(product, run);
}

void Executor::execute(const plan::CopyStart &start, const plan::Command &,
                       Run &run) {
  const uint64_t bytes =
      start.bytes *
      uint64_t(plan::timesOf(start.dynamic, run.call.batch, run.call.length));
  copy(run.buffers[start.to], bytes, run.buffers[start.from], bytes, 1, bytes);
}

/// Copies rows that lie `stride` bytes apart.
void Executor::copy(std::byte *to, uint64_t toStride, const std::byte *from,
                    uint64_t fromStride, uint64_t rows, uint64_t rowBytes) {
  if (toStride == rowBytes && fromStride == rowBytes) {
    const uint64_t bytes = rows * rowBytes;
    pool.run(int64_t((bytes + kCopyBytes - 1) / kCopyBytes),
             [&](int64_t piece, int) {
               const uint64_t begin = uint64_t(piece) * kCopyBytes;
               std::memcpy(to + begin, from + begin,
                           std::min(kCopyBytes, bytes - begin));
             });
    return;
  }
  const uint64_t block = std::max<uint64_t>(1, kCopyBytes / rowBytes);
  pool.run(int64_t((rows + block - 1) / block), [&](int64_t piece, int) {
    const uint64_t begin = uint64_t(piece) * block,
                   end = std::min(rows, begin + block);
    for (uint64_t row = begin; row < end; ++row)
      std::memcpy(to + row * toStride, from + row * fromStride, rowBytes);
  });
}

//===-- Collectives
//---------------------------------------------------------------===//

static uint64_t rowsOf(const plan::CollectiveItem &item,
                       const SegmentCall &call) {
  return item.rowsOf(call.batch, call.length);
}

Memory Executor::takeStaging(uint64_t bytes) {
  // The smallest that is large enough; if there is none, the largest grows.
  auto bySize = [](const Memory &left, const Memory &right) {
    return left.bytes() < right.bytes();
  };
  std::sort(spare.begin(), spare.end(), bySize);
  auto found = std::find_if(spare.begin(), spare.end(), [&](const Memory &m) {
    return m.bytes() >= bytes;
  });
  if (found == spare.end()) {
    if (!spare.empty())
      spare.pop_back();
    return Memory(bytes, "the messages between ranks");
  }
  Memory taken = std::move(*found);
  spare.erase(found);
  return taken;
}

size_t Executor::stagingBytes() const {
  size_t bytes = 0;
  for (const Memory &memory : spare)
    bytes += memory.bytes();
  return bytes;
}

/// Puts what this rank sends into the order of a message: for reduce_scatter a
/// share for each rank, otherwise the own share; in a share, one item after
/// the other.
void Executor::pack(const plan::CollectiveStart &start, std::byte *into,
                    const Run &run) {
  const bool scatters = start.kind == plan::CollectiveKind::ReduceScatter;
  const uint64_t ranks =
      scatters ? uint64_t(communicators[start.communicator]->size()) : 1;
  for (uint64_t rank = 0; rank < ranks; ++rank)
    for (const plan::CollectiveItem &item : start.items) {
      const uint64_t rows = rowsOf(item, run.call);
      copy(into, item.rowBytes, run.buffers[item.from] + rank * item.rowBytes,
           ranks * item.rowBytes, rows, item.rowBytes);
      into += rows * item.rowBytes;
    }
}

/// The way back: from the own share, or for all_gather from all ranks' shares.
void Executor::unpack(const plan::CollectiveStart &start, const std::byte *from,
                      const Run &run) {
  const bool gathers = start.kind == plan::CollectiveKind::AllGather;
  const uint64_t ranks =
      gathers ? uint64_t(communicators[start.communicator]->size()) : 1;
  for (uint64_t rank = 0; rank < ranks; ++rank)
    for (const plan::CollectiveItem &item : start.items) {
      const uint64_t rows = rowsOf(item, run.call);
      copy(run.buffers[item.to] + rank * item.rowBytes, ranks * item.rowBytes,
           from, item.rowBytes, rows, item.rowBytes);
      from += rows * item.rowBytes;
    }
}

void Executor::execute(const plan::CollectiveStart &start,
                       const plan::Command &command, Run &run) {
  if (start.last && !run.call.last)
    return;
  Communicator &group = *communicators[start.communicator];
  const uint64_t share = start.shareBytes(run.call.batch, run.call.length),
                 ranks = uint64_t(group.size());
  Pending &pending = run.pending[start.event];
  pending.start = &start;
  pending.location = &command.location;
  const std::byte *send = run.buffers[start.items[0].from];
  std::byte *receive = run.buffers[start.items[0].to];
  if (const uint64_t bytes =
          plan::stagingBytes(*plan, start, run.call.batch, run.call.length)) {
    // What is received first, then what is sent.
    const bool reduces = start.kind == plan::CollectiveKind::AllReduce;
    pending.staging = takeStaging(bytes);
    receive = pending.staging.data();
    std::byte *out = reduces ? receive
                     : start.kind == plan::CollectiveKind::AllGather
                         ? receive + share * ranks
                         : receive + share;
    pack(start, out, run);
    send = out;
  }
  const uint64_t count = share / elementBytes(start.type);
  switch (start.kind) {
  case plan::CollectiveKind::AllReduce:
    pending.request = group.allReduce(receive, count, start.type);
    break;
  case plan::CollectiveKind::AllGather:
    pending.request = group.allGather(send, receive, share);
    break;
  case plan::CollectiveKind::ReduceScatter:
    pending.request = group.reduceScatter(send, receive, count, start.type);
    break;
  }
}

void Executor::execute(const plan::Wait &wait, const plan::Command &,
                       Run &run) {
  // Copies are complete when they return, and what only the last call sends was
  // perhaps not started.
  auto found = run.pending.find(wait.event);
  if (found == run.pending.end())
    return;
  Pending &pending = found->second;
  pending.request->wait(
      {str(plan::collectiveName(*plan, *pending.start),
           pending.location->empty() ? "" : " at ", *pending.location),
       run.call.step},
      timeout);
  if (pending.staging.bytes()) {
    unpack(*pending.start, pending.staging.data(), run);
    spare.push_back(std::move(pending.staging));
  }
  run.pending.erase(found);
}

void Executor::executeRecorded(const plan::Command &command, Run &run) {
  const SegmentCall &call = run.call;
  plan::TraceEvent event{};
  bool happens = true;
  if (auto *wait = std::get_if<plan::Wait>(&command.operation)) {
    auto found = run.pending.find(wait->event);
    happens = found != run.pending.end();
    if (happens)
      event = {plan::TraceEvent::Kind::Wait,
               "wait " + plan::collectiveName(*plan, *found->second.start),
               command.location,
               0,
               call.microbatch,
               0,
               0};
  } else {
    auto *start = std::get_if<plan::CollectiveStart>(&command.operation);
    happens = !start || !start->last || call.last;
    event =
        plan::eventOf(*plan, command, call.batch, call.length, call.microbatch);
  }
  event.begin = plan::traceClock();
  std::visit([&](const auto &operation) { execute(operation, command, run); },
             command.operation);
  event.end = plan::traceClock();
  if (happens)
    trace->push_back(std::move(event));
}

/// Some transports move messages on only when they are asked, and then all of
/// them: to ask the oldest is enough.
void Executor::advance(Run &run) {
  for (auto &[event, pending] : run.pending) {
    if (!pending.done)
      pending.done = pending.request->test();
    if (!pending.done)
      return;
  }
}

void Executor::run(const plan::Segment &segment,
                   const std::vector<std::byte *> &buffers,
                   const SegmentCall &call, std::vector<double> *seconds) {
  using Clock = std::chrono::steady_clock;
  Run run{buffers, call, {}};
  for (size_t i = 0; i < segment.commands.size(); ++i) {
    const plan::Command &command = segment.commands[i];
    const Clock::time_point start =
        seconds ? Clock::now() : Clock::time_point();
    if (trace)
      executeRecorded(command, run);
    else
      std::visit(
          [&](const auto &operation) { execute(operation, command, run); },
          command.operation);
    advance(run);
    if (seconds)
      (*seconds)[i] +=
          std::chrono::duration<double>(Clock::now() - start).count();
  }
}

} // namespace megalodon::cpu
