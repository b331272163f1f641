// The emulation of GPU kernels refuses what it does not know, by name.
// RUN: megalodon-opt-emulated %s --split-input-file --verify-diagnostics --pass-pipeline='builtin.module(megalodon-emulate-gpu-kernels)'

module { module @kernels { gpu.module @kernels {
  gpu.func @reduce(%x: memref<32xf32>) kernel attributes {plan.threads = 32 : i64} {
    %c0 = arith.constant 0 : index
    %v = memref.load %x[%c0] : memref<32xf32>
    // expected-error @+1 {{kernel 'reduce': the emulation does not know op 'gpu.subgroup_reduce'}}
    %s = gpu.subgroup_reduce add %v : (f32) -> f32
    memref.store %s, %x[%c0] : memref<32xf32>
    gpu.return
  }
} } }

// -----

module { module @kernels { gpu.module @kernels {
  gpu.func @grid(%x: memref<32xindex>) kernel attributes {plan.threads = 32 : i64} {
    %c0 = arith.constant 0 : index
    // expected-error @+1 {{kernel 'grid': the emulation does not know op 'gpu.grid_dim'}}
    %n = gpu.grid_dim x
    memref.store %n, %x[%c0] : memref<32xindex>
    gpu.return
  }
} } }

// -----

module { module @kernels { gpu.module @kernels {
  gpu.func @half(%x: memref<32xf16>) kernel attributes {plan.threads = 32 : i64} {
    %c0 = arith.constant 0 : index
    %one = arith.constant 1 : i32
    %width = arith.constant 32 : i32
    %v = memref.load %x[%c0] : memref<32xf16>
    // expected-error @+1 {{kernel 'half': the emulation does not know op 'gpu.shuffle' on 'f16'}}
    %s, %valid = gpu.shuffle xor %v, %one, %width : f16
    memref.store %s, %x[%c0] : memref<32xf16>
    gpu.return
  }
} } }

// -----

module { module @kernels { gpu.module @kernels {
  // expected-error @+1 {{'gpu.func' op expected 2 words, got 1 i64 arguments}}
  gpu.func @words(%w: i64, %x: memref<32xf32>) kernel attributes {plan.threads = 32 : i64, plan.words = 2 : i64} {
    gpu.return
  }
} } }

// -----

module { module @kernels { gpu.module @kernels {
  // expected-error @+1 {{'gpu.func' op expected i64 words and then buffers of static shape, got 'memref<?xf32>'}}
  gpu.func @dynamic(%x: memref<?xf32>) kernel attributes {plan.threads = 32 : i64} {
    gpu.return
  }
} } }
