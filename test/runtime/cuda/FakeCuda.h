// What the stand-ins of the driver and of cuBLASLt tell each other and tests.
#pragma once
#include <cstddef>
#include <cstdint>

extern "C" {

/// Puts work(data) in order on a stream, or into the graph that is captured;
/// drop(data) follows when it can no longer be called. The stream stands still
/// until ready(data), unless null, says 1. Calls of all of these never overlap.
int fakeCudaEnqueue(void *stream, int (*ready)(void *), void (*work)(void *),
                    void *data, void (*drop)(void *));

/// Host memory behind a range of device memory; null unless all of it is
/// allocated.
void *fakeCudaTranslate(unsigned long long address, size_t bytes);

/// The next synchronisation reports an illegal address.
void fakeCudaFault(void);

struct FakeCudaCounts {
  int64_t launches;      ///< of kernels, by themselves or in graphs
  int64_t graphLaunches; ///< of graphs
  int64_t captures;
  int64_t uploads, downloads; ///< copies between host and device
  int64_t uploadedBytes, downloadedBytes;
  int64_t allocatedBytes; ///< device memory in use
};
void fakeCudaCounts(FakeCudaCounts *counts);
}

/// An image that the stand-in loads: an ELF shared object of kernels in the
/// form of the cpu device, then lines
///   arch sm_80
///   kernel NAME WORDS BUFFERS THREADS SYMBOL
/// then their length as 8 bytes, then this.
constexpr char kFakeImageMagic[8] = {'F', 'A', 'K', 'E', 'C', 'U', 'D', 'A'};
