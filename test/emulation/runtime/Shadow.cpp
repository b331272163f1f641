#include "test/emulation/runtime/Shadow.h"
#include "test/emulation/runtime/Interface.h"
#include <algorithm>

using namespace megalodon::emulation;

void Cell::refresh(const Moment &now) {
  if (epoch == now.epoch)
    return;
  epoch = now.epoch;
  writer = reader = 0;
}

bool Cell::copying(Conflict &conflict) const {
  if (!copier)
    return false;
  conflict = {true, true, copier - 1, writerSite};
  return true;
}

bool Cell::storeConflicts(const Moment &now, Conflict &conflict) const {
  if (!writer || writer == now.thread + 1)
    return false;
  if ((writer - 1u) / kWarp == now.warp && writerWarpEpoch < now.warpEpoch)
    return false;
  conflict = {true, false, writer - 1, writerSite};
  return true;
}

bool Cell::loadConflicts(const Moment &now, Conflict &conflict) const {
  if (!reader || reader == now.thread + 1)
    return false;
  if (reader != kManyReaders) {
    uint32_t warp =
        reader & kWarpReaders ? reader & ~kWarpReaders : (reader - 1u) / kWarp;
    if (warp == now.warp && readerWarpEpoch < now.warpEpoch)
      return false;
  }
  conflict = {false, false, reader & kWarpReaders ? -1 : reader - 1,
              readerSite};
  return true;
}

bool Cell::load(const Moment &now, Conflict &conflict) {
  refresh(now);
  if (copying(conflict) || storeConflicts(now, conflict))
    return true;
  const auto me = uint16_t(now.thread + 1);
  readerSite = now.site;
  if (!reader || reader == me) {
    reader = me;
  } else if (reader != kManyReaders) {
    uint32_t warp =
        reader & kWarpReaders ? reader & ~kWarpReaders : (reader - 1u) / kWarp;
    if (warp != now.warp)
      reader = kManyReaders;
    else if (readerWarpEpoch < now.warpEpoch)
      reader = me; // the warp's earlier loads come before all that follows
    else
      reader = uint16_t(kWarpReaders | warp);
  }
  readerWarpEpoch = now.warpEpoch;
  return false;
}

bool Cell::store(const Moment &now, Conflict &conflict) {
  refresh(now);
  if (copying(conflict) || storeConflicts(now, conflict) ||
      loadConflicts(now, conflict))
    return true;
  writer = uint16_t(now.thread + 1);
  writerWarpEpoch = now.warpEpoch;
  writerSite = now.site;
  reader = 0;
  return false;
}

Cell &GlobalShadow::at(uintptr_t address) {
  const uintptr_t key = address / kLineBytes + 1;
  const size_t cell = address % kLineBytes / 2;
  if (used > kLines / 2)
    clear();
  size_t slot = key * 0x9E3779B97F4A7C15u >> 32 & (kLines - 1);
  while (lines[slot].key && lines[slot].key != key)
    slot = (slot + 1) & (kLines - 1);
  Line &line = lines[slot];
  if (!line.key) {
    line.key = key;
    line.cells = uint32_t(used++ * (kLineBytes / 2));
    if (cells.size() < line.cells + kLineBytes / 2)
      cells.resize(std::max<size_t>(2 * cells.size(), line.cells + 1024));
    std::fill_n(cells.begin() + line.cells, kLineBytes / 2, Cell());
  }
  return cells[line.cells + cell];
}

void GlobalShadow::clear() {
  std::fill(lines.begin(), lines.end(), Line());
  used = 0;
}
