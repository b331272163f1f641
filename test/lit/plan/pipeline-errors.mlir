// A pipeline whose ranks would not meet is refused before there is a plan.
// RUN: split-file %s %t
// RUN: sed -e 's/WORK0/F0/' -e 's/WORK1/F0/' -e 's/SECOND/4/g' %t/pipeline.mlir > %t/good.mlir
// RUN: megalodon-opt %t/good.mlir --compile-from=codegen -o %t/good.plan
// RUN: megalodon-run inspect %t/good.plan --schedule | FileCheck %s --check-prefix=GOOD
// GOOD: forward: 2 pipeline ranks, 1 microbatch

// RUN: sed -e 's/WORK0/F0/' -e 's/WORK1/F0/' -e 's/SECOND/5/g' %t/pipeline.mlir > %t/apart.mlir
// RUN: not megalodon-opt %t/apart.mlir --compile-from=codegen -o %t/no.plan 2>&1 | FileCheck %s --check-prefix=APART
// APART: 'plan.pipeline' op collective 0 over the pipeline: rank 1: expected all_reduce of tensor<4xf32> as on rank 0, got all_reduce of tensor<5xf32>

// RUN: sed -e 's/WORK0/F0/' -e 's/WORK1/F0 F0/' -e 's/SECOND/4/g' %t/pipeline.mlir > %t/twice.mlir
// RUN: not megalodon-opt %t/twice.mlir --compile-from=codegen -o %t/no.plan 2>&1 | FileCheck %s --check-prefix=TWICE
// TWICE: 'plan.pipeline' op rank 1: expected F0 once, got it twice

// RUN: sed -e 's/WORK0/F0/' -e 's/WORK1/F0 B0/' -e 's/SECOND/4/g' %t/pipeline.mlir > %t/backward.mlir
// RUN: not megalodon-opt %t/backward.mlir --compile-from=codegen -o %t/no.plan 2>&1 | FileCheck %s --check-prefix=BACKWARD
// BACKWARD: 'plan.pipeline' op expected functions for B0, got none

// RUN: sed -e 's/WORK0/F0/' -e 's/WORK1/run/' -e 's/SECOND/4/g' %t/pipeline.mlir > %t/word.mlir
// RUN: not megalodon-opt %t/word.mlir --compile-from=codegen -o %t/no.plan 2>&1 | FileCheck %s --check-prefix=WORD
// WORD: 'plan.pipeline' op expected words such as F0 or B1.2, got 'run'

// RUN: sed -e 's/WORK0/F0/' -e 's/WORK1/F0/' -e 's/SECOND/4/g' -e 's/, plan.from = 0 : i64//' %t/pipeline.mlir > %t/port.mlir
// RUN: not megalodon-opt %t/port.mlir --compile-from=codegen -o %t/no.plan 2>&1 | FileCheck %s --check-prefix=PORT
// PORT: op expected an argument with 'plan.from', got none

//--- pipeline.mlir
module attributes {megalodon.precision = "f32", megalodon.config = "{\22vocab_size\22: 7, \22chunk_size\22: 2, \22num_layers\22: 2}"} {
shard.grid @mesh(shape = 1x2x1x1)
func.func @forward.stage0.forward(
    %tokens: tensor<1x2xi32> {megalodon.name = "tokens", megalodon.role = #megalodon.role<input>},
    %x: tensor<1x2x3xf32> {megalodon.name = "x", megalodon.role = #megalodon.role<input>},
    %a: tensor<4xf32> {megalodon.name = "a", megalodon.role = #megalodon.role<input>})
    -> (tensor<1x2x3xf32> {megalodon.name = "stage0.out", megalodon.role = #megalodon.role<residual>, plan.index = "slot", plan.to = 1 : i64},
        tensor<4xf32> {megalodon.name = "sum0", megalodon.role = #megalodon.role<output>}) {
  %0 = plan.collective all_reduce(%a) over [1] : (tensor<4xf32>) -> tensor<4xf32>
  return %x, %0 : tensor<1x2x3xf32>, tensor<4xf32>
}
func.func @forward.stage1.forward(
    %x: tensor<1x2x3xf32> {megalodon.name = "stage1.in", megalodon.role = #megalodon.role<residual>, plan.index = "slot", plan.from = 0 : i64},
    %b: tensor<SECONDxf32> {megalodon.name = "b", megalodon.role = #megalodon.role<input>})
    -> (tensor<1x2x3xf32> {megalodon.name = "logits", megalodon.role = #megalodon.role<output>},
        tensor<SECONDxf32> {megalodon.name = "sum1", megalodon.role = #megalodon.role<output>}) {
  %0 = plan.collective all_reduce(%b) over [1] : (tensor<SECONDxf32>) -> tensor<SECONDxf32>
  return %x, %0 : tensor<1x2x3xf32>, tensor<SECONDxf32>
}
plan.pipeline @forward {entry = "forward", microbatches = 1 : i64, chunks = 1 : i64, forward = [@forward.stage0.forward, @forward.stage1.forward],
    backward = [], weight = [], finish = [], update = [], work = ["WORK0", "WORK1"]}
}
