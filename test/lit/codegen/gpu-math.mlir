// Math functions of GPU kernels become arith and fma; what is one instruction stays; what has no expansion is refused.
// RUN: megalodon-opt %s --split-input-file --verify-diagnostics --megalodon-expand-gpu-math | FileCheck %s

// CHECK-LABEL: func.func @exp
// CHECK-SAME:    (%[[X:.*]]: vector<4xf32>)
// CHECK-DAG:   %[[LARGE:.*]] = arith.constant dense<0x4B400000> : vector<4xf32>
// CHECK:       %[[T:.*]] = math.fma %[[X]]
// CHECK:       %[[N:.*]] = arith.subf %[[T]]
// CHECK-COUNT-7: math.fma
// CHECK:       arith.shli %{{.*}}, %{{.*}} : vector<4xi32>
// CHECK-NOT:   math.exp
func.func @exp(%x: vector<4xf32>) -> vector<4xf32> {
  %y = math.exp %x : vector<4xf32>
  return %y : vector<4xf32>
}

// -----

// sin and cos of one angle share all but the choice of the quadrant.
// RUN: not megalodon-opt %s --split-input-file --megalodon-expand-gpu-math --cse 2>/dev/null | FileCheck %s --check-prefix=CSE
// CSE-LABEL: func.func @rotate
// CSE-COUNT-17: math.fma
// CSE-NOT:     math.fma
// CSE:         return
func.func @rotate(%x: f64) -> (f64, f64) {
  %s = math.sin %x : f64
  %c = math.cos %x : f64
  return %s, %c : f64, f64
}

// -----

// CHECK-LABEL: func.func @instructions
// CHECK-NEXT:  math.sqrt
// CHECK-NEXT:  math.absf
// CHECK-NEXT:  math.floor
// CHECK-NEXT:  math.copysign
// CHECK-NEXT:  math.fma
func.func @instructions(%x: f32) -> f32 {
  %0 = math.sqrt %x : f32
  %1 = math.absf %0 : f32
  %2 = math.floor %1 : f32
  %3 = math.copysign %2, %x : f32
  %4 = math.fma %3, %3, %3 : f32
  return %4 : f32
}

// -----

func.func @power(%x: f32) -> f32 {
  // expected-error @below {{'math.powf' op cannot run on a GPU: expected exp, exp2, log, log1p, sin, cos, tanh or rsqrt of f32 or f64, or erfc of f32, got 'f32'}}
  %y = math.powf %x, %x : f32
  return %y : f32
}

// -----

func.func @half(%x: vector<8xbf16>) -> vector<8xbf16> {
  // expected-error @below {{'math.exp' op cannot run on a GPU: expected exp, exp2, log, log1p, sin, cos, tanh or rsqrt of f32 or f64, or erfc of f32, got 'vector<8xbf16>'}}
  %y = math.exp %x : vector<8xbf16>
  return %y : vector<8xbf16>
}
