// The static memory plan: temporaries share memory when their lives do not meet, updates happen in place when the old value is dead, and after a copy when it is not.
// RUN: split-file %s %t
// RUN: megalodon-opt %t/chain.mlir --compile-from=optimize -o %t/chain.plan
// RUN: megalodon-run inspect %t/chain.plan | FileCheck %s --check-prefix=CHAIN
// RUN: megalodon-opt %t/in-place.mlir --compile-from=optimize -o %t/in-place.plan
// RUN: megalodon-run inspect %t/in-place.plan | FileCheck %s --check-prefix=PLACE
// RUN: megalodon-opt %t/still-needed.mlir --compile-from=optimize -o %t/still-needed.plan
// RUN: megalodon-run inspect %t/still-needed.plan | FileCheck %s --check-prefix=COPY

// Three temporaries of 4,096 bytes, two alive at a time; the last result is written where the output lives.
// CHAIN: arena {{ *}}8,192 bytes
// CHAIN-NEXT: arena without reuse {{ *}}12,288 bytes
// CHAIN: 0 dispatches of 0 kernels, 4 products, 0 copies

// The state's new rows go straight into it.
// PLACE: arena {{ *}}0 bytes
// PLACE: 1 dispatches of 1 kernels, 0 products, 0 copies

// The old cache is read after the append: the append works on a copy, which then becomes the state.
// COPY: arena {{ *}}4,096 bytes
// COPY: 2 dispatches of 2 kernels, 0 products, 2 copies

//--- chain.mlir
module attributes {megalodon.config = "{\22vocab_size\22:2,\22chunk_size\22:16,\22num_layers\22:1}"} {
func.func @test(%x: tensor<1x16x64xf32> {megalodon.name = "tokens", megalodon.role = #megalodon.role<input>},
                %w: tensor<64x64xf32> {megalodon.name = "w", megalodon.role = #megalodon.role<input>})
    -> (tensor<1x16x64xf32> {megalodon.name = "y", megalodon.role = #megalodon.role<output>}) attributes {megalodon.entry = "test"} {
  %a = megalodon.linear %x, %w : (tensor<1x16x64xf32>, tensor<64x64xf32>) -> tensor<1x16x64xf32>
  %b = megalodon.linear %a, %w : (tensor<1x16x64xf32>, tensor<64x64xf32>) -> tensor<1x16x64xf32>
  %c = megalodon.linear %b, %w : (tensor<1x16x64xf32>, tensor<64x64xf32>) -> tensor<1x16x64xf32>
  %d = megalodon.linear %c, %w : (tensor<1x16x64xf32>, tensor<64x64xf32>) -> tensor<1x16x64xf32>
  return %d : tensor<1x16x64xf32>
}
}

//--- in-place.mlir
module attributes {megalodon.config = "{\22vocab_size\22:2,\22chunk_size\22:16,\22num_layers\22:1}"} {
func.func @test(%x: tensor<1x8x64xf32> {megalodon.name = "x", megalodon.role = #megalodon.role<input>},
                %count: tensor<1xi64> {megalodon.name = "count", megalodon.role = #megalodon.role<input>},
                %cache: tensor<1x16x64xf32> {megalodon.name = "state.k", megalodon.role = #megalodon.role<state>})
    -> (tensor<1x16x64xf32> {megalodon.name = "state.k", megalodon.role = #megalodon.role<state>}) attributes {megalodon.entry = "test"} {
  %new = megalodon.cache_append %cache, %x at %count : (tensor<1x16x64xf32>, tensor<1x8x64xf32>, tensor<1xi64>) -> tensor<1x16x64xf32>
  return %new : tensor<1x16x64xf32>
}
}

//--- still-needed.mlir
module attributes {megalodon.config = "{\22vocab_size\22:2,\22chunk_size\22:16,\22num_layers\22:1}"} {
func.func @test(%x: tensor<1x8x64xf32> {megalodon.name = "x", megalodon.role = #megalodon.role<input>},
                %count: tensor<1xi64> {megalodon.name = "count", megalodon.role = #megalodon.role<input>},
                %cache: tensor<1x16x64xf32> {megalodon.name = "state.k", megalodon.role = #megalodon.role<state>})
    -> (tensor<1x16x64xf32> {megalodon.name = "state.k", megalodon.role = #megalodon.role<state>},
        tensor<1x16x64xf32> {megalodon.name = "y", megalodon.role = #megalodon.role<output>}) attributes {megalodon.entry = "test"} {
  %new = megalodon.cache_append %cache, %x at %count : (tensor<1x16x64xf32>, tensor<1x8x64xf32>, tensor<1xi64>) -> tensor<1x16x64xf32>
  %y = megalodon.silu %cache : tensor<1x16x64xf32>
  return %new, %y : tensor<1x16x64xf32>, tensor<1x16x64xf32>
}
}
