// What megalodon-opt and the compilers of tests share.
#pragma once
#include "mlir/Pass/Pass.h"
#include <functional>
#include <memory>

namespace mlir::megalodon {

/// Compiles model configs to plans, and is an ordinary opt driver over the
/// megalodon dialects. `gpuBackend`: PipelineOptions.
int runMegalodonOpt(
    int argc, char **argv,
    std::function<std::unique_ptr<Pass>()> gpuBackend = nullptr);

} // namespace mlir::megalodon
