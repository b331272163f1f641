// Where scans over time stop for the next document of a row: the inner loops
// see runs of tokens of one document and stay what they are.
#pragma once
#include "passes/Lowering/KernelBuilder.h"

namespace mlir::megalodon {

/// The positions of an op's tokens as a kernel reads them; null where rows are
/// not packed.
template <typename Op> Value readPositions(KernelBuilder &k, Op op) {
  return op.getPositions() ? k.read(op.getPositions(), View::Flat) : Value();
}

/// The documents of one row, by the positions of the call's tokens. Where rows
/// are not packed (null positions) nothing is tested and a row is one run.
class PackedDocuments {
public:
  PackedDocuments(KernelBuilder &k, Value positions)
      : k(k), positions(positions) {}

  explicit operator bool() const { return static_cast<bool>(positions); }
  void setRow(Value row) { this->row = row; }

  /// The position of token `t` of the row (index). With row 0, tokens of all
  /// rows may be asked for, as a Rows view counts them.
  Value position(Value t);
  /// i1: whether a document begins at token `t`.
  Value begins(Value t);
  /// i1: whether none begins at the `count` tokens of which `last` is the last.
  Value goesOn(Value last, Value count);
  /// Runs `body` if a document begins at token `t`.
  void whenBegins(Value t, function_ref<void()> body);

  /// Visits tokens [first, end), not none, in runs of one document each;
  /// `begin` runs in front of every run but the first.
  void forRuns(Value first, Value end, function_ref<void()> begin,
               function_ref<void(Value from, Value to)> run);
  /// The same from the last run to the first, as counts of tokens behind
  /// `first`; `begin` runs behind every run at which a document begins, the
  /// first included.
  void forRunsInReverse(Value first, Value count, function_ref<void()> begin,
                        function_ref<void(Value from, Value to)> run);

private:
  Value equal(Value x, Value y);

  KernelBuilder &k;
  Value positions, row;
};

} // namespace mlir::megalodon
