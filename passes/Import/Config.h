// The model config: the original's field names in JSON, parsed, completed with
// defaults and checked against every constraint of the model.
#pragma once
#include "llvm/ADT/SmallVector.h"
#include "llvm/ADT/StringRef.h"
#include "llvm/Support/Error.h"
#include <cstdint>
#include <string>

namespace megalodon {

/// The `optimizer` block.
struct OptimizerConfig {
  std::string name = "adamw";
  double beta1 = 0.9;
  double beta2 = 0.98;
  double epsilon = 1e-8;
  double weightDecay = 0.1;
  double clip = 1.0; ///< largest global norm of the gradient; 0: no clipping
};

struct Config {
  std::string modelType; ///< required: "megalodon", "mega" or "llama"
  int64_t numLayers = 8;
  int64_t modelDim = 1024;
  int64_t zDim = 256;
  int64_t valueDim = 2048;
  int64_t numHeads = 1;
  int64_t keyHeads = -1; ///< llama; -1 until parsed: as many as heads
  int64_t ffnHiddenDim = 2048;
  int64_t cemaNdim = 16;
  int64_t chunkSize = 2048; ///< llama: the capacity of the caches; mega: -1
                            ///< is full attention
  int64_t maxSeqLen = 0;    ///< mega with full attention: the capacity
  std::string
      efficientAttn; ///< a choice of CUDA kernel in the original: ignored
  std::string initMode = "he";
  int64_t vocabSize = -1;  ///< required
  int64_t outputSize = -1; ///< -1 until parsed: the vocabulary's size
  int64_t normNumGroups = 32;
  std::string normType = "layernorm"; ///< mega: or "rmsnorm"
  bool normAffine = true;
  bool finalNormAffine = false;                ///< mega
  std::string attentionFunction = "softmax";   ///< mega: or "laplace"
  std::string relativePositionBias = "rotary"; ///< mega
  double normEps = 1e-5;
  double ropeBase = 10000;
  double dropout = 0;
  double hiddenDropout = 0;
  double attentionDropout = 0;
  bool swiglu = false;
  bool rescaleNffn = false;
  bool scaleEmb = false;
  bool shareEmb = false;
  bool layerwiseCkpt = false; ///< recompute the whole layer in backward
  OptimizerConfig optimizer;

  bool isLlama() const { return modelType == "llama"; }
  bool isMega() const { return modelType == "mega"; }
  /// Keeps the keys of all tokens, so that a sequence has an end.
  bool hasFullAttention() const { return isLlama() || maxSeqLen > 0; }
  /// Tokens that the caches of keys and values have room for.
  int64_t cacheCapacity() const {
    return maxSeqLen > 0 ? maxSeqLen : chunkSize;
  }
  int64_t headKeyDim() const { return zDim / numHeads; }
  int64_t headValueDim() const { return valueDim / numHeads; }
};

/// Parses and checks the JSON `text` of the file `file`. The error lists
/// everything that is wrong, one line a field: `file: field: expected N, got
/// M`. What is accepted but has no effect is told in `remarks`, in the same
/// form.
llvm::Expected<Config> parseConfig(llvm::StringRef text, llvm::StringRef file,
                                   llvm::SmallVectorImpl<std::string> &remarks);

/// The config as JSON on one line, with every field in a fixed order. Parses
/// to the same config.
std::string canonicalConfig(const Config &config);

} // namespace megalodon
