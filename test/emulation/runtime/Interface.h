// What the code of emulated kernels and the emulation's runtime share. The
// compiling side writes these structs field by field
// (test/emulation/EmulatedObject.cpp).
#pragma once
#include <cstdint>

namespace megalodon::emulation {

/// What a thread knows about itself: the first argument of its code and of
/// every function below.
struct Thread {
  uint32_t thread; ///< its number in the block
  uint32_t block;
  uint32_t threads; ///< of the block
  uint32_t lane, warp;
  uint32_t reserved;
  char *shared; ///< the block's shared memory
};

/// A kernel. Its blocks are one-dimensional.
struct Kernel {
  const char *name;
  void (*start)(Thread *thread, void *const *arguments); ///< a thread's code
  const uint64_t *bufferBytes;
  const char *const *sites; ///< places in the kernel, for messages
  uint32_t threads, sharedBytes, buffers;
  uint32_t meets; ///< whether threads ever wait for each other
};

/// How `megalodon_emulate_access` is told what is accessed: bytes, base-2
/// logarithm of the alignment that the code relies on, and these flags.
inline constexpr uint32_t kAlignmentShift = 16, kStore = 1u << 24,
                          kAtomic = 1u << 25;

/// The forms of `nvvm.mma.sync` that are emulated.
enum class Mma : uint32_t { M16N8K16Bf16, M16N8K8Tf32 };

enum class Shuffle : uint32_t { Xor, Up, Down, Index };

/// Lanes of a warp.
inline constexpr uint32_t kWarp = 32;
/// Shared memory lies at a multiple of this.
inline constexpr uint32_t kSharedAlignment = 128;

} // namespace megalodon::emulation

extern "C" {
/// Runs all threads of a block.
void megalodon_emulate_block(const megalodon::emulation::Kernel *kernel,
                             void *const *arguments, int64_t block);

void megalodon_emulate_barrier(megalodon::emulation::Thread *thread,
                               uint32_t site);
void megalodon_emulate_warp_barrier(megalodon::emulation::Thread *thread,
                                    uint32_t mask, uint32_t site);
/// Stores to `valid` whether the value is another lane's; otherwise it is the
/// thread's own.
uint64_t megalodon_emulate_shuffle(megalodon::emulation::Thread *thread,
                                   uint64_t value, uint32_t offset,
                                   uint32_t width,
                                   megalodon::emulation::Shuffle mode,
                                   bool *valid, uint32_t site);
/// `registers`: the thread's fragments of A, B and C, then room for D, 32 bits
/// each.
void megalodon_emulate_mma(megalodon::emulation::Thread *thread,
                           megalodon::emulation::Mma form, uint32_t *registers,
                           uint32_t site);
/// `row`: the address of the row that this lane names; `registers`: `tiles`
/// results.
void megalodon_emulate_ldmatrix(megalodon::emulation::Thread *thread,
                                const char *row, uint32_t tiles, bool transpose,
                                uint32_t *registers, uint32_t site);
/// Starts to copy `sourceBytes` and to fill up to `bytes` with zero.
void megalodon_emulate_copy(megalodon::emulation::Thread *thread, char *target,
                            const char *source, uint32_t bytes,
                            uint64_t sourceBytes, bool bypassL1, uint32_t site);
void megalodon_emulate_copy_group(megalodon::emulation::Thread *thread);
/// Waits until at most `groups` groups of this thread's copies are under way.
void megalodon_emulate_copy_wait(megalodon::emulation::Thread *thread,
                                 uint32_t groups);
/// Comes before every access to memory that other threads may see.
void megalodon_emulate_access(megalodon::emulation::Thread *thread,
                              const char *address, uint32_t what,
                              uint32_t site);
/// The same where only the elements of `mask` are accessed.
void megalodon_emulate_masked_access(megalodon::emulation::Thread *thread,
                                     const char *address, uint64_t mask,
                                     uint32_t what, uint32_t site);
/// And where the number of bytes is known at run time only.
void megalodon_emulate_long_access(megalodon::emulation::Thread *thread,
                                   const char *address, uint64_t bytes,
                                   uint32_t flags, uint32_t site);
}
