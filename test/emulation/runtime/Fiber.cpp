#include "test/emulation/runtime/Fiber.h"
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

using namespace megalodon::emulation;

#ifdef MEGALODON_EMULATION_UCONTEXT

void Context::prepare(char *bottom, char *top, void (*function)()) {
  getcontext(&context);
  context.uc_stack.ss_sp = bottom;
  context.uc_stack.ss_size = size_t(top - bottom);
  context.uc_link = nullptr;
  makecontext(&context, function, 0);
}

void Context::change(Context &from, Context &to) {
  swapcontext(&from.context, &to.context);
}

#else

// What a called function must preserve goes to the stack, then stacks change.
extern "C" void megalodon_emulate_switch(void **from, void *to);
asm(R"(
  .text
  .p2align 4
  .hidden megalodon_emulate_switch
  .globl megalodon_emulate_switch
  .type megalodon_emulate_switch, @function
megalodon_emulate_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size megalodon_emulate_switch, . - megalodon_emulate_switch
)");

void Context::prepare(char *, char *top, void (*function)()) {
  // As if `function` had been called: its frame begins 8 bytes below a multiple
  // of 16, with a return address that nothing uses.
  auto *frame = reinterpret_cast<uint64_t *>(uintptr_t(top) & ~uintptr_t(63));
  *--frame = 0;
  *--frame = reinterpret_cast<uint64_t>(function);
  frame -= 6;
  std::memset(frame, 0, 6 * sizeof(*frame));
  stackPointer = frame;
}

void Context::change(Context &from, Context &to) {
  megalodon_emulate_switch(&from.stackPointer, to.stackPointer);
}

#endif

Stacks::~Stacks() {
  if (base)
    munmap(base, count * kBytes);
}

void Stacks::atLeast(size_t wanted) {
  if (wanted <= count)
    return;
  if (base)
    munmap(base, count * kBytes);
  count = wanted;
  void *mapped = mmap(nullptr, count * kBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    std::perror("cannot allocate the stacks of emulated threads");
    std::abort();
  }
  // A thread uses little of its stack; whole huge pages would be wasted.
  madvise(mapped, count * kBytes, MADV_NOHUGEPAGE);
  base = static_cast<char *>(mapped);
  for (size_t i = 0; i < count; ++i)
    mprotect(bottom(i), 4096, PROT_NONE);
}
