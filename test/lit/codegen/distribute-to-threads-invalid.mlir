// What the threads of a warp cannot share.
// RUN: megalodon-opt %s --split-input-file --verify-diagnostics --pass-pipeline='builtin.module(func.func(megalodon-distribute-to-threads))'

func.func @narrow(%parameters: memref<16xi64>, %workgroup: index, %scratch: memref<0xi8>, %x: memref<64xf32>) attributes {plan.scratch = 0 : i64} {
  %c0 = arith.constant 0 : index
  // expected-error @+1 {{has a vector of type 'vector<16xf32>', which 32 threads cannot share}}
  %v = vector.load %x[%c0] : memref<64xf32>, vector<16xf32>
  return
}

// -----

func.func @across(%parameters: memref<16xi64>, %workgroup: index, %scratch: memref<0xi8>, %x: memref<64xf32>) attributes {plan.scratch = 0 : i64} {
  %c0 = arith.constant 0 : index
  %v = vector.load %x[%c0] : memref<64xf32>, vector<32xf32>
  // expected-error @+1 {{moves lanes between threads}}
  %w = vector.shuffle %v, %v [31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0] : vector<32xf32>, vector<32xf32>
  vector.store %w, %x[%c0] : memref<64xf32>, vector<32xf32>
  return
}
