// What cannot be cut into stages is named with its place.
// RUN: split-file %s %t
// RUN: not megalodon-opt %t/cross.mlir --megalodon-cut-pipeline 2>&1 | FileCheck %s --check-prefix=CROSS
// RUN: not megalodon-opt %t/place.mlir --megalodon-cut-pipeline 2>&1 | FileCheck %s --check-prefix=PLACE
// RUN: not megalodon-opt %t/layers.mlir --megalodon-cut-pipeline 2>&1 | FileCheck %s --check-prefix=LAYERS
// RUN: not megalodon-opt %t/cross.mlir --megalodon-cut-pipeline=schedule=2f2b 2>&1 | FileCheck %s --check-prefix=SCHEDULE
// RUN: not megalodon-opt %t/cross.mlir --megalodon-cut-pipeline="chunks=2" 2>&1 | FileCheck %s --check-prefix=CHUNKS

// SCHEDULE: schedule: expected gpipe, 1f1b, interleaved or zero-bubble, got '2f2b'
// CHUNKS: chunks: expected 1 with schedule 1f1b, got 2

// CROSS: error: loc("layers.1"): 'megalodon.add' op in stage 1: operand 1 of type 'tensor<2x4x6xf64>' comes from stage 0, expected only the residual stream and its cotangent to cross stages
// CROSS: note: loc("layers.0"): it is a result of 'megalodon.linear'
//--- cross.mlir
shard.grid @mesh(shape = 1x2x1x1)
func.func @forward(%tokens: tensor<2x4xi32> {megalodon.name = "tokens", megalodon.role = #megalodon.role<input>},
                   %table: tensor<8x6xf64> {megalodon.name = "embed.weight", megalodon.role = #megalodon.role<parameter>},
                   %w0: tensor<6x6xf64> {megalodon.name = "layers.0.w", megalodon.role = #megalodon.role<parameter>})
    -> (tensor<2x4x6xf64> {megalodon.name = "logits", megalodon.role = #megalodon.role<output>}) attributes {megalodon.entry = "forward"} {
  %x = megalodon.embedding %tokens, %table : (tensor<2x4xi32>, tensor<8x6xf64>) -> tensor<2x4x6xf64> loc("embed")
  %y = megalodon.linear %x, %w0 : (tensor<2x4x6xf64>, tensor<6x6xf64>) -> tensor<2x4x6xf64> loc("layers.0")
  %z = megalodon.add %x, %y : tensor<2x4x6xf64> loc("layers.1")
  return %z : tensor<2x4x6xf64>
}

// PLACE: error: loc("elsewhere"): 'megalodon.embedding' op expected a location that names a part of the model, got loc("elsewhere")
//--- place.mlir
shard.grid @mesh(shape = 1x2x1x1)
func.func @forward(%tokens: tensor<2x4xi32> {megalodon.name = "tokens", megalodon.role = #megalodon.role<input>},
                   %table: tensor<8x6xf64> {megalodon.name = "embed.weight", megalodon.role = #megalodon.role<parameter>})
    -> (tensor<2x4x6xf64> {megalodon.name = "logits", megalodon.role = #megalodon.role<output>}) attributes {megalodon.entry = "forward"} {
  %x = megalodon.embedding %tokens, %table : (tensor<2x4xi32>, tensor<8x6xf64>) -> tensor<2x4x6xf64> loc("elsewhere")
  %y = megalodon.silu %x : tensor<2x4x6xf64> loc("layers.0")
  %z = megalodon.silu %y : tensor<2x4x6xf64> loc("layers.1")
  return %z : tensor<2x4x6xf64>
}

// LAYERS: error: 'func.func' op expected at least 2 layers for the stages of the pipeline, got 1
//--- layers.mlir
shard.grid @mesh(shape = 1x2x1x1)
func.func @forward(%tokens: tensor<2x4xi32> {megalodon.name = "tokens", megalodon.role = #megalodon.role<input>},
                   %table: tensor<8x6xf64> {megalodon.name = "embed.weight", megalodon.role = #megalodon.role<parameter>})
    -> (tensor<2x4x6xf64> {megalodon.name = "logits", megalodon.role = #megalodon.role<output>}) attributes {megalodon.entry = "forward"} {
  %x = megalodon.embedding %tokens, %table : (tensor<2x4xi32>, tensor<8x6xf64>) -> tensor<2x4x6xf64> loc("embed")
  %y = megalodon.silu %x : tensor<2x4x6xf64> loc("layers.0")
  return %y : tensor<2x4x6xf64>
}
