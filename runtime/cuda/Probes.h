// What a GPU can do at most, measured with what every driver and cuBLASLt have.
#pragma once
#include "runtime/cuda/CublasLt.h"

namespace megalodon::cuda {

/// Bytes read and written a second by a copy within the GPU's memory.
double measureCopies(const std::shared_ptr<Context> &context);

/// Operations a second of a product of square matrices of that size.
double measureProducts(const std::shared_ptr<Context> &context,
                       Products &products, ElementType type, int64_t size);

/// A size of products that fills the GPU.
int64_t probeSize(const Gpu &gpu);

/// Single-precision multiply-adds a second outside the tensor cores, two
/// operations each: lanes times clock, not measured.
double multiplyAddPeak(const Gpu &gpu);

} // namespace megalodon::cuda
