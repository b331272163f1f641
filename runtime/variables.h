// Memory of a plan's variables on a device, and their copies on the host.
#pragma once
#include "runtime/device.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/plan/Traffic.h"
#include <unordered_map>

namespace megalodon {

/// The host's copy of a variable that lives on a device. Only what is asked for
/// is copied, and only when it changed on the other side; large copies go away
/// when the device changes the variable. The addresses it gives are good until
/// the next run.
class HostCopy {
public:
  HostCopy(Device &device, std::byte *address, size_t bytes, std::string name)
      : device(device), address(address), size(bytes), name(std::move(name)),
        fresh(bytes) {}
  /// Waits until the device has read the copies.
  ~HostCopy();
  HostCopy(const HostCopy &) = delete;
  HostCopy &operator=(const HostCopy &) = delete;

  /// The first `bytes` bytes.
  const std::byte *read(size_t bytes);
  /// The same, to be changed.
  std::byte *write(size_t bytes);
  /// The same, all of them to be changed; what they hold is not told.
  std::byte *overwrite(size_t bytes);
  void zero(size_t bytes);

  /// Begins to move to the device what was written here. Small variables move
  /// beside a run that is under way and still reads them.
  void flush();

  /// Puts the move of what was written in front of the coming run.
  void beforeRun();
  /// The device has written it.
  void changedByDevice();

private:
  void await();
  std::byte *memory();

  Device &device;
  std::byte *const address;
  const size_t size;
  const std::string name;

  /// Small variables have two copies, so that the next call's inputs can be
  /// written while the last call's are still on their way.
  Block copies[2];
  Device::Ticket moved[2]; ///< when the device has what it takes from a copy
  int current = 0;
  size_t fresh;     ///< bytes from the front on that the copy holds
  size_t dirty = 0; ///< bytes from the front on that only the copy holds

  /// Where flush() puts a small variable until the next run.
  Block ahead;
  size_t aheadBytes = 0;
  Device::Ticket aheadReady, aheadFree;
};

/// Memory of this rank's part of a set of variables, one behind the other.
class Storage {
public:
  Storage(Device &device, const plan::LoadedPlan &plan,
          const std::vector<uint32_t> &variables, const std::string &purpose);

  /// In the device's memory.
  std::byte *address(uint32_t variable) const {
    return parts.at(variable).address;
  }
  /// Null where the host reads the device's memory as its own.
  HostCopy *hostCopy(uint32_t variable) const {
    return parts.at(variable).copy.get();
  }

  void addTo(plan::RankMemory &memory, const plan::LoadedPlan &plan) const;

private:
  struct Part {
    std::byte *address;
    std::unique_ptr<HostCopy> copy;
  };
  Block memory;
  std::unordered_map<uint32_t, Part> parts;
};

} // namespace megalodon
