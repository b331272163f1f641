// One test a constraint of every parallel op, and of the forms that other ops have on a rank.
// RUN: megalodon-opt %s -split-input-file -verify-diagnostics

// cross_entropy_grad C2
func.func @cross_entropy_grad(%a: tensor<2x8xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8xi32>, %d: tensor<2x8xf32>, %e: index) {
  // expected-error@+1 {{rank: expected rank and vocabulary both given or both absent, got one of them}}
  %r = megalodon.cross_entropy_grad %a, %b, %c, %d at %e : (tensor<2x8xf32>, tensor<2x8x16xf32>, tensor<2x8xi32>, tensor<2x8xf32>, index) -> tensor<2x8x16xf32>
  return
}

// -----

// cross_entropy_grad C2
func.func @cross_entropy_grad(%a: tensor<2x8xf32>, %b: tensor<2x8x16xf32>, %c: tensor<2x8xi32>, %d: tensor<2x8xf32>, %e: index) {
  // expected-error@+1 {{vocabulary: expected a positive number, got 0}}
  %r = megalodon.cross_entropy_grad %a, %b, %c, %d at %e {vocabulary = 0 : i64} : (tensor<2x8xf32>, tensor<2x8x16xf32>, tensor<2x8xi32>, tensor<2x8xf32>, index) -> tensor<2x8x16xf32>
  return
}

// -----

// mean C2
func.func @mean(%a: tensor<2x8xf32>) {
  // expected-error@+1 {{parts: expected a positive number, got 0}}
  %r = megalodon.mean %a {parts = 0 : i64} : (tensor<2x8xf32>) -> tensor<f32>
  return
}

// -----

// mean_grad C2
func.func @mean_grad(%a: tensor<f32>) {
  // expected-error@+1 {{parts: expected a positive number, got -1}}
  %r = megalodon.mean_grad %a {parts = -1 : i64} : (tensor<f32>) -> tensor<2x8xf32>
  return
}

// -----

// timestep_statistics C1
func.func @timestep_statistics(%a: tensor<2x8x16xf32>) {
  // expected-error@+1 {{summary: expected [2, 1, 2, 4], got [2, 3, 2, 4]}}
  %r = megalodon.timestep_statistics %a {groups = 4 : i64} : (tensor<2x8x16xf32>) -> tensor<2x3x2x4xf32>
  return
}

// -----

// timestep_statistics C1
func.func @timestep_statistics(%a: tensor<2x8x16xf32>) {
  // expected-error@+1 {{summary: expected elements of 'f32', got 'f64'}}
  %r = megalodon.timestep_statistics %a {groups = 4 : i64} : (tensor<2x8x16xf32>) -> tensor<2x1x2x4xf64>
  return
}

// -----

// timestep_statistics C2
func.func @timestep_statistics(%a: tensor<2x8x16xf32>) {
  // expected-error@+1 {{groups: expected a divisor of channels 16, got 3}}
  %r = megalodon.timestep_statistics %a {groups = 3 : i64} : (tensor<2x8x16xf32>) -> tensor<2x1x2x4xf32>
  return
}

// -----

// timestep_prefix C1
func.func @timestep_prefix(%a: tensor<2x3x3x4xf32>, %b: tensor<2xi64>, %c: tensor<2x4xf32>, %d: tensor<2x4xf32>, %e: index) {
  // expected-error@+1 {{summaries: expected [2, 3, 2, 4], got [2, 3, 3, 4]}}
  %r:6 = megalodon.timestep_prefix %a from(%b, %c, %d) at %e : (tensor<2x3x3x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, index) -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_prefix C1
func.func @timestep_prefix(%a: tensor<2x0x2x4xf32>, %b: tensor<2xi64>, %c: tensor<2x4xf32>, %d: tensor<2x4xf32>, %e: index) {
  // expected-error@+1 {{ranks: expected a positive number, got 0}}
  %r:6 = megalodon.timestep_prefix %a from(%b, %c, %d) at %e : (tensor<2x0x2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, index) -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_prefix C2
func.func @timestep_prefix(%a: tensor<2x3x2x4xf32>, %b: tensor<3xi64>, %c: tensor<2x4xf32>, %d: tensor<2x4xf32>, %e: index) {
  // expected-error@+1 {{count: expected [2], got [3]}}
  %r:6 = megalodon.timestep_prefix %a from(%b, %c, %d) at %e : (tensor<2x3x2x4xf32>, tensor<3xi64>, tensor<2x4xf32>, tensor<2x4xf32>, index) -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_prefix C2
func.func @timestep_prefix(%a: tensor<2x3x2x4xf32>, %b: tensor<2xi64>, %c: tensor<2x5xf32>, %d: tensor<2x4xf32>, %e: index) {
  // expected-error@+1 {{mean: expected [2, 4], got [2, 5]}}
  %r:6 = megalodon.timestep_prefix %a from(%b, %c, %d) at %e : (tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x5xf32>, tensor<2x4xf32>, index) -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_prefix C2
func.func @timestep_prefix(%a: tensor<2x3x2x4xf32>, %b: tensor<2xi64>, %c: tensor<2x4xf32>, %d: tensor<3x4xf32>, %e: index) {
  // expected-error@+1 {{var: expected [2, 4], got [3, 4]}}
  %r:6 = megalodon.timestep_prefix %a from(%b, %c, %d) at %e : (tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<3x4xf32>, index) -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_prefix C2
func.func @timestep_prefix(%a: tensor<2x3x2x4xf32>, %b: tensor<2xi64>, %c: tensor<2x4xf32>, %d: tensor<2x4xf32>, %e: index) {
  // expected-error@+1 {{new_mean: expected [2, 4], got [2, 5]}}
  %r:6 = megalodon.timestep_prefix %a from(%b, %c, %d) at %e : (tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, index) -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x5xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_prefix C3
func.func @timestep_prefix(%a: tensor<2x3x2x4xf32>, %b: tensor<2xi64>, %c: tensor<2x4xf64>, %d: tensor<2x4xf32>, %e: index) {
  // expected-error@+1 {{mean: expected elements of 'f32', got 'f64'}}
  %r:6 = megalodon.timestep_prefix %a from(%b, %c, %d) at %e : (tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x4xf64>, tensor<2x4xf32>, index) -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_prefix C3
func.func @timestep_prefix(%a: tensor<2x3x2x4xf32>, %b: tensor<2xi64>, %c: tensor<2x4xf32>, %d: tensor<2x4xf64>, %e: index) {
  // expected-error@+1 {{var: expected elements of 'f32', got 'f64'}}
  %r:6 = megalodon.timestep_prefix %a from(%b, %c, %d) at %e : (tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf64>, index) -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_prefix C3
func.func @timestep_prefix(%a: tensor<2x3x2x4xf32>, %b: tensor<2xi64>, %c: tensor<2x4xf32>, %d: tensor<2x4xf32>, %e: index) {
  // expected-error@+1 {{local_var: expected elements of 'f32', got 'f64'}}
  %r:6 = megalodon.timestep_prefix %a from(%b, %c, %d) at %e : (tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>, index) -> (tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf64>, tensor<2xi64>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_moments_grad C1
func.func @timestep_moments_grad(%a: tensor<2x4xf32>, %b: tensor<2x5xf32>, %x: tensor<2x8x16xf32>, %n: tensor<2xi64>, %m: tensor<2x8x4xf32>) {
  // expected-error@+1 {{dvar: expected [2, 4], got [2, 5]}}
  %r = megalodon.timestep_moments_grad %a, %b, %x state(%n, %m) : (tensor<2x4xf32>, tensor<2x5xf32>, tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x8x4xf32>) -> tensor<2x1x2x4xf32>
  return
}

// -----

// timestep_moments_grad C2
func.func @timestep_moments_grad(%a: tensor<2x4xf32>, %b: tensor<2x4xf32>, %x: tensor<2x8x16xf32>, %n: tensor<2xi64>, %m: tensor<2x9x4xf32>) {
  // expected-error@+1 {{running_mean: expected [2, 8, 4], got [2, 9, 4]}}
  %r = megalodon.timestep_moments_grad %a, %b, %x state(%n, %m) : (tensor<2x4xf32>, tensor<2x4xf32>, tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x9x4xf32>) -> tensor<2x1x2x4xf32>
  return
}

// -----

// timestep_moments_grad C3
func.func @timestep_moments_grad(%a: tensor<2x4xf64>, %b: tensor<2x4xf64>, %x: tensor<2x8x16xf32>, %n: tensor<2xi64>, %m: tensor<2x8x4xf32>) {
  // expected-error@+1 {{dmean: expected elements of 'f32', got 'f64'}}
  %r = megalodon.timestep_moments_grad %a, %b, %x state(%n, %m) : (tensor<2x4xf64>, tensor<2x4xf64>, tensor<2x8x16xf32>, tensor<2xi64>, tensor<2x8x4xf32>) -> tensor<2x1x2x4xf32>
  return
}

// -----

// timestep_suffix_grad C1
func.func @timestep_suffix_grad(%dx: tensor<2x9x16xf32>, %x: tensor<2x8x16xf32>, %s: tensor<2x3x2x4xf32>, %n: tensor<2xi64>, %m: tensor<2x8x4xf32>, %k: index) {
  // expected-error@+1 {{dx: expected [2, 8, 16], got [2, 9, 16]}}
  %r:3 = megalodon.timestep_suffix_grad %dx, %x, %s state(%n, %m) at %k : (tensor<2x9x16xf32>, tensor<2x8x16xf32>, tensor<2x3x2x4xf32>, tensor<2xi64>, tensor<2x8x4xf32>, index) -> (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// timestep_suffix_grad C2
func.func @timestep_suffix_grad(%dx: tensor<2x8x16xf32>, %x: tensor<2x8x16xf32>, %s: tensor<2x3x2x5xf32>, %n: tensor<2xi64>, %m: tensor<2x8x5xf32>, %k: index) {
  // expected-error@+1 {{groups: expected a divisor of channels 16, got 5}}
  %r:3 = megalodon.timestep_suffix_grad %dx, %x, %s state(%n, %m) at %k : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x3x2x5xf32>, tensor<2xi64>, tensor<2x8x5xf32>, index) -> (tensor<2x8x16xf32>, tensor<2x5xf32>, tensor<2x5xf32>)
  return
}

// -----

// timestep_suffix_grad C3
func.func @timestep_suffix_grad(%dx: tensor<2x8x16xf32>, %x: tensor<2x8x16xf32>, %s: tensor<2x3x2x4xf32>, %n: tensor<3xi64>, %m: tensor<2x8x4xf32>, %k: index) {
  // expected-error@+1 {{count: expected [2], got [3]}}
  %r:3 = megalodon.timestep_suffix_grad %dx, %x, %s state(%n, %m) at %k : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<2x3x2x4xf32>, tensor<3xi64>, tensor<2x8x4xf32>, index) -> (tensor<2x8x16xf32>, tensor<2x4xf32>, tensor<2x4xf32>)
  return
}

// -----

// cema_summary C1
func.func @cema_summary(%a: tensor<2x8x16xf32>, %b: tensor<15x4xf64>, %c: tensor<16x4x2xf64>) {
  // expected-error@+1 {{p: expected [16, 4], got [15, 4]}}
  %r = megalodon.cema_summary %a, %b, %c : (tensor<2x8x16xf32>, tensor<15x4xf64>, tensor<16x4x2xf64>) -> tensor<2x1x16x4x2xf32>
  return
}

// -----

// cema_summary C1
func.func @cema_summary(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x5x2xf64>) {
  // expected-error@+1 {{q: expected [16, 4, 2], got [16, 5, 2]}}
  %r = megalodon.cema_summary %a, %b, %c : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x5x2xf64>) -> tensor<2x1x16x4x2xf32>
  return
}

// -----

// cema_summary C2
func.func @cema_summary(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>) {
  // expected-error@+1 {{summary: expected [2, 1, 16, 4, 2], got [2, 2, 16, 4, 2]}}
  %r = megalodon.cema_summary %a, %b, %c : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>) -> tensor<2x2x16x4x2xf32>
  return
}

// -----

// cema_summary C2
func.func @cema_summary(%a: tensor<2x8x16xf32>, %b: tensor<16x4xf64>, %c: tensor<16x4x2xf64>) {
  // expected-error@+1 {{summary: expected elements of 'f32', got 'f64'}}
  %r = megalodon.cema_summary %a, %b, %c : (tensor<2x8x16xf32>, tensor<16x4xf64>, tensor<16x4x2xf64>) -> tensor<2x1x16x4x2xf64>
  return
}

// -----

// cema_grad_summary C1
func.func @cema_grad_summary(%a: tensor<2x8x16xf32>, %b: tensor<15x4x2xf64>, %c: tensor<16x4x2xf64>) {
  // expected-error@+1 {{q: expected [16, 4, 2], got [15, 4, 2]}}
  %r = megalodon.cema_grad_summary %a, %b, %c : (tensor<2x8x16xf32>, tensor<15x4x2xf64>, tensor<16x4x2xf64>) -> tensor<2x1x16x4x2xf32>
  return
}

// -----

// cema_grad_summary C1
func.func @cema_grad_summary(%a: tensor<2x8x16xf32>, %b: tensor<16x4x2xf64>, %c: tensor<16x5x2xf64>) {
  // expected-error@+1 {{g: expected [16, 4, 2], got [16, 5, 2]}}
  %r = megalodon.cema_grad_summary %a, %b, %c : (tensor<2x8x16xf32>, tensor<16x4x2xf64>, tensor<16x5x2xf64>) -> tensor<2x1x16x4x2xf32>
  return
}

// -----

// cema_grad_summary C2
func.func @cema_grad_summary(%a: tensor<2x8x16xf32>, %b: tensor<16x4x2xf64>, %c: tensor<16x4x2xf64>) {
  // expected-error@+1 {{summary: expected [2, 1, 16, 4, 2], got [2, 2, 16, 4, 2]}}
  %r = megalodon.cema_grad_summary %a, %b, %c : (tensor<2x8x16xf32>, tensor<16x4x2xf64>, tensor<16x4x2xf64>) -> tensor<2x2x16x4x2xf32>
  return
}

// -----

// cema_prefix C1
func.func @cema_prefix(%a: tensor<2x0x16x4x2xf32>, %b: tensor<16x4x2xf64>, %c: tensor<2x16x4x2xf32>, %d: index) {
  // expected-error@+1 {{ranks: expected a positive number, got 0}}
  %r:2 = megalodon.cema_prefix %a, %b state(%c) at %d reverse : (tensor<2x0x16x4x2xf32>, tensor<16x4x2xf64>, tensor<2x16x4x2xf32>, index) -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_prefix C1
func.func @cema_prefix(%a: tensor<2x3x16x4x1xf32>, %b: tensor<16x4x2xf64>, %c: tensor<2x16x4x2xf32>, %d: index) {
  // expected-error@+1 {{summaries: expected [2, 3, 16, 4, 2], got [2, 3, 16, 4, 1]}}
  %r:2 = megalodon.cema_prefix %a, %b state(%c) at %d reverse : (tensor<2x3x16x4x1xf32>, tensor<16x4x2xf64>, tensor<2x16x4x2xf32>, index) -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_prefix C1
func.func @cema_prefix(%a: tensor<2x3x16x4x2xf32>, %b: tensor<16x5x2xf64>, %c: tensor<2x16x4x2xf32>, %d: index) {
  // expected-error@+1 {{q: expected [16, 4, 2], got [16, 5, 2]}}
  %r:2 = megalodon.cema_prefix %a, %b state(%c) at %d reverse : (tensor<2x3x16x4x2xf32>, tensor<16x5x2xf64>, tensor<2x16x4x2xf32>, index) -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_prefix C2
func.func @cema_prefix(%a: tensor<2x3x16x4x2xf32>, %b: tensor<16x4x2xf64>, %c: tensor<3x16x4x2xf32>, %d: index) {
  // expected-error@+1 {{state: expected [2, 16, 4, 2], got [3, 16, 4, 2]}}
  %r:2 = megalodon.cema_prefix %a, %b state(%c) at %d reverse : (tensor<2x3x16x4x2xf32>, tensor<16x4x2xf64>, tensor<3x16x4x2xf32>, index) -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_prefix C2
func.func @cema_prefix(%a: tensor<2x3x16x4x2xf32>, %b: tensor<16x4x2xf64>, %c: tensor<2x16x4x2xf64>, %d: index) {
  // expected-error@+1 {{state: expected elements of 'f32', got 'f64'}}
  %r:2 = megalodon.cema_prefix %a, %b state(%c) at %d reverse : (tensor<2x3x16x4x2xf32>, tensor<16x4x2xf64>, tensor<2x16x4x2xf64>, index) -> (tensor<2x16x4x2xf32>, tensor<2x16x4x2xf32>)
  return
}

// -----

// cema_prefix C2
func.func @cema_prefix(%a: tensor<2x3x16x4x2xf32>, %b: tensor<16x4x2xf64>, %c: tensor<2x16x4x2xf32>, %d: index) {
  // expected-error@+1 {{new_state: expected [2, 16, 4, 2], got [3, 16, 4, 2]}}
  %r:2 = megalodon.cema_prefix %a, %b state(%c) at %d reverse : (tensor<2x3x16x4x2xf32>, tensor<16x4x2xf64>, tensor<2x16x4x2xf32>, index) -> (tensor<2x16x4x2xf32>, tensor<3x16x4x2xf32>)
  return
}

// -----

// cross_entropy_summary C1
func.func @cross_entropy_summary(%a: tensor<2x8x16xf32>, %b: tensor<2x9xi32>, %c: index) {
  // expected-error@+1 {{targets: expected [2, 8], got [2, 9]}}
  %r = megalodon.cross_entropy_summary %a, %b at %c {vocabulary = 30 : i64} : (tensor<2x8x16xf32>, tensor<2x9xi32>, index) -> tensor<2x8x2xf32>
  return
}

// -----

// cross_entropy_summary C2
func.func @cross_entropy_summary(%a: tensor<2x8x16xf32>, %b: tensor<2x8xi32>, %c: index) {
  // expected-error@+1 {{summary: expected [2, 8, 2], got [2, 8, 3]}}
  %r = megalodon.cross_entropy_summary %a, %b at %c {vocabulary = 30 : i64} : (tensor<2x8x16xf32>, tensor<2x8xi32>, index) -> tensor<2x8x3xf32>
  return
}

// -----

// cross_entropy_summary C3
func.func @cross_entropy_summary(%a: tensor<2x8x16xf32>, %b: tensor<2x8xi32>, %c: index) {
  // expected-error@+1 {{vocabulary: expected a positive number, got 0}}
  %r = megalodon.cross_entropy_summary %a, %b at %c {vocabulary = 0 : i64} : (tensor<2x8x16xf32>, tensor<2x8xi32>, index) -> tensor<2x8x2xf32>
  return
}

// -----

// cross_entropy_combine C1
func.func @cross_entropy_combine(%a: tensor<2x8x5xf32>, %b: tensor<2x8xi32>) {
  // expected-error@+1 {{summaries: expected pairs of numbers, got 5 numbers}}
  %r:2 = megalodon.cross_entropy_combine %a, %b : (tensor<2x8x5xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  return
}

// -----

// cross_entropy_combine C1
func.func @cross_entropy_combine(%a: tensor<2x8x6xf32>, %b: tensor<2x9xi32>) {
  // expected-error@+1 {{targets: expected [2, 8], got [2, 9]}}
  %r:2 = megalodon.cross_entropy_combine %a, %b : (tensor<2x8x6xf32>, tensor<2x9xi32>) -> (tensor<2x8xf32>, tensor<2x8xf32>)
  return
}

// -----

// cross_entropy_combine C1
func.func @cross_entropy_combine(%a: tensor<2x8x6xf32>, %b: tensor<2x8xi32>) {
  // expected-error@+1 {{lse: expected [2, 8], got [2, 9]}}
  %r:2 = megalodon.cross_entropy_combine %a, %b : (tensor<2x8x6xf32>, tensor<2x8xi32>) -> (tensor<2x8xf32>, tensor<2x9xf32>)
  return
}

// -----

// cross_entropy_combine C2
func.func @cross_entropy_combine(%a: tensor<2x8x6xf32>, %b: tensor<2x8xi32>) {
  // expected-error@+1 {{nll: expected elements of 'f32', got 'f64'}}
  %r:2 = megalodon.cross_entropy_combine %a, %b : (tensor<2x8x6xf32>, tensor<2x8xi32>) -> (tensor<2x8xf64>, tensor<2x8xf32>)
  return
}

// -----

// rms_norm_grad_sums C1
func.func @rms_norm_grad_sums(%a: tensor<2x9x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{dy: expected [2, 8, 16], got [2, 9, 16]}}
  %r = megalodon.rms_norm_grad_sums %a, %b, %c : (tensor<2x9x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x2xf64>
  return
}

// -----

// rms_norm_grad_sums C2
func.func @rms_norm_grad_sums(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<15xf32>) {
  // expected-error@+1 {{weight: expected [16], got [15]}}
  %r = megalodon.rms_norm_grad_sums %a, %b, %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<15xf32>) -> tensor<2x8x2xf64>
  return
}

// -----

// rms_norm_grad_sums C2
func.func @rms_norm_grad_sums(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf64>) {
  // expected-error@+1 {{weight: expected elements of 'f32', got 'f64'}}
  %r = megalodon.rms_norm_grad_sums %a, %b, %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf64>) -> tensor<2x8x2xf64>
  return
}

// -----

// rms_norm_grad_sums C3
func.func @rms_norm_grad_sums(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{sums: expected [2, 8, 2], got [2, 8, 3]}}
  %r = megalodon.rms_norm_grad_sums %a, %b, %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x3xf64>
  return
}

// -----

// layer_norm_grad_sums C1
func.func @layer_norm_grad_sums(%a: tensor<2x9x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{dy: expected [2, 8, 16], got [2, 9, 16]}}
  %r = megalodon.layer_norm_grad_sums %a, %b, %c : (tensor<2x9x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x4xf64>
  return
}

// -----

// layer_norm_grad_sums C2
func.func @layer_norm_grad_sums(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<15xf32>) {
  // expected-error@+1 {{weight: expected [16], got [15]}}
  %r = megalodon.layer_norm_grad_sums %a, %b, %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<15xf32>) -> tensor<2x8x4xf64>
  return
}

// -----

// layer_norm_grad_sums C2
func.func @layer_norm_grad_sums(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf64>) {
  // expected-error@+1 {{weight: expected elements of 'f32', got 'f64'}}
  %r = megalodon.layer_norm_grad_sums %a, %b, %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf64>) -> tensor<2x8x4xf64>
  return
}

// -----

// layer_norm_grad_sums C3
func.func @layer_norm_grad_sums(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>) {
  // expected-error@+1 {{sums: expected [2, 8, 4], got [2, 8, 3]}}
  %r = megalodon.layer_norm_grad_sums %a, %b, %c : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>) -> tensor<2x8x3xf64>
  return
}

// -----

// rms_norm_grad C3
func.func @rms_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>, %d: tensor<2x8x3xf64>) {
  // expected-error@+1 {{sums: expected [2, 8, 2], got [2, 8, 3]}}
  %r:2 = megalodon.rms_norm_grad %a, %b, %c sums(%d) {eps = 1.000000e-05 : f64, width = 64 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2x8x3xf64>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
  return
}

// -----

// rms_norm_grad C3
func.func @rms_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>, %d: tensor<2x8x2xf64>) {
  // expected-error@+1 {{width: expected at least 16 channels, got 8}}
  %r:2 = megalodon.rms_norm_grad %a, %b, %c sums(%d) {eps = 1.000000e-05 : f64, width = 8 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2x8x2xf64>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
  return
}

// -----

// rms_norm_grad C3
func.func @rms_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>, %d: tensor<2x8x2xf64>) {
  // expected-error@+1 {{sums: expected sums and width both given or both absent, got one of them}}
  %r:2 = megalodon.rms_norm_grad %a, %b, %c sums(%d) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2x8x2xf64>) -> (tensor<2x8x16xf32>, tensor<16xf32>)
  return
}

// -----

// layer_norm_grad C3
func.func @layer_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>, %d: tensor<2x8x3xf64>) {
  // expected-error@+1 {{sums: expected [2, 8, 4], got [2, 8, 3]}}
  %r:3 = megalodon.layer_norm_grad %a, %b, %c sums(%d) {eps = 1.000000e-05 : f64, width = 64 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2x8x3xf64>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// layer_norm_grad C3
func.func @layer_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>, %d: tensor<2x8x4xf64>) {
  // expected-error@+1 {{width: expected at least 16 channels, got 8}}
  %r:3 = megalodon.layer_norm_grad %a, %b, %c sums(%d) {eps = 1.000000e-05 : f64, width = 8 : i64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2x8x4xf64>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// layer_norm_grad C3
func.func @layer_norm_grad(%a: tensor<2x8x16xf32>, %b: tensor<2x8x16xf32>, %c: tensor<16xf32>, %d: tensor<2x8x4xf64>) {
  // expected-error@+1 {{sums: expected sums and width both given or both absent, got one of them}}
  %r:3 = megalodon.layer_norm_grad %a, %b, %c sums(%d) {eps = 1.000000e-05 : f64} : (tensor<2x8x16xf32>, tensor<2x8x16xf32>, tensor<16xf32>, tensor<2x8x4xf64>) -> (tensor<2x8x16xf32>, tensor<16xf32>, tensor<16xf32>)
  return
}

// -----

// sum_of_squares C1
func.func @sum_of_squares() {
  // expected-error@+1 {{gradients: expected at least one, got none}}
  %r = megalodon.sum_of_squares : () -> tensor<f64>
  return
}

// -----

// sum_of_squares C1
func.func @sum_of_squares(%a: tensor<24x16xf32>, %b: tensor<16xf64>) {
  // expected-error@+1 {{gradients: expected elements of 'f32', got 'f64'}}
  %r = megalodon.sum_of_squares %a, %b : (tensor<24x16xf32>, tensor<16xf64>) -> tensor<f64>
  return
}

// -----

// norm_of_squares C1
func.func @norm_of_squares() {
  // expected-error@+1 {{sums: expected at least one, got none}}
  %r = megalodon.norm_of_squares : () -> tensor<f32>
  return
}
