#include "test/emulation/runtime/Block.h"
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <unistd.h>

using namespace megalodon::emulation;

static constexpr size_t kRedZone = 4096;
static constexpr int kMostReports = 8, kExitCode = 70;
static constexpr unsigned char kPoison = 0xff;

/// A number of the environment.
static uint64_t setting(const char *name, uint64_t otherwise) {
  const char *text = std::getenv(name);
  return text && *text ? std::strtoull(text, nullptr, 10) : otherwise;
}

Block::Block()
    : seed(setting("MEGALODON_EMULATION_SEED", 0)),
      checking(setting("MEGALODON_EMULATION_CHECKS", 1) != 0) {}

Block::~Block() { std::free(shared); }

Block &Block::mine() {
  static thread_local std::unique_ptr<Block> block;
  if (!block)
    block = std::make_unique<Block>();
  return *block;
}

//===-- Scheduling
//-------------------------------------------------------------------------------------===//

uint64_t Block::random() {
  randomState ^= randomState << 13;
  randomState ^= randomState >> 7;
  randomState ^= randomState << 17;
  return randomState;
}

void Block::makeReady(uint32_t thread) {
  fibers[thread].state = Fiber::State::Ready;
  ready[(firstReady + readyCount++) % ready.size()] = thread;
}

Fiber *Block::takeReady() {
  if (!readyCount)
    return nullptr;
  if (seed)
    std::swap(ready[firstReady],
              ready[(firstReady + random() % readyCount) % ready.size()]);
  Fiber *next = &fibers[ready[firstReady]];
  firstReady = firstReady + 1 == ready.size() ? 0 : firstReady + 1;
  --readyCount;
  return next;
}

void Block::suspend(Fiber &fiber) {
  Fiber *next = takeReady();
  if (next == &fiber)
    return;
  running = next;
  Context::change(fiber.context, next ? next->context : scheduler);
}

void Block::perhapsYield(Fiber &fiber) {
  if (!seed || !kernel->meets || random() % 64)
    return;
  makeReady(fiber.thread.thread);
  suspend(fiber);
}

void Block::enter() {
  Fiber &fiber = *Block::mine().running;
  fiber.block->kernel->start(&fiber.thread, fiber.block->arguments);
  fiber.block->end(fiber);
}

void Block::end(Fiber &fiber) {
  if (fiber.copying())
    report("thread %u ends while its asynchronous copies are under way, the "
           "last begun at %s",
           fiber.thread.thread,
           site((fiber.copies.empty() ? fiber.groupCopies : fiber.copies)
                    .back()
                    .site));
  fiber.state = Fiber::State::Ended;
  --alive;
  Warp &warp = warpOf(fiber);
  --warp.alive;
  if (atBarrier)
    failForEnded();
  if (warp.arrived)
    failForEnded(fiber.thread.warp);
  if (kernel->meets)
    suspend(fiber);
}

void Block::failForEnded() {
  report("only %u of %u threads can come to the barrier at %s; the others have "
         "ended",
         alive, kernel->threads, site(barrierSite));
  fail();
}

void Block::failForEnded(uint32_t number) {
  const Warp &warp = warps[number];
  report("only %u of %u lanes of warp %u come to %s; the others have ended",
         warp.alive, warp.lanes, number, site(warp.site));
  fail();
}

void Block::prepare(int64_t block) {
  const uint32_t threads = kernel->threads;
  number = block;
  randomState = (seed * 0x9E3779B97F4A7C15u ^ uint64_t(block) << 20) | 1;
  alive = threads;
  atBarrier = 0;
  ++epoch;
  violations = 0;
  globalShadow.trim();

  const size_t bytes = kernel->sharedBytes + 2 * kRedZone;
  if (bytes > sharedCapacity) {
    std::free(shared);
    sharedCapacity = (bytes + kRedZone - 1) / kRedZone * kRedZone;
    shared = static_cast<char *>(std::aligned_alloc(kRedZone, sharedCapacity));
    sharedShadow.resize(sharedCapacity);
  }
  std::memset(shared, kPoison, bytes);

  warps.resize((threads + kWarp - 1) / kWarp);
  for (Warp &warp : warps)
    warp.lanes = warp.arrived = warp.alive = 0;
  if (fibers.size() < threads)
    fibers.resize(threads);
  ready.resize(threads);
  firstReady = readyCount = 0;
  for (uint32_t i = 0; i < threads; ++i) {
    Fiber &fiber = fibers[i];
    fiber.thread = {i, uint32_t(block),  threads, i % kWarp, i / kWarp,
                    0, shared + kRedZone};
    fiber.block = this;
    fiber.parity = false;
    fiber.warpEpoch = 1;
    fiber.copies.clear();
    fiber.groups.clear();
    fiber.groupCopies.clear();
    ++warps[i / kWarp].lanes;
    ++warps[i / kWarp].alive;
  }
}

/// Threads that never wait need no stacks of their own.
void Block::runInTurn() {
  char frame;
  stackBegin = &frame;
  std::vector<uint32_t> order(kernel->threads);
  for (uint32_t i = 0; i < order.size(); ++i)
    order[i] = i;
  if (seed)
    for (size_t i = order.size(); i > 1; --i)
      std::swap(order[i - 1], order[random() % i]);
  for (uint32_t i : order) {
    kernel->start(&fibers[i].thread, arguments);
    end(fibers[i]);
  }
}

void Block::runFibers() {
  stacks.atLeast(kernel->threads);
  for (uint32_t i = 0; i < kernel->threads; ++i) {
    fibers[i].context.prepare(stacks.bottom(i), stacks.top(i), enter);
    makeReady(i);
  }
  // Comes back when no thread can go on.
  running = takeReady();
  Context::change(scheduler, running->context);
  if (alive) {
    reportStuck();
    fail();
  }
}

void Block::run(const Kernel &what, void *const *with, int64_t block) {
  kernel = &what;
  arguments = with;
  prepare(block);
  if (kernel->meets)
    runFibers();
  else
    runInTurn();
  if (checking)
    checkRedZones();
  if (violations)
    fail();
}

void Block::releaseBarrier() {
  atBarrier = 0;
  ++epoch;
  for (uint32_t i = 0; i < kernel->threads; ++i) {
    fibers[i].warpEpoch = 1;
    if (fibers[i].state == Fiber::State::AtBarrier)
      makeReady(i);
  }
}

void Block::releaseWarp(uint32_t warp) {
  warps[warp].arrived = 0;
  const uint32_t last = std::min(kernel->threads, (warp + 1) * kWarp);
  for (uint32_t i = warp * kWarp; i < last; ++i)
    if (fibers[i].state == Fiber::State::AtWarp)
      makeReady(i);
}

void Block::barrier(Fiber &fiber, uint32_t site) {
  if (atBarrier == 0) {
    barrierSite = uint16_t(site);
  } else if (barrierSite != site) {
    reportDivergence(fiber, "the block", site, barrierSite);
    fail();
  }
  fiber.state = Fiber::State::AtBarrier;
  fiber.site = uint16_t(site);
  ++atBarrier;
  if (alive < kernel->threads)
    failForEnded();
  if (atBarrier == alive)
    releaseBarrier();
  suspend(fiber);
}

//===-- Messages
//---------------------------------------------------------------------------------------===//

void Block::report(const char *format, ...) {
  if (++violations > kMostReports)
    return;
  char text[1024];
  int begin = std::snprintf(text, sizeof(text),
                            "emulation: kernel %s, block %lld: ", kernel->name,
                            static_cast<long long>(number));
  va_list values;
  va_start(values, format);
  int length = begin + std::vsnprintf(text + begin, sizeof(text) - begin - 1,
                                      format, values);
  va_end(values);
  length = std::min<int>(length, sizeof(text) - 2);
  text[length++] = '\n';
  // In one piece, as other threads of the machine may print too.
  if (write(STDERR_FILENO, text, size_t(length)) < 0)
    std::abort();
}

void Block::fail() {
  if (violations > kMostReports) {
    int more = violations - kMostReports;
    violations = 0;
    report("%d more violations in this block", more);
  }
  std::fflush(nullptr);
  std::_Exit(kExitCode);
}

void Block::reportDivergence(Fiber &fiber, const char *what, uint32_t here,
                             uint32_t there) {
  report("threads diverge: thread %u comes to %s while others of %s wait at %s",
         fiber.thread.thread, site(here), what, site(there));
}

void Block::reportStuck() {
  // The threads that wait at one place are one line.
  std::vector<bool> told(kernel->threads);
  for (uint32_t i = 0; i < kernel->threads; ++i) {
    if (told[i] || fibers[i].state == Fiber::State::Ended)
      continue;
    uint32_t count = 0, last = i;
    for (uint32_t j = i; j < kernel->threads; ++j)
      if (fibers[j].state == fibers[i].state &&
          fibers[j].site == fibers[i].site) {
        told[j] = true;
        ++count;
        last = j;
      }
    report("threads diverge: %u of %u threads (%u to %u) wait for ever at %s",
           count, kernel->threads, i, last, site(fibers[i].site));
  }
}

//===-- Memory
//-----------------------------------------------------------------------------------------===//

bool Block::inShared(const char *address) const {
  return size_t(address - (shared + kRedZone)) < kernel->sharedBytes;
}

void Block::checkRedZones() {
  const char *front = shared, *behind = shared + kRedZone + kernel->sharedBytes;
  for (const char *zone : {front, behind})
    for (size_t i = 0; i < kRedZone; ++i)
      if (zone[i] != char(kPoison)) {
        report("something was stored outside of shared memory, at offset %td "
               "of %u bytes",
               &zone[i] - (shared + kRedZone), kernel->sharedBytes);
        return;
      }
}

Moment Block::now(const Fiber &fiber, uint32_t site) const {
  return {fiber.thread.thread, fiber.thread.warp, epoch, fiber.warpEpoch,
          uint16_t(site)};
}

void Block::reportConflict(Fiber &fiber, const char *memory, uint64_t offset,
                           bool stores, const Conflict &conflict,
                           uint32_t here) {
  const char *verb = stores ? "stores to" : "loads from";
  if (conflict.inFlight) {
    report("thread %u %s byte %llu of %s at %s while the asynchronous copy "
           "of thread %d to it, begun at %s, was not waited for",
           fiber.thread.thread, verb, static_cast<unsigned long long>(offset),
           memory, site(here), conflict.thread, site(conflict.site));
    return;
  }
  std::string other = conflict.thread < 0
                          ? "several threads"
                          : "thread " + std::to_string(conflict.thread);
  report("race: thread %u %s byte %llu of %s at %s; %s %s it at %s, with no "
         "barrier in between",
         fiber.thread.thread, verb, static_cast<unsigned long long>(offset),
         memory, site(here), other.c_str(),
         conflict.otherStores ? "stored to" : "loaded from",
         site(conflict.site));
}

void Block::checkAlignment(Fiber &fiber, const char *address,
                           uint32_t alignment, uint32_t here) {
  if ((uintptr_t(address) & (alignment - 1)) == 0)
    return;
  report("thread %u accesses %p at %s, where a multiple of %u is relied on",
         fiber.thread.thread, static_cast<const void *>(address), site(here),
         alignment);
  fail(); // the processor would trap as well
}

void Block::access(Fiber &fiber, const char *address, uint64_t bytes,
                   uint32_t flags, uint32_t here) {
  const bool stores = flags & kStore, atomic = flags & kAtomic;
  if (bytes == 0)
    return;
  char *begin = shared + kRedZone;
  Conflict conflict;
  const Moment moment = now(fiber, here);
  auto visit = [&](Cell &cell) {
    return stores ? cell.store(moment, conflict) : cell.load(moment, conflict);
  };
  if (address >= shared && address < shared + sharedCapacity) {
    if (address < begin || address + bytes > begin + kernel->sharedBytes) {
      report("thread %u %s %llu bytes at offset %td of shared memory at %s, "
             "which has %u bytes",
             fiber.thread.thread, stores ? "stores" : "loads",
             static_cast<unsigned long long>(bytes), address - begin,
             site(here), kernel->sharedBytes);
      if (address + bytes > shared + sharedCapacity)
        fail();
      return;
    }
    for (uint64_t offset = uint64_t(address - begin), last = offset + bytes - 1;
         !atomic && offset / 2 <= last / 2; offset += 2)
      if (visit(sharedShadow.at(offset))) {
        reportConflict(fiber, "shared memory", offset, stores, conflict, here);
        break;
      }
    return;
  }
  for (uint32_t i = 0; i < kernel->buffers; ++i) {
    auto *buffer = static_cast<const char *>(arguments[1 + i]);
    const uint64_t offset = uint64_t(address - buffer);
    if (offset >= kernel->bufferBytes[i])
      continue;
    if (offset + bytes > kernel->bufferBytes[i])
      break;
    for (uintptr_t at = uintptr_t(address), last = at + bytes - 1;
         !atomic && at / 2 <= last / 2; at += 2)
      if (visit(globalShadow.at(at))) {
        std::string name = "buffer " + std::to_string(i);
        reportConflict(fiber, name.c_str(), at - uintptr_t(buffer), stores,
                       conflict, here);
        break;
      }
    return;
  }
  // Its own variables.
  if (kernel->meets) {
    const uint32_t i = fiber.thread.thread;
    if (address >= stacks.bottom(i) && address < stacks.top(i))
      return;
  } else if (char frame = 0; address > &frame && address < stackBegin) {
    return;
  }
  for (uint32_t i = 0; i < kernel->buffers; ++i) {
    auto *buffer = static_cast<const char *>(arguments[1 + i]);
    const int64_t offset = address - buffer,
                  size = int64_t(kernel->bufferBytes[i]);
    if (offset > -4096 && offset < size + 4096)
      report("thread %u %s %llu bytes at offset %lld of buffer %u at %s, which "
             "has %lld bytes",
             fiber.thread.thread, stores ? "stores" : "loads",
             static_cast<unsigned long long>(bytes),
             static_cast<long long>(offset), i, site(here),
             static_cast<long long>(size));
  }
  report("thread %u %s %llu bytes outside of all memory of the kernel at %s",
         fiber.thread.thread, stores ? "stores" : "loads",
         static_cast<unsigned long long>(bytes), site(here));
  fail();
}

void Block::accessTogether(const Fiber &fiber, uint32_t lane, const char *row,
                           uint32_t bytes, uint32_t here) {
  access(fibers[fiber.thread.warp * kWarp + lane], row, bytes, 0, here);
}

void Block::beginCopy(Fiber &fiber, const Copy &copy) {
  // What stood there is lost from now on, and the new bytes come as late as
  // they may.
  std::memset(copy.target, kPoison, copy.bytes);
  if (!checking)
    return;
  for (uint32_t i = 0; i < copy.bytes; i += 2)
    sharedShadow.at(size_t(copy.target + i - (shared + kRedZone)))
        .beginCopy(now(fiber, copy.site));
}

void Block::endCopy(Fiber &fiber, const Copy &copy) {
  std::memcpy(copy.target, copy.source, copy.sourceBytes);
  std::memset(copy.target + copy.sourceBytes, 0, copy.bytes - copy.sourceBytes);
  if (!checking)
    return;
  for (uint32_t i = 0; i < copy.bytes; i += 2)
    sharedShadow.at(size_t(copy.target + i - (shared + kRedZone))).endCopy();
  access(fiber, copy.target, copy.bytes, kStore, copy.site);
}
