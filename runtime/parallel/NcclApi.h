// The entry points of NCCL 2 and of the CUDA driver that Nccl.cpp calls, so
// that it builds without their headers. Enumerations are passed as int.
#pragma once
#include <cstddef>

namespace megalodon::nccl {

struct UniqueId {
  char bytes[128];
};
using Comm = struct OpaqueComm *;
using Stream = void *; ///< CUstream, cudaStream_t
using Event = struct OpaqueEvent *;

enum Result : int { kSuccess = 0, kInProgress = 7 };
enum Type : int {
  kInt8 = 0,
  kInt32 = 2,
  kInt64 = 4,
  kFloat32 = 7,
  kFloat64 = 8,
  kBfloat16 = 9
};
enum Operation : int { kSum = 0, kMax = 2 };

constexpr unsigned kEventDisableTiming = 2;
constexpr int kErrorNotReady = 600;

using AllGather = int(const void *send, void *recv, size_t count, int type,
                      Comm, Stream);
using AllReduce = int(const void *send, void *recv, size_t count, int type,
                      int operation, Comm, Stream);
using Broadcast = int(const void *send, void *recv, size_t count, int type,
                      int root, Comm, Stream);
using CommAbort = int(Comm);
using CommDestroy = int(Comm);
using CommGetAsyncError = int(Comm, int *error);
using CommInitRank = int(Comm *, int ranks, UniqueId, int rank);
using GetErrorString = const char *(int result);
using GetUniqueId = int(UniqueId *);
using GroupEnd = int();
using GroupStart = int();
using Recv = int(void *, size_t count, int type, int peer, Comm, Stream);
using ReduceScatter = int(const void *send, void *recv, size_t count, int type,
                          int operation, Comm, Stream);
using Send = int(const void *, size_t count, int type, int peer, Comm, Stream);

using EventCreate = int(Event *, unsigned flags);
using EventDestroy = int(Event);
using EventQuery = int(Event);
using EventRecord = int(Event, Stream);
using DriverErrorString = int(int result, const char **text);

} // namespace megalodon::nccl
