// The part of the CUDA driver's interface that the cuda device calls, so that
// it builds without NVIDIA's headers. Enumerations are passed as int. A test
// compares it with cuda.h where there is one.
#pragma once
#include <cstddef>

namespace megalodon::cuda {

using Address = unsigned long long; ///< CUdeviceptr
using ContextHandle = struct OpaqueContext *;
using ModuleHandle = struct OpaqueModule *;
using FunctionHandle = struct OpaqueFunction *;
using StreamHandle = struct OpaqueStream *;
using EventHandle = struct OpaqueCudaEvent *;
using GraphHandle = struct OpaqueGraph *;
using GraphExecHandle = struct OpaqueGraphExec *;

// CUresult
constexpr int kSuccess = 0, kOutOfMemory = 2, kNoDevice = 100,
              kUnsupportedPtxVersion = 222, kIllegalAddress = 700,
              kLaunchFailed = 719;

// CUdevice_attribute; the clock rate is in kHz
constexpr int kClockRate = 13, kMultiprocessors = 16, kCapabilityMajor = 75,
              kCapabilityMinor = 76, kSharedBytesPerBlock = 97;

// CUjit_option
constexpr int kJitErrorLog = 5, kJitErrorLogBytes = 6;

// CUmemorytype
constexpr int kHost = 1, kDevice = 2;

constexpr int kMaxDynamicSharedBytes = 8; ///< of cuFuncSetAttribute
constexpr unsigned kNonBlocking = 1;      ///< of cuStreamCreate
constexpr unsigned kEventTiming = 0, kEventNoTiming = 2;
constexpr int kCaptureThreadLocal = 1;

struct Uuid {
  char bytes[16];
};

/// CUDA_MEMCPY2D
struct Copy2D {
  size_t fromX, fromY;
  int fromType;
  const void *fromHost;
  Address fromDevice;
  void *fromArray;
  size_t fromPitch;
  size_t toX, toY;
  int toType;
  void *toHost;
  Address toDevice;
  void *toArray;
  size_t toPitch;
  size_t widthBytes, height;
};

/// The entry points, by their exported names.
struct DriverApi {
  int (*cuInit)(unsigned flags);
  int (*cuDriverGetVersion)(int *version);
  int (*cuGetErrorName)(int result, const char **text);
  int (*cuGetErrorString)(int result, const char **text);

  int (*cuDeviceGetCount)(int *count);
  int (*cuDeviceGet)(int *device, int ordinal);
  int (*cuDeviceGetName)(char *name, int bytes, int device);
  int (*cuDeviceGetAttribute)(int *value, int attribute, int device);
  int (*cuDeviceTotalMem_v2)(size_t *bytes, int device);
  int (*cuDeviceGetUuid_v2)(Uuid *uuid, int device);
  int (*cuDevicePrimaryCtxRetain)(ContextHandle *context, int device);
  int (*cuDevicePrimaryCtxRelease_v2)(int device);
  int (*cuCtxSetCurrent)(ContextHandle context);

  int (*cuMemGetInfo_v2)(size_t *free, size_t *total);
  int (*cuMemAlloc_v2)(Address *address, size_t bytes);
  int (*cuMemFree_v2)(Address address);
  int (*cuMemAllocHost_v2)(void **address, size_t bytes);
  int (*cuMemFreeHost)(void *address);
  int (*cuMemcpyHtoDAsync_v2)(Address to, const void *from, size_t bytes,
                              StreamHandle stream);
  int (*cuMemcpyDtoHAsync_v2)(void *to, Address from, size_t bytes,
                              StreamHandle stream);
  int (*cuMemcpyDtoDAsync_v2)(Address to, Address from, size_t bytes,
                              StreamHandle stream);
  int (*cuMemcpy2DAsync_v2)(const Copy2D *copy, StreamHandle stream);
  int (*cuMemsetD8Async)(Address at, unsigned char value, size_t bytes,
                         StreamHandle stream);

  int (*cuStreamCreate)(StreamHandle *stream, unsigned flags);
  int (*cuStreamDestroy_v2)(StreamHandle stream);
  int (*cuStreamSynchronize)(StreamHandle stream);
  int (*cuStreamWaitEvent)(StreamHandle stream, EventHandle event,
                           unsigned flags);
  int (*cuStreamBeginCapture_v2)(StreamHandle stream, int mode);
  int (*cuStreamEndCapture)(StreamHandle stream, GraphHandle *graph);
  int (*cuEventCreate)(EventHandle *event, unsigned flags);
  int (*cuEventDestroy_v2)(EventHandle event);
  int (*cuEventRecord)(EventHandle event, StreamHandle stream);
  int (*cuEventSynchronize)(EventHandle event);
  int (*cuEventElapsedTime)(float *milliseconds, EventHandle begin,
                            EventHandle end);

  int (*cuGraphInstantiateWithFlags)(GraphExecHandle *exec, GraphHandle graph,
                                     unsigned long long flags);
  int (*cuGraphLaunch)(GraphExecHandle exec, StreamHandle stream);
  int (*cuGraphDestroy)(GraphHandle graph);
  int (*cuGraphExecDestroy)(GraphExecHandle exec);

  int (*cuModuleLoadDataEx)(ModuleHandle *module, const void *image,
                            unsigned options, int *names, void **values);
  int (*cuModuleUnload)(ModuleHandle module);
  int (*cuModuleGetFunction)(FunctionHandle *function, ModuleHandle module,
                             const char *name);
  int (*cuFuncSetAttribute)(FunctionHandle function, int attribute, int value);
  int (*cuLaunchKernel)(FunctionHandle function, unsigned gridX, unsigned gridY,
                        unsigned gridZ, unsigned blockX, unsigned blockY,
                        unsigned blockZ, unsigned sharedBytes,
                        StreamHandle stream, void **parameters, void **extra);
};

} // namespace megalodon::cuda
