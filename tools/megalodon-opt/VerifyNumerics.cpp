// Three comparisons: the interpreter after each phase with itself, the plan's
// results with the interpreter's, and each op of the plan with the interpreter
// from the operands that the plan had.
#include "tools/megalodon-opt/VerifyNumerics.h"
#include "dialect/Interpreter/Interpreter.h"
#include "dialect/Plan/Plan.h"
#include "passes/Entry.h"
#include "tools/megalodon-opt/Comparison.h"
#include "tools/megalodon-opt/ExposeValues.h"
#include "tools/megalodon-opt/PlanRun.h"
#include "tools/megalodon-opt/SampleTensors.h"
#include "llvm/Support/FormatVariadic.h"

using namespace mlir;
using namespace mlir::megalodon;
using namespace mlir::megalodon::interpreter;

namespace {
class Verifier {
public:
  Verifier(const VerifyOptions &options, const Compilation &compilation)
      : options(options), compilation(compilation),
        tolerances(Tolerances::of(options.precision)) {}

  LogicalResult run(ModuleOp reference, ModuleOp module, Phase from);

private:
  LogicalResult interpret(ModuleOp module, Phase phase);
  double movedByRounding(ModuleOp whole, StringRef entry,
                         const std::string &name, const Tensor &exact);
  double movedByRounding(const Interpreter &interpreter, OpResult result,
                         ArrayRef<RankValues> operands, size_t rank,
                         const Tensor &exact) const;
  LogicalResult runPlan(ModuleOp whole, ModuleOp partitioned);
  LogicalResult runOps(ModuleOp partitioned);
  LogicalResult verifyOps(ModuleOp partitioned, StringRef entry,
                          ::megalodon::PlanRun &plan);
  std::unique_ptr<::megalodon::PlanRun> compile(ModuleOp module);
  LogicalResult execute(ModuleOp module, StringRef entry,
                        ::megalodon::PlanRun &plan,
                        std::map<std::string, RankValues> &results);
  bool report(StringRef stage, StringRef entry, StringRef name,
              const Difference &difference);
  Difference judge(StringRef stage, const Twine &name, const Tensor &want,
                   const Tensor &got, double tolerance,
                   llvm::function_ref<double()> moved);

  VerifyOptions options;
  const Compilation &compilation;
  Tolerances tolerances;
  std::map<std::string, NamedTensors> inputs, expected;
  /// By entry, what random rounding makes of it; run when first asked for.
  std::map<std::string, std::vector<NamedTensors>> rounded;
  int64_t compared = 0;
  int64_t printed = 0;
  bool diverged = false;
};

/// A wrong op near the input makes nearly every result wrong.
constexpr int64_t kMostLines = 8;
/// How often numbers are rounded at random to see what that does.
constexpr uint64_t kRandomRuns = 4;
} // namespace

static bool isGradient(StringRef name) {
  return name.starts_with("grad") && name != "grad_norm";
}

bool Verifier::report(StringRef stage, StringRef entry, StringRef name,
                      const Difference &difference) {
  ++compared;
  const bool bad = difference.diverges();
  diverged |= bad;
  if (bad && ++printed <= kMostLines)
    llvm::outs() << llvm::formatv("NOT OK  {0,-14} {1}: {2} {3}\n", stage,
                                  entry, name, difference.text());
  return !bad;
}

/// The difference of a result. If it is beyond its tolerance, `moved` says what
/// rounding at random does to the result, which may differ by as much.
Difference Verifier::judge(StringRef stage, const Twine &name,
                           const Tensor &want, const Tensor &got,
                           double tolerance,
                           llvm::function_ref<double()> moved) {
  tolerance *= options.slack;
  Difference difference = compare(want, got, tolerance);
  if (!difference.diverges())
    return difference;
  const double least = moved();
  difference =
      compare(want, got, tolerance, options.slack * kRoundings * least);
  if (!difference.diverges())
    llvm::outs() << llvm::formatv(
        "        {0,-14} {1}: rounding alone moves it by {2:e1}, so its "
        "tolerance is {3:e1}\n",
        stage, name, least, difference.tolerance);
  return difference;
}

//===-- The interpreter after each phase ----------------------------------===//

LogicalResult Verifier::interpret(ModuleOp module, Phase phase) {
  double worst = 0;
  int64_t number = 0;
  for (StringRef entry : entryNames(module)) {
    auto results = Interpreter(module).runEntry(entry, inputs[entry.str()]);
    if (failed(results))
      return failure();
    NamedTensors &known = expected[entry.str()];
    for (const auto &[name, tensor] : *results) {
      auto [before, isNew] = known.emplace(name, tensor);
      if (isNew)
        continue;
      if (before->second->shape() != tensor->shape())
        return emitError(module.getLoc(), "after phase ")
               << phaseName(phase) << " result '" << name << "' of entry '"
               << entry << "' has another shape than before";
      // f64 both times: only the order of sums may have changed.
      Difference difference =
          compare(*before->second, *tensor,
                  options.slack * (isGradient(name) ? 1e-8 : 1e-9));
      worst = std::max(worst, difference.ratio);
      ++number;
      if (!report(phaseName(phase), entry, name, difference))
        return emitError(module.getLoc(), "phase ")
               << phaseName(phase) << " changes result '" << name
               << "' of entry '" << entry << "' " << difference.text();
    }
  }
  if (number > 0)
    llvm::outs() << llvm::formatv("OK      {0,-14} {1} results as before, "
                                  "worst {2:f2} of its tolerance\n",
                                  phaseName(phase), number, worst);
  else
    llvm::outs() << llvm::formatv("        {0,-14} interpreted\n",
                                  phaseName(phase));
  return success();
}

//===-- The plan ----------------------------------------------------------===//

std::unique_ptr<::megalodon::PlanRun> Verifier::compile(ModuleOp module) {
  if (failed(compilation.runPhase(module, Phase::Lower)) ||
      failed(compilation.runPhase(module, Phase::Codegen)))
    return nullptr;
  auto bytes = compilation.writePlan(module);
  if (failed(bytes))
    return nullptr;
  std::string error;
  auto plan = ::megalodon::PlanRun::open(*bytes, error);
  if (!plan)
    emitError(module.getLoc(), "the plan cannot run: ") << error;
  return plan;
}

static ::megalodon::HostNumbers numbersOf(const Tensor &tensor) {
  ::megalodon::HostNumbers numbers;
  for (int64_t i = 0; i < tensor.elements(); ++i)
    if (tensor.isReal())
      numbers.reals.push_back(tensor[i]);
    else
      numbers.integers.push_back(tensor.integer(i));
  return numbers;
}

/// An entry's function, or those of a pipeline's stages.
static SmallVector<func::FuncOp> functionsOf(ModuleOp module, StringRef entry) {
  SmallVector<func::FuncOp> functions;
  for (auto function : module.getOps<func::FuncOp>()) {
    StringRef name = function.getName();
    if (name == entry || (name.consume_front(entry) && name.starts_with(".")))
      functions.push_back(function);
  }
  return functions;
}

/// The tensors of an entry's signature by name, of a pipeline those of its
/// stages; `arguments` or results.
static std::map<std::string, Port> portsOf(ModuleOp module, StringRef entry,
                                           bool arguments) {
  std::map<std::string, Port> ports;
  for (func::FuncOp function : functionsOf(module, entry)) {
    const unsigned number =
        arguments ? function.getNumArguments() : function.getNumResults();
    for (unsigned index : llvm::seq(number)) {
      Port port = arguments ? Port::of(function.getArgAttrDict(index),
                                       function.getArgumentTypes()[index])
                            : Port::of(function.getResultAttrDict(index),
                                       function.getResultTypes()[index]);
      ports.emplace(port.name, port);
    }
  }
  // A variable of the plan holds the rows of all microbatches.
  for (auto &[name, port] : ports) {
    if (!port.byMicrobatch)
      continue;
    port.byMicrobatch = false;
    auto pipeline = module.lookupSymbol<plan::PipelineOp>(entry);
    SmallVector<int64_t> shape(port.type.getShape());
    shape[0] *= pipeline.getMicrobatches();
    port.type = RankedTensorType::get(shape, port.type.getElementType());
  }
  return ports;
}

/// Whether ranks keep a result for themselves: with --zero=1 the gradients of a
/// training step, of which each rank has only its own sums.
static bool isKeptInside(ModuleOp module, StringRef entry, StringRef result) {
  for (func::FuncOp function : functionsOf(module, entry))
    for (unsigned index : llvm::seq(function.getNumResults()))
      if (nameOfResult(function, index) == result)
        return hasResultRole(function, index, Role::Residual);
  return false;
}

/// Runs the plan; results of all ranks, null where a rank has no part.
LogicalResult Verifier::execute(ModuleOp module, StringRef entry,
                                ::megalodon::PlanRun &plan,
                                std::map<std::string, RankValues> &results) {
  const Grid grid = Grid::of(module);
  const auto arguments = portsOf(module, entry, true),
             outputs = portsOf(module, entry, false);
  const NamedTensors &given = inputs[entry.str()];
  std::string unknown;
  auto read = [&](int rank, const std::string &name) {
    auto port = arguments.find(name);
    auto whole = given.find(name);
    if (port == arguments.end() || whole == given.end()) {
      unknown = name;
      return ::megalodon::HostNumbers();
    }
    return numbersOf(port->second.part(*whole->second, grid, rank));
  };
  auto write = [&](int rank, const std::string &name,
                   const ::megalodon::HostNumbers &numbers) {
    auto port = outputs.find(name);
    if (port == outputs.end())
      return;
    Tensor part(port->second.type);
    for (int64_t i = 0; i < part.elements(); ++i)
      if (part.isReal())
        part[i] = numbers.reals[i];
      else
        part.integer(i) = numbers.integers[i];
    RankValues &parts = results[name];
    parts.resize(grid.ranks());
    parts[rank] = std::make_shared<const Tensor>(std::move(part));
  };
  const std::string error = plan.run(entry.str(), read, write);
  if (!unknown.empty())
    return emitError(module.getLoc(), "the plan of entry '")
           << entry << "' takes '" << unknown << "', expected only arguments "
           << "of the entry";
  if (!error.empty())
    return emitError(module.getLoc(), "the plan of entry '")
           << entry << "': " << error;
  return success();
}

/// How far rounding takes a result of an entry of whole tensors.
double Verifier::movedByRounding(ModuleOp whole, StringRef entry,
                                 const std::string &name, const Tensor &exact) {
  std::vector<NamedTensors> &runs = rounded[entry.str()];
  while (runs.size() < kRandomRuns) {
    RandomRounding rounding(options.seed + runs.size());
    Interpreter interpreter(whole);
    interpreter.roundWith(rounding);
    auto results = interpreter.runEntry(entry, inputs[entry.str()]);
    runs.push_back(succeeded(results) ? std::move(*results) : NamedTensors());
  }
  double moved = 0;
  for (const NamedTensors &run : runs)
    if (auto found = run.find(name); found != run.end())
      moved = std::max(moved, distance(exact, *found->second));
  return moved;
}

LogicalResult Verifier::runPlan(ModuleOp whole, ModuleOp partitioned) {
  OwningOpRef<ModuleOp> clone(partitioned.clone());
  auto plan = compile(*clone);
  if (!plan)
    return failure();
  const Grid grid = Grid::of(partitioned);
  bool good = true;
  double worst = 0;
  int64_t number = 0;
  for (StringRef entry : entryNames(partitioned)) {
    std::map<std::string, RankValues> results;
    if (failed(execute(partitioned, entry, *plan, results)))
      return failure();
    const auto ports = portsOf(partitioned, entry, false);
    for (const auto &result : expected[entry.str()]) {
      const std::string &name = result.first;
      const Tensor &want = *result.second;
      if (isKeptInside(partitioned, entry, name))
        continue;
      auto found = results.find(name);
      if (found == results.end())
        return emitError(partitioned.getLoc(), "the plan of entry '")
               << entry << "' has no result '" << name << "'";
      Tensor got(ports.at(name).shape, want.isReal());
      for (auto [rank, part] : llvm::enumerate(found->second))
        if (part)
          ports.at(name).insert(got, *part, grid, rank);
      Difference difference =
          judge("plan", entry + ": " + name, want, got,
                isGradient(name) ? tolerances.gradient : tolerances.entry,
                [&] { return movedByRounding(whole, entry, name, want); });
      worst = std::max(worst, difference.ratio);
      ++number;
      good &= report("plan", entry, name, difference);
    }
  }
  if (printed > kMostLines)
    llvm::outs() << llvm::formatv("NOT OK  {0,-14} and {1} results more\n",
                                  "plan", printed - kMostLines);
  if (good)
    llvm::outs() << llvm::formatv(
        "OK      {0,-14} {1} results, worst {2:f2} of its tolerance\n", "plan",
        number, worst);
  return success();
}

//===-- Op by op ----------------------------------------------------------===//

/// "layers.1: layer.mega.cema", or file:line:column where there are no names.
static std::string placeOf(Operation *op, ArrayRef<Operation *> calls) {
  auto one = [](Operation *op) {
    if (auto named = op->getLoc()->findInstanceOf<NameLoc>())
      return named.getName().str();
    std::string text;
    llvm::raw_string_ostream out(text);
    if (auto file = op->getLoc()->findInstanceOf<FileLineColLoc>())
      out << file.getFilename().getValue() << ":" << file.getLine() << ":"
          << file.getColumn();
    else
      out << "an unknown place";
    return text;
  };
  std::string text;
  for (Operation *call : calls)
    text += one(call) + ": ";
  return text + one(op);
}

/// How far rounding takes a result of an op on one rank.
double Verifier::movedByRounding(const Interpreter &interpreter,
                                 OpResult result, ArrayRef<RankValues> operands,
                                 size_t rank, const Tensor &exact) const {
  SmallVector<TensorRef> own;
  for (const RankValues &operand : operands)
    own.push_back(operand[rank]);
  double moved = 0;
  for (uint64_t run : llvm::seq(kRandomRuns)) {
    RandomRounding rounding(options.seed + run);
    auto results = interpreter.repeat(result.getOwner(), own, rounding);
    if (!results.empty())
      moved =
          std::max(moved, distance(exact, results[result.getResultNumber()]));
  }
  return moved;
}

LogicalResult Verifier::verifyOps(ModuleOp partitioned, StringRef entry,
                                  ::megalodon::PlanRun &plan) {
  std::map<std::string, RankValues> values;
  OwningOpRef<ModuleOp> exposed(partitioned.clone());
  exposeValues(*exposed);
  if (failed(execute(*exposed, entry, plan, values)))
    return failure();
  int64_t number = 0, ops = 0;
  double worst = 0;
  std::string worstPlace;
  Interpreter interpreter(partitioned);
  interpreter.observe([&](Operation *op, ArrayRef<Operation *> calls,
                          ArrayRef<RankValues> operands,
                          MutableArrayRef<RankValues> results)
                          -> LogicalResult {
    ops += op->getNumResults() > 0;
    for (OpResult result : op->getResults()) {
      const unsigned index = result.getResultNumber();
      if (!isExposed(result))
        continue;
      auto found = values.find(exposedName(number++));
      if (found == values.end())
        return op->emitOpError("has a result that the plan does not give");
      const bool gradient = op->getName().getStringRef().contains("_grad") ||
                            isa<CemaGradSummaryOp>(op);
      for (size_t rank : llvm::seq(results[index].size())) {
        const Tensor &want = *results[index][rank];
        Difference difference = judge(
            "op", entry + ": " + placeOf(op, calls), want, *found->second[rank],
            gradient ? tolerances.gradientOp : tolerances.op, [&] {
              return movedByRounding(interpreter, result, operands, rank, want);
            });
        ++compared;
        if (difference.ratio > worst) {
          worst = difference.ratio;
          worstPlace = placeOf(op, calls);
        }
        if (!difference.diverges())
          continue;
        diverged = true;
        const std::string on =
            results[index].size() > 1 ? " on rank " + std::to_string(rank) : "";
        llvm::outs() << llvm::formatv("NOT OK  {0,-14} {1}: {2} {3}\n", "op",
                                      entry, placeOf(op, calls),
                                      op->getName().getStringRef());
        return emitError(op->getLoc())
               << "'" << op->getName() << "' op at " << placeOf(op, calls)
               << " diverges: result " << index << " (" << result.getType()
               << ")" << on << " " << difference.text();
      }
      // What follows is judged by what it makes of the plan's own numbers.
      results[index] = found->second;
    }
    return success();
  });
  if (failed(interpreter.runEntry(entry, inputs[entry.str()])))
    return failure();
  llvm::outs() << llvm::formatv(
      "OK      {0,-14} {1}: {2} ops, worst {3:f2} of its tolerance at {4}\n",
      "ops", entry, ops, worst, worstPlace.empty() ? "none" : worstPlace);
  return success();
}

LogicalResult Verifier::runOps(ModuleOp partitioned) {
  if (!partitioned.getOps<plan::PipelineOp>().empty()) {
    llvm::outs() << "        ops            not compared one by one: entries "
                    "are cut into stages of a pipeline\n";
    return success();
  }
  OwningOpRef<ModuleOp> exposed(partitioned.clone());
  exposeValues(*exposed);
  auto plan = compile(*exposed);
  if (!plan)
    return failure();
  for (StringRef entry : entryNames(partitioned))
    if (failed(verifyOps(partitioned, entry, *plan)))
      return failure();
  return success();
}

//===-- All of it ---------------------------------------------------------===//

LogicalResult Verifier::run(ModuleOp reference, ModuleOp module, Phase from) {
  if (from > Phase::Partition)
    return emitError(module.getLoc(),
                     "expected a module of megalodon ops, as phases up "
                     "to partition leave it; got one after ")
           << phaseName(from);
  std::vector<OwningOpRef<ModuleOp>> stages;
  SmallVector<Phase> phases{from};
  stages.emplace_back(reference.clone());
  for (Phase phase : {Phase::Differentiate, Phase::Optimize}) {
    if (phase <= from)
      continue;
    phases.push_back(phase);
    stages.emplace_back(stages.back()->clone());
    if (failed(compilation.runPhase(*stages.back(), phase)))
      return failure();
  }
  // The last phase on whole tensors says what an entry takes.
  ModuleOp whole = *stages.back(), last = whole;
  OwningOpRef<ModuleOp> partitioned;
  if (from < Phase::Partition) {
    partitioned = reference == module ? whole.clone() : module.clone();
    for (Phase phase :
         {Phase::Differentiate, Phase::Optimize, Phase::Partition})
      if (phase > from && (reference != module || phase == Phase::Partition) &&
          failed(compilation.runPhase(*partitioned, phase)))
        return failure();
    last = *partitioned;
  }
  const bool wholeChunks = Grid::of(last).sizes[2] > 1;
  for (StringRef entry : entryNames(whole)) {
    auto tensors =
        sampleTensors(whole, entry, options.seed, options.inputs, wholeChunks);
    if (failed(tensors))
      return failure();
    inputs[entry.str()] = std::move(*tensors);
  }
  for (auto [stage, phase] : llvm::zip_equal(stages, phases))
    if ((options.eachPhase || *stage == whole) &&
        failed(interpret(*stage, phase)))
      return failure();
  if (options.eachPhase && last != whole &&
      failed(interpret(last, Phase::Partition)))
    return failure();
  if (failed(runPlan(whole, last)))
    return failure();
  if (options.ops && failed(runOps(last)))
    return failure();
  llvm::outs() << llvm::formatv("{0} tensors compared: {1}\n", compared,
                                diverged ? "NOT OK" : "OK");
  llvm::outs().flush();
  if (diverged)
    return emitError(
        module.getLoc(),
        "results of the plan diverge, though no op does by itself: look at "
        "what joins ops (megalodon-fuse-rows), updates in place or reuses "
        "memory");
  return success();
}

LogicalResult mlir::megalodon::verifyNumerics(ModuleOp reference,
                                              ModuleOp module, Phase from,
                                              const VerifyOptions &options,
                                              const Compilation &compilation) {
  return Verifier(options, compilation).run(reference, module, from);
}
