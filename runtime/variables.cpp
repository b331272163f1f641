#include "runtime/variables.h"
#include <algorithm>
#include <cstring>
#include <exception>
#include <utility>

namespace megalodon {

// Below it a variable's copies are kept and double: inputs, outputs, numbers.
static constexpr size_t kSmallBytes = size_t(16) << 20;

HostCopy::~HostCopy() {
  for (const Device::Ticket &ticket : moved)
    try {
      device.await(ticket);
    } catch (const std::exception &) {
      continue; // the device failed, so it reads nothing any more
    }
}

std::byte *HostCopy::memory() {
  Block &copy = copies[current];
  if (!copy.data() && size > 0)
    copy = device.allocateHost(size, "the host's copy of '" + name + "'");
  return copy.data();
}

/// Nothing reads the current copy any more.
void HostCopy::await() {
  device.await(moved[current]);
  moved[current] = nullptr;
}

const std::byte *HostCopy::read(size_t bytes) {
  std::byte *host = memory();
  if (fresh < bytes) {
    await();
    device.download(host + fresh, address + fresh, bytes - fresh);
    fresh = bytes;
  }
  return host;
}

std::byte *HostCopy::write(size_t bytes) {
  read(bytes);
  await();
  dirty = std::max({dirty, bytes, std::exchange(aheadBytes, 0)});
  return memory();
}

std::byte *HostCopy::overwrite(size_t bytes) {
  // What only this copy holds beyond the new bytes must not be lost.
  const size_t only = std::max(dirty, aheadBytes);
  if (size <= kSmallBytes && moved[current] && only <= bytes) {
    current = 1 - current;
    fresh = 0;
  }
  await();
  fresh = std::max(fresh, bytes);
  dirty = std::max({dirty, bytes, std::exchange(aheadBytes, 0)});
  return memory();
}

void HostCopy::zero(size_t bytes) {
  if (bytes < size) {
    std::memset(overwrite(bytes), 0, bytes);
    return;
  }
  device.fill(address, 0, size);
  fresh = dirty = aheadBytes = 0;
}

void HostCopy::flush() {
  if (dirty == 0)
    return;
  if (size > kSmallBytes) {
    beforeRun();
    return;
  }
  if (!ahead.data())
    ahead = device.allocate(size, "the next call's '" + name + "'");
  aheadReady = moved[current] =
      device.uploadBeside(ahead.data(), memory(), dirty, aheadFree);
  aheadBytes = std::exchange(dirty, 0);
}

void HostCopy::beforeRun() {
  if (aheadBytes)
    aheadFree = device.copyAfter(address, ahead.data(),
                                 std::exchange(aheadBytes, 0), aheadReady);
  if (dirty) {
    moved[current] = device.upload(address, memory(), dirty);
    dirty = 0;
    if (size > kSmallBytes) {
      await();
      copies[current] = {};
      fresh = 0;
    }
  }
}

void HostCopy::changedByDevice() {
  fresh = 0;
  if (size > kSmallBytes)
    copies[current] = {};
}

Storage::Storage(Device &device, const plan::LoadedPlan &plan,
                 const std::vector<uint32_t> &variables,
                 const std::string &purpose) {
  size_t total = 0;
  for (uint32_t index : variables)
    total += plan::allocatedBytes(plan.variables[index]);
  memory = device.allocate(total, purpose);
  std::byte *next = memory.data();
  for (uint32_t index : variables) {
    const plan::Variable &variable = plan.variables[index];
    Part &part = parts[index];
    part.address = next;
    if (!device.isHost())
      part.copy = std::make_unique<HostCopy>(
          device, next, variable.localBytes(), variable.name);
    next += plan::allocatedBytes(variable);
  }
}

void Storage::addTo(plan::RankMemory &memory,
                    const plan::LoadedPlan &plan) const {
  for (const auto &[index, part] : parts)
    memory.of(plan.variables[index].role) +=
        plan::allocatedBytes(plan.variables[index]);
}

} // namespace megalodon
