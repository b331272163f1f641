// Runs one block at a time: its threads take turns on one thread of the
// machine.
#pragma once
#include "test/emulation/runtime/Fiber.h"
#include "test/emulation/runtime/Interface.h"
#include "test/emulation/runtime/Shadow.h"
#include <memory>
#include <vector>

namespace megalodon::emulation {

class Block;

/// An asynchronous copy to shared memory that was not waited for.
struct Copy {
  char *target;
  const char *source;
  uint32_t bytes, sourceBytes, site;
};

/// A thread of the block.
struct Fiber {
  enum class State : uint8_t { Ready, AtBarrier, AtWarp, Ended };

  Thread thread; ///< first: the code of kernels knows only this
  Block *block;
  State state;
  bool parity;        ///< which exchange of its warp comes next
  uint16_t site;      ///< where it waits
  uint32_t warpEpoch; ///< barriers of its warp since the last of the block
  Context context;
  std::vector<Copy> copies;      ///< not in a group yet
  std::vector<uint32_t> groups;  ///< copies in each group, oldest first
  std::vector<Copy> groupCopies; ///< of all groups

  bool copying() const { return !copies.empty() || !groups.empty(); }
};

struct Warp {
  uint32_t lanes, arrived, alive;
  uint16_t site;
  // Two of each, because a lane may be at the next exchange before all have
  // taken their result of this one.
  uint64_t values[2][kWarp];
  const char *rows[kWarp];
  uint32_t *registers[kWarp];
};

class Block {
public:
  Block();
  ~Block();

  /// The one of this thread of the machine.
  static Block &mine();

  void run(const Kernel &kernel, void *const *arguments, int64_t block);

  void barrier(Fiber &fiber, uint32_t site);
  /// Waits until all lanes of the warp are here; the last to come calls
  /// `together`.
  template <typename Function>
  void meet(Fiber &fiber, uint32_t site, Function together);

  void access(Fiber &fiber, const char *address, uint64_t bytes, uint32_t flags,
              uint32_t site);
  /// That a vector lies as the code relies on.
  void checkAlignment(Fiber &fiber, const char *address, uint32_t alignment,
                      uint32_t site);
  void beginCopy(Fiber &fiber, const Copy &copy);
  void endCopy(Fiber &fiber, const Copy &copy);

  /// What a lane of the fiber's warp may see of a row that all lanes load.
  void accessTogether(const Fiber &fiber, uint32_t lane, const char *row,
                      uint32_t bytes, uint32_t site);

  bool checks() const { return checking; }
  /// Lets another thread go on now and then.
  void perhapsYield(Fiber &fiber);

  Warp &warpOf(const Fiber &fiber) { return warps[fiber.thread.warp]; }
  bool inShared(const char *address) const;

  /// Prints a violation; the process fails at the end of the block.
  void report(const char *format, ...) __attribute__((format(printf, 2, 3)));
  [[noreturn]] void fail();
  const char *site(uint32_t number) const { return kernel->sites[number]; }

private:
  static void enter();
  void prepare(int64_t block);
  void runInTurn();
  void runFibers();
  void suspend(Fiber &fiber);
  Fiber *takeReady();
  void makeReady(uint32_t thread);
  void end(Fiber &fiber);
  void releaseBarrier();
  void releaseWarp(uint32_t warp);
  [[noreturn]] void failForEnded();
  [[noreturn]] void failForEnded(uint32_t warp);
  void checkRedZones();
  void reportStuck();
  void reportDivergence(Fiber &fiber, const char *what, uint32_t here,
                        uint32_t there);
  void reportConflict(Fiber &fiber, const char *memory, uint64_t offset,
                      bool stores, const Conflict &conflict, uint32_t site);
  Moment now(const Fiber &fiber, uint32_t site) const;
  uint64_t random();

  // Of the environment.
  uint64_t seed;
  bool checking;

  const Kernel *kernel = nullptr;
  void *const *arguments = nullptr;
  int64_t number = 0;
  std::vector<Fiber> fibers;
  std::vector<Warp> warps;
  Stacks stacks;
  Context scheduler;
  Fiber *running = nullptr;
  // A ring of the threads that can go on.
  std::vector<uint32_t> ready;
  size_t firstReady = 0, readyCount = 0;
  uint32_t alive = 0, atBarrier = 0;
  uint16_t barrierSite = 0;
  uint32_t epoch = 0;
  uint64_t randomState = 1;
  int violations = 0;
  char *stackBegin = nullptr; ///< of the threads where they share one stack

  // Shared memory with a red zone on either side.
  char *shared = nullptr;
  size_t sharedCapacity = 0;
  SharedShadow sharedShadow;
  GlobalShadow globalShadow;
};

inline Fiber &fiberOf(Thread *thread) {
  return *reinterpret_cast<Fiber *>(thread);
}

template <typename Function>
void Block::meet(Fiber &fiber, uint32_t site, Function together) {
  Warp &warp = warpOf(fiber);
  if (warp.arrived == 0) {
    warp.site = uint16_t(site);
  } else if (warp.site != site) {
    reportDivergence(fiber, "its warp", site, warp.site);
    fail();
  }
  fiber.parity = !fiber.parity;
  ++warp.arrived;
  if (warp.alive < warp.lanes)
    failForEnded(fiber.thread.warp);
  if (warp.arrived == warp.lanes) {
    together(warp);
    releaseWarp(fiber.thread.warp);
    return;
  }
  fiber.state = Fiber::State::AtWarp;
  fiber.site = uint16_t(site);
  suspend(fiber);
}

} // namespace megalodon::emulation
