// Kernels become images: without ptxas PTX only, of every architecture, in one module each.
// RUN: rm -rf %t && mkdir %t
// RUN: megalodon-opt %s --megalodon-compile-gpu-kernels='gpu-arch=sm_90a,sm_80 cuda-path=none save-assembly=%t' | FileCheck %s
// CHECK:      module @kernels attributes {plan.images = [
// CHECK-SAME:   {arch = "sm_80", data = dense<"0x{{[0-9A-F]+}}"> : tensor<{{[0-9]+}}xi8>, ptx},
// CHECK-SAME:   {arch = "sm_90a", data = dense<"0x{{[0-9A-F]+}}"> : tensor<{{[0-9]+}}xi8>, ptx}]}
// CHECK:      func.func private @copy.twice(memref<16xi64>, index, memref<0xi8>, memref<16x128xf32>, memref<16x128xf32>) attributes {{{.*}}plan.symbol = "copy$twice"
// CHECK-NOT:  gpu.module

// RUN: FileCheck %s --check-prefix=PTX < %t/copy.twice.sm_80.ptx
// PTX:      .version 7.0
// PTX-NEXT: .target sm_80
// PTX:      .visible .entry copy$twice(
// PTX-NEXT: .param .u64 copy$twice_param_0,
// PTX-NEXT: .param .u64 .ptr .align 64 copy$twice_param_1,
// PTX-NEXT: .param .u64 .ptr .align 64 copy$twice_param_2
// PTX:      .maxntid 32, 1, 1
// Vectors move as a whole, what is only read through the read-only cache:
// PTX:      ld.global.nc.v4
// PTX:      fma.rn.f32
// PTX:      st.global.v4
// RUN: FileCheck %s --check-prefix=SECOND < %t/second.sm_90a.ptx
// SECOND: .target sm_90a
// SECOND: .extern .shared .align 128 .b8

module {
  module @kernels {
    func.func private @copy.twice(memref<16xi64>, index, memref<0xi8>, memref<16x128xf32>, memref<16x128xf32>) attributes {plan.scratch = 0 : i64, plan.source = "megalodon.add"}
    func.func private @second(memref<16xi64>, index, memref<100000xi8>, memref<128xi8>) attributes {plan.scratch = 100000 : i64, plan.source = "megalodon.add"}
    gpu.module @kernels {
      gpu.func @copy.twice(%tokens: i64, %x: memref<16x128xf32>, %y: memref<16x128xf32>) kernel
          attributes {known_block_size = array<i32: 32, 1, 1>, plan.scratch = 0 : i64, plan.threads = 32 : i64, plan.words = 1 : i64} {
        %c4 = arith.constant 4 : index
        %row = gpu.block_id x
        %thread = gpu.thread_id x
        %column = arith.muli %thread, %c4 : index
        %limit = arith.index_cast %tokens : i64 to index
        %inside = arith.cmpi ult, %row, %limit : index
        scf.if %inside {
          %v = vector.load %x[%row, %column] : memref<16x128xf32>, vector<4xf32>
          // Products and sums are contracted.
          %square = arith.mulf %v, %v : vector<4xf32>
          %sum = arith.addf %square, %v : vector<4xf32>
          vector.store %sum, %y[%row, %column] : memref<16x128xf32>, vector<4xf32>
        }
        gpu.return
      }
      gpu.func @second(%y: memref<128xi8>) workgroup(%shared: memref<100000xi8, #gpu.address_space<workgroup>>) kernel
          attributes {known_block_size = array<i32: 128, 1, 1>, plan.scratch = 100000 : i64, plan.threads = 128 : i64, plan.words = 0 : i64} {
        %thread = gpu.thread_id x
        %c99999 = arith.constant 99999 : index
        %far = arith.subi %c99999, %thread : index
        %zero = arith.constant 0 : i8
        memref.store %zero, %shared[%thread] : memref<100000xi8, #gpu.address_space<workgroup>>
        gpu.barrier
        %v = memref.load %shared[%far] : memref<100000xi8, #gpu.address_space<workgroup>>
        memref.store %v, %y[%thread] : memref<128xi8>
        gpu.return
      }
    }
  }
}
