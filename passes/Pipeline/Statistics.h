// What a module makes a rank do, counted after each phase: ops, launches,
// arithmetic, memory traffic and messages of every entry.
#pragma once
#include "mlir/IR/BuiltinOps.h"
#include "llvm/ADT/MapVector.h"
#include "llvm/Support/raw_ostream.h"
#include <string>
#include <vector>

namespace mlir::megalodon {

/// One call of a function at its compiled shape, calls inside it included.
struct Work {
  llvm::MapVector<StringRef, int64_t> ops; ///< by name; no constants, no calls
  int64_t launches = 0;                    ///< of kernels
  int64_t products = 0;                    ///< matrix products, as ops or calls
  int64_t collectives = 0;                 ///< messages between ranks
  double productFlops = 0;                 ///< two a multiply-add
  double kernelFlops = 0;  ///< of launches; known once there are kernels
  double bytes = 0;        ///< read and written by launches and products
  double messageBytes = 0; ///< what a rank contributes to messages

  void add(const Work &other);
};

struct EntryStatistics {
  std::string phase;
  std::string entry;
  Work work;
};

/// Appends a row for each function that no other function calls.
void collectStatistics(ModuleOp module, StringRef phase,
                       std::vector<EntryStatistics> &rows);

enum class StatisticsFormat { Text, Csv, Json };
void printStatistics(llvm::ArrayRef<EntryStatistics> rows,
                     StatisticsFormat format, llvm::raw_ostream &out);

} // namespace mlir::megalodon
