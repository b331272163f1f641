// What the code of kernels calls.
#include "test/emulation/runtime/Block.h"
#include <cstring>
#include <utility>

using namespace megalodon::emulation;

void megalodon_emulate_block(const Kernel *kernel, void *const *arguments,
                             int64_t block) {
  Block::mine().run(*kernel, arguments, block);
}

//===-- Meetings
//---------------------------------------------------------------------------------------===//

void megalodon_emulate_barrier(Thread *thread, uint32_t site) {
  Fiber &fiber = fiberOf(thread);
  fiber.block->barrier(fiber, site);
}

void megalodon_emulate_warp_barrier(Thread *thread, uint32_t mask,
                                    uint32_t site) {
  Fiber &fiber = fiberOf(thread);
  Block &block = *fiber.block;
  if (mask != ~0u) {
    block.report("thread %u has mask %#x at %s, expected all lanes",
                 thread->thread, mask, block.site(site));
    block.fail();
  }
  block.meet(fiber, site, [](Warp &) {});
  ++fiber.warpEpoch;
}

uint64_t megalodon_emulate_shuffle(Thread *thread, uint64_t value,
                                   uint32_t offset, uint32_t width,
                                   Shuffle mode, bool *valid, uint32_t site) {
  Fiber &fiber = fiberOf(thread);
  Block &block = *fiber.block;
  const uint32_t lane = thread->lane, first = lane & ~(width - 1);
  if (width == 0 || width > kWarp || (width & (width - 1))) {
    block.report("thread %u shuffles with width %u at %s, expected a power of "
                 "two up to %u",
                 thread->thread, width, block.site(site), kWarp);
    block.fail();
  }
  uint64_t *values = block.warpOf(fiber).values[fiber.parity];
  values[lane] = value;
  block.meet(fiber, site, [](Warp &) {});
  int64_t from = lane;
  switch (mode) {
  case Shuffle::Xor:
    from = lane ^ offset;
    break;
  case Shuffle::Up:
    from = int64_t(lane) - offset;
    break;
  case Shuffle::Down:
    from = int64_t(lane) + offset;
    break;
  case Shuffle::Index:
    from = first + (offset & (width - 1));
    break;
  }
  *valid = from >= first && from < first + width && from / kWarp == 0 &&
           thread->thread - lane + from < thread->threads;
  return values[*valid ? size_t(from) : lane];
}

//===-- Matrix instructions
//----------------------------------------------------------------------------===//

static float asFloat(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

/// Element `half` of a register that holds two bf16.
static float fromBf16(uint32_t bits, int half) {
  return asFloat(half ? bits & 0xffff0000u : bits << 16);
}

/// What a tensor core makes of an f32 operand: it does not look at the lowest
/// 13 bits. A kernel that wants them rounded does so itself.
static float toTf32(uint32_t bits) { return asFloat(bits & ~0x1fffu); }

/// The tables of the PTX manual ("Matrix Fragments for mma.m16n8k16", "...
/// m16n8k8"): where lane 4 * group + member keeps which elements.
static void multiply(Warp &warp, Mma form) {
  const int depth = form == Mma::M16N8K16Bf16 ? 16 : 8;
  const int left = 4, right = 2;
  float a[16][16], b[16][8], c[16][8];
  for (int lane = 0; lane < int(kWarp); ++lane) {
    const int group = lane >> 2, member = lane & 3;
    const uint32_t *registers = warp.registers[lane];
    for (int i = 0; i < left; ++i) {
      const int row = group + 8 * (i & 1);
      if (form == Mma::M16N8K16Bf16)
        for (int half = 0; half < 2; ++half)
          a[row][2 * member + half + 8 * (i >> 1)] =
              fromBf16(registers[i], half);
      else
        a[row][member + 4 * (i >> 1)] = toTf32(registers[i]);
    }
    registers += left;
    for (int i = 0; i < right; ++i) {
      if (form == Mma::M16N8K16Bf16)
        for (int half = 0; half < 2; ++half)
          b[2 * member + half + 8 * i][group] = fromBf16(registers[i], half);
      else
        b[member + 4 * i][group] = toTf32(registers[i]);
    }
    registers += right;
    for (int i = 0; i < 4; ++i)
      c[group + 8 * (i >> 1)][2 * member + (i & 1)] = asFloat(registers[i]);
  }
  for (auto &row : c) {
    const float *x = a[&row - c];
    for (int k = 0; k < depth; ++k)
      for (int n = 0; n < 8; ++n)
        row[n] += x[k] * b[k][n];
  }
  for (int lane = 0; lane < int(kWarp); ++lane)
    for (int i = 0; i < 4; ++i)
      std::memcpy(&warp.registers[lane][left + right + 4 + i],
                  &c[(lane >> 2) + 8 * (i >> 1)][2 * (lane & 3) + (i & 1)],
                  sizeof(float));
}

/// Every tile is 8 rows of 8 elements of 16 bits; lane 8 * i + r names row r of
/// tile i.
static void loadTiles(Warp &warp, uint32_t tiles, bool transpose) {
  for (uint32_t tile = 0; tile < tiles; ++tile)
    for (int lane = 0; lane < int(kWarp); ++lane) {
      uint16_t pair[2];
      for (int half = 0; half < 2; ++half) {
        int row = lane >> 2, column = 2 * (lane & 3) + half;
        if (transpose)
          std::swap(row, column);
        std::memcpy(&pair[half], warp.rows[8 * tile + row] + 2 * column,
                    sizeof(pair[half]));
      }
      std::memcpy(&warp.registers[lane][tile], pair, sizeof(pair));
    }
}

void megalodon_emulate_mma(Thread *thread, Mma form, uint32_t *registers,
                           uint32_t site) {
  Fiber &fiber = fiberOf(thread);
  fiber.block->warpOf(fiber).registers[thread->lane] = registers;
  fiber.block->meet(fiber, site, [=](Warp &warp) { multiply(warp, form); });
}

void megalodon_emulate_ldmatrix(Thread *thread, const char *row, uint32_t tiles,
                                bool transpose, uint32_t *registers,
                                uint32_t site) {
  Fiber &fiber = fiberOf(thread);
  Block &block = *fiber.block;
  // The addresses of other lanes are not used.
  if (thread->lane < 8 * tiles) {
    if (block.checks())
      block.checkAlignment(fiber, row, 16, site);
    if (!block.inShared(row)) {
      block.report("thread %u names a row outside of shared memory at %s",
                   thread->thread, block.site(site));
      block.fail();
    }
  }
  Warp &warp = block.warpOf(fiber);
  warp.rows[thread->lane] = row;
  warp.registers[thread->lane] = registers;
  block.meet(fiber, site, [&](Warp &together) {
    // Every row reaches several lanes: as if two of them had loaded it.
    for (uint32_t i = 0; block.checks() && i < 8 * tiles; ++i)
      for (uint32_t lane : {i, (i + 1) % kWarp})
        block.accessTogether(fiber, lane, together.rows[i], 16, site);
    loadTiles(together, tiles, transpose);
  });
}

//===-- Asynchronous copies
//----------------------------------------------------------------------------===//

void megalodon_emulate_copy(Thread *thread, char *target, const char *source,
                            uint32_t bytes, uint64_t sourceBytes, bool bypassL1,
                            uint32_t site) {
  Fiber &fiber = fiberOf(thread);
  Block &block = *fiber.block;
  const bool size =
      bypassL1 ? bytes == 16 : bytes == 4 || bytes == 8 || bytes == 16;
  if (!size || sourceBytes > bytes || !block.inShared(target)) {
    block.report("thread %u copies %llu of %u bytes%s at %s, expected 4, 8 or "
                 "16 bytes (16 past L1) to shared memory",
                 thread->thread, static_cast<unsigned long long>(sourceBytes),
                 bytes, bypassL1 ? " past L1" : "", block.site(site));
    block.fail();
  }
  const Copy copy = {target, source, bytes, uint32_t(sourceBytes), site};
  if (block.checks()) {
    block.checkAlignment(fiber, target, bytes, site);
    block.checkAlignment(fiber, source, bytes, site);
    block.access(fiber, source, sourceBytes, 0, site);
    block.access(fiber, target, bytes, kStore, site);
  }
  block.beginCopy(fiber, copy);
  fiber.copies.push_back(copy);
}

void megalodon_emulate_copy_group(Thread *thread) {
  Fiber &fiber = fiberOf(thread);
  fiber.groups.push_back(uint32_t(fiber.copies.size()));
  fiber.groupCopies.insert(fiber.groupCopies.end(), fiber.copies.begin(),
                           fiber.copies.end());
  fiber.copies.clear();
}

void megalodon_emulate_copy_wait(Thread *thread, uint32_t groups) {
  Fiber &fiber = fiberOf(thread);
  uint32_t done = 0;
  while (fiber.groups.size() > groups) {
    for (uint32_t i = 0; i < fiber.groups.front(); ++i)
      fiber.block->endCopy(fiber, fiber.groupCopies[done++]);
    fiber.groups.erase(fiber.groups.begin());
  }
  fiber.groupCopies.erase(fiber.groupCopies.begin(),
                          fiber.groupCopies.begin() + done);
}

//===-- Accesses
//---------------------------------------------------------------------------------------===//

static void checkedAccess(Fiber &fiber, const char *address, uint64_t bytes,
                          uint32_t flags, uint32_t site) {
  Block &block = *fiber.block;
  block.perhapsYield(fiber);
  if (uint32_t alignment = 1u << (flags >> kAlignmentShift & 0xff);
      alignment > 1)
    block.checkAlignment(fiber, address, alignment, site);
  block.access(fiber, address, bytes, flags, site);
}

void megalodon_emulate_access(Thread *thread, const char *address,
                              uint32_t what, uint32_t site) {
  Fiber &fiber = fiberOf(thread);
  if (fiber.block->checks())
    checkedAccess(fiber, address, what & 0xffff, what, site);
}

void megalodon_emulate_masked_access(Thread *thread, const char *address,
                                     uint64_t mask, uint32_t what,
                                     uint32_t site) {
  Fiber &fiber = fiberOf(thread);
  if (!fiber.block->checks())
    return;
  const uint32_t bytes = what & 0xffff;
  for (; mask; mask >>= 1, address += bytes)
    if (mask & 1)
      checkedAccess(fiber, address, bytes, what, site);
}

void megalodon_emulate_long_access(Thread *thread, const char *address,
                                   uint64_t bytes, uint32_t flags,
                                   uint32_t site) {
  Fiber &fiber = fiberOf(thread);
  if (fiber.block->checks())
    checkedAccess(fiber, address, bytes, flags, site);
}
