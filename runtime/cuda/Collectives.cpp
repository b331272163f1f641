#include "runtime/cuda/Collectives.h"
#include "runtime/core/Error.h"
#include "runtime/plan/Traffic.h"
#include <algorithm>

namespace megalodon::cuda {

void Collectives::connect(
    std::vector<Communicator *> communicators, std::chrono::milliseconds limit,
    const std::function<const Stream &(uint32_t)> &streamOf) {
  hosts = std::move(communicators);
  timeout = limit;
  groups.clear();
  if (!nccl)
    return;
  context->makeCurrent();
  for (size_t i = 0; i < hosts.size(); ++i)
    groups.push_back(
        hosts[i] ? ncclCommunicator(
                       *hosts[i],
                       streamOf(plan.communicators[i].queue.value_or(0)).handle,
                       timeout)
                 : nullptr);
  layOutStaging();
}

/// Messages of a segment that are under way together get memory of their own;
/// segments follow one another. As large as any call's: sizes grow with it.
void Collectives::layOutStaging() {
  constexpr uint64_t kAlignment = 256;
  uint64_t most = 0;
  offsets.clear();
  for (const plan::Function &function : plan.functions)
    for (const plan::Program &program : function.programs)
      for (const plan::Segment &segment : program.segments) {
        std::map<uint64_t, std::pair<uint64_t, uint32_t>> taken; // by offset
        for (const plan::Command &command : segment.commands) {
          if (auto *wait = std::get_if<plan::Wait>(&command.operation)) {
            for (auto it = taken.begin(); it != taken.end(); ++it)
              if (it->second.second == wait->event) {
                taken.erase(it);
                break;
              }
            continue;
          }
          auto *start = std::get_if<plan::CollectiveStart>(&command.operation);
          if (!start || !hosts[start->communicator])
            continue;
          const uint64_t bytes = plan::stagingBytes(
              plan, *start, function.localBatch(), function.localLength());
          if (!bytes)
            continue;
          uint64_t offset = 0;
          for (const auto &[begin, other] : taken) {
            if (offset + bytes <= begin)
              break;
            offset = (begin + other.first + kAlignment - 1) / kAlignment *
                     kAlignment;
          }
          taken[offset] = {bytes, start->event};
          offsets[start] = offset;
          most = std::max(most, offset + bytes);
        }
      }
  staging = context->allocate(most, "the messages between ranks");
}

uint64_t Collectives::ranksOf(const plan::CollectiveStart &start) const {
  return uint64_t(hosts[start.communicator]->size());
}

WaitContext Collectives::contextOf(const Started &started,
                                   const SegmentCall &call) const {
  return {str(plan::collectiveName(plan, *started.start),
              started.location->empty() ? "" : " at ", *started.location),
          call.step};
}

Block Collectives::take(uint64_t bytes) {
  auto smallest = spare.end();
  for (auto it = spare.begin(); it != spare.end(); ++it)
    if (it->memory.bytes() >= bytes &&
        (smallest == spare.end() ||
         it->memory.bytes() < smallest->memory.bytes()))
      smallest = it;
  if (smallest != spare.end()) {
    Free taken = std::move(*smallest);
    spare.erase(smallest);
    if (taken.until)
      taken.until->synchronize();
    return taken.memory;
  }
  // None is large enough: the largest makes room for a larger one.
  auto largest = std::max_element(
      spare.begin(), spare.end(), [](const Free &left, const Free &right) {
        return left.memory.bytes() < right.memory.bytes();
      });
  if (largest != spare.end()) {
    if (largest->until)
      largest->until->synchronize();
    spare.erase(largest);
  }
  return context->allocatePinned(bytes, "the messages between ranks");
}

size_t Collectives::stagingBytes() const {
  size_t bytes = staging.bytes();
  for (const Free &free : spare)
    bytes += free.memory.bytes();
  return bytes;
}

void Collectives::copyRows(std::byte *to, int toType, uint64_t toPitch,
                           const std::byte *from, int fromType,
                           uint64_t fromPitch, uint64_t rows, uint64_t rowBytes,
                           const Stream &on) {
  if (rows == 0 || rowBytes == 0)
    return;
  if (toPitch == rowBytes && fromPitch == rowBytes) {
    rowBytes *= rows;
    toPitch = fromPitch = rowBytes;
    rows = 1;
  }
  const Driver &driver = context->driver;
  if (rows > 1) {
    Copy2D copy{};
    copy.fromType = fromType;
    copy.toType = toType;
    if (fromType == kHost)
      copy.fromHost = from;
    else
      copy.fromDevice = addressOf(from);
    if (toType == kHost)
      copy.toHost = to;
    else
      copy.toDevice = addressOf(to);
    copy.fromPitch = fromPitch;
    copy.toPitch = toPitch;
    copy.widthBytes = rowBytes;
    copy.height = rows;
    driver.check(driver.cuMemcpy2DAsync_v2(&copy, on.handle),
                 "cuMemcpy2DAsync");
  } else if (fromType == kHost) {
    driver.check(
        driver.cuMemcpyHtoDAsync_v2(addressOf(to), from, rowBytes, on.handle),
        "cuMemcpyHtoDAsync");
  } else if (toType == kHost) {
    driver.check(
        driver.cuMemcpyDtoHAsync_v2(to, addressOf(from), rowBytes, on.handle),
        "cuMemcpyDtoHAsync");
  } else {
    driver.check(driver.cuMemcpyDtoDAsync_v2(addressOf(to), addressOf(from),
                                             rowBytes, on.handle),
                 "cuMemcpyDtoDAsync");
  }
}

/// Puts what this rank sends into the order of a message: for reduce_scatter a
/// share for each rank, otherwise the own share; in a share, one item after
/// the other.
void Collectives::pack(const plan::CollectiveStart &start, std::byte *into,
                       const std::vector<std::byte *> &buffers,
                       const SegmentCall &call, const Stream &on) {
  const uint64_t ranks =
      start.kind == plan::CollectiveKind::ReduceScatter ? ranksOf(start) : 1;
  for (uint64_t rank = 0; rank < ranks; ++rank)
    for (const plan::CollectiveItem &item : start.items) {
      const uint64_t rows = item.rowsOf(call.batch, call.length);
      copyRows(into, nccl ? kDevice : kHost, item.rowBytes,
               buffers[item.from] + rank * item.rowBytes, kDevice,
               ranks * item.rowBytes, rows, item.rowBytes, on);
      into += rows * item.rowBytes;
    }
}

/// The way back: from the own share, or for all_gather from all ranks' shares.
void Collectives::unpack(const plan::CollectiveStart &start,
                         const std::byte *from,
                         const std::vector<std::byte *> &buffers,
                         const SegmentCall &call, const Stream &on) {
  const uint64_t ranks =
      start.kind == plan::CollectiveKind::AllGather ? ranksOf(start) : 1;
  for (uint64_t rank = 0; rank < ranks; ++rank)
    for (const plan::CollectiveItem &item : start.items) {
      const uint64_t rows = item.rowsOf(call.batch, call.length);
      copyRows(buffers[item.to] + rank * item.rowBytes, kDevice,
               ranks * item.rowBytes, from, nccl ? kDevice : kHost,
               item.rowBytes, rows, item.rowBytes, on);
      from += rows * item.rowBytes;
    }
}

/// Starts the operation on what is received and what is sent.
static std::unique_ptr<Request> startOn(Communicator &group,
                                        const plan::CollectiveStart &start,
                                        const std::byte *send,
                                        std::byte *receive, uint64_t share) {
  const uint64_t count = share / elementBytes(start.type);
  switch (start.kind) {
  case plan::CollectiveKind::AllReduce:
    return group.allReduce(receive, count, start.type);
  case plan::CollectiveKind::AllGather:
    return group.allGather(send, receive, share);
  case plan::CollectiveKind::ReduceScatter:
    return group.reduceScatter(send, receive, count, start.type);
  }
  return nullptr;
}

void Collectives::begin(const plan::CollectiveStart &start,
                        const std::string &location,
                        const std::vector<std::byte *> &buffers,
                        const SegmentCall &call, const Stream &main,
                        const Stream &on, bool captured, Pending &pending) {
  if (start.last && !call.last)
    return;
  Started &started = pending[start.event];
  started.start = &start;
  started.location = &location;
  if (nccl)
    beginNccl(started, buffers, call, main, on, captured);
  else
    beginStaged(started, buffers, call, main);
}

void Collectives::beginNccl(Started &started,
                            const std::vector<std::byte *> &buffers,
                            const SegmentCall &call, const Stream &main,
                            const Stream &on, bool captured) {
  const plan::CollectiveStart &start = *started.start;
  const uint64_t share = start.shareBytes(call.batch, call.length);
  if (&on != &main) {
    const Event before(context);
    main.record(before);
    on.wait(before);
  }
  const std::byte *send = buffers[start.items[0].from];
  std::byte *receive = buffers[start.items[0].to];
  if (plan::stagingBytes(plan, start, call.batch, call.length)) {
    // What is received first, then what is sent.
    started.at = receive = staging.data() + offsets.at(&start);
    std::byte *out = start.kind == plan::CollectiveKind::AllReduce ? receive
                     : start.kind == plan::CollectiveKind::AllGather
                         ? receive + share * ranksOf(start)
                         : receive + share;
    pack(start, out, buffers, call, on);
    send = out;
  }
  auto request =
      startOn(*groups[start.communicator], start, send, receive, share);
  if (!captured)
    started.request = std::move(request);
  started.ready = std::make_shared<Event>(context);
  on.record(*started.ready);
}

void Collectives::watch(const std::vector<uint32_t> &communicators,
                        const std::string &segment, int64_t step,
                        const Stream &main) {
  for (uint32_t index : communicators)
    outstanding.push_back(
        {groups[index]->mark(main.handle),
         {str("messages of the segment '", segment, "'"), step}});
}

void Collectives::beginStaged(Started &started,
                              const std::vector<std::byte *> &buffers,
                              const SegmentCall &call, const Stream &main) {
  const plan::CollectiveStart &start = *started.start;
  const uint64_t share = start.shareBytes(call.batch, call.length),
                 all = share * ranksOf(start);
  const bool gathers = start.kind == plan::CollectiveKind::AllGather,
             scatters = start.kind == plan::CollectiveKind::ReduceScatter;
  const uint64_t received = gathers ? all : share,
                 sent = gathers    ? share
                        : scatters ? all
                                   : 0; // all_reduce works in place
  started.staging = take(received + sent);
  started.at = started.staging.data();
  std::byte *receive = started.at, *send = sent ? receive + received : receive;
  pack(start, send, buffers, call, main);
  main.synchronize();
  started.request =
      startOn(*hosts[start.communicator], start, send, receive, share);
}

void Collectives::end(uint32_t event, const std::vector<std::byte *> &buffers,
                      const SegmentCall &call, const Stream &main,
                      Pending &pending) {
  auto found = pending.find(event);
  if (found == pending.end())
    return; // only the last call of a step sends it
  Started &started = found->second;
  if (nccl) {
    main.wait(*started.ready);
    if (started.request)
      outstanding.push_back(
          {std::move(started.request), contextOf(started, call)});
  } else {
    started.request->wait(contextOf(started, call), timeout);
  }
  if (started.at)
    unpack(*started.start, started.at, buffers, call, main);
  if (started.staging.bytes()) {
    auto until = std::make_shared<Event>(context);
    main.record(*until);
    spare.push_back({std::move(started.staging), std::move(until)});
  }
  pending.erase(found);
}

void Collectives::settle() {
  while (!outstanding.empty()) {
    outstanding.front().request->wait(outstanding.front().context, timeout);
    outstanding.pop_front();
  }
}

} // namespace megalodon::cuda
