// Which GPU a rank gets, and whether ranks talk over NCCL.
#include "runtime/core/Error.h"
#include "runtime/cuda/CudaDevice.h"
#include "runtime/parallel/Communicator.h"
#include "runtime/session.h"
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <sys/utsname.h>

namespace megalodon::cuda {

namespace {

/// Where a rank is, as the others see it.
struct Seat {
  char machine[sizeof(utsname::nodename)];
  Uuid gpu;
};

std::vector<Seat> exchange(World &world, const Seat &own, const char *what) {
  std::vector<Seat> all(size_t(world.size()));
  world.all()
      .allGather(&own, all.data(), sizeof(own))
      ->wait({what, -1}, world.timeout);
  return all;
}

bool hasNccl() { return ::dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL); }

/// NCCL refuses two ranks on one GPU.
bool usesNccl(World &world, const std::vector<Seat> &seats) {
  const char *wish = std::getenv("MEGALODON_COLLECTIVES");
  if (wish && *wish) {
    if (std::strcmp(wish, "nccl") == 0)
      return true;
    if (std::strcmp(wish, "host") == 0)
      return false;
    throw Error(str("MEGALODON_COLLECTIVES: expected 'nccl' or 'host', got '",
                    wish, "'"));
  }
  bool apart = seats.size() > 1;
  for (size_t i = 0; i < seats.size(); ++i)
    for (size_t j = 0; j < i; ++j)
      apart &= std::memcmp(&seats[i].gpu, &seats[j].gpu, sizeof(Uuid)) != 0;
  if (!apart)
    return false;
  // All or none, and the ranks' libraries may differ.
  int32_t missing = !hasNccl();
  world.all()
      .allReduce(&missing, 1, ElementType::I32, Reduction::Max)
      ->wait({"looking for NCCL", -1}, world.timeout);
  return !missing;
}

} // namespace

std::unique_ptr<Device> openCuda(std::shared_ptr<const plan::LoadedPlan> plan,
                                 const SessionOptions &options, World &world) {
  const std::vector<Gpu> gpus = listGpus();
  Seat own{};
  utsname system{};
  if (uname(&system) == 0)
    std::memcpy(own.machine, system.nodename, sizeof(own.machine));
  std::vector<Seat> seats = exchange(world, own, "finding the ranks' machines");
  size_t before = 0; // ranks of this machine
  for (int rank = 0; rank < world.rank(); ++rank)
    before += std::memcmp(seats[size_t(rank)].machine, own.machine,
                          sizeof(own.machine)) == 0;
  if (options.gpu >= int(gpus.size()))
    throw Error(str("expected a GPU from 0 to ", gpus.size() - 1, ", got ",
                    options.gpu));
  const Gpu &gpu =
      gpus[options.gpu >= 0 ? size_t(options.gpu) : before % gpus.size()];
  own.gpu = gpu.uuid;
  seats = exchange(world, own, "finding the ranks' GPUs");
  return std::make_unique<CudaDevice>(std::move(plan), gpu,
                                      usesNccl(world, seats), options.threads);
}

} // namespace megalodon::cuda
