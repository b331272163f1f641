module attributes {megalodon.config = "{\"vocab_size\": 61, \"chunk_size\": 8, \"num_layers\": 1}"} {
func.func @forward(%x: tensor<2x24x40xf32> {megalodon.name = "x", megalodon.role = #megalodon.role<input>})
    -> (tensor<2x24x40xf32> {megalodon.name = "y", megalodon.role = #megalodon.role<output>})
    attributes {megalodon.entry = "forward", megalodon.batch = 2 : i64, megalodon.length = 24 : i64} {
  %y = megalodon.silu %x : tensor<2x24x40xf32>
  return %y : tensor<2x24x40xf32>
}
}
