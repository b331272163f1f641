// Conversions of bf16 are integer arithmetic: round to nearest, ties to even.
// RUN: megalodon-opt %s -megalodon-expand-bf16 | FileCheck %s

// CHECK-LABEL: func @widen
// CHECK-NOT: arith.extf
// CHECK: arith.bitcast %{{.*}} : vector<16xbf16> to vector<16xi16>
// CHECK: arith.shli
func.func @widen(%x: vector<16xbf16>) -> vector<16xf32> {
  %y = arith.extf %x : vector<16xbf16> to vector<16xf32>
  return %y : vector<16xf32>
}

// CHECK-LABEL: func @round
// CHECK-NOT: arith.truncf
// CHECK: arith.trunci
// CHECK: arith.bitcast %{{.*}} : i16 to bf16
func.func @round(%x: f32) -> bf16 {
  %y = arith.truncf %x : f32 to bf16
  return %y : bf16
}
