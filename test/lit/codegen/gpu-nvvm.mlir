// Kernels for GPUs in the NVVM dialect: one pointer a buffer, dynamic shared memory, no call of a device function, barriers no wider than the block.
// RUN: megalodon-opt %s --split-input-file --verify-diagnostics --pass-pipeline='builtin.module(gpu.module(convert-scf-to-cf,megalodon-gpu-to-nvvm,reconcile-unrealized-casts))' | FileCheck %s

#shared = #gpu.address_space<workgroup>

// CHECK: llvm.mlir.global external @[[SHARED:.*]]() {addr_space = 3 : i32, alignment = 128 : i64} : !llvm.array<0 x i8>
// CHECK: llvm.func @scale(%{{.*}}: i64, %{{.*}}: !llvm.ptr, %{{.*}}: !llvm.ptr)
// CHECK-SAME: nvvm.kernel, nvvm.maxntid = array<i32: 32, 1, 1>
// CHECK: llvm.mlir.addressof @[[SHARED]] : !llvm.ptr<3>
// CHECK: llvm.store %{{.*}} : vector<4xf32>, !llvm.ptr<3>
// CHECK: nvvm.bar.warp.sync
// CHECK: llvm.intr.sqrt(%{{.*}}) : (f32) -> f32
// CHECK: llvm.intr.fma
// CHECK-COUNT-2: nvvm.shfl.sync bfly {{.*}} : i32 -> i32
// CHECK-NOT: __nv_
gpu.module @kernels {
  gpu.func @scale(%tokens: i64, %x: memref<16x128xf32>, %y: memref<16xf64>) workgroup(%scratch: memref<65536xi8, #shared>) kernel
      attributes {known_block_size = array<i32: 32, 1, 1>} {
    %c0 = arith.constant 0 : index
    %c4 = arith.constant 4 : index
    %row = gpu.block_id x
    %thread = gpu.thread_id x
    %column = arith.muli %thread, %c4 : index
    %shared = memref.view %scratch[%c0][] : memref<65536xi8, #shared> to memref<128xf32, #shared>
    %v = vector.load %x[%row, %column] {alignment = 16} : memref<16x128xf32>, vector<4xf32>
    vector.store %v, %shared[%column] {alignment = 16} : memref<128xf32, #shared>, vector<4xf32>
    gpu.barrier
    %s = memref.load %shared[%c4] : memref<128xf32, #shared>
    %root = math.sqrt %s : f32
    %cube = math.fma %root, %s, %s : f32
    %wide = arith.extf %cube : f32 to f64
    %mask = arith.constant 1 : i32
    %width = arith.constant 32 : i32
    %other, %valid = gpu.shuffle xor %wide, %mask, %width : f64
    memref.store %other, %y[%row] : memref<16xf64>
    gpu.return
  }
}

// -----

// CHECK-LABEL: llvm.func @wide
// CHECK: nvvm.barrier
gpu.module @kernels {
  gpu.func @wide() kernel attributes {known_block_size = array<i32: 128, 1, 1>} {
    gpu.barrier
    gpu.return
  }
}

// -----

gpu.module @kernels {
  // expected-error @below {{'gpu.func' op expected at most one piece of workgroup memory, got 2}}
  gpu.func @two() workgroup(%a: memref<64xi8, #gpu.address_space<workgroup>>, %b: memref<64xi8, #gpu.address_space<workgroup>>) kernel {
    gpu.return
  }
}
