// Kernels become functions that a GPU launches: words of the parameter block by value, then buffers; scratch is shared memory.
// RUN: megalodon-opt %s --pass-pipeline='builtin.module(builtin.module(func.func(megalodon-distribute-to-threads)),megalodon-outline-gpu-kernels)' | FileCheck %s

// CHECK-LABEL: module @kernels
// The declarations stay, for the plan.
// CHECK: func.func private @row(memref<16xi64>, index, memref<256xi8, #gpu.address_space<workgroup>>, memref<64x128xf32>)
// CHECK-SAME: plan.scratch = 256 : i64, plan.threads = 32 : i64, plan.words = 3 : i64
// CHECK: gpu.module @kernels
// CHECK: gpu.func @row(%{{.*}}: i64, %{{.*}}: i64, %[[TOKENS:.*]]: i64, %{{.*}}: memref<64x128xf32>)
// CHECK-SAME: workgroup(%{{.*}} : memref<256xi8, #gpu.address_space<workgroup>>) kernel
// CHECK-SAME: known_block_size = array<i32: 32, 1, 1>
// CHECK: gpu.block_id
// CHECK: arith.index_cast %[[TOKENS]]
module {
  module @kernels {
    func.func @row(%parameters: memref<16xi64>, %workgroup: index, %scratch: memref<256xi8>, %x: memref<64x128xf32>) attributes {plan.scratch = 256 : i64} {
      %c0 = arith.constant 0 : index
      %c2 = arith.constant 2 : index
      %word = memref.load %parameters[%c2] : memref<16xi64>
      %tokens = arith.index_cast %word : i64 to index
      %inside = arith.cmpi ult, %workgroup, %tokens : index
      scf.if %inside {
        %v = vector.load %x[%workgroup, %c0] : memref<64x128xf32>, vector<128xf32>
        %w = arith.addf %v, %v : vector<128xf32>
        vector.store %w, %x[%workgroup, %c0] : memref<64x128xf32>, vector<128xf32>
      }
      return
    }
  }
}
