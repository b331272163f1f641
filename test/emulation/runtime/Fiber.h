// Switching between the stacks of a block's threads: a few instructions on
// x86-64, ucontext elsewhere.
#pragma once
#include <cstddef>
#if !defined(__x86_64__) && !defined(MEGALODON_EMULATION_UCONTEXT)
#define MEGALODON_EMULATION_UCONTEXT
#endif
#ifdef MEGALODON_EMULATION_UCONTEXT
#include <ucontext.h>
#endif

namespace megalodon::emulation {

/// A place where execution can go on: a stack and what stands in registers.
class Context {
public:
  /// Makes `function` what runs, on the stack that ends at `top`, when this is
  /// first switched to. It must not return.
  void prepare(char *bottom, char *top, void (*function)());

  /// Keeps the running code in `from` and goes on with `to`.
  static void change(Context &from, Context &to);

private:
#ifdef MEGALODON_EMULATION_UCONTEXT
  ucontext_t context;
#else
  void *stackPointer = nullptr;
#endif
};

/// Stacks of equal size with a page in front of each that must not be touched.
class Stacks {
public:
  static constexpr size_t kBytes = 256 << 10;

  Stacks() = default;
  ~Stacks();
  Stacks(const Stacks &) = delete;
  Stacks &operator=(const Stacks &) = delete;

  void atLeast(size_t count);
  char *bottom(size_t index) const { return base + index * kBytes; }
  /// Equal places on different stacks would share a cache set, so each begins
  /// elsewhere.
  char *top(size_t index) const {
    return bottom(index) + kBytes - index * 192 % 4096;
  }

private:
  char *base = nullptr;
  size_t count = 0;
};

} // namespace megalodon::emulation
