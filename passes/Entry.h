// Ports of entry functions: arguments and results looked up by the names and
// roles that they carry.
#pragma once
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "llvm/ADT/Sequence.h"
#include <optional>

namespace mlir::megalodon {

/// "forward", "score", "grad", "train" or "generate"; empty if no entry.
inline StringRef getEntryKind(func::FuncOp function) {
  auto kind = function->getAttrOfType<StringAttr>(kEntryAttr);
  return kind ? kind.getValue() : StringRef();
}

inline StringRef nameOfArgument(func::FuncOp entry, unsigned index) {
  auto name = entry.getArgAttrOfType<StringAttr>(index, kNameAttr);
  return name ? name.getValue() : StringRef();
}

inline StringRef nameOfResult(func::FuncOp entry, unsigned index) {
  auto name = entry.getResultAttrOfType<StringAttr>(index, kNameAttr);
  return name ? name.getValue() : StringRef();
}

inline bool hasArgumentRole(func::FuncOp entry, unsigned index, Role role) {
  auto attribute = entry.getArgAttrOfType<RoleAttr>(index, kRoleAttr);
  return attribute && attribute.getValue() == role;
}

inline bool hasResultRole(func::FuncOp entry, unsigned index, Role role) {
  auto attribute = entry.getResultAttrOfType<RoleAttr>(index, kRoleAttr);
  return attribute && attribute.getValue() == role;
}

/// The argument called `name`, null if there is none.
inline BlockArgument findArgument(func::FuncOp entry, StringRef name) {
  for (BlockArgument argument : entry.getArguments())
    if (nameOfArgument(entry, argument.getArgNumber()) == name)
      return argument;
  return {};
}

/// The number of the result called `name`.
inline std::optional<unsigned> findResult(func::FuncOp entry, StringRef name) {
  for (unsigned index : llvm::seq(entry.getNumResults()))
    if (nameOfResult(entry, index) == name)
      return index;
  return std::nullopt;
}

/// Attributes of an argument or result.
inline DictionaryAttr getPortAttributes(MLIRContext *context, const Twine &name,
                                        Role role) {
  return DictionaryAttr::get(
      context, {NamedAttribute(kNameAttr, StringAttr::get(context, name)),
                NamedAttribute(kRoleAttr, RoleAttr::get(context, role))});
}

} // namespace mlir::megalodon
