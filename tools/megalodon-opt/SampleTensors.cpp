// Numbers that keep a model in its usual range: parameters of the size that
// their initialiser gives, states as a call could have left them.
#include "tools/megalodon-opt/SampleTensors.h"
#include "dialect/Plan/Plan.h"
#include "passes/Entry.h"
#include "tools/megalodon-opt/PlanRun.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/xxhash.h"
#include <cmath>
#include <random>

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

/// `value` as the element type can hold it.
static double rounded(double value, Type element) {
  if (element.isF32())
    return static_cast<float>(value);
  if (element.isBF16()) {
    APFloat narrow(value);
    bool inexact;
    narrow.convert(APFloat::BFloat(), APFloat::rmNearestTiesToEven, &inexact);
    narrow.convert(APFloat::IEEEdouble(), APFloat::rmNearestTiesToEven,
                   &inexact);
    return narrow.convertToDouble();
  }
  return value;
}

namespace {
/// What the config of a module says about ids and positions.
struct ModelExtents {
  int64_t vocabulary = 1, outputs = 1, chunk = 1;
  int64_t context = 0; ///< tokens a sequence may have; 0: any number

  explicit ModelExtents(ModuleOp module) {
    auto text = module->getAttrOfType<StringAttr>(kConfigAttr);
    auto parsed = llvm::json::parse(text ? text.getValue() : "{}");
    const llvm::json::Object *fields = parsed ? parsed->getAsObject() : nullptr;
    if (!parsed)
      llvm::consumeError(parsed.takeError());
    if (!fields)
      return;
    auto positive = [&](StringRef field, int64_t otherwise) {
      int64_t value = fields->getInteger(field).value_or(otherwise);
      return value > 0 ? value : otherwise;
    };
    vocabulary = positive("vocab_size", 1);
    outputs = positive("output_size", vocabulary);
    // Full attention is one chunk that never closes: rows stand near its begin.
    chunk = positive("chunk_size", 1);
    context = positive("max_seq_len", 0);
  }
};
} // namespace

static Tensor sampleReals(const Port &port, Role role, InitAttr init,
                          std::mt19937_64 &random) {
  Tensor result(port.shape, true);
  std::normal_distribution<double> normal;
  // What starts as zero or as a constant has moved by the time it matters.
  double scale = 0.3, mean = 0;
  if (init && init.getKind() == InitKind::Constant)
    mean = init.getA().getValueAsDouble();
  else if (init && init.getA().getValueAsDouble() > 0)
    scale = init.getA().getValueAsDouble();
  StringRef name = port.name;
  const bool positive = role == Role::SecondMoment || name.ends_with("var");
  for (int64_t i = 0; i < result.elements(); ++i) {
    double value = mean + scale * normal(random);
    result[i] = rounded(positive ? std::abs(value) + 0.1 : value,
                        port.type.getElementType());
  }
  return result;
}

static Tensor sampleIntegers(const Port &port, const ModelExtents &model,
                             bool wholeChunks, int64_t length,
                             std::mt19937_64 &random) {
  Tensor result(port.shape, false);
  const StringRef name = port.name;
  for (int64_t i = 0; i < result.elements(); ++i) {
    int64_t &value = result.integer(i);
    if (name == "tokens") {
      value = random() % model.vocabulary;
    } else if (name == "targets") {
      value = random() % 8 == 0 ? -100 : int64_t(random() % model.outputs);
    } else if (name == "resets") {
      value = random() % 5 == 0; // documents shorter and longer than a chunk
    } else if (name.ends_with("count")) {
      // The same in all layers: rows stand at one position each.
      value =
          i % 3 == 0 ? 0 : model.chunk * (i % 3) + (i * 5 + 3) % model.chunk;
      if (wholeChunks)
        value -= value % model.chunk;
      if (model.context > 0) // the call must end within the sequence
        value = std::min(value, std::max<int64_t>(0, model.context - length));
    } else {
      value = 3; // the optimizer's step
    }
  }
  return result;
}

static FailureOr<Tensor> fromFile(func::FuncOp function, const Port &port,
                                  const ::megalodon::FileTensor &given) {
  if (!llvm::equal(given.shape, port.shape)) {
    auto text = [](ArrayRef<int64_t> shape) {
      return "[" +
             llvm::join(llvm::map_range(shape,
                                        [](int64_t extent) {
                                          return std::to_string(extent);
                                        }),
                        ", ") +
             "]";
    };
    emitError(function.getLoc(), "--verify-inputs: tensor '")
        << port.name << "': expected shape " << text(port.shape) << ", got "
        << text(given.shape);
    return failure();
  }
  const bool isReal = isa<FloatType>(port.type.getElementType());
  Tensor result(port.shape, isReal);
  if ((isReal ? given.numbers.reals.size() : given.numbers.integers.size()) !=
      static_cast<size_t>(result.elements())) {
    emitError(function.getLoc(), "--verify-inputs: tensor '")
        << port.name << "': expected elements of type "
        << port.type.getElementType();
    return failure();
  }
  for (int64_t i = 0; i < result.elements(); ++i)
    if (isReal)
      result[i] = rounded(given.numbers.reals[i], port.type.getElementType());
    else
      result.integer(i) = given.numbers.integers[i];
  return result;
}

FailureOr<NamedTensors>
mlir::megalodon::sampleTensors(ModuleOp module, StringRef entry, uint64_t seed,
                               const std::string &file, bool wholeChunks) {
  std::map<std::string, ::megalodon::FileTensor> given;
  std::string error;
  if (!file.empty())
    given = ::megalodon::readTensors(file, error);
  if (!error.empty())
    return emitError(module.getLoc(), "--verify-inputs: ") << error, failure();
  const ModelExtents model(module);
  // Functions of an entry that is a pipeline share their names.
  SmallVector<func::FuncOp> functions;
  if (auto function = module.lookupSymbol<func::FuncOp>(entry))
    functions.push_back(function);
  else
    for (auto stage : module.getOps<func::FuncOp>())
      if (stage.getName().starts_with((entry + ".").str()))
        functions.push_back(stage);
  int64_t length = 0;
  for (func::FuncOp function : functions)
    for (unsigned number : llvm::seq(function.getNumArguments()))
      if (nameOfArgument(function, number) == "tokens")
        length = Port::of(function.getArgAttrDict(number),
                          function.getArgumentTypes()[number])
                     .shape[1];
  NamedTensors tensors;
  for (func::FuncOp function : functions)
    for (BlockArgument argument : function.getArguments()) {
      const unsigned number = argument.getArgNumber();
      const Port port =
          Port::of(function.getArgAttrDict(number), argument.getType());
      auto role = function.getArgAttrOfType<RoleAttr>(number, kRoleAttr);
      if (tensors.count(port.name) ||
          (role && role.getValue() == Role::Residual))
        continue;
      std::mt19937_64 random(seed ^ llvm::xxh3_64bits(port.name));
      FailureOr<Tensor> tensor = failure();
      auto fallback =
          function.getArgAttrOfType<FloatAttr>(number, kDefaultAttr);
      if (auto found = given.find(port.name); found != given.end()) {
        tensor = fromFile(function, port, found->second);
        if (failed(tensor))
          return failure();
      } else if (!isa<FloatType>(port.type.getElementType())) {
        tensor = sampleIntegers(port, model, wholeChunks, length, random);
      } else {
        tensor = sampleReals(
            port, role ? role.getValue() : Role::Input,
            function.getArgAttrOfType<InitAttr>(number, kInitAttr), random);
        if (fallback)
          (*tensor)[0] = fallback.getValueAsDouble();
        if (port.name == "lr")
          (*tensor)[0] = rounded(1e-2, port.type.getElementType());
      }
      tensors[port.name] = std::make_shared<const Tensor>(std::move(*tensor));
    }
  return tensors;
}
