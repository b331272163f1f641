// What the verifiers of MEGA's ops refuse.
// RUN: megalodon-opt %s -split-input-file -verify-diagnostics

// ema_coefficients C1
func.func @ema_coefficients(%a: tensor<16x5x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x4x1xf32>, %d: tensor<16x4xf32>) {
  // expected-error@+1 {{alpha: expected [16, 4, 1], got [16, 5, 1]}}
  %r:3 = megalodon.ema_coefficients %a, %b, %c, %d : (tensor<16x5x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// ema_coefficients C1
func.func @ema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x2xf32>, %c: tensor<16x4x1xf32>, %d: tensor<16x4xf32>) {
  // expected-error@+1 {{delta: expected [16, 4, 1], got [16, 4, 2]}}
  %r:3 = megalodon.ema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x2xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// ema_coefficients C1
func.func @ema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x4xf32>, %d: tensor<16x4xf32>) {
  // expected-error@+1 {{beta: expected [16, 4, 1], got [16, 4]}}
  %r:3 = megalodon.ema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>, tensor<16x4xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// ema_coefficients C1
func.func @ema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x4x1xf32>, %d: tensor<16x4xf32>) {
  // expected-error@+1 {{q: expected [16, 4, 2], got [16, 4, 1]}}
  %r:3 = megalodon.ema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>) -> (tensor<16x4xf64>, tensor<16x4x1xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// ema_coefficients C2
func.func @ema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x1xf64>, %c: tensor<16x4x1xf32>, %d: tensor<16x4xf32>) {
  // expected-error@+1 {{delta: expected elements of 'f32', got 'f64'}}
  %r:3 = megalodon.ema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x1xf64>, tensor<16x4x1xf32>, tensor<16x4xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// ema_coefficients C2
func.func @ema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x4x1xf64>, %d: tensor<16x4xf32>) {
  // expected-error@+1 {{beta: expected elements of 'f32', got 'f64'}}
  %r:3 = megalodon.ema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf64>, tensor<16x4xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// ema_coefficients C2
func.func @ema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x4x1xf32>, %d: tensor<16x4xf64>) {
  // expected-error@+1 {{gamma: expected elements of 'f32', got 'f64'}}
  %r:3 = megalodon.ema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf64>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// mega_qk C1
func.func @mega_qk(%a: tensor<2x8x5xf32>, %b: tensor<2x6xf32>, %c: tensor<2x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>) {
  // expected-error@+1 {{z: expected an even width, got 5}}
  %r:2 = megalodon.mega_qk %a, %b, %c relative %d at %e {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x5xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// mega_qk C1
func.func @mega_qk(%a: tensor<2x8x6xf32>, %b: tensor<2x6xf32>, %c: tensor<2x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>) {
  // expected-error@+1 {{k: expected [2, 8, 12], got [2, 8, 6]}}
  %r:2 = megalodon.mega_qk %a, %b, %c relative %d at %e {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x6xf32>)
  return
}

// -----

// mega_qk C2
func.func @mega_qk(%a: tensor<2x8x6xf32>, %b: tensor<1x6xf32>, %c: tensor<2x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>) {
  // expected-error@+1 {{gamma: expected [2, 6], got [1, 6]}}
  %r:2 = megalodon.mega_qk %a, %b, %c relative %d at %e {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x6xf32>, tensor<1x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// mega_qk C2
func.func @mega_qk(%a: tensor<2x8x6xf32>, %b: tensor<2x6xf32>, %c: tensor<2x4xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>) {
  // expected-error@+1 {{beta: expected [2, 6], got [2, 4]}}
  %r:2 = megalodon.mega_qk %a, %b, %c relative %d at %e {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x4xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// mega_qk C2
func.func @mega_qk(%a: tensor<2x8x6xf32>, %b: tensor<2x6xf32>, %c: tensor<2x6xf32>, %d: tensor<2x6xf64>, %e: tensor<2xi64>) {
  // expected-error@+1 {{relative: expected elements of 'f32', got 'f64'}}
  %r:2 = megalodon.mega_qk %a, %b, %c relative %d at %e {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf64>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// mega_qk C3
func.func @mega_qk(%a: tensor<2x8x6xf32>, %b: tensor<2x6xf32>, %c: tensor<2x6xf32>, %d: tensor<2x6xf32>, %e: tensor<3xi64>) {
  // expected-error@+1 {{count: expected [2], got [3]}}
  %r:2 = megalodon.mega_qk %a, %b, %c relative %d at %e {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<3xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// mega_qk C3
func.func @mega_qk(%a: tensor<2x8x6xf32>, %b: tensor<2x6xf32>, %c: tensor<2x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>, %f: tensor<2x7xi64>) {
  // expected-error@+1 {{positions: expected [2, 8], got [2, 7]}}
  %r:2 = megalodon.mega_qk %a, %b, %c relative %d at %e positions(%f) per_key {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2xi64>, tensor<2x7xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// mega_qk C4
func.func @mega_qk(%a: tensor<2x8x6xf32>, %b: tensor<2x6xf32>, %c: tensor<2x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>) {
  // expected-error@+1 {{base: expected a positive number, got 0}}
  %r:2 = megalodon.mega_qk %a, %b, %c relative %d at %e {base = 0.0 : f64, chunk = 4 : i64} : (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// mega_qk C4
func.func @mega_qk(%a: tensor<2x8x6xf32>, %b: tensor<2x6xf32>, %c: tensor<2x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>) {
  // expected-error@+1 {{chunk: expected a positive number, got 0}}
  %r:2 = megalodon.mega_qk %a, %b, %c relative %d at %e {base = 1.0 : f64, chunk = 0 : i64} : (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// ema_coefficients_grad C1
func.func @ema_coefficients_grad(%a: tensor<16x4xf64>, %b: tensor<16x5x2xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x1xf32>, %e: tensor<16x4x1xf32>, %f: tensor<16x4x1xf32>) {
  // expected-error@+1 {{dq: expected [16, 4, 2], got [16, 5, 2]}}
  %r:4 = megalodon.ema_coefficients_grad %a, %b, %c, %d, %e, %f : (tensor<16x4xf64>, tensor<16x5x2xf64>, tensor<16x4x2xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>)
  return
}

// -----

// ema_coefficients_grad C1
func.func @ema_coefficients_grad(%a: tensor<16x4xf64>, %b: tensor<16x4x2xf64>, %c: tensor<16x4x1xf64>, %d: tensor<16x4x1xf32>, %e: tensor<16x4x1xf32>, %f: tensor<16x4x1xf32>) {
  // expected-error@+1 {{dg: expected [16, 4, 2], got [16, 4, 1]}}
  %r:4 = megalodon.ema_coefficients_grad %a, %b, %c, %d, %e, %f : (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x1xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4xf32>)
  return
}

// -----

// ema_coefficients_grad C1
func.func @ema_coefficients_grad(%a: tensor<16x4xf64>, %b: tensor<16x4x2xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x1xf32>, %e: tensor<16x4x1xf32>, %f: tensor<16x4x1xf32>) {
  // expected-error@+1 {{dgamma: expected [16, 4], got [16, 5]}}
  %r:4 = megalodon.ema_coefficients_grad %a, %b, %c, %d, %e, %f : (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x5xf32>)
  return
}

// -----

// mega_qk_grad C1
func.func @mega_qk_grad(%a: tensor<2x8x6xf32>, %b: tensor<2x8x12xf32>, %c: tensor<2x8x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>) {
  // expected-error@+1 {{dq: expected [2, 8, 12], got [2, 8, 6]}}
  %r:4 = megalodon.mega_qk_grad %a, %b, %c, %d at %e {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x6xf32>, tensor<2x8x12xf32>, tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>)
  return
}

// -----

// mega_qk_grad C1
func.func @mega_qk_grad(%a: tensor<2x8x12xf32>, %b: tensor<2x8x10xf32>, %c: tensor<2x8x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>) {
  // expected-error@+1 {{dk: expected [2, 8, 12], got [2, 8, 10]}}
  %r:4 = megalodon.mega_qk_grad %a, %b, %c, %d at %e {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x12xf32>, tensor<2x8x10xf32>, tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>)
  return
}

// -----

// mega_qk_grad C2
func.func @mega_qk_grad(%a: tensor<2x8x12xf32>, %b: tensor<2x8x12xf32>, %c: tensor<2x8x6xf32>, %d: tensor<3x6xf32>, %e: tensor<2xi64>) {
  // expected-error@+1 {{gamma: expected [2, 6], got [3, 6]}}
  %r:4 = megalodon.mega_qk_grad %a, %b, %c, %d at %e {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x12xf32>, tensor<2x8x12xf32>, tensor<2x8x6xf32>, tensor<3x6xf32>, tensor<2xi64>) -> (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>)
  return
}

// -----

// mega_qk_grad C3
func.func @mega_qk_grad(%a: tensor<2x8x12xf32>, %b: tensor<2x8x12xf32>, %c: tensor<2x8x6xf32>, %d: tensor<2x6xf32>, %e: tensor<1xi64>) {
  // expected-error@+1 {{count: expected [2], got [1]}}
  %r:4 = megalodon.mega_qk_grad %a, %b, %c, %d at %e {base = 1.000000e+04 : f64, chunk = 4 : i64} : (tensor<2x8x12xf32>, tensor<2x8x12xf32>, tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<1xi64>) -> (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>)
  return
}

// -----

// mega_qk_grad C4
func.func @mega_qk_grad(%a: tensor<2x8x12xf32>, %b: tensor<2x8x12xf32>, %c: tensor<2x8x6xf32>, %d: tensor<2x6xf32>, %e: tensor<2xi64>) {
  // expected-error@+1 {{chunk: expected a positive number, got -1}}
  %r:4 = megalodon.mega_qk_grad %a, %b, %c, %d at %e {base = 1.0 : f64, chunk = -1 : i64} : (tensor<2x8x12xf32>, tensor<2x8x12xf32>, tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2xi64>) -> (tensor<2x8x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>, tensor<2x6xf32>)
  return
}

// -----

// update_gate_grad C1
func.func @update_gate_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8x15xf32>, %d: tensor<2x8x16xf32>) {
  // expected-error@+1 {{candidate: expected [2, 8, 16], got [2, 8, 15]}}
  %r:3 = megalodon.update_gate_grad %a, %b, %c by %d : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x15xf32>, tensor<2x8x16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>)
  return
}

// -----

// update_gate_grad C1
func.func @update_gate_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8x16xf32>, %d: tensor<2x8x16xf32>) {
  // expected-error@+1 {{dgate: expected elements of 'f32', got 'bf16'}}
  %r:3 = megalodon.update_gate_grad %a, %b, %c by %d : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xbf16>)
  return
}

// -----

// update_gate C1
func.func @update_gate(%a: tensor<2x8x16xf32>, %b: tensor<2x8x15xf32>, %c: tensor<2x8x16xf32>) {
  // expected-error@+1 {{requires the same type for all operands and results}}
  %r = "megalodon.update_gate"(%a, %b, %c) : (tensor<2x8x16xf32>, tensor<2x8x15xf32>, tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
  return
}
