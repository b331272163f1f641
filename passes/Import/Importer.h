// What the importers of all models share: parameters and state as ports,
// functions, and an entry around the layers. A model says what its parameters,
// its state and the body of its layer are.
#pragma once
#include "dialect/Megalodon/Megalodon.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "passes/Import/Import.h"
#include <map>

namespace mlir::megalodon {

/// An argument or result of a function.
struct Port {
  std::string name;
  Type type;
  std::optional<Role> role; ///< absent in layer functions
  InitAttr init = {};
  Attribute defaultValue = {};
  SmallVector<int64_t> outsideShape = {}; ///< empty: the type's own
};

/// What the functions of layers differ in.
struct LayerShape {
  std::string name;
  int64_t batch, length;
  bool packed;
};

inline std::string join(StringRef prefix, StringRef name) {
  return (prefix + name).str();
}

class Importer {
public:
  Importer(MLIRContext &context, const ::megalodon::Config &config,
           StringRef precision, ArrayRef<::megalodon::EntrySpec> entries);
  virtual ~Importer() = default;

  OwningOpRef<ModuleOp> run();

protected:
  //===-- What a model is -------------------------------------------------===//

  /// Names of the embedding table and of the matrix that makes logits.
  virtual StringRef tableName() const = 0;
  virtual StringRef headName() const = 0;
  /// Parameters of layer `layer` in checkpoint order, named relative to it.
  virtual SmallVector<Port> layerParameters(int64_t layer) = 0;
  /// Parameters of the last norm, in checkpoint order.
  virtual SmallVector<Port> finalNormParameters() = 0;
  /// State of a layer, and of the last norm.
  virtual SmallVector<Port> layerState(StringRef prefix, int64_t batch) = 0;
  virtual SmallVector<Port> finalState(StringRef prefix, int64_t batch) = 0;
  /// The function of a layer's body.
  virtual func::FuncOp buildLayer(const LayerShape &shape) = 0;
  /// The norm between layers and head; appends to the state.
  virtual Value buildFinalNorm(Value x, llvm::StringMap<Value> &in,
                               SmallVectorImpl<Value> &newState) = 0;

  //===-- Parameters and state --------------------------------------------===//

  RankedTensorType tensor(ArrayRef<int64_t> shape) {
    return RankedTensorType::get(shape, real);
  }
  RankedTensorType activation(ArrayRef<int64_t> shape) {
    return RankedTensorType::get(shape, stored);
  }
  /// A matrix that only products read, or the embedding table.
  RankedTensorType matrix(ArrayRef<int64_t> shape) {
    return RankedTensorType::get(shape, weight);
  }
  InitAttr init(InitKind kind, double a = 0, double b = 0) {
    return InitAttr::get(builder.getContext(), kind, builder.getF64FloatAttr(a),
                         builder.getF64FloatAttr(b));
  }
  /// A projection of a layer, initialised as `init_mode` says.
  Port projection(StringRef name, int64_t outputs, int64_t inputs);
  /// The number of tokens each row has consumed.
  Port countState(StringRef prefix, int64_t batch);
  /// A cache of `heads` heads, [batch, capacity, heads, width] outside.
  Port cacheState(StringRef prefix, StringRef name, int64_t batch,
                  int64_t heads, int64_t width);
  SmallVector<Port> modelParameters();
  SmallVector<Port> modelState(int64_t batch);
  static std::string layerName(int64_t layer) {
    return "layers." + std::to_string(layer);
  }

  //===-- Functions -------------------------------------------------------===//

  Location named(const Twine &name) {
    return NameLoc::get(builder.getStringAttr(name));
  }
  /// Opens a function at the module's end; `values` receives its arguments by
  /// name.
  func::FuncOp openFunction(StringRef name, ArrayRef<Port> arguments,
                            ArrayRef<Port> results,
                            llvm::StringMap<Value> &values);
  /// Opens the function of a layer: x, parameters and state give x and state.
  /// A packed one takes `resets` too, and `values` receives `positions`.
  func::FuncOp openLayer(const LayerShape &shape,
                         llvm::StringMap<Value> &values);
  /// Adds `positions` to the values of a packed function: those of its tokens
  /// behind `count`.
  void addPositions(const Twine &part, Value count,
                    llvm::StringMap<Value> &values);

  const ::megalodon::Config &config;
  ArrayRef<::megalodon::EntrySpec> entries;
  OpBuilder builder;
  Type real;   ///< the compute type
  Type stored; ///< of activations
  Type weight; ///< of matrices that only products read

private:
  DictionaryAttr optimizerAttributes();
  DictionaryAttr portAttributes(const Port &port);
  void buildEntry(const ::megalodon::EntrySpec &entry);

  RankedTensorType tokensType(int64_t batch, int64_t length) {
    return RankedTensorType::get({batch, length}, builder.getI32Type());
  }

  OwningOpRef<ModuleOp> module;
  std::map<std::tuple<int64_t, int64_t, bool>, func::FuncOp> layers;
};

std::unique_ptr<Importer>
createMegalodonImporter(MLIRContext &context, const ::megalodon::Config &config,
                        StringRef precision,
                        ArrayRef<::megalodon::EntrySpec> entries);
std::unique_ptr<Importer>
createLlamaImporter(MLIRContext &context, const ::megalodon::Config &config,
                    StringRef precision,
                    ArrayRef<::megalodon::EntrySpec> entries);
std::unique_ptr<Importer>
createMegaImporter(MLIRContext &context, const ::megalodon::Config &config,
                   StringRef precision,
                   ArrayRef<::megalodon::EntrySpec> entries);

} // namespace mlir::megalodon
