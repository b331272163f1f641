// A phase's border names the op that is left, and the pass that should have removed it.
// RUN: split-file %s %t
// RUN: not megalodon-opt %t/grad.mlir --compile-from=differentiate -o %t.plan 2>&1 | FileCheck %t/grad.mlir --check-prefix=GRAD
// RUN: not megalodon-opt %t/leftover.mlir --compile-from=optimize -o %t.plan 2>&1 | FileCheck %t/leftover.mlir --check-prefix=LEFT

//--- grad.mlir
// GRAD: grad.mlir:[[@LINE+1]]:1: error: 'func.func' op has no gradients after phase 'optimize'; pass 'megalodon-differentiate' should have added them
func.func @grad(%x: tensor<2x3xf32> {megalodon.name = "x", megalodon.role = #megalodon.role<input>})
    -> (tensor<2x3xf32> {megalodon.name = "y", megalodon.role = #megalodon.role<output>}) attributes {megalodon.entry = "grad"} {
  return %x : tensor<2x3xf32>
}

//--- leftover.mlir
func.func @test(%x: tensor<2x3xf32> {megalodon.name = "x", megalodon.role = #megalodon.role<input>})
    -> (tensor<2x3xf32> {megalodon.name = "y", megalodon.role = #megalodon.role<output>}) attributes {megalodon.entry = "test"} {
  // LEFT: leftover.mlir:[[@LINE+1]]:8: error: 'math.exp' op must not be left after phase 'lower'; pass 'megalodon-lower-to-kernels' should have removed it
  %y = math.exp %x : tensor<2x3xf32>
  return %y : tensor<2x3xf32>
}
