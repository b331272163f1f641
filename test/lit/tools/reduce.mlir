// Two functions come down to the one op that the test program looks for.
// RUN: megalodon-reduce %s --test=grep --test-arg=-q --test-arg=megalodon.silu -o - 2> %t.log | FileCheck %s
// RUN: FileCheck %s --check-prefix=LOG < %t.log
// RUN: not megalodon-reduce %s --test=grep --test-arg=-q --test-arg=nowhere -o %t 2>&1 | FileCheck %s --check-prefix=DULL
// RUN: not megalodon-reduce %s --test=no-such-program -o %t 2>&1 | FileCheck %s --check-prefix=MISSING

// LOG: megalodon-reduce: 10 ops to 3 in {{[0-9]+}} tests
// DULL: error: grep: expected exit status 0 for the whole module; nothing to reduce
// MISSING: error: no-such-program: No such file or directory

// CHECK-NOT: func.func @other
// CHECK: func.func private @layer(%arg0: tensor<1x2x4xf32>{{.*}}) -> tensor<1x2x4xf32> {
// CHECK-NEXT: megalodon.silu %arg0
// CHECK-NEXT: return
func.func private @layer(%x: tensor<1x2x4xf32> {megalodon.name = "x"}, %w: tensor<4x4xf32>) -> (tensor<1x2x4xf32>, tensor<1x2x4xf32>) {
  %0 = megalodon.linear %x, %w : (tensor<1x2x4xf32>, tensor<4x4xf32>) -> tensor<1x2x4xf32>
  %1 = megalodon.silu %0 : tensor<1x2x4xf32>
  %2 = megalodon.add %1, %x : tensor<1x2x4xf32>
  return %2, %0 : tensor<1x2x4xf32>, tensor<1x2x4xf32>
}

func.func @other(%x: tensor<1x2x4xf32>, %w: tensor<4x4xf32>) -> tensor<1x2x4xf32> {
  %0:2 = call @layer(%x, %w) : (tensor<1x2x4xf32>, tensor<4x4xf32>) -> (tensor<1x2x4xf32>, tensor<1x2x4xf32>)
  %1 = megalodon.gate %0#0 by %0#1 : tensor<1x2x4xf32>
  %2 = megalodon.add %1, %x : tensor<1x2x4xf32>
  return %2 : tensor<1x2x4xf32>
}
