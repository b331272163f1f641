// One test a constraint of every op: C<n> is the constraint's number in the op's description.
// RUN: megalodon-opt %s -split-input-file -verify-diagnostics

// embedding C1
func.func @embedding(%a: tensor<2x8xi32>, %b: tensor<32x16xf32>) {
  // expected-error@+1 {{result: expected [2, 8, 16], got [2, 8, 15]}}
  %r = megalodon.embedding %a, %b {scale = 4.000000e+00 : f64} : (tensor<2x8xi32>, tensor<32x16xf32>) -> tensor<2x8x15xf32>
  return
}

// -----

// embedding C2
func.func @embedding(%a: tensor<2x8xi32>, %b: tensor<32x16xf32>) {
  // expected-error@+1 {{result: expected elements of 'f32' or bf16, got 'f64'}}
  %r = megalodon.embedding %a, %b {scale = 4.000000e+00 : f64} : (tensor<2x8xi32>, tensor<32x16xf32>) -> tensor<2x8x16xf64>
  return
}

// -----

// linear C1
func.func @linear(%a: tensor<2x8x16xf32>, %b: tensor<24x15xf32>, %c: tensor<24xf32>) {
  // expected-error@+1 {{x: expected a last dimension of 15, got 16}}
  %r = megalodon.linear %a, %b bias %c : (tensor<2x8x16xf32>, tensor<24x15xf32>, tensor<24xf32>) -> tensor<2x8x24xf32>
  return
}

// -----

// linear C2
func.func @linear(%a: tensor<2x8x16xf32>, %b: tensor<24x16xf32>, %c: tensor<24xf32>) {
  // expected-error@+1 {{result: expected [2, 8, 24], got [2, 7, 24]}}
  %r = megalodon.linear %a, %b bias %c : (tensor<2x8x16xf32>, tensor<24x16xf32>, tensor<24xf32>) -> tensor<2x7x24xf32>
  return
}

// -----

// linear C2
func.func @linear(%a: tensor<2x16xf32>, %b: tensor<32x16xf32>) {
  // expected-error@+1 {{result: expected [2, 32], got [2, 1, 32]}}
  %r = megalodon.linear %a, %b : (tensor<2x16xf32>, tensor<32x16xf32>) -> tensor<2x1x32xf32>
  return
}

// -----

// linear C3
func.func @linear(%a: tensor<2x8x16xf32>, %b: tensor<24x16xf32>, %c: tensor<23xf32>) {
  // expected-error@+1 {{bias: expected [24], got [23]}}
  %r = megalodon.linear %a, %b bias %c : (tensor<2x8x16xf32>, tensor<24x16xf32>, tensor<23xf32>) -> tensor<2x8x24xf32>
  return
}

// -----

// linear C4
func.func @linear(%a: tensor<2x8x16xf32>, %b: tensor<24x16xf64>, %c: tensor<24xf32>) {
  // expected-error@+1 {{weight: expected elements of 'f32' or bf16, got 'f64'}}
  %r = megalodon.linear %a, %b bias %c : (tensor<2x8x16xf32>, tensor<24x16xf64>, tensor<24xf32>) -> tensor<2x8x24xf32>
  return
}

// -----

// linear C4
func.func @linear(%a: tensor<2x8x16xf32>, %b: tensor<24x16xf32>, %c: tensor<24xf64>) {
  // expected-error@+1 {{bias: expected elements of 'f32', got 'f64'}}
  %r = megalodon.linear %a, %b bias %c : (tensor<2x8x16xf32>, tensor<24x16xf32>, tensor<24xf64>) -> tensor<2x8x24xf32>
  return
}

// -----

// linear C4
func.func @linear(%a: tensor<2x8x16xf32>, %b: tensor<24x16xf32>, %c: tensor<24xf32>) {
  // expected-error@+1 {{result: expected elements of 'f32' or bf16, got 'f64'}}
  %r = megalodon.linear %a, %b bias %c : (tensor<2x8x16xf32>, tensor<24x16xf32>, tensor<24xf32>) -> tensor<2x8x24xf64>
  return
}

// -----

// timestep_norm C1
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x4xf32>, %f: tensor<2x4xf32>) {
  // expected-error@+1 {{result: expected [2, 8, 16], got [2, 9, 16]}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x9x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C2
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<8xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x4xf32>, %f: tensor<2x4xf32>) {
  // expected-error@+1 {{weight: expected [16], got [8]}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<8xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C2
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<8xf32>, %d: tensor<2xi64>, %e: tensor<2x4xf32>, %f: tensor<2x4xf32>) {
  // expected-error@+1 {{bias: expected [16], got [8]}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<8xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C3
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<3xi64>, %e: tensor<2x4xf32>, %f: tensor<2x4xf32>) {
  // expected-error@+1 {{count: expected [2], got [3]}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<3xi64>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C3
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<3x4xf32>, %f: tensor<2x4xf32>) {
  // expected-error@+1 {{mean: expected [2, 4], got [3, 4]}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<3x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C3
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x4xf32>, %f: tensor<2x5xf32>) {
  // expected-error@+1 {{var: expected [2, 4], got [2, 5]}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x5xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C3
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x4xf32>, %f: tensor<2x4xf32>) {
  // expected-error@+1 {{new_mean: expected [2, 4], got [2, 5]}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x5xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C4
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x5xf32>, %f: tensor<2x5xf32>) {
  // expected-error@+1 {{groups: expected a divisor of channels 16, got 5}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x5xf32>, tensor<2x5xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x5xf32>, tensor<2x5xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C4
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x16xf32>, %f: tensor<2x16xf32>) {
  // expected-error@+1 {{groups: expected less than 16 channels, got 16}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x16xf32>, tensor<2x16xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x16xf32>, tensor<2x16xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C5
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x4xf32>, %f: tensor<2x4xf32>) {
  // expected-error@+1 {{running_mean: expected [2, 8, 4], got [2, 8, 5]}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x5xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C5
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x4xf32>, %f: tensor<2x4xf32>) {
  // expected-error@+1 {{running_rstd: expected [2, 8, 4], got [2, 7, 4]}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x7x4xf32>)
  return
}

// -----

// timestep_norm C6
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x4xf32>, %f: tensor<2x4xf32>) {
  // expected-error@+1 {{eps: expected a positive number, got}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 0.0 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C7
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf64>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x4xf32>, %f: tensor<2x4xf32>) {
  // expected-error@+1 {{weight: expected elements of 'f32', got 'f64'}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf64>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C7
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x4xf32>, %f: tensor<2x4xf64>) {
  // expected-error@+1 {{var: expected elements of 'f32', got 'f64'}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf64>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C7
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<2xi64>, %e: tensor<2x4xf32>, %f: tensor<2x4xf32>) {
  // expected-error@+1 {{result: expected elements of 'f32', got 'f64'}}
  %r:6 = megalodon.timestep_norm %a, %b, %c state(%d, %e, %f) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>) -> (tensor<2x8x16xf64>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// timestep_norm C8
func.func @timestep_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<2xi64>, %d: tensor<2x4xf32>, %p: tensor<2x7xi64>) {
  // expected-error@+1 {{positions: expected [2, 8], got [2, 7]}}
  %r:6 = megalodon.timestep_norm %a, %b, %b state(%c, %d, %d) positions(%p) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x7xi64>) -> (tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
  return
}

// -----

// cema_coefficients C1
func.func @cema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x1x1xf32>, %d: tensor<16x4xf32>) {
  // expected-error@+1 {{gamma: expected rank 3, got 2}}
  %r:3 = megalodon.cema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// cema_coefficients C1
func.func @cema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x1x1xf32>, %d: tensor<16x4x1xf32>) {
  // expected-error@+1 {{gamma: expected [16, 4, 2], got [16, 4, 1]}}
  %r:3 = megalodon.cema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x1xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// cema_coefficients C1
func.func @cema_coefficients(%a: tensor<16x5x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x1x1xf32>, %d: tensor<16x4x2xf32>) {
  // expected-error@+1 {{alpha: expected [16, 4, 1], got [16, 5, 1]}}
  %r:3 = megalodon.cema_coefficients %a, %b, %c, %d : (tensor<16x5x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// cema_coefficients C1
func.func @cema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4xf32>, %c: tensor<16x1x1xf32>, %d: tensor<16x4x2xf32>) {
  // expected-error@+1 {{delta: expected [16, 4, 1], got [16, 4]}}
  %r:3 = megalodon.cema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// cema_coefficients C1
func.func @cema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x4x1xf32>, %d: tensor<16x4x2xf32>) {
  // expected-error@+1 {{theta: expected [16, 1, 1], got [16, 4, 1]}}
  %r:3 = megalodon.cema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x4x2xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// cema_coefficients C1
func.func @cema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x1x1xf32>, %d: tensor<16x4x2xf32>) {
  // expected-error@+1 {{q: expected [16, 4, 2], got [16, 4, 1]}}
  %r:3 = megalodon.cema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>) -> (tensor<16x4xf64>, tensor<16x4x1xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// cema_coefficients C2
func.func @cema_coefficients(%a: tensor<16x4x1xf32>, %b: tensor<16x4x1xf32>, %c: tensor<16x1x1xf64>, %d: tensor<16x4x2xf32>) {
  // expected-error@+1 {{theta: expected elements of 'f32', got 'f64'}}
  %r:3 = megalodon.cema_coefficients %a, %b, %c, %d : (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf64>, tensor<16x4x2xf32>) -> (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>)
  return
}

// -----

// cema C1
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x2xf64>, %e: tensor<16x1xf32>, %f: tensor<2x16x4x2xf32>) {
  // expected-error@+1 {{result: expected [2, 8, 16], got [2, 8, 4]}}
  %r:3 = megalodon.cema %a, %b, %c, %d, %e state(%f) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>) -> (tensor<2x8x4xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return
}

// -----

// cema C2
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<15x4xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x2xf64>, %e: tensor<16x1xf32>, %f: tensor<2x16x4x2xf32>) {
  // expected-error@+1 {{p: expected [16, 4], got [15, 4]}}
  %r:3 = megalodon.cema %a, %b, %c, %d, %e state(%f) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<15x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return
}

// -----

// cema C2
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x1xf64>, %d: tensor<16x4x2xf64>, %e: tensor<16x1xf32>, %f: tensor<2x16x4x2xf32>) {
  // expected-error@+1 {{q: expected [16, 4, 2], got [16, 4, 1]}}
  %r:3 = megalodon.cema %a, %b, %c, %d, %e state(%f) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x1xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return
}

// -----

// cema C2
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x5x2xf64>, %e: tensor<16x1xf32>, %f: tensor<2x16x4x2xf32>) {
  // expected-error@+1 {{g: expected [16, 4, 2], got [16, 5, 2]}}
  %r:3 = megalodon.cema %a, %b, %c, %d, %e state(%f) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x5x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return
}

// -----

// cema C3
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x2xf64>, %e: tensor<16x2xf32>, %f: tensor<2x16x4x2xf32>) {
  // expected-error@+1 {{omega: expected [16, 1], got [16, 2]}}
  %r:3 = megalodon.cema %a, %b, %c, %d, %e state(%f) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x2xf32>, tensor<2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return
}

// -----

// cema C4
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x2xf64>, %e: tensor<16x1xf32>, %f: tensor<3x16x4x2xf32>) {
  // expected-error@+1 {{state: expected [2, 16, 4, 2], got [3, 16, 4, 2]}}
  %r:3 = megalodon.cema %a, %b, %c, %d, %e state(%f) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<3x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return
}

// -----

// cema C4
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x2xf64>, %e: tensor<16x1xf32>, %f: tensor<2x16x4x2xf32>) {
  // expected-error@+1 {{new_state: expected [2, 16, 4, 2], got [3, 16, 4, 2]}}
  %r:3 = megalodon.cema %a, %b, %c, %d, %e state(%f) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<3x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return
}

// -----

// cema C5
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x2xf64>, %e: tensor<16x1xf32>, %f: tensor<2x16x4x2xf32>) {
  // expected-error@+1 {{block: expected a positive number, got 0}}
  %r:3 = megalodon.cema %a, %b, %c, %d, %e state(%f) {block = 0 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return
}

// -----

// cema C5
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x2xf64>, %e: tensor<16x1xf32>, %f: tensor<2x16x4x2xf32>) {
  // expected-error@+1 {{block_states: expected [2, 2, 16, 4, 2], got [3, 2, 16, 4, 2]}}
  %r:3 = megalodon.cema %a, %b, %c, %d, %e state(%f) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<3x2x16x4x2xf32>)
  return
}

// -----

// cema C6
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x2xf64>, %e: tensor<16x1xf64>, %f: tensor<2x16x4x2xf32>) {
  // expected-error@+1 {{omega: expected elements of 'f32', got 'f64'}}
  %r:3 = megalodon.cema %a, %b, %c, %d, %e state(%f) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf64>, tensor<2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return
}

// -----

// cema C6
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x2xf64>, %e: tensor<16x1xf32>, %f: tensor<2x16x4x2xf64>) {
  // expected-error@+1 {{state: expected elements of 'f32', got 'f64'}}
  %r:3 = megalodon.cema %a, %b, %c, %d, %e state(%f) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf64>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return
}

// -----

// cema C7
func.func @cema(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>, %e: tensor<16x1xf32>, %f: tensor<2x16x4x2xf32>, %p: tensor<3x8xi64>) {
  // expected-error@+1 {{positions: expected [2, 8], got [3, 8]}}
  %r:3 = megalodon.cema %a, %b, %c, %c, %e state(%f) positions(%p) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>, tensor<3x8xi64>) -> (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x2x16x4x2xf32>)
  return
}

// -----

// rms_norm C1
func.func @rms_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>) {
  // expected-error@+1 {{result: expected [2, 8, 16], got [2, 8, 8]}}
  %r = megalodon.rms_norm %a, %b {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x8xf32>
  return
}

// -----

// rms_norm C2
func.func @rms_norm(%a: tensor<2x8x16xf32>, %b: tensor<8xf32>) {
  // expected-error@+1 {{weight: expected [16], got [8]}}
  %r = megalodon.rms_norm %a, %b {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<8xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// rms_norm C3
func.func @rms_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>) {
  // expected-error@+1 {{eps: expected a positive number, got}}
  %r = megalodon.rms_norm %a, %b {eps = -1.0 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// rms_norm C4
func.func @rms_norm(%a: tensor<2x8x16xf32>) {
  // expected-error@+1 {{plain: expected a weight, got none}}
  %r = megalodon.rms_norm %a plain {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// rms_norm_grad C4
func.func @rms_norm_grad(%a: tensor<2x8x16xf32>) {
  // expected-error@+1 {{plain: expected a weight, got none}}
  %r = megalodon.rms_norm_grad %a, %a plain {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// layer_norm C1
func.func @layer_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{result: expected [2, 8, 16], got [2, 8, 8]}}
  %r = megalodon.layer_norm %a affine(%b, %c) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>) -> tensor<2x8x8xf32>
  return
}

// -----

// layer_norm C2
func.func @layer_norm(%a: tensor<2x8x16xf32>, %b: tensor<8xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{weight: expected [16], got [8]}}
  %r = megalodon.layer_norm %a affine(%b, %c) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<8xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// layer_norm C2
func.func @layer_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<8xf32>) {
  // expected-error@+1 {{bias: expected [16], got [8]}}
  %r = megalodon.layer_norm %a affine(%b, %c) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<8xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// layer_norm C2
func.func @layer_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>) {
  // expected-error@+1 {{affine: expected weight and bias both given or both absent, got one of them}}
  %r = "megalodon.layer_norm"(%a, %b) <{eps = 1.0e-5 : f64, operandSegmentSizes = array<i32: 1, 1, 0>}> : (tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// layer_norm C3
func.func @layer_norm(%a: tensor<2x8x16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{eps: expected a positive number, got}}
  %r = megalodon.layer_norm %a affine(%b, %c) {eps = 0.0 : f64} : (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// normalized_qk C1
func.func @normalized_qk(%a: tensor<2x8x8xf32>, %b: tensor<2x8xf32>, %c: tensor<2x8xf32>) {
  // expected-error@+1 {{q: expected [2, 8, 8], got [2, 8, 4]}}
  %r:2 = megalodon.normalized_qk %a, %b, %c {eps = 1.000000e-05 : f64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x4xf32>, tensor<2x8x8xf32>)
  return
}

// -----

// normalized_qk C1
func.func @normalized_qk(%a: tensor<2x8x8xf32>, %b: tensor<2x8xf32>, %c: tensor<2x8xf32>) {
  // expected-error@+1 {{k: expected [2, 8, 8], got [2, 4, 8]}}
  %r:2 = megalodon.normalized_qk %a, %b, %c {eps = 1.000000e-05 : f64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x4x8xf32>)
  return
}

// -----

// normalized_qk C2
func.func @normalized_qk(%a: tensor<2x8x8xf32>, %b: tensor<2x8xf32>, %c: tensor<2x8xf32>) {
  // expected-error@+1 {{heads: expected a divisor of width 8, got 3}}
  %r:2 = megalodon.normalized_qk %a, %b, %c {eps = 1.000000e-05 : f64, heads = 3 : i64} : (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>)
  return
}

// -----

// normalized_qk C3
func.func @normalized_qk(%a: tensor<2x8x8xf32>, %b: tensor<1x8xf32>, %c: tensor<2x8xf32>) {
  // expected-error@+1 {{gamma: expected [2, 8], got [1, 8]}}
  %r:2 = megalodon.normalized_qk %a, %b, %c {eps = 1.000000e-05 : f64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<1x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>)
  return
}

// -----

// normalized_qk C3
func.func @normalized_qk(%a: tensor<2x8x8xf32>, %b: tensor<2x8xf32>, %c: tensor<2x4xf32>) {
  // expected-error@+1 {{beta: expected [2, 8], got [2, 4]}}
  %r:2 = megalodon.normalized_qk %a, %b, %c {eps = 1.000000e-05 : f64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x4xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>)
  return
}

// -----

// normalized_qk C4
func.func @normalized_qk(%a: tensor<2x8x8xf32>, %b: tensor<2x8xf32>, %c: tensor<2x8xf32>) {
  // expected-error@+1 {{eps: expected a positive number, got}}
  %r:2 = megalodon.normalized_qk %a, %b, %c {eps = 0.0 : f64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>)
  return
}

// -----

// rotary C1
func.func @rotary(%a: tensor<2x8x8xf32>, %b: tensor<2xi64>) {
  // expected-error@+1 {{result: expected [2, 8, 8], got [2, 8, 4]}}
  %r = megalodon.rotary %a at %b {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x8x4xf32>
  return
}

// -----

// rotary C2
func.func @rotary(%a: tensor<2x8x8xf32>, %b: tensor<2xi64>) {
  // expected-error@+1 {{heads: expected a divisor of width 8, got 0}}
  %r = megalodon.rotary %a at %b {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 0 : i64} : (tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x8x8xf32>
  return
}

// -----

// rotary C2
func.func @rotary(%a: tensor<2x8x8xf32>, %b: tensor<2xi64>) {
  // expected-error@+1 {{heads: expected an even width a head, got 1}}
  %r = megalodon.rotary %a at %b {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 8 : i64} : (tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x8x8xf32>
  return
}

// -----

// rotary C3
func.func @rotary(%a: tensor<2x8x8xf32>, %b: tensor<1xi64>) {
  // expected-error@+1 {{count: expected [2], got [1]}}
  %r = megalodon.rotary %a at %b {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<1xi64>) -> tensor<2x8x8xf32>
  return
}

// -----

// rotary C4
func.func @rotary(%a: tensor<2x8x8xf32>, %b: tensor<2xi64>) {
  // expected-error@+1 {{base: expected a positive number, got}}
  %r = megalodon.rotary %a at %b {base = 0.0 : f64, chunk = 4 : i64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x8x8xf32>
  return
}

// -----

// rotary C4
func.func @rotary(%a: tensor<2x8x8xf32>, %b: tensor<2xi64>) {
  // expected-error@+1 {{chunk: expected a positive number, got 0}}
  %r = megalodon.rotary %a at %b {base = 1.000000e+04 : f64, chunk = 0 : i64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x8x8xf32>
  return
}

// -----

// rotary C4
func.func @rotary(%a: tensor<2x8x8xf32>, %b: tensor<2xi64>) {
  // expected-error@+1 {{scale: expected a positive number, got -1.0}}
  %r = megalodon.rotary %a at %b {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 2 : i64, scale = -1.0 : f64} : (tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x8x8xf32>
  return
}

// -----

// advance_count C1
func.func @advance_count(%a: tensor<2xi64>, %b: tensor<3x8x8xf32>) {
  // expected-error@+1 {{count: expected [3], got [2]}}
  %r = megalodon.advance_count %a by %b : (tensor<2xi64>, tensor<3x8x8xf32>) -> tensor<2xi64>
  return
}

// -----

// advance_count C2
func.func @advance_count(%a: tensor<2xi64>, %b: tensor<2x8x8xf32>, %p: tensor<2x9xi64>) {
  // expected-error@+1 {{positions: expected [2, 8], got [2, 9]}}
  %r = megalodon.advance_count %a by %b positions(%p) : (tensor<2xi64>, tensor<2x8x8xf32>, tensor<2x9xi64>) -> tensor<2xi64>
  return
}

// -----

// document_positions C1
func.func @document_positions(%a: tensor<2x8xi32>, %b: tensor<2xi64>) {
  // expected-error@+1 {{positions: expected [2, 8], got [2, 9]}}
  %r = megalodon.document_positions %a at %b : (tensor<2x8xi32>, tensor<2xi64>) -> tensor<2x9xi64>
  return
}

// -----

// document_positions C2
func.func @document_positions(%a: tensor<2x8xi32>, %b: tensor<3xi64>) {
  // expected-error@+1 {{count: expected [2], got [3]}}
  %r = megalodon.document_positions %a at %b : (tensor<2x8xi32>, tensor<3xi64>) -> tensor<2x8xi64>
  return
}

// -----

// sum_head_groups C1
func.func @sum_head_groups(%a: tensor<2x8x10xf32>) {
  // expected-error@+1 {{heads: expected a divisor of width 10, got 4}}
  %r = megalodon.sum_head_groups %a {groups = 2 : i64, heads = 4 : i64} : (tensor<2x8x10xf32>) -> tensor<2x8x4xf32>
  return
}

// -----

// sum_head_groups C2
func.func @sum_head_groups(%a: tensor<2x8x12xf32>) {
  // expected-error@+1 {{groups: expected a divisor of heads 4, got 3}}
  %r = megalodon.sum_head_groups %a {groups = 3 : i64, heads = 4 : i64} : (tensor<2x8x12xf32>) -> tensor<2x8x9xf32>
  return
}

// -----

// chunk_attention C1
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x7x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{k: expected [2, 8, 8], got [2, 7, 8]}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x7x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention C1
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x6xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x6xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{the query width of a head: expected a divisor of key width 6, got 4}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x6xf32>, tensor<2x8x12xf32>, tensor<2x4x6xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention C1
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x16xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{the number of key heads: expected a divisor of heads 2, got 4}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x16xf32>, tensor<2x8x12xf32>, tensor<2x4x16xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention C2
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x7x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{v: expected [2, 8, 12], got [2, 7, 12]}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x7x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention C2
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{result: expected [2, 8, 12], got [2, 8, 8]}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x8xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention C3
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{heads: expected a divisor of query width 8, got 3}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 3 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention C3
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{the number of key heads: expected a divisor of value width 12, got 8}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 8 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention C4
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x6xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{cache_k: expected [2, 4, 8], got [2, 4, 6]}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x6xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention C4
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x5x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{cache_v: expected [2, 4, 12], got [2, 5, 12]}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x5x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention C4
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x0x8xf32>, %e: tensor<2x0x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{capacity of cache_k: expected a positive number, got 0}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x0x8xf32>, tensor<2x0x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention C5
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{lse: expected [2, 8, 2], got [2, 8, 1]}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x1xf32>)
  return
}

// -----

// chunk_attention C6
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<1xi64>) {
  // expected-error@+1 {{count: expected [2], got [1]}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<1xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention C5
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{expected 1 results, got 2}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f function<laplace> {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention C6
func.func @chunk_attention(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>, %g: tensor<2x7xi64>) {
  // expected-error@+1 {{positions: expected [2, 8], got [2, 7]}}
  %r:2 = megalodon.chunk_attention %a, %b, %c cache(%d, %e) at %f positions(%g) {heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x7xi64>) -> (tensor<2x8x12xf32>, tensor<2x8x2xf32>)
  return
}

// -----

// chunk_attention_grad C2
func.func @chunk_attention_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>) {
  // expected-error@+1 {{saved: expected out and lse, got nothing}}
  %r:3 = megalodon.chunk_attention_grad %c, %a, %b, %c cache(%d, %e) at %f {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// chunk_attention_grad C2
func.func @chunk_attention_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>, %g: tensor<2x8x2xf32>) {
  // expected-error@+1 {{saved: expected nothing with laplace, got out and lse}}
  %r:3 = megalodon.chunk_attention_grad %c, %a, %b, %c cache(%d, %e) at %f saved(%c, %g) function<laplace> {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8x12xf32>, tensor<2x8x2xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// chunk_attention_grad C3
func.func @chunk_attention_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x12xf32>, %d: tensor<2x4x8xf32>, %e: tensor<2x4x12xf32>, %f: tensor<2xi64>, %g: tensor<2x8x2xf32>, %h: tensor<1x8xi64>) {
  // expected-error@+1 {{positions: expected [2, 8], got [1, 8]}}
  %r:3 = megalodon.chunk_attention_grad %c, %a, %b, %c cache(%d, %e) at %f positions(%h) saved(%c, %g) {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8x12xf32>, tensor<2x8x2xf32>, tensor<1x8xi64>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// rotary C5
func.func @rotary(%a: tensor<2x8x8xf32>, %b: tensor<2xi64>, %c: tensor<2x7xi64>) {
  // expected-error@+1 {{positions: expected [2, 8], got [2, 7]}}
  %r = megalodon.rotary %a at %b positions(%c) {base = 1.000000e+04 : f64, chunk = 4 : i64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2xi64>, tensor<2x7xi64>) -> tensor<2x8x8xf32>
  return
}

// -----

// cache_append C3
func.func @cache_append(%a: tensor<2x4x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2xi64>, %d: tensor<2x4xi64>) {
  // expected-error@+1 {{positions: expected [2, 8], got [2, 4]}}
  %r = megalodon.cache_append %a, %b at %c positions(%d) : (tensor<2x4x8xf32>, tensor<2x8x8xf32>, tensor<2xi64>, tensor<2x4xi64>) -> tensor<2x4x8xf32>
  return
}

// -----

// cache_append C1
func.func @cache_append(%a: tensor<2x4x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2xi64>) {
  // expected-error@+1 {{result: expected [2, 4, 8], got [2, 8, 8]}}
  %r = megalodon.cache_append %a, %b at %c : (tensor<2x4x8xf32>, tensor<2x8x8xf32>, tensor<2xi64>) -> tensor<2x8x8xf32>
  return
}

// -----

// cache_append C2
func.func @cache_append(%a: tensor<2x4x8xf32>, %b: tensor<2x8x6xf32>, %c: tensor<2xi64>) {
  // expected-error@+1 {{rows: expected [2, 8, 8], got [2, 8, 6]}}
  %r = megalodon.cache_append %a, %b at %c : (tensor<2x4x8xf32>, tensor<2x8x6xf32>, tensor<2xi64>) -> tensor<2x4x8xf32>
  return
}

// -----

// cache_append C3
func.func @cache_append(%a: tensor<2x4x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<4xi64>) {
  // expected-error@+1 {{count: expected [2], got [4]}}
  %r = megalodon.cache_append %a, %b at %c : (tensor<2x4x8xf32>, tensor<2x8x8xf32>, tensor<4xi64>) -> tensor<2x4x8xf32>
  return
}

// -----

// add C1
func.func @add() {
  // expected-error@+1 {{expected 1 or more operands, but found 0}}
  %r = "megalodon.add"() : () -> tensor<4xf32>
  return
}

// -----

// two_hop_residual C1
func.func @two_hop_residual(%a: tensor<2x8x16xf32>, %b: tensor<2x8x8xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{branch: expected [2, 8, 16], got [2, 8, 8]}}
  %r = megalodon.two_hop_residual %a, %b rescale %c : (tensor<2x8x16xf32>, tensor<2x8x8xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// two_hop_residual C1
func.func @two_hop_residual(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{result: expected [2, 8, 16], got [2, 8, 8]}}
  %r = megalodon.two_hop_residual %a, %b rescale %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x8xf32>
  return
}

// -----

// two_hop_residual C2
func.func @two_hop_residual(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<1xf32>) {
  // expected-error@+1 {{alpha: expected [16], got [1]}}
  %r = megalodon.two_hop_residual %a, %b rescale %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<1xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// last_token C1
func.func @last_token(%a: tensor<2x8x16xf32>) {
  // expected-error@+1 {{result: expected [2, 16], got [8, 16]}}
  %r = megalodon.last_token %a : (tensor<2x8x16xf32>) -> tensor<8x16xf32>
  return
}

// -----

// last_token C1
func.func @last_token(%a: tensor<2x8x16xf32>) {
  // expected-error@+1 {{result: expected elements of 'f32', got 'f64'}}
  %r = megalodon.last_token %a : (tensor<2x8x16xf32>) -> tensor<2x16xf64>
  return
}

// -----

// cross_entropy C1
func.func @cross_entropy(%a: tensor<2x8x32xf32>, %b: tensor<2x7xi32>) {
  // expected-error@+1 {{targets: expected [2, 8], got [2, 7]}}
  %r:2 = megalodon.cross_entropy %a, %b : (tensor<2x8x32xf32>, tensor<2x7xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  return
}

// -----

// cross_entropy C1
func.func @cross_entropy(%a: tensor<2x8x32xf32>, %b: tensor<2x8xi32>) {
  // expected-error@+1 {{nll: expected [2, 8], got [8, 2]}}
  %r:2 = megalodon.cross_entropy %a, %b : (tensor<2x8x32xf32>, tensor<2x8xi32>) -> (tensor<8x2xf32>, tensor<2x8xf32>)
  return
}

// -----

// cross_entropy C2
func.func @cross_entropy(%a: tensor<2x8x32xf32>, %b: tensor<2x8xi32>) {
  // expected-error@+1 {{lse: expected elements of 'f32', got 'f64'}}
  %r:2 = megalodon.cross_entropy %a, %b : (tensor<2x8x32xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf64>)
  return
}

// -----

// mean C1
func.func @mean(%a: tensor<2x8xf32>) {
  // expected-error@+1 {{result: expected elements of 'f32', got 'f64'}}
  %r = megalodon.mean %a : (tensor<2x8xf32>) -> tensor<f64>
  return
}

// -----

// loss_sum C1
func.func @loss_sum(%a: tensor<2x8xf32>, %b: tensor<8x2xi32>) {
  // expected-error@+1 {{targets: expected [2, 8], got [8, 2]}}
  %r:2 = megalodon.loss_sum %a, %b : (tensor<2x8xf32>, tensor<8x2xi32>) -> (tensor<f32>, tensor<i64>)
  return
}

// -----

// embedding_grad C1
func.func @embedding_grad(%a: tensor<2x8xi32>, %b: tensor<2x8x16xf32>) {
  // expected-error@+1 {{dy: expected [2, 8, 15], got [2, 8, 16]}}
  %r = megalodon.embedding_grad %a, %b {scale = 4.000000e+00 : f64} : (tensor<2x8xi32>, tensor<2x8x16xf32>) -> tensor<32x15xf32>
  return
}

// -----

// linear_grad_input C1
func.func @linear_grad_input(%a: tensor<2x8x24xf32>, %b: tensor<23x16xf32>) {
  // expected-error@+1 {{dy: expected a last dimension of 23, got 24}}
  %r = megalodon.linear_grad_input %a, %b : (tensor<2x8x24xf32>, tensor<23x16xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// linear_grad_input C1
func.func @linear_grad_input(%a: tensor<2x8x24xf32>, %b: tensor<24x16xf32>) {
  // expected-error@+1 {{dx: expected [2, 8, 16], got [2, 8, 24]}}
  %r = megalodon.linear_grad_input %a, %b : (tensor<2x8x24xf32>, tensor<24x16xf32>) -> tensor<2x8x24xf32>
  return
}

// -----

// linear_grad_weight C1
func.func @linear_grad_weight(%a: tensor<2x8x24xf32>, %b: tensor<2x7x16xf32>) {
  // expected-error@+1 {{x: expected [2, 8, 16], got [2, 7, 16]}}
  %r = megalodon.linear_grad_weight %a, %b : (tensor<2x8x24xf32>, tensor<2x7x16xf32>) -> tensor<24x16xf32>
  return
}

// -----

// linear_grad_weight C1
func.func @linear_grad_weight(%a: tensor<2x8x24xf32>, %b: tensor<2x8x16xf32>) {
  // expected-error@+1 {{dweight: expected [24, 16], got [16, 24]}}
  %r = megalodon.linear_grad_weight %a, %b : (tensor<2x8x24xf32>, tensor<2x8x16xf32>) -> tensor<16x24xf32>
  return
}

// -----

// linear_grad_bias C1
func.func @linear_grad_bias(%a: tensor<2x8x24xf32>) {
  // expected-error@+1 {{dbias: expected [24], got [16]}}
  %r = megalodon.linear_grad_bias %a : (tensor<2x8x24xf32>) -> tensor<16xf32>
  return
}

// -----

// timestep_norm_grad C1
func.func @timestep_norm_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x4xf32>, %c: tensor<2x4xf32>, %d: tensor<2x8x16xf32>, %e: tensor<16xf32>, %f: tensor<2xi64>, %g: tensor<2x8x4xf32>, %h: tensor<2x8x4xf32>) {
  // expected-error@+1 {{dy: expected [2, 8, 16], got [2, 8, 8]}}
  %r:5 = megalodon.timestep_norm_grad %a end(%b, %c), %d, %e state(%f, %g, %h) : (tensor<2x8x8xf32>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_norm_grad C1
func.func @timestep_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x4xf32>, %c: tensor<2x4xf32>, %d: tensor<2x8x16xf32>, %e: tensor<16xf32>, %f: tensor<2xi64>, %g: tensor<2x8x4xf32>, %h: tensor<2x8x4xf32>) {
  // expected-error@+1 {{dx: expected [2, 8, 16], got [2, 8, 8]}}
  %r:5 = megalodon.timestep_norm_grad %a end(%b, %c), %d, %e state(%f, %g, %h) : (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x8xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_norm_grad C2
func.func @timestep_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x4xf32>, %c: tensor<2x4xf32>, %d: tensor<2x8x16xf32>, %e: tensor<8xf32>, %f: tensor<2xi64>, %g: tensor<2x8x4xf32>, %h: tensor<2x8x4xf32>) {
  // expected-error@+1 {{weight: expected [16], got [8]}}
  %r:5 = megalodon.timestep_norm_grad %a end(%b, %c), %d, %e state(%f, %g, %h) : (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<8xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_norm_grad C2
func.func @timestep_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x4xf32>, %c: tensor<2x4xf32>, %d: tensor<2x8x16xf32>, %e: tensor<16xf32>, %f: tensor<2xi64>, %g: tensor<2x8x4xf32>, %h: tensor<2x8x4xf32>) {
  // expected-error@+1 {{dbias: expected [16], got [8]}}
  %r:5 = megalodon.timestep_norm_grad %a end(%b, %c), %d, %e state(%f, %g, %h) : (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<8xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_norm_grad C3
func.func @timestep_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x4xf32>, %c: tensor<2x4xf32>, %d: tensor<2x8x16xf32>, %e: tensor<16xf32>, %f: tensor<2xi64>, %g: tensor<2x7x4xf32>, %h: tensor<2x8x4xf32>) {
  // expected-error@+1 {{running_mean: expected [2, 8, 4], got [2, 7, 4]}}
  %r:5 = megalodon.timestep_norm_grad %a end(%b, %c), %d, %e state(%f, %g, %h) : (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x7x4xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_norm_grad C3
func.func @timestep_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x4xf32>, %c: tensor<2x4xf32>, %d: tensor<2x8x16xf32>, %e: tensor<16xf32>, %f: tensor<2xi64>, %g: tensor<2x8x4xf32>, %h: tensor<2x8x2xf32>) {
  // expected-error@+1 {{running_rstd: expected [2, 8, 4], got [2, 8, 2]}}
  %r:5 = megalodon.timestep_norm_grad %a end(%b, %c), %d, %e state(%f, %g, %h) : (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x2xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_norm_grad C4
func.func @timestep_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<4x2xf32>, %c: tensor<2x4xf32>, %d: tensor<2x8x16xf32>, %e: tensor<16xf32>, %f: tensor<2xi64>, %g: tensor<2x8x4xf32>, %h: tensor<2x8x4xf32>) {
  // expected-error@+1 {{dnew_mean: expected [2, 4], got [4, 2]}}
  %r:5 = megalodon.timestep_norm_grad %a end(%b, %c), %d, %e state(%f, %g, %h) : (tensor<2x8x16xf32>, tensor<4x2xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_norm_grad C4
func.func @timestep_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x4xf32>, %c: tensor<2x4xf32>, %d: tensor<2x8x16xf32>, %e: tensor<16xf32>, %f: tensor<2xi64>, %g: tensor<2x8x4xf32>, %h: tensor<2x8x4xf32>) {
  // expected-error@+1 {{dvar: expected [2, 4], got [4, 2]}}
  %r:5 = megalodon.timestep_norm_grad %a end(%b, %c), %d, %e state(%f, %g, %h) : (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<4x2xf32>)
  return
}

// -----

// timestep_norm_grad C4
func.func @timestep_norm_grad(%x: tensor<2x8x16xf32>, %m: tensor<2x4xf32>, %w: tensor<16xf32>, %n: tensor<2xi64>, %r: tensor<2x8x4xf32>) {
  // expected-error@+1 {{end: expected dnew_mean and dnew_var both given or both absent, got one of them}}
  %g:5 = "megalodon.timestep_norm_grad"(%x, %m, %x, %w, %n, %r, %r) <{operandSegmentSizes = array<i32: 1, 1, 0, 1, 1, 1, 1, 1, 0>}>
      : (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>)
      -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_norm_grad C5
func.func @timestep_norm_grad(%x: tensor<2x8x16xf32>, %w: tensor<16xf32>, %n: tensor<2xi64>, %r: tensor<2x8x4xf32>, %p: tensor<1x8xi64>) {
  // expected-error@+1 {{positions: expected [2, 8], got [1, 8]}}
  %g:5 = megalodon.timestep_norm_grad %x, %x, %w state(%n, %r, %r) positions(%p) : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x8x4xf32>, tensor<2x8x4xf32>, tensor<1x8xi64>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// cema_coefficients_grad C1
func.func @cema_coefficients_grad(%a: tensor<16x4xf64>, %b: tensor<16x5x2xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x1xf32>, %e: tensor<16x4x1xf32>, %f: tensor<16x1x1xf32>) {
  // expected-error@+1 {{dq: expected [16, 4, 2], got [16, 5, 2]}}
  %r:4 = megalodon.cema_coefficients_grad %a, %b, %c, %d, %e, %f : (tensor<16x4xf64>, tensor<16x5x2xf64>, tensor<16x4x2xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>)
  return
}

// -----

// cema_coefficients_grad C1
func.func @cema_coefficients_grad(%a: tensor<16x4xf64>, %b: tensor<16x4x2xf64>, %c: tensor<16x5x2xf64>, %d: tensor<16x4x1xf32>, %e: tensor<16x4x1xf32>, %f: tensor<16x1x1xf32>) {
  // expected-error@+1 {{dg: expected [16, 4, 2], got [16, 5, 2]}}
  %r:4 = megalodon.cema_coefficients_grad %a, %b, %c, %d, %e, %f : (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x5x2xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>)
  return
}

// -----

// cema_coefficients_grad C1
func.func @cema_coefficients_grad(%a: tensor<16x4xf64>, %b: tensor<16x4x2xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4xf32>, %e: tensor<16x4x1xf32>, %f: tensor<16x1x1xf32>) {
  // expected-error@+1 {{alpha: expected [16, 4, 1], got [16, 4]}}
  %r:4 = megalodon.cema_coefficients_grad %a, %b, %c, %d, %e, %f : (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x4xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>)
  return
}

// -----

// cema_coefficients_grad C1
func.func @cema_coefficients_grad(%a: tensor<16x4xf64>, %b: tensor<16x4x2xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x1xf32>, %e: tensor<16x4x1xf32>, %f: tensor<16x1xf32>) {
  // expected-error@+1 {{theta: expected [16, 1, 1], got [16, 1]}}
  %r:4 = megalodon.cema_coefficients_grad %a, %b, %c, %d, %e, %f : (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x2xf32>)
  return
}

// -----

// cema_coefficients_grad C1
func.func @cema_coefficients_grad(%a: tensor<16x4xf64>, %b: tensor<16x4x2xf64>, %c: tensor<16x4x2xf64>, %d: tensor<16x4x1xf32>, %e: tensor<16x4x1xf32>, %f: tensor<16x1x1xf32>) {
  // expected-error@+1 {{dgamma: expected [16, 4, 2], got [16, 4, 1]}}
  %r:4 = megalodon.cema_coefficients_grad %a, %b, %c, %d, %e, %f : (tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>) -> (tensor<16x4x1xf32>, tensor<16x4x1xf32>, tensor<16x1x1xf32>, tensor<16x4x1xf32>)
  return
}

// -----

// cema_grad C1
func.func @cema_grad(%a: tensor<2x7x16xf32>, %b: tensor<2x16x4x2xf32>, %c: tensor<2x8x16xf32>, %d: tensor<16x4xf64>, %e: tensor<16x4x2xf64>, %f: tensor<16x4x2xf64>, %g: tensor<16x1xf32>, %h: tensor<2x2x16x4x2xf32>) {
  // expected-error@+1 {{dy: expected [2, 8, 16], got [2, 7, 16]}}
  %r:6 = megalodon.cema_grad %a end(%b), %c, %d, %e, %f, %g states(%h) {block = 4 : i64} : (tensor<2x7x16xf32>, tensor<2x16x4x2xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_grad C1
func.func @cema_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x16x4x2xf32>, %c: tensor<2x8x16xf32>, %d: tensor<16x4xf64>, %e: tensor<16x4x2xf64>, %f: tensor<16x4x2xf64>, %g: tensor<16x1xf32>, %h: tensor<2x2x16x4x2xf32>) {
  // expected-error@+1 {{dx: expected [2, 8, 16], got [2, 7, 16]}}
  %r:6 = megalodon.cema_grad %a end(%b), %c, %d, %e, %f, %g states(%h) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x7x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_grad C2
func.func @cema_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x16x4x2xf32>, %c: tensor<2x8x16xf32>, %d: tensor<4x4xf64>, %e: tensor<16x4x2xf64>, %f: tensor<16x4x2xf64>, %g: tensor<16x1xf32>, %h: tensor<2x2x16x4x2xf32>) {
  // expected-error@+1 {{p: expected [16, 4], got [4, 4]}}
  %r:6 = megalodon.cema_grad %a end(%b), %c, %d, %e, %f, %g states(%h) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x8x16xf32>, tensor<4x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_grad C2
func.func @cema_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x16x4x2xf32>, %c: tensor<2x8x16xf32>, %d: tensor<16x4xf64>, %e: tensor<16x4x2xf64>, %f: tensor<16x4x2xf64>, %g: tensor<16x1xf32>, %h: tensor<2x2x16x4x2xf32>) {
  // expected-error@+1 {{dg: expected [16, 4, 2], got [16, 2, 4]}}
  %r:6 = megalodon.cema_grad %a end(%b), %c, %d, %e, %f, %g states(%h) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x2x4xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_grad C3
func.func @cema_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x16x4x2xf32>, %c: tensor<2x8x16xf32>, %d: tensor<16x4xf64>, %e: tensor<16x4x2xf64>, %f: tensor<16x4x2xf64>, %g: tensor<1x16xf32>, %h: tensor<2x2x16x4x2xf32>) {
  // expected-error@+1 {{omega: expected [16, 1], got [1, 16]}}
  %r:6 = megalodon.cema_grad %a end(%b), %c, %d, %e, %f, %g states(%h) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<1x16xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_grad C3
func.func @cema_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x16x4x2xf32>, %c: tensor<2x8x16xf32>, %d: tensor<16x4xf64>, %e: tensor<16x4x2xf64>, %f: tensor<16x4x2xf64>, %g: tensor<16x1xf32>, %h: tensor<2x2x16x4x2xf32>) {
  // expected-error@+1 {{domega: expected [16, 1], got [1, 16]}}
  %r:6 = megalodon.cema_grad %a end(%b), %c, %d, %e, %f, %g states(%h) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<1x16xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_grad C4
func.func @cema_grad(%a: tensor<2x8x16xf32>, %b: tensor<1x16x4x2xf32>, %c: tensor<2x8x16xf32>, %d: tensor<16x4xf64>, %e: tensor<16x4x2xf64>, %f: tensor<16x4x2xf64>, %g: tensor<16x1xf32>, %h: tensor<2x2x16x4x2xf32>) {
  // expected-error@+1 {{dnew_state: expected [2, 16, 4, 2], got [1, 16, 4, 2]}}
  %r:6 = megalodon.cema_grad %a end(%b), %c, %d, %e, %f, %g states(%h) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<1x16x4x2xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_grad C4
func.func @cema_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x16x4x2xf32>, %c: tensor<2x8x16xf32>, %d: tensor<16x4xf64>, %e: tensor<16x4x2xf64>, %f: tensor<16x4x2xf64>, %g: tensor<16x1xf32>, %h: tensor<2x2x16x4x2xf32>) {
  // expected-error@+1 {{dstate: expected [2, 16, 4, 2], got [1, 16, 4, 2]}}
  %r:6 = megalodon.cema_grad %a end(%b), %c, %d, %e, %f, %g states(%h) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<1x16x4x2xf32>)
  return
}

// -----

// cema_grad C5
func.func @cema_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x16x4x2xf32>, %c: tensor<2x8x16xf32>, %d: tensor<16x4xf64>, %e: tensor<16x4x2xf64>, %f: tensor<16x4x2xf64>, %g: tensor<16x1xf32>, %h: tensor<2x2x16x4x2xf32>) {
  // expected-error@+1 {{block_states: expected [1, 2, 16, 4, 2], got [2, 2, 16, 4, 2]}}
  %r:6 = megalodon.cema_grad %a end(%b), %c, %d, %e, %f, %g states(%h) {block = 8 : i64} : (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_grad C5
func.func @cema_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x16x4x2xf32>, %c: tensor<2x8x16xf32>, %d: tensor<16x4xf64>, %e: tensor<16x4x2xf64>, %f: tensor<16x4x2xf64>, %g: tensor<16x1xf32>, %h: tensor<2x2x16x4x2xf32>) {
  // expected-error@+1 {{block: expected a positive number, got 0}}
  %r:6 = megalodon.cema_grad %a end(%b), %c, %d, %e, %f, %g states(%h) {block = 0 : i64} : (tensor<2x8x16xf32>, tensor<2x16x4x2xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_grad C6
func.func @cema_grad(%a: tensor<2x8x16xf32>, %d: tensor<16x4xf64>, %e: tensor<16x4x2xf64>, %g: tensor<16x1xf32>, %h: tensor<2x2x16x4x2xf32>, %p: tensor<2x4xi64>) {
  // expected-error@+1 {{positions: expected [2, 8], got [2, 4]}}
  %r:6 = megalodon.cema_grad %a, %a, %d, %e, %e, %g states(%h) positions(%p) {block = 4 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x2x16x4x2xf32>, tensor<2x4xi64>) -> (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>, tensor<16x4x2xf64>, tensor<16x1xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// rms_norm_grad C1
func.func @rms_norm_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{dy: expected [2, 8, 16], got [2, 8, 8]}}
  %r:2 = megalodon.rms_norm_grad %a, %b, %c {eps = 1.000000e-05 : f64} : (tensor<2x8x8xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
  return
}

// -----

// rms_norm_grad C2
func.func @rms_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<8xf32>) {
  // expected-error@+1 {{weight: expected [16], got [8]}}
  %r:2 = megalodon.rms_norm_grad %a, %b, %c {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<8xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
  return
}

// -----

// rms_norm_grad C2
func.func @rms_norm_grad(%x: tensor<2x8x16xf32>, %w: tensor<16xf32>) {
  // expected-error@+1 {{expected 2 results, got 1}}
  %r = megalodon.rms_norm_grad %x, %x, %w {eps = 1.0e-5 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x16xf32>
  return
}

// -----

// layer_norm_grad C1
func.func @layer_norm_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{dy: expected [2, 8, 16], got [2, 8, 8]}}
  %r:3 = megalodon.layer_norm_grad %a, %b, %c {eps = 1.000000e-05 : f64} : (tensor<2x8x8xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// layer_norm_grad C2
func.func @layer_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<8xf32>) {
  // expected-error@+1 {{weight: expected [16], got [8]}}
  %r:3 = megalodon.layer_norm_grad %a, %b, %c {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<8xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// layer_norm_grad C2
func.func @layer_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{dbias: expected [16], got [8]}}
  %r:3 = megalodon.layer_norm_grad %a, %b, %c {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<8xf32>)
  return
}

// -----

// layer_norm_grad C2
func.func @layer_norm_grad(%x: tensor<2x8x16xf32>) {
  // expected-error@+1 {{expected 1 results, got 3}}
  %r:3 = megalodon.layer_norm_grad %x, %x {eps = 1.0e-5 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// normalized_qk_grad C1
func.func @normalized_qk_grad(%a: tensor<2x8x4xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x8xf32>, %d: tensor<2x8xf32>) {
  // expected-error@+1 {{dq: expected [2, 8, 8], got [2, 8, 4]}}
  %r:3 = megalodon.normalized_qk_grad %a, %b, %c, %d {eps = 1.000000e-05 : f64, heads = 2 : i64} : (tensor<2x8x4xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>)
  return
}

// -----

// normalized_qk_grad C1
func.func @normalized_qk_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x8xf32>, %d: tensor<2x8xf32>) {
  // expected-error@+1 {{dz: expected [2, 8, 8], got [2, 8, 4]}}
  %r:3 = megalodon.normalized_qk_grad %a, %b, %c, %d {eps = 1.000000e-05 : f64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x4xf32>, tensor<2x8xf32>, tensor<2x8xf32>)
  return
}

// -----

// normalized_qk_grad C2
func.func @normalized_qk_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x8xf32>, %d: tensor<2x4xf32>) {
  // expected-error@+1 {{gamma: expected [2, 8], got [2, 4]}}
  %r:3 = megalodon.normalized_qk_grad %a, %b, %c, %d {eps = 1.000000e-05 : f64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x4xf32>) -> (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>)
  return
}

// -----

// normalized_qk_grad C2
func.func @normalized_qk_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x8xf32>, %d: tensor<2x8xf32>) {
  // expected-error@+1 {{dbeta: expected [2, 8], got [2, 4]}}
  %r:3 = megalodon.normalized_qk_grad %a, %b, %c, %d {eps = 1.000000e-05 : f64, heads = 2 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x4xf32>)
  return
}

// -----

// normalized_qk_grad C3
func.func @normalized_qk_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x8xf32>, %d: tensor<2x8xf32>) {
  // expected-error@+1 {{heads: expected a divisor of width 8, got 5}}
  %r:3 = megalodon.normalized_qk_grad %a, %b, %c, %d {eps = 1.000000e-05 : f64, heads = 5 : i64} : (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8xf32>) -> (tensor<2x8x8xf32>, tensor<2x8xf32>, tensor<2x8xf32>)
  return
}

// -----

// chunk_attention_grad C1
func.func @chunk_attention_grad(%a: tensor<2x8x12xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x7x8xf32>, %d: tensor<2x8x12xf32>, %e: tensor<2x4x8xf32>, %f: tensor<2x4x12xf32>, %g: tensor<2xi64>, %h: tensor<2x8x12xf32>, %i: tensor<2x8x2xf32>) {
  // expected-error@+1 {{k: expected [2, 8, 8], got [2, 7, 8]}}
  %r:3 = megalodon.chunk_attention_grad %a, %b, %c, %d cache(%e, %f) at %g saved(%h, %i) {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x7x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8x12xf32>, tensor<2x8x2xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// chunk_attention_grad C1
func.func @chunk_attention_grad(%a: tensor<2x8x12xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x8xf32>, %d: tensor<2x8x12xf32>, %e: tensor<2x4x8xf32>, %f: tensor<2x4x12xf32>, %g: tensor<2xi64>, %h: tensor<2x8x8xf32>, %i: tensor<2x8x2xf32>) {
  // expected-error@+1 {{out: expected [2, 8, 12], got [2, 8, 8]}}
  %r:3 = megalodon.chunk_attention_grad %a, %b, %c, %d cache(%e, %f) at %g saved(%h, %i) {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8x8xf32>, tensor<2x8x2xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// chunk_attention_grad C1
func.func @chunk_attention_grad(%a: tensor<2x8x12xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x8xf32>, %d: tensor<2x8x12xf32>, %e: tensor<2x4x8xf32>, %f: tensor<2x4x12xf32>, %g: tensor<2xi64>, %h: tensor<2x8x12xf32>, %i: tensor<2x8x2xf32>) {
  // expected-error@+1 {{dv: expected [2, 8, 12], got [2, 8, 8]}}
  %r:3 = megalodon.chunk_attention_grad %a, %b, %c, %d cache(%e, %f) at %g saved(%h, %i) {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8x12xf32>, tensor<2x8x2xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>)
  return
}

// -----

// chunk_attention_grad C2
func.func @chunk_attention_grad(%a: tensor<2x8x12xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x8xf32>, %d: tensor<2x8x12xf32>, %e: tensor<2x4x8xf32>, %f: tensor<2x4x12xf32>, %g: tensor<2xi64>, %h: tensor<2x8x12xf32>, %i: tensor<2x8x4xf32>) {
  // expected-error@+1 {{lse: expected [2, 8, 2], got [2, 8, 4]}}
  %r:3 = megalodon.chunk_attention_grad %a, %b, %c, %d cache(%e, %f) at %g saved(%h, %i) {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x4x12xf32>, tensor<2xi64>, tensor<2x8x12xf32>, tensor<2x8x4xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// chunk_attention_grad C3
func.func @chunk_attention_grad(%a: tensor<2x8x12xf32>, %b: tensor<2x8x8xf32>, %c: tensor<2x8x8xf32>, %d: tensor<2x8x12xf32>, %e: tensor<2x4x8xf32>, %f: tensor<2x5x12xf32>, %g: tensor<2xi64>, %h: tensor<2x8x12xf32>, %i: tensor<2x8x2xf32>) {
  // expected-error@+1 {{cache_v: expected [2, 4, 12], got [2, 5, 12]}}
  %r:3 = megalodon.chunk_attention_grad %a, %b, %c, %d cache(%e, %f) at %g saved(%h, %i) {heads = 2 : i64} : (tensor<2x8x12xf32>, tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>, tensor<2x4x8xf32>, tensor<2x5x12xf32>, tensor<2xi64>, tensor<2x8x12xf32>, tensor<2x8x2xf32>) -> (tensor<2x8x8xf32>, tensor<2x8x8xf32>, tensor<2x8x12xf32>)
  return
}

// -----

// gate_grad C1
func.func @gate_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8x16xf32>) {
  // expected-error@+1 {{dy: expected [2, 8, 16], got [2, 8, 8]}}
  %r:2 = megalodon.gate_grad %a, %b by %c : (tensor<2x8x8xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x16xf32>)
  return
}

// -----

// gate_grad C1
func.func @gate_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8x16xf32>) {
  // expected-error@+1 {{dgate: expected [2, 8, 16], got [2, 8, 8]}}
  %r:2 = megalodon.gate_grad %a, %b by %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> (tensor<2x8x16xf32>, tensor<2x8x8xf32>)
  return
}

// -----

// two_hop_residual_grad C1
func.func @two_hop_residual_grad(%a: tensor<2x8x8xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{dy: expected [2, 8, 16], got [2, 8, 8]}}
  %r:2 = megalodon.two_hop_residual_grad %a, %b rescale %c : (tensor<2x8x8xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
  return
}

// -----

// two_hop_residual_grad C2
func.func @two_hop_residual_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<8xf32>) {
  // expected-error@+1 {{alpha: expected [16], got [8]}}
  %r:2 = megalodon.two_hop_residual_grad %a, %b rescale %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<8xf32>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
  return
}

// -----

// two_hop_residual_grad C2
func.func @two_hop_residual_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{dalpha: expected [16], got [8]}}
  %r:2 = megalodon.two_hop_residual_grad %a, %b rescale %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> (tensor<2x8x16xf32>, tensor<8xf32>)
  return
}

// -----

// cross_entropy_grad C1
func.func @cross_entropy_grad(%a: tensor<2x7xf32>, %b: tensor<2x8x32xf32>, %c: tensor<2x8xi32>, %d: tensor<2x8xf32>) {
  // expected-error@+1 {{dnll: expected [2, 8], got [2, 7]}}
  %r = megalodon.cross_entropy_grad %a, %b, %c, %d : (tensor<2x7xf32>, tensor<2x8x32xf32>, tensor<2x8xi32>, tensor<2x8xf32>) -> tensor<2x8x32xf32>
  return
}

// -----

// cross_entropy_grad C1
func.func @cross_entropy_grad(%a: tensor<2x8xf32>, %b: tensor<2x8x32xf32>, %c: tensor<2x7xi32>, %d: tensor<2x8xf32>) {
  // expected-error@+1 {{targets: expected [2, 8], got [2, 7]}}
  %r = megalodon.cross_entropy_grad %a, %b, %c, %d : (tensor<2x8xf32>, tensor<2x8x32xf32>, tensor<2x7xi32>, tensor<2x8xf32>) -> tensor<2x8x32xf32>
  return
}

// -----

// cross_entropy_grad C1
func.func @cross_entropy_grad(%a: tensor<2x8xf32>, %b: tensor<2x8x32xf32>, %c: tensor<2x8xi32>, %d: tensor<2x7xf32>) {
  // expected-error@+1 {{lse: expected [2, 8], got [2, 7]}}
  %r = megalodon.cross_entropy_grad %a, %b, %c, %d : (tensor<2x8xf32>, tensor<2x8x32xf32>, tensor<2x8xi32>, tensor<2x7xf32>) -> tensor<2x8x32xf32>
  return
}

// -----

// cross_entropy_grad C1
func.func @cross_entropy_grad(%a: tensor<2x8xf32>, %b: tensor<2x8x32xf32>, %c: tensor<2x8xi32>, %d: tensor<2x8xf32>) {
  // expected-error@+1 {{dlogits: expected [2, 8, 32], got [2, 8, 31]}}
  %r = megalodon.cross_entropy_grad %a, %b, %c, %d : (tensor<2x8xf32>, tensor<2x8x32xf32>, tensor<2x8xi32>, tensor<2x8xf32>) -> tensor<2x8x31xf32>
  return
}

// -----

// mean_grad C1
func.func @mean_grad(%a: tensor<f32>) {
  // expected-error@+1 {{dx: expected elements of 'f32', got 'f64'}}
  %r = megalodon.mean_grad %a : (tensor<f32>) -> tensor<2x8xf64>
  return
}

// -----

// silu C1
func.func @silu(%x: tensor<2x8x16xf32>) {
  // expected-error@+1 {{requires the same type for all operands and results}}
  %r = "megalodon.silu"(%x) : (tensor<2x8x16xf32>) -> tensor<2x8x8xf32>
  return
}

// -----

// gate C1
func.func @gate(%x: tensor<2x8x16xf32>) {
  // expected-error@+1 {{requires the same type for all operands and results}}
  %r = "megalodon.gate"(%x, %x) : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x8xf32>
  return
}

// -----

// silu_grad C1
func.func @silu_grad(%x: tensor<2x8x16xf32>) {
  // expected-error@+1 {{requires the same type for all operands and results}}
  %r = "megalodon.silu_grad"(%x, %x) : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x8xf32>
  return
}

// -----

// accumulate C1
func.func @accumulate(%x: tensor<2x8x16xf32>) {
  // expected-error@+1 {{requires the same type for all operands and results}}
  %r = "megalodon.accumulate"(%x, %x) : (tensor<2x8x16xf32>, tensor<2x8x16xf32>) -> tensor<2x8x8xf32>
  return
}

// -----

// global_norm C1
func.func @global_norm() {
  // expected-error@+1 {{gradients: expected at least one, got none}}
  %r = "megalodon.global_norm"() : () -> tensor<f32>
  return
}

// -----

// global_norm C1
func.func @global_norm(%a: tensor<24x16xf32>, %b: tensor<16xf64>) {
  // expected-error@+1 {{gradients: expected elements of 'f32', got 'f64'}}
  %r = megalodon.global_norm %a, %b : (tensor<24x16xf32>, tensor<16xf64>) -> tensor<f32>
  return
}

// -----

// clip C1
func.func @clip(%a: tensor<f32>) {
  // expected-error@+1 {{coefficient: expected elements of 'f32', got 'f64'}}
  %r = megalodon.clip %a {max_norm = 1.000000e+00 : f64} : (tensor<f32>) -> tensor<f64>
  return
}

// -----

// adamw C1
func.func @adamw(%a: tensor<16xf32>, %b: tensor<8xf32>, %c: tensor<16xf32>, %d: tensor<16xf32>, %e: tensor<i64>, %f: tensor<f32>, %g: tensor<f32>) {
  // expected-error@+1 {{first_moment: expected [16], got [8]}}
  %r:3 = megalodon.adamw %a, %b, %c, %d step %e lr %f clip %g {beta1 = 9.000000e-01 : f64, beta2 = 8.750000e-01 : f64, epsilon = 1.000000e-08 : f64, weight_decay = 1.000000e-01 : f64} : (tensor<16xf32>, tensor<8xf32>, tensor<16xf32>, tensor<16xf32>, tensor<i64>, tensor<f32>, tensor<f32>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// adamw C1
func.func @adamw(%a: tensor<16xf32>, %b: tensor<16xf32>, %c: tensor<8xf32>, %d: tensor<16xf32>, %e: tensor<i64>, %f: tensor<f32>, %g: tensor<f32>) {
  // expected-error@+1 {{second_moment: expected [16], got [8]}}
  %r:3 = megalodon.adamw %a, %b, %c, %d step %e lr %f clip %g {beta1 = 9.000000e-01 : f64, beta2 = 8.750000e-01 : f64, epsilon = 1.000000e-08 : f64, weight_decay = 1.000000e-01 : f64} : (tensor<16xf32>, tensor<16xf32>, tensor<8xf32>, tensor<16xf32>, tensor<i64>, tensor<f32>, tensor<f32>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// adamw C1
func.func @adamw(%a: tensor<16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<16xf64>, %e: tensor<i64>, %f: tensor<f32>, %g: tensor<f32>) {
  // expected-error@+1 {{gradient: expected elements of 'f32', got 'f64'}}
  %r:3 = megalodon.adamw %a, %b, %c, %d step %e lr %f clip %g {beta1 = 9.000000e-01 : f64, beta2 = 8.750000e-01 : f64, epsilon = 1.000000e-08 : f64, weight_decay = 1.000000e-01 : f64} : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf64>, tensor<i64>, tensor<f32>, tensor<f32>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// adamw C1
func.func @adamw(%a: tensor<16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<16xf32>, %e: tensor<i64>, %f: tensor<f32>, %g: tensor<f32>) {
  // expected-error@+1 {{new_parameter: expected [16], got [8]}}
  %r:3 = megalodon.adamw %a, %b, %c, %d step %e lr %f clip %g {beta1 = 9.000000e-01 : f64, beta2 = 8.750000e-01 : f64, epsilon = 1.000000e-08 : f64, weight_decay = 1.000000e-01 : f64} : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<i64>, tensor<f32>, tensor<f32>) -> (tensor<8xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// adamw C2
func.func @adamw(%a: tensor<16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<16xf32>, %e: tensor<i64>, %f: tensor<f32>, %g: tensor<f32>) {
  // expected-error@+1 {{beta1: expected a number in [0, 1), got 1}}
  %r:3 = megalodon.adamw %a, %b, %c, %d step %e lr %f clip %g {beta1 = 1.0 : f64, beta2 = 8.750000e-01 : f64, epsilon = 1.000000e-08 : f64, weight_decay = 1.000000e-01 : f64} : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<i64>, tensor<f32>, tensor<f32>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// adamw C2
func.func @adamw(%a: tensor<16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<16xf32>, %e: tensor<i64>, %f: tensor<f32>, %g: tensor<f32>) {
  // expected-error@+1 {{beta2: expected a number in [0, 1), got -0.5}}
  %r:3 = megalodon.adamw %a, %b, %c, %d step %e lr %f clip %g {beta1 = 9.000000e-01 : f64, beta2 = -0.5 : f64, epsilon = 1.000000e-08 : f64, weight_decay = 1.000000e-01 : f64} : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<i64>, tensor<f32>, tensor<f32>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// adamw C2
func.func @adamw(%a: tensor<16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<16xf32>, %e: tensor<i64>, %f: tensor<f32>, %g: tensor<f32>) {
  // expected-error@+1 {{epsilon: expected a positive number, got}}
  %r:3 = megalodon.adamw %a, %b, %c, %d step %e lr %f clip %g {beta1 = 9.000000e-01 : f64, beta2 = 8.750000e-01 : f64, epsilon = 0.0 : f64, weight_decay = 1.000000e-01 : f64} : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<i64>, tensor<f32>, tensor<f32>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// adamw C2
func.func @adamw(%a: tensor<16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<16xf32>, %e: tensor<i64>, %f: tensor<f32>, %g: tensor<f32>) {
  // expected-error@+1 {{weight_decay: expected a number that is not negative, got -1}}
  %r:3 = megalodon.adamw %a, %b, %c, %d step %e lr %f clip %g {beta1 = 9.000000e-01 : f64, beta2 = 8.750000e-01 : f64, epsilon = 1.000000e-08 : f64, weight_decay = -1.0 : f64} : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<i64>, tensor<f32>, tensor<f32>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// adamw C3
func.func @adamw(%a: tensor<16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<16xf32>, %e: tensor<i64>, %f: tensor<f64>, %g: tensor<f32>) {
  // expected-error@+1 {{lr: expected elements of 'f32', got 'f64'}}
  %r:3 = megalodon.adamw %a, %b, %c, %d step %e lr %f clip %g {beta1 = 9.000000e-01 : f64, beta2 = 8.750000e-01 : f64, epsilon = 1.000000e-08 : f64, weight_decay = 1.000000e-01 : f64} : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<i64>, tensor<f64>, tensor<f32>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// adamw C3
func.func @adamw(%a: tensor<16xf32>, %b: tensor<16xf32>, %c: tensor<16xf32>, %d: tensor<16xf32>, %e: tensor<i64>, %f: tensor<f32>, %g: tensor<f64>) {
  // expected-error@+1 {{clip: expected elements of 'f32', got 'f64'}}
  %r:3 = megalodon.adamw %a, %b, %c, %d step %e lr %f clip %g {beta1 = 9.000000e-01 : f64, beta2 = 8.750000e-01 : f64, epsilon = 1.000000e-08 : f64, weight_decay = 1.000000e-01 : f64} : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<i64>, tensor<f32>, tensor<f64>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// adamw C3
func.func @adamw(%p: tensor<16xf32>, %step: tensor<i32>, %s: tensor<f32>) {
  // expected-error@+1 {{operand #4 must be static tensor of 64-bit signless integer}}
  %r:3 = megalodon.adamw %p, %p, %p, %p step %step lr %s clip %s {beta1 = 0.9 : f64, beta2 = 0.9 : f64, epsilon = 1.0e-8 : f64, weight_decay = 0.0 : f64}
    : (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<16xf32>, tensor<i32>, tensor<f32>, tensor<f32>) -> (tensor<16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// Ranks and kinds of elements are the operand types' to check.
func.func @rank(%x: tensor<8x16xf32>) {
  // expected-error@+1 {{operand #0 must be static tensor of 32-bit float or 64-bit float or bfloat16 type of rank 3}}
  %r = "megalodon.rms_norm"(%x) <{eps = 1.0e-5 : f64}> : (tensor<8x16xf32>) -> tensor<8x16xf32>
  return
}

// -----

func.func @dynamic(%x: tensor<?x8x16xf32>) {
  // expected-error@+1 {{operand #0 must be static tensor of 32-bit float or 64-bit float or bfloat16 type of rank 3}}
  %r = "megalodon.rms_norm"(%x) <{eps = 1.0e-5 : f64}> : (tensor<?x8x16xf32>) -> tensor<?x8x16xf32>
  return
}

// -----

func.func @linear_weight_wider_than_computed(%x: tensor<2x8x16xbf16>, %w: tensor<24x16xf64>) -> tensor<2x8x24xbf16> {
  // expected-error@+1 {{weight: expected elements of 'f32' or bf16, got 'f64'}}
  %y = megalodon.linear %x, %w : (tensor<2x8x16xbf16>, tensor<24x16xf64>) -> tensor<2x8x24xbf16>
  return %y : tensor<2x8x24xbf16>
}

// -----

func.func @linear_bias_not_computed(%x: tensor<2x8x16xbf16>, %w: tensor<24x16xbf16>, %b: tensor<24xbf16>) -> tensor<2x8x24xbf16> {
  // expected-error@+1 {{operand #2 must be static tensor of 32-bit float or 64-bit float of rank 1}}
  %y = megalodon.linear %x, %w bias %b : (tensor<2x8x16xbf16>, tensor<24x16xbf16>, tensor<24xbf16>) -> tensor<2x8x24xbf16>
  return %y : tensor<2x8x24xbf16>
}

// -----

func.func @embedding_wider_than_its_table(%t: tensor<2x8xi32>, %w: tensor<32x16xbf16>) -> tensor<2x8x16xf32> {
  // expected-error@+1 {{result: expected elements of 'bf16', got 'f32'}}
  %y = megalodon.embedding %t, %w : (tensor<2x8xi32>, tensor<32x16xbf16>) -> tensor<2x8x16xf32>
  return %y : tensor<2x8x16xf32>
}

// -----

func.func @timestep_norm_state_not_computed(%x: tensor<2x8x16xbf16>, %w: tensor<16xf32>, %c: tensor<2xi64>, %s: tensor<2x4xf64>) {
  // expected-error@+1 {{mean: expected elements of 'f32', got 'f64'}}
  %r:6 = megalodon.timestep_norm %x, %w, %w state(%c, %s, %s) {eps = 1.0e-5 : f64}
      : (tensor<2x8x16xbf16>, tensor<16xf32>, tensor<16xf32>, tensor<2xi64>, tensor<2x4xf64>, tensor<2x4xf64>)
     -> (tensor<2x8x16xbf16>, tensor<2xi64>, tensor<2x4xf64>, tensor<2x4xf64>, tensor<2x8x4xf64>, tensor<2x8x4xf64>)
  return
}
