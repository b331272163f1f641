// What cannot run on a GPU is refused when it is compiled, not when it is loaded.
// RUN: megalodon-opt %s --split-input-file --verify-diagnostics --megalodon-compile-gpu-kernels='gpu-arch=sm_80 cuda-path=none'

module {
  module @kernels {
    gpu.module @kernels {
      func.func private @device_function(f32) -> f32
      // expected-error @below {{kernel 'calls' calls 'device_function', which a GPU does not have; expected megalodon-expand-gpu-math to have expanded it}}
      gpu.func @calls(%x: memref<16xf32>) kernel {
        %thread = gpu.thread_id x
        %v = memref.load %x[%thread] : memref<16xf32>
        %w = func.call @device_function(%v) : (f32) -> f32
        memref.store %w, %x[%thread] : memref<16xf32>
        gpu.return
      }
    }
  }
}

// -----

module {
  module @kernels {
    gpu.module @kernels {
      // expected-error @below {{kernel 'grows' calls 'llvm.exp.f64', which a GPU does not have; expected megalodon-expand-gpu-math to have expanded it}}
      gpu.func @grows(%x: memref<16xf64>) kernel {
        %thread = gpu.thread_id x
        %v = memref.load %x[%thread] : memref<16xf64>
        %w = math.exp %v : f64
        memref.store %w, %x[%thread] : memref<16xf64>
        gpu.return
      }
    }
  }
}

// -----

module {
  module @kernels {
    gpu.module @kernels {
      // expected-error @below {{'gpu.func' op expected at most 166912 bytes of shared memory, which is what sm_80 has, got 200000}}
      gpu.func @large() kernel attributes {plan.scratch = 200000 : i64} {
        gpu.return
      }
    }
  }
}

// -----

module {
  // expected-error @below {{has no gpu.module; expected pass 'megalodon-outline-gpu-kernels' to have run}}
  module @kernels {
  }
}
