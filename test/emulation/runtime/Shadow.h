// Who touched which bytes of memory since the block's threads last met.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

namespace megalodon::emulation {

/// A point in the execution of one thread.
struct Moment {
  uint32_t thread, warp;
  uint32_t epoch;     ///< counts barriers of the block, never goes back
  uint32_t warpEpoch; ///< counts barriers of the warp
  uint16_t site;
};

/// Two accesses that nothing orders.
struct Conflict {
  bool otherStores;
  bool inFlight;  ///< an asynchronous copy to these bytes was not waited for
  int32_t thread; ///< -1: several
  uint16_t site;
};

/// Two neighbouring bytes.
class Cell {
public:
  /// Whether this access and an earlier one are not ordered; if so, `conflict`
  /// says which.
  bool load(const Moment &now, Conflict &conflict);
  bool store(const Moment &now, Conflict &conflict);

  /// A copy to these bytes has begun, or is complete.
  void beginCopy(const Moment &now) { copier = uint16_t(now.thread + 1); }
  void endCopy() { copier = 0; }

private:
  void refresh(const Moment &now);
  bool storeConflicts(const Moment &now, Conflict &conflict) const;
  bool loadConflicts(const Moment &now, Conflict &conflict) const;
  bool copying(Conflict &conflict) const;

  // Threads are counted from 1 here, 0 is none. A reader may also stand for
  // several threads: of one warp, or of any.
  static constexpr uint16_t kWarpReaders = 0x8000, kManyReaders = 0xffff;

  uint32_t epoch = 0, writerWarpEpoch = 0, readerWarpEpoch = 0;
  uint16_t writer = 0, reader = 0, writerSite = 0, readerSite = 0, copier = 0;
};

/// The bytes of one memory area.
class SharedShadow {
public:
  void resize(size_t bytes) { cells.resize((bytes + 1) / 2); }
  Cell &at(size_t offset) { return cells[offset / 2]; }

private:
  std::vector<Cell> cells;
};

/// Any addresses. When it becomes large it forgets what it knows.
class GlobalShadow {
public:
  GlobalShadow() : lines(kLines) {}
  Cell &at(uintptr_t address);
  /// To call where nothing that is known matters any more.
  void trim() {
    if (used > kLines / 4)
      clear();
  }

private:
  static constexpr size_t kLines = 1 << 15, kLineBytes = 64;
  struct Line {
    uintptr_t key = 0;
    uint32_t cells = 0;
  };
  void clear();

  std::vector<Line> lines;
  std::vector<Cell> cells;
  size_t used = 0;
};

} // namespace megalodon::emulation
