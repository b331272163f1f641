// What cannot be differentiated is refused.
// RUN: megalodon-opt %s --megalodon-differentiate --split-input-file --verify-diagnostics

// expected-error@+1 {{expected a result 'loss', got none}}
func.func @no_loss(%x: tensor<f32>) -> (tensor<f32> {megalodon.name = "nll"}) attributes {megalodon.entry = "grad"} {
  return %x : tensor<f32>
}

// -----

// expected-error@+1 {{expected 'loss' to be a scalar, got 'tensor<2x2xf32>'}}
func.func @matrix_loss(%x: tensor<2x2xf32>) -> (tensor<2x2xf32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  return %x : tensor<2x2xf32>
}

// -----

// expected-error@+1 {{expected an argument 'loss_scale', got none}}
func.func @no_scale(%x: tensor<2x2xf32>) -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "train"} {
  %loss = megalodon.mean %x : (tensor<2x2xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// -----

// expected-error@+1 {{expected 'loss_scale' of type 'tensor<f32>', got 'tensor<f64>'}}
func.func @scale_type(%x: tensor<2x2xf32>, %scale: tensor<f64> {megalodon.name = "loss_scale"}) -> (tensor<f32> {megalodon.name = "loss"})
    attributes {megalodon.entry = "train"} {
  %loss = megalodon.mean %x : (tensor<2x2xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// -----

// expected-error@+1 {{parameter 'w' has no influence on the loss}}
func.func @unused(%x: tensor<2x2xf32>, %w: tensor<2x2xf32> {megalodon.name = "w", megalodon.role = #megalodon.role<parameter>})
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %loss = megalodon.mean %x : (tensor<2x2xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}

// -----

// expected-error@+1 {{is differentiated already: result 'grad.w' is a gradient}}
func.func @twice(%w: tensor<2x2xf32> {megalodon.name = "w", megalodon.role = #megalodon.role<parameter>})
    -> (tensor<f32> {megalodon.name = "loss"}, tensor<2x2xf32> {megalodon.name = "grad.w", megalodon.role = #megalodon.role<gradient>})
    attributes {megalodon.entry = "grad"} {
  %loss = megalodon.mean %w : (tensor<2x2xf32>) -> tensor<f32>
  return %loss, %w : tensor<f32>, tensor<2x2xf32>
}

// -----

func.func @no_gradient(%w: tensor<2x2xf32> {megalodon.name = "w", megalodon.role = #megalodon.role<parameter>}, %targets: tensor<2x2xi32>)
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  // expected-error@+1 {{has no gradient, but the loss depends on a differentiated value through it}}
  %sum, %count = megalodon.loss_sum %w, %targets : (tensor<2x2xf32>, tensor<2x2xi32>) -> (tensor<f32>, tensor<i64>)
  return %sum : tensor<f32>
}

// -----

func.func private @inner(%x: tensor<2x2xf32>) -> tensor<f32> {
  %y = megalodon.mean %x : (tensor<2x2xf32>) -> tensor<f32>
  return %y : tensor<f32>
}
func.func private @outer(%x: tensor<2x2xf32>) -> tensor<f32> {
  // expected-error@+1 {{stands in a called function, expected calls only in entries where gradients are needed}}
  %y = call @inner(%x) : (tensor<2x2xf32>) -> tensor<f32>
  return %y : tensor<f32>
}
func.func @nested(%w: tensor<2x2xf32> {megalodon.name = "w", megalodon.role = #megalodon.role<parameter>})
    -> (tensor<f32> {megalodon.name = "loss"}) attributes {megalodon.entry = "grad"} {
  %loss = call @outer(%w) : (tensor<2x2xf32>) -> tensor<f32>
  return %loss : tensor<f32>
}
