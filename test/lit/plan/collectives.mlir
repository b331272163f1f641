// Messages in the command list: begun where they stand, waited for before the first command that needs them, in place where the old value dies.
// RUN: split-file %s %t
// RUN: megalodon-opt %t/overlap.mlir --compile-from=partition -o %t/overlap.plan
// RUN: megalodon-run inspect %t/overlap.plan --commands | FileCheck %s --check-prefix=OVERLAP
// RUN: megalodon-opt %t/in-place.mlir --compile-from=partition -o %t/in-place.plan
// RUN: megalodon-run inspect %t/in-place.plan --commands | FileCheck %s --check-prefix=PLACE
// RUN: megalodon-opt %t/last.mlir --compile-from=partition -o %t/last.plan
// RUN: megalodon-run inspect %t/last.plan --commands | FileCheck %s --check-prefix=LAST
// RUN: not megalodon-opt %t/extent.mlir --compile-from=partition -o %t/extent.plan 2>&1 | FileCheck %s --check-prefix=EXTENT

// The product of %x needs nothing of the message and runs behind it. Of 4 x 16 tokens a rank has 2 x 16 with 8 of 32 channels.
// OVERLAP: mesh dp=2,pp=1,cp=1,tp=4: 8 ranks
// OVERLAP: x {{ *}}F32 {{ *}}[4, 16, 32]
// OVERLAP: memory, a rank of 1 x 2 rows, 16 tokens
// OVERLAP: a rank puts into messages
// OVERLAP-NEXT: all_gather tp {{ *}}1 message {{ *}}1,024 bytes
// OVERLAP: commands of segment compute
// OVERLAP-NEXT: 0 all_gather tp {{ *}}1,024 bytes, event 0
// OVERLAP-NEXT: 1 product
// OVERLAP-NEXT: 2 wait {{ *}}event 0
// OVERLAP-NEXT: 3 product
// OVERLAP-NOT: {{^ *4 }}

// The sum of a dead value takes its place; a value that is needed again is copied first.
// PLACE: 0 product
// PLACE-NEXT: 1 all_reduce dp+tp {{ *}}2,048 bytes, event 0
// PLACE-NEXT: 2 product
// PLACE-NEXT: 3 copy
// PLACE-NEXT: 4 wait
// PLACE-NEXT: 5 all_reduce tp {{ *}}2,048 bytes, event 1
// PLACE-NEXT: 6 wait {{ *}}event 0
// PLACE-NEXT: 7 wait {{ *}}event 1
// PLACE: dense flops

// Accumulated gradients are summed in place although they are returned too.
// LAST: 0 all_reduce dp {{ *}}1,024 bytes, event 0, last
// LAST-NEXT: 1 wait {{ *}}event 0
// LAST-NEXT: 2 product
// LAST-NOT: {{^ *3 }}

// EXTENT: error: 'plan.collective' op expected dimension 2 of 32 for 4 ranks, got 16

//--- overlap.mlir
module attributes {megalodon.config = "{\22vocab_size\22:2,\22chunk_size\22:16,\22num_layers\22:1}"} {
shard.grid @mesh(shape = 2x1x1x4)
func.func @test(%t: tensor<2x16xi32> {megalodon.name = "tokens", megalodon.role = #megalodon.role<input>, megalodon.shape = array<i64: 4, 16>,
                                      megalodon.splits = [array<i64: 0, 0>]},
                %x: tensor<2x16x8xf32> {megalodon.name = "x", megalodon.role = #megalodon.role<input>, megalodon.shape = array<i64: 4, 16, 32>,
                                        megalodon.splits = [array<i64: 0, 0>, array<i64: 2, 3>]},
                %v: tensor<8x8xf32> {megalodon.name = "v", megalodon.role = #megalodon.role<input>},
                %w: tensor<8x32xf32> {megalodon.name = "w", megalodon.role = #megalodon.role<input>})
    -> (tensor<2x16x8xf32> {megalodon.name = "y", megalodon.role = #megalodon.role<output>, megalodon.shape = array<i64: 4, 16, 8>,
                            megalodon.splits = [array<i64: 0, 0>]},
        tensor<2x16x8xf32> {megalodon.name = "z", megalodon.role = #megalodon.role<output>, megalodon.shape = array<i64: 4, 16, 8>,
                            megalodon.splits = [array<i64: 0, 0>]})
    attributes {megalodon.entry = "test", megalodon.batch = 4 : i64, megalodon.length = 16 : i64} {
  %0 = shard.all_gather %x on @mesh grid_axes = [3] gather_axis = 2 : tensor<2x16x8xf32> -> tensor<2x16x32xf32>
  %1 = megalodon.linear %x, %v : (tensor<2x16x8xf32>, tensor<8x8xf32>) -> tensor<2x16x8xf32>
  %2 = megalodon.linear %0, %w : (tensor<2x16x32xf32>, tensor<8x32xf32>) -> tensor<2x16x8xf32>
  return %1, %2 : tensor<2x16x8xf32>, tensor<2x16x8xf32>
}
}

//--- in-place.mlir
module attributes {megalodon.config = "{\22vocab_size\22:2,\22chunk_size\22:16,\22num_layers\22:1}"} {
shard.grid @mesh(shape = 2x1x1x4)
func.func @test(%x: tensor<1x16x32xf32> {megalodon.name = "tokens", megalodon.role = #megalodon.role<input>},
                %w: tensor<32x32xf32> {megalodon.name = "w", megalodon.role = #megalodon.role<input>},
                %v: tensor<32x32xf32> {megalodon.name = "v", megalodon.role = #megalodon.role<input>})
    -> (tensor<1x16x32xf32> {megalodon.name = "y", megalodon.role = #megalodon.role<output>},
        tensor<1x16x32xf32> {megalodon.name = "z", megalodon.role = #megalodon.role<output>},
        tensor<1x16x32xf32> {megalodon.name = "s", megalodon.role = #megalodon.role<output>}) attributes {megalodon.entry = "test"} {
  %0 = megalodon.linear %x, %w : (tensor<1x16x32xf32>, tensor<32x32xf32>) -> tensor<1x16x32xf32>
  %1 = shard.all_reduce %0 on @mesh grid_axes = [0, 3] : tensor<1x16x32xf32> -> tensor<1x16x32xf32>
  %2 = megalodon.linear %x, %v : (tensor<1x16x32xf32>, tensor<32x32xf32>) -> tensor<1x16x32xf32>
  %3 = shard.all_reduce %2 on @mesh grid_axes = [3] : tensor<1x16x32xf32> -> tensor<1x16x32xf32>
  return %1, %2, %3 : tensor<1x16x32xf32>, tensor<1x16x32xf32>, tensor<1x16x32xf32>
}
}

//--- last.mlir
module attributes {megalodon.config = "{\22vocab_size\22:2,\22chunk_size\22:16,\22num_layers\22:1}"} {
shard.grid @mesh(shape = 2x1x1x1)
func.func @test(%t: tensor<1x16xi32> {megalodon.name = "tokens", megalodon.role = #megalodon.role<input>},
                %x: tensor<1x16x16xf32> {megalodon.name = "x", megalodon.role = #megalodon.role<input>},
                %g: tensor<16x16xf32> {megalodon.name = "grad.w", megalodon.role = #megalodon.role<gradient>})
    -> (tensor<16x16xf32> {megalodon.name = "grad.w", megalodon.role = #megalodon.role<gradient>},
        tensor<1x16x16xf32> {megalodon.name = "y", megalodon.role = #megalodon.role<output>}) attributes {megalodon.entry = "test"} {
  %0 = shard.all_reduce %g on @mesh grid_axes = [0] {plan.last} : tensor<16x16xf32> -> tensor<16x16xf32>
  %1 = megalodon.linear %x, %0 : (tensor<1x16x16xf32>, tensor<16x16xf32>) -> tensor<1x16x16xf32>
  return %g, %1 : tensor<16x16xf32>, tensor<1x16x16xf32>
}
}

//--- extent.mlir
module attributes {megalodon.config = "{\22vocab_size\22:2,\22chunk_size\22:16,\22num_layers\22:1}"} {
shard.grid @mesh(shape = 1x1x1x4)
func.func @test(%x: tensor<1x16x8xf32> {megalodon.name = "tokens", megalodon.role = #megalodon.role<input>})
    -> (tensor<1x16x16xf32> {megalodon.name = "y", megalodon.role = #megalodon.role<output>}) attributes {megalodon.entry = "test"} {
  %0 = plan.collective all_gather(%x) over [3] {dimension = 2 : i64} : (tensor<1x16x8xf32>) -> tensor<1x16x16xf32>
  return %0 : tensor<1x16x16xf32>
}
}
