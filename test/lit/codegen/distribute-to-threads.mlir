// The threads of a warp share the vectors of a kernel.
// RUN: megalodon-opt %s --split-input-file --pass-pipeline='builtin.module(func.func(megalodon-distribute-to-threads))' | FileCheck %s

// What lies side by side is loaded together; a reduction ends in a butterfly; the first thread stores scalars.
// CHECK-LABEL: func.func @row
// CHECK-SAME: %[[SCRATCH:arg2]]: memref<512xi8, #gpu.address_space<workgroup>>
// CHECK-SAME: plan.threads = 32
// CHECK: %[[THREAD:.*]] = gpu.thread_id
// CHECK: %[[LANES:.*]] = arith.muli %[[THREAD]], %{{.*}} : index
// CHECK: %[[AT:.*]] = arith.addi %{{.*}}, %[[LANES]]
// CHECK: %[[X:.*]] = vector.load %{{.*}}[%arg1, %[[AT]]] {alignment = 16 : i64} : memref<64x128xf32>, vector<4xf32>
// CHECK: vector.reduction <add>, %[[X]] : vector<4xf32> into f32
// CHECK-COUNT-5: gpu.shuffle xor
// CHECK: scf.if
// CHECK-NEXT: memref.store
// The scalar that the first thread stored, all read.
// CHECK: gpu.barrier
// CHECK: memref.load
// CHECK: vector.broadcast %{{.*}} : f32 to vector<4xf32>
func.func @row(%parameters: memref<16xi64>, %workgroup: index, %scratch: memref<512xi8>, %x: memref<64x128xf32>, %sums: memref<64xf32>)
    attributes {plan.scratch = 512 : i64} {
  %c0 = arith.constant 0 : index
  %v = vector.load %x[%workgroup, %c0] : memref<64x128xf32>, vector<128xf32>
  %sum = vector.reduction <add>, %v : vector<128xf32> into f32
  memref.store %sum, %sums[%workgroup] : memref<64xf32>
  %again = memref.load %sums[%workgroup] : memref<64xf32>
  %all = vector.broadcast %again : f32 to vector<128xf32>
  %memory = memref.view %scratch[%c0][] : memref<512xi8> to memref<128xf32>
  // The same lanes of the same threads: nobody waits.
  // CHECK-NOT: gpu.barrier
  // CHECK: vector.store %{{.*}} : memref<128xf32, #gpu.address_space<workgroup>>, vector<4xf32>
  vector.store %all, %memory[%c0] : memref<128xf32>, vector<128xf32>
  // CHECK-NOT: gpu.barrier
  // CHECK: vector.load
  %own = vector.load %memory[%c0] : memref<128xf32>, vector<128xf32>
  // Another width gives an element to another thread.
  // CHECK: gpu.barrier
  // CHECK: vector.load %{{.*}} : memref<128xf32, #gpu.address_space<workgroup>>, vector<2xf32>
  %half = vector.load %memory[%c0] : memref<128xf32>, vector<64xf32>
  %wide = arith.extf %half : vector<64xf32> to vector<64xf64>
  return
}

// -----

// A barrier in a loop: what one round writes, the next one reads otherwise.
// CHECK-LABEL: func.func @rounds
// CHECK: scf.for
// CHECK: gpu.barrier
// CHECK-NEXT: %{{.*}} = memref.load
// CHECK: gpu.barrier
// CHECK: vector.store
func.func @rounds(%parameters: memref<16xi64>, %workgroup: index, %scratch: memref<512xi8>, %x: memref<64x128xf32>) attributes {plan.scratch = 512 : i64} {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c9 = arith.constant 9 : index
  %memory = memref.view %scratch[%c0][] : memref<512xi8> to memref<128xf32>
  scf.for %i = %c0 to %c9 step %c1 {
    %one = memref.load %memory[%i] : memref<128xf32>
    %all = vector.broadcast %one : f32 to vector<128xf32>
    vector.store %all, %memory[%c0] : memref<128xf32>, vector<128xf32>
  }
  return
}

// -----

// Masks and constants: every thread has its part.
// CHECK-LABEL: func.func @parts
// CHECK: arith.constant dense<[-1.000000e+00, 1.000000e+00, -1.000000e+00, 1.000000e+00]> : vector<4xf32>
// CHECK: vector.create_mask %{{.*}} : vector<4xi1>
// CHECK: vector.maskedload
// CHECK: vector.shuffle %{{.*}} [1, 0, 3, 2] : vector<4xf32>, vector<4xf32>
func.func @parts(%parameters: memref<16xi64>, %workgroup: index, %scratch: memref<0xi8>, %x: memref<64x100xf32>) attributes {plan.scratch = 0 : i64} {
  %c0 = arith.constant 0 : index
  %signs = arith.constant dense<[-1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0, -1.0, 1.0]> : vector<128xf32>
  %all = vector.constant_mask [100] : vector<128xi1>
  %none = arith.constant dense<0.0> : vector<128xf32>
  %v = vector.maskedload %x[%workgroup, %c0], %all, %none : memref<64x100xf32>, vector<128xi1>, vector<128xf32> into vector<128xf32>
  %swapped = vector.shuffle %v, %v [1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14, 17, 16, 19, 18, 21, 20, 23, 22, 25, 24, 27, 26, 29, 28, 31, 30, 33, 32, 35, 34, 37, 36, 39, 38, 41, 40, 43, 42, 45, 44, 47, 46, 49, 48, 51, 50, 53, 52, 55, 54, 57, 56, 59, 58, 61, 60, 63, 62, 65, 64, 67, 66, 69, 68, 71, 70, 73, 72, 75, 74, 77, 76, 79, 78, 81, 80, 83, 82, 85, 84, 87, 86, 89, 88, 91, 90, 93, 92, 95, 94, 97, 96, 99, 98, 101, 100, 103, 102, 105, 104, 107, 106, 109, 108, 111, 110, 113, 112, 115, 114, 117, 116, 119, 118, 121, 120, 123, 122, 125, 124, 127, 126] : vector<128xf32>, vector<128xf32>
  %y = arith.mulf %swapped, %signs : vector<128xf32>
  vector.maskedstore %x[%workgroup, %c0], %all, %y : memref<64x100xf32>, vector<128xi1>, vector<128xf32>
  return
}
