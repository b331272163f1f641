// The emulation's runtime as bytes, to be linked with the kernels of every plan
// that needs it.
asm(R"(
  .section .rodata
  .globl megalodon_emulation_runtime, megalodon_emulation_runtime_end
  .p2align 6
megalodon_emulation_runtime:
  .incbin ")" MEGALODON_EMULATION_RUNTIME R"("
megalodon_emulation_runtime_end:
  .text
)");
