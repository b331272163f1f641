// A layout that a rule does not expect and nobody planned to change is an error.
// RUN: not megalodon-opt %s --megalodon-assign-layouts=mesh=tp=2 2>&1 | FileCheck %s
module {
  func.func @forward(%gate: tensor<2x8x16xf32> {megalodon.name = "logits", megalodon.role = #megalodon.role<output>},
                     %value: tensor<2x8x16xf32> {megalodon.name = "state.layers.0.v", megalodon.role = #megalodon.role<state>},
                     %count: tensor<2xi64> {megalodon.name = "state.layers.0.count", megalodon.role = #megalodon.role<state>},
                     %x: tensor<2x8x16xf32> {megalodon.name = "hidden", megalodon.role = #megalodon.role<parameter>})
      -> (tensor<2x8x16xf32> {megalodon.name = "y", megalodon.role = #megalodon.role<output>})
      attributes {megalodon.entry = "forward"} {
    // CHECK: error: 'megalodon.gate' op operand 1 is laid out as #megalodon.layout<[tp, _, _]>, expected #megalodon.layout<[_, _, tp]>; no change of layout is planned here: 512 bytes a rank would move; insert a megalodon.reshard
    %y = megalodon.gate %value by %x : tensor<2x8x16xf32>
    return %y : tensor<2x8x16xf32>
  }
}
