#include "runtime/cuda/CudaDevice.h"
#include "runtime/core/Error.h"
#include "runtime/core/ThreadPool.h"
#include "runtime/plan/Header.h"
#include <algorithm>
#include <exception>
#include <tuple>

namespace megalodon::cuda {

// Graphs of more shapes than this are not kept: a server that sees every length
// would keep thousands.
static constexpr size_t kGraphs = 128;

CudaDevice::CudaDevice(std::shared_ptr<const plan::LoadedPlan> loaded,
                       const Gpu &gpu, bool nccl, int threads)
    : plan(std::move(loaded)), context(std::make_shared<Context>(gpu)),
      workers(threads > 0 ? threads : usableProcessors()),
      kernels(context, *plan), stream(context), beside(context),
      collectives(context, *plan, nccl) {
  if (plan->features & plan::kFeatureCublasLt)
    products.emplace(context);
}

CudaDevice::~CudaDevice() {
  // After a failure the messages under way may wait for ever.
  if (std::uncaught_exceptions())
    collectives.abandon();
  driver().cuStreamSynchronize(stream.handle);
  driver().cuStreamSynchronize(beside.handle);
  for (auto &[key, graph] : graphs)
    if (graph.exec)
      driver().cuGraphExecDestroy(graph.exec);
}

std::string CudaDevice::name() const {
  return str(context->gpu.name, " (GPU ", context->gpu.ordinal, ")");
}

//===-- Memory ------------------------------------------------------------===//

Block CudaDevice::allocate(size_t bytes, const std::string &purpose) {
  Block block = context->allocate(bytes, purpose);
  if (bytes) {
    fill(block.data(), 0, bytes);
    stream.synchronize(); // other streams may use it next
  }
  return block;
}

Block CudaDevice::allocateHost(size_t bytes, const std::string &purpose) {
  return context->allocatePinned(bytes, purpose);
}

std::shared_ptr<Event> CudaDevice::mark(const Stream &on) {
  auto event = std::make_shared<Event>(context);
  on.record(*event);
  return event;
}

void CudaDevice::fill(std::byte *at, uint8_t value, size_t bytes) {
  context->makeCurrent();
  driver().check(
      driver().cuMemsetD8Async(addressOf(at), value, bytes, stream.handle),
      "cuMemsetD8Async");
}

Device::Ticket CudaDevice::upload(std::byte *to, const std::byte *from,
                                  size_t bytes) {
  context->makeCurrent();
  driver().check(
      driver().cuMemcpyHtoDAsync_v2(addressOf(to), from, bytes, stream.handle),
      "cuMemcpyHtoDAsync");
  return mark(stream);
}

Device::Ticket CudaDevice::uploadBeside(std::byte *to, const std::byte *from,
                                        size_t bytes, const Ticket &after) {
  context->makeCurrent();
  if (after)
    beside.wait(*std::static_pointer_cast<Event>(after));
  driver().check(
      driver().cuMemcpyHtoDAsync_v2(addressOf(to), from, bytes, beside.handle),
      "cuMemcpyHtoDAsync");
  return mark(beside);
}

Device::Ticket CudaDevice::copyAfter(std::byte *to, const std::byte *from,
                                     size_t bytes, const Ticket &after) {
  context->makeCurrent();
  if (after)
    stream.wait(*std::static_pointer_cast<Event>(after));
  driver().check(driver().cuMemcpyDtoDAsync_v2(addressOf(to), addressOf(from),
                                               bytes, stream.handle),
                 "cuMemcpyDtoDAsync");
  return mark(stream);
}

void CudaDevice::download(std::byte *to, const std::byte *from, size_t bytes) {
  context->makeCurrent();
  driver().check(
      driver().cuMemcpyDtoHAsync_v2(to, addressOf(from), bytes, stream.handle),
      "cuMemcpyDtoHAsync");
  finish();
}

void CudaDevice::await(const Ticket &ticket) {
  if (ticket)
    std::static_pointer_cast<Event>(ticket)->synchronize();
}

void CudaDevice::finish() {
  context->makeCurrent();
  collectives.settle();
  stream.synchronize();
}

void CudaDevice::connect(std::vector<Communicator *> communicators,
                         std::chrono::milliseconds timeout) {
  collectives.connect(
      std::move(communicators), timeout,
      [&](uint32_t queue) -> const Stream & { return streamOf(queue); });
}

//===-- Commands ----------------------------------------------------------===//

void CudaDevice::execute(const plan::Dispatch &dispatch, const plan::Command &,
                         Run &run) {
  const SegmentCall &call = run.call;
  const int64_t workgroups = dispatch.grid.workgroups(call.batch, call.length);
  if (workgroups == 0)
    return;
  std::vector<int64_t> words = parameterBlock(dispatch, call);
  const plan::Kernel &kernel = plan->kernels[dispatch.kernel];
  std::vector<Address> addresses;
  for (uint32_t index : dispatch.args)
    addresses.push_back(addressOf(run.buffers[index]));
  std::vector<void *> parameters;
  for (uint32_t i = 0; i < kernel.words; ++i)
    parameters.push_back(&words[i]);
  for (Address &address : addresses)
    parameters.push_back(&address);
  const int result = driver().cuLaunchKernel(
      kernels[dispatch.kernel], unsigned(workgroups), 1, 1, kernel.threads, 1,
      1, unsigned(kernel.scratchBytes), stream.handle, parameters.data(),
      nullptr);
  if (result != kSuccess)
    driver().check(result,
                   str("launch of kernel '", kernel.symbol, "'").c_str());
}

void CudaDevice::execute(const plan::Product &product, const plan::Command &,
                         Run &run) {
  const int64_t tokens = run.call.batch * run.call.length;
  auto extent = [&](int64_t size) { return size < 0 ? tokens : size; };
  products->run({product.transA, product.transB, product.accumulate,
                 extent(product.m), extent(product.n), extent(product.k),
                 product.type, product.resultType},
                run.buffers[product.a], run.buffers[product.b],
                run.buffers[product.c], stream);
}

Stream &CudaDevice::streamOf(uint32_t queue) {
  return queue == 0 ? stream : queues.try_emplace(queue, context).first->second;
}

void CudaDevice::execute(const plan::CopyStart &start,
                         const plan::Command &command, Run &run) {
  const uint64_t bytes =
      start.bytes *
      uint64_t(plan::timesOf(start.dynamic, run.call.batch, run.call.length));
  if (bytes == 0)
    return;
  const Stream &on = streamOf(command.queue);
  if (&on != &stream)
    on.wait(*mark(stream));
  driver().check(driver().cuMemcpyDtoDAsync_v2(
                     addressOf(run.buffers[start.to]),
                     addressOf(run.buffers[start.from]), bytes, on.handle),
                 "cuMemcpyDtoDAsync");
  if (&on != &stream)
    copies[start.event] = mark(on);
}

void CudaDevice::execute(const plan::CollectiveStart &start,
                         const plan::Command &command, Run &run) {
  collectives.begin(start, command.location, run.buffers, run.call, stream,
                    streamOf(command.queue), run.captured, run.pending);
}

void CudaDevice::execute(const plan::Wait &wait, const plan::Command &,
                         Run &run) {
  auto copy = copies.find(wait.event);
  if (copy != copies.end()) {
    stream.wait(*copy->second);
    copies.erase(copy);
  }
  collectives.end(wait.event, run.buffers, run.call, stream, run.pending);
}

//===-- Runs --------------------------------------------------------------===//

const std::vector<CudaDevice::Part> &
CudaDevice::partsOf(const plan::Segment &segment) {
  auto [entry, isNew] = parts.try_emplace(&segment);
  if (!isNew)
    return entry->second;
  std::vector<Part> &list = entry->second;
  std::vector<uint32_t> collectiveEvents; // under way
  for (size_t i = 0; i < segment.commands.size(); ++i) {
    const auto &operation = segment.commands[i].operation;
    bool onHost = false;
    auto *start = std::get_if<plan::CollectiveStart>(&operation);
    if (start && !collectives.areOnGpu()) {
      onHost = true;
      collectiveEvents.push_back(start->event);
    } else if (auto *wait = std::get_if<plan::Wait>(&operation)) {
      auto found = std::find(collectiveEvents.begin(), collectiveEvents.end(),
                             wait->event);
      onHost = found != collectiveEvents.end();
      if (onHost)
        collectiveEvents.erase(found);
    }
    if (onHost || list.empty() || list.back().onHost)
      list.push_back({i, i + 1, onHost});
    else
      list.back().end = i + 1;
    std::vector<uint32_t> &used = list.back().communicators;
    if (start && !onHost &&
        std::find(used.begin(), used.end(), start->communicator) == used.end())
      used.push_back(start->communicator);
  }
  return list;
}

/// Puts the part's work on the stream, or into the graph that the stream is
/// being captured to.
void CudaDevice::issue(const plan::Segment &segment, const Part &part,
                       Run &run) {
  for (size_t i = part.begin; i < part.end; ++i) {
    const plan::Command &command = segment.commands[i];
    std::visit([&](const auto &operation) { execute(operation, command, run); },
               command.operation);
  }
  // A graph ends with all its work; what waits for a copy later finds it done.
  for (auto &[event, copied] : copies)
    stream.wait(*copied);
  copies.clear();
}

bool CudaDevice::GraphKey::operator<(const GraphKey &other) const {
  auto fields = [](const GraphKey &key) {
    return std::tie(key.segment, key.part, key.batch, key.length,
                    key.accumulate, key.last, key.microbatch, key.slot);
  };
  return fields(*this) < fields(other);
}

void CudaDevice::dropOldestGraph() {
  auto oldest = std::min_element(
      graphs.begin(), graphs.end(), [](const auto &left, const auto &right) {
        return left.second.lastUse < right.second.lastUse;
      });
  if (oldest->second.exec) {
    stream.synchronize(); // it may still be running
    driver().cuGraphExecDestroy(oldest->second.exec);
  }
  graphs.erase(oldest);
}

/// The first call of a shape goes to the stream command by command, which loads
/// all code and asks for all algorithms. The second one becomes a graph, from
/// then on a call is one launch of it. The key holds everything that commands
/// take by value; `last` is about messages only.
void CudaDevice::runPart(const plan::Segment &segment, size_t index, Run &run) {
  const Part &part = partsOf(segment)[index];
  if (part.onHost || part.end - part.begin < 2)
    return issue(segment, part, run);
  const SegmentCall &call = run.call;
  const GraphKey key{&segment,        index,
                     call.batch,      call.length,
                     call.accumulate, call.last && !part.communicators.empty(),
                     call.microbatch, call.slot};
  auto found = graphs.find(key);
  if (found == graphs.end()) {
    if (graphs.size() >= kGraphs)
      dropOldestGraph();
    graphs[key].lastUse = ++uses;
    return issue(segment, part, run);
  }
  Graph &graph = found->second;
  graph.lastUse = ++uses;
  if (!graph.exec) {
    driver().check(
        driver().cuStreamBeginCapture_v2(stream.handle, kCaptureThreadLocal),
        "cuStreamBeginCapture");
    GraphHandle captured = nullptr;
    run.captured = true;
    try {
      issue(segment, part, run);
    } catch (...) {
      driver().cuStreamEndCapture(stream.handle, &captured);
      throw;
    }
    run.captured = false;
    driver().check(driver().cuStreamEndCapture(stream.handle, &captured),
                   "cuStreamEndCapture");
    const int result =
        driver().cuGraphInstantiateWithFlags(&graph.exec, captured, 0);
    driver().cuGraphDestroy(captured);
    driver().check(result, "cuGraphInstantiate");
  }
  driver().check(driver().cuGraphLaunch(graph.exec, stream.handle),
                 "cuGraphLaunch");
  collectives.watch(part.communicators, segment.name, call.step, stream);
}

/// Command by command, with the GPU's own times.
void CudaDevice::runMeasured(const plan::Segment &segment, Run &run,
                             std::vector<double> *seconds) {
  finish();
  std::vector<std::unique_ptr<Event>> times;
  auto stamp = [&] {
    times.push_back(std::make_unique<Event>(context, /*timing=*/true));
    stream.record(*times.back());
  };
  std::vector<std::optional<plan::TraceEvent>> events;
  const double origin = plan::traceClock();
  stamp();
  const SegmentCall &call = run.call;
  for (const plan::Command &command : segment.commands) {
    std::optional<plan::TraceEvent> event;
    auto *wait = std::get_if<plan::Wait>(&command.operation);
    auto *start = std::get_if<plan::CollectiveStart>(&command.operation);
    if (trace && wait) {
      auto found = run.pending.find(wait->event);
      if (found != run.pending.end())
        event = {plan::TraceEvent::Kind::Wait,
                 "wait " + plan::collectiveName(*plan, *found->second.start),
                 command.location,
                 0,
                 call.microbatch,
                 0,
                 0};
    } else if (trace && (!start || !start->last || call.last)) {
      event = plan::eventOf(*plan, command, call.batch, call.length,
                            call.microbatch);
    }
    std::visit([&](const auto &operation) { execute(operation, command, run); },
               command.operation);
    stamp();
    events.push_back(std::move(event));
  }
  for (auto &[event, copied] : copies)
    stream.wait(*copied);
  copies.clear();
  finish();
  for (size_t i = 0; i < events.size(); ++i) {
    if (seconds)
      (*seconds)[i] += times[i + 1]->since(*times[i]);
    if (!events[i])
      continue;
    events[i]->begin = origin + times[i]->since(*times[0]);
    events[i]->end = origin + times[i + 1]->since(*times[0]);
    trace->push_back(std::move(*events[i]));
  }
}

void CudaDevice::run(const plan::Segment &segment,
                     const std::vector<std::byte *> &buffers,
                     const SegmentCall &call, std::vector<double> *seconds) {
  context->makeCurrent();
  copies.clear();
  Run run{buffers, call, {}};
  if (seconds || trace)
    return runMeasured(segment, run, seconds);
  const size_t count = partsOf(segment).size();
  for (size_t i = 0; i < count; ++i)
    runPart(segment, i, run);
}

} // namespace megalodon::cuda
