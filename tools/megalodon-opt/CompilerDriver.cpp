#include "tools/megalodon-opt/CompilerDriver.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Pass/PassManager.h"
#include "mlir/Support/FileUtilities.h"
#include "mlir/Support/Timing.h"
#include "passes/Import/Import.h"
#include "passes/Partition/CheckMesh.h"
#include "passes/Pipeline/Phases.h"
#include "passes/Pipeline/Statistics.h"
#include "passes/Schedule/Schedule.h"
#include "tools/megalodon-opt/NegateKernel.h"
#include "tools/megalodon-opt/VerifyNumerics.h"
#include "llvm/ADT/Statistic.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/SourceMgr.h"
#include "llvm/Support/ToolOutputFile.h"
#include "llvm/Support/WithColor.h"

using namespace mlir;
using namespace mlir::megalodon;
namespace cl = llvm::cl;

namespace {
struct DriverOptions {
  cl::OptionCategory category{
      "Compilation options",
      "From a model config (JSON) or a dump (MLIR) to a plan"};
  cl::opt<std::string> entry{
      "entry", cl::cat(category), cl::init("train,score,generate:1"),
      cl::desc("entries to compile: forward, score, grad, train, generate, "
               "each NAME[:BATCH[xLENGTH]], separated by commas")};
  cl::opt<int64_t> batch{
      "batch", cl::cat(category), cl::init(1),
      cl::desc("batch rows of entries without a shape of their own")};
  cl::opt<int64_t> length{"seq-len", cl::cat(category), cl::init(0),
                          cl::desc("tokens a row of entries without a shape of "
                                   "their own (0: the chunk size)")};
  cl::opt<bool> packed{
      "packed", cl::cat(category),
      cl::desc("rows of forward, score, grad and train hold several documents, "
               "none of which sees another: the input resets says where they "
               "begin (without cp)")};
  cl::opt<std::string> precision{
      "precision", cl::cat(category), cl::init("f32"),
      cl::desc("f32, f64, or bf16: activations in bf16, sums, "
               "norms, state and masters in f32")};
  cl::opt<std::string> target{"target", cl::cat(category), cl::init("cpu"),
                              cl::desc("what to compile for: cpu or cuda")};
  cl::opt<std::string> gpuArch{
      "gpu-arch", cl::cat(category), cl::init(kDefaultGpuArchs.str()),
      cl::desc("GPU architectures to compile for, separated by commas")};
  cl::opt<std::string> cudaPath{
      "cuda-path", cl::cat(category), cl::value_desc("folder"),
      cl::desc("CUDA toolkit whose ptxas is used (default: the one in the PATH "
               "or in the usual places; none: the plan holds PTX only)")};
  cl::opt<std::string> mesh{
      "mesh", cl::cat(category),
      cl::desc("ranks along the parallel axes: dp=2,pp=2,cp=2,tp=2 (axes left "
               "out: 1)")};
  cl::opt<unsigned> zero{
      "zero", cl::cat(category), cl::init(0),
      cl::desc("what the ranks along dp and cp share: 0 nothing, 1 optimizer "
               "state, 3 parameters too")};
  cl::opt<std::string> pipelineSchedule{
      "pipeline-schedule", cl::cat(category), cl::init("1f1b"),
      cl::desc("order of forward and backward on pipeline ranks: gpipe, 1f1b, "
               "interleaved or zero-bubble")};
  cl::opt<unsigned> pipelineChunks{
      "pipeline-chunks", cl::cat(category), cl::init(0),
      cl::desc("stages of each pipeline rank; more than 1 with interleaved, "
               "where 0 means 2")};
  cl::opt<int64_t> microbatches{
      "microbatches", cl::cat(category), cl::init(0),
      cl::desc("parts into which a pipeline cuts a rank's rows of train and "
               "grad (0: as many as divide them, at most 4 a rank)")};
  cl::opt<std::string> cpu{
      "cpu", cl::cat(category), cl::init("native"),
      cl::desc("CPU to compile for: native or a name such as x86-64-v3")};
  cl::opt<Phase> compileTo{"compile-to", cl::cat(category),
                           cl::init(Phase::Plan),
                           cl::desc("stop after this phase and print the IR "
                                    "(plan: write the plan file)")};
  cl::opt<Phase> compileFrom{"compile-from", cl::cat(category),
                             cl::init(Phase::Import),
                             cl::desc("the input is the IR after this phase")};
  cl::opt<std::string> dumpPhases{
      "dump-phases", cl::cat(category), cl::value_desc("folder"),
      cl::desc("write the IR after every phase: 01.import.mlir, ...")};
  cl::opt<Recompute> recompute{
      "recompute", cl::cat(category), cl::init(Recompute::Selective),
      cl::desc("what backward recomputes instead of keeping it"),
      cl::values(
          clEnumValN(Recompute::None, "none", "nothing"),
          clEnumValN(Recompute::Selective, "selective", "results of cheap ops"),
          clEnumValN(Recompute::Full, "full", "everything inside a layer"))};
  cl::opt<std::string> cema{
      "cema", cl::cat(category), cl::init("auto"),
      cl::desc("CEMA lowering: auto, sequential, two-level or (cuda, not with "
               "--packed) matrix")};
  cl::opt<std::string> timestepNorm{
      "timestep-norm", cl::cat(category), cl::init("auto"),
      cl::desc("scans of the timestep norm: auto, sequential or two-level")};
  cl::opt<std::string> attention{
      "attention", cl::cat(category), cl::init("auto"),
      cl::desc("chunk attention on cuda: weights stored or recomputed, or "
               "auto; with --packed and for Laplace weights recomputed")};
  cl::opt<std::string> gemm{
      "gemm", cl::cat(category), cl::init("auto"),
      cl::desc("matrix products: auto, onednn or generated")};
  cl::opt<unsigned> cores{
      "cores", cl::cat(category), cl::init(2),
      cl::desc("cores the cost rules assume; never changes results")};
  cl::opt<std::string> saveAssembly{
      "save-assembly", cl::cat(category), cl::value_desc("folder"),
      cl::desc(
          "write each kernel's assembly (cuda: PTX, and resources.txt) and "
          "LLVM IR")};
  cl::opt<bool> verifyNumerics{
      "verify-numerics", cl::cat(category),
      cl::desc("run entries on the reference interpreter and as a plan, and "
               "name the first op that differs")};
  cl::opt<bool> verifyEachPhase{
      "verify-each-phase", cl::cat(category),
      cl::desc("the same, and the interpreter after every phase of megalodon "
               "ops: names the phase that changes a result")};
  cl::opt<uint64_t> verifySeed{"verify-seed", cl::cat(category), cl::init(1),
                               cl::desc("seed of the random inputs")};
  cl::opt<std::string> verifyInputs{
      "verify-inputs", cl::cat(category), cl::value_desc("safetensors"),
      cl::desc("take inputs from this file, those it lacks at random")};
  cl::opt<std::string> negateKernel{
      "test-negate-kernel", cl::Hidden,
      cl::desc("break the kernels of this name: for tests")};
  cl::opt<double> verifySlack{"verify-slack", cl::cat(category), cl::init(1),
                              cl::desc("factor of all tolerances")};
  // --stats itself is LLVM's own switch.
  cl::opt<StatisticsFormat> statsFormat{
      "stats-format", cl::cat(category), cl::init(StatisticsFormat::Text),
      cl::desc("form of what --stats writes: the work of each entry after each "
               "phase"),
      cl::values(clEnumValN(StatisticsFormat::Text, "text", "a table"),
                 clEnumValN(StatisticsFormat::Csv, "csv", "numbers by commas"),
                 clEnumValN(StatisticsFormat::Json, "json",
                            "objects, with the number of each op"))};
  cl::opt<std::string> statsFile{
      "stats-file", cl::cat(category), cl::init("-"), cl::value_desc("file"),
      cl::desc("where --stats goes (default: standard output)")};

  DriverOptions() {
    for (auto *option : {&compileTo, &compileFrom})
      for (const PhaseInfo &info : phases())
        option->getParser().addLiteralOption(info.name, info.phase,
                                             info.description);
  }
};
} // namespace

static DriverOptions &options() {
  static DriverOptions instance;
  return instance;
}

void mlir::megalodon::registerDriverOptions() { options(); }

bool mlir::megalodon::isCompilation(StringRef input, StringRef output) {
  DriverOptions &o = options();
  return input.ends_with(".json") || output.ends_with(".plan") ||
         o.compileTo.getNumOccurrences() || o.compileFrom.getNumOccurrences() ||
         o.verifyNumerics || o.verifyEachPhase;
}

static LogicalResult fail(const llvm::Twine &message) {
  llvm::WithColor::error(llvm::errs(), "megalodon-opt") << message << "\n";
  return failure();
}

/// Options whose values are words.
static LogicalResult checkOptions() {
  DriverOptions &o = options();
  auto oneOf = [](StringRef name, StringRef value,
                  ArrayRef<StringRef> allowed) {
    if (llvm::is_contained(allowed, value))
      return success();
    return fail("--" + name + ": expected " + llvm::join(allowed, " or ") +
                ", got '" + value + "'");
  };
  if (failed(oneOf("precision", o.precision, {"f32", "f64", "bf16"})) ||
      failed(oneOf("target", o.target, {"cpu", "cuda"})) ||
      failed(oneOf("cema", o.cema,
                   {"auto", "sequential", "two-level", "matrix"})) ||
      failed(oneOf("timestep-norm", o.timestepNorm,
                   {"auto", "sequential", "two-level"})) ||
      failed(
          oneOf("attention", o.attention, {"auto", "stored", "recomputed"})) ||
      failed(oneOf("gemm", o.gemm, {"auto", "onednn", "generated"})))
    return failure();
  if (o.target == "cuda" && o.precision == "f64")
    return fail("--target=cuda: expected --precision=f32 or bf16, got f64");
  if (o.target == "cpu" && o.cema == "matrix")
    return fail("--cema=matrix: expected --target=cuda, got cpu");
  if (o.target == "cuda" && o.gemm != "auto")
    return fail("--gemm: expected auto with --target=cuda, got '" +
                llvm::Twine(o.gemm) + "'");
  if (o.gemm == "onednn" && o.precision == "f64")
    return fail(
        "--gemm=onednn: oneDNN has no f64 products; use auto or generated");
  if (o.zero != 0 && o.zero != 1 && o.zero != 3)
    return fail("--zero: expected 0, 1 or 3, got " + llvm::Twine(o.zero));
  if (auto mesh = MeshShape::parse(o.mesh); !mesh)
    return fail("--mesh: " + llvm::toString(mesh.takeError()));
  if (failed(oneOf("pipeline-schedule", o.pipelineSchedule,
                   {"gpipe", "1f1b", "interleaved", "zero-bubble"})))
    return failure();
  if (o.pipelineChunks > 1 && o.pipelineSchedule != "interleaved")
    return fail("--pipeline-chunks: expected 1 with --pipeline-schedule=" +
                llvm::Twine(o.pipelineSchedule) + ", got " +
                llvm::Twine(o.pipelineChunks));
  return success();
}

/// Stages of each pipeline rank.
static unsigned chunksOf(const DriverOptions &o) {
  if (o.pipelineChunks > 0)
    return o.pipelineChunks;
  return o.pipelineSchedule == "interleaved" ? 2 : 1;
}

/// Decides into how many microbatches a pipeline cuts the entries with
/// gradients, and checks that there are layers for its stages.
static LogicalResult cutRows(MutableArrayRef<::megalodon::EntrySpec> entries,
                             const MeshShape &mesh, int64_t layers) {
  DriverOptions &o = options();
  int64_t ranks = mesh[Axis::Pipeline], stages = ranks * chunksOf(o);
  if (o.microbatches < 0 || (o.microbatches > 1 && ranks == 1))
    return fail("--microbatches: expected " +
                llvm::Twine(ranks == 1 ? "a pipeline in --mesh, pp=2 or more"
                                       : "a positive number") +
                ", got " + llvm::Twine(o.microbatches));
  if (ranks == 1)
    return success();
  if (layers < stages)
    return fail("--pipeline-chunks: expected at least " + llvm::Twine(stages) +
                " layers for the stages of " + llvm::Twine(ranks) +
                " ranks, got " + llvm::Twine(layers));
  for (::megalodon::EntrySpec &entry : entries) {
    if (entry.kind != ::megalodon::EntryKind::Train &&
        entry.kind != ::megalodon::EntryKind::Grad)
      continue;
    int64_t rows = entry.batch / mesh[Axis::Data];
    if (o.microbatches > 0) {
      entry.microbatches = o.microbatches;
      if (rows % entry.microbatches != 0)
        return fail("--microbatches: expected a divisor of the " +
                    llvm::Twine(rows) + " rows that a rank has of entry " +
                    ::megalodon::entryName(entry.kind) + ", got " +
                    llvm::Twine(entry.microbatches));
      continue;
    }
    // More microbatches than that shorten the bubble little, and each has fewer
    // rows to work on at a time.
    entry.microbatches = std::min(rows, 4 * ranks);
    while (rows % entry.microbatches != 0)
      --entry.microbatches;
  }
  return success();
}

/// With `onOneRank` as if there were no mesh: a pipeline's entries work on one
/// microbatch, those on one rank on the whole call.
static OwningOpRef<ModuleOp> importModule(MLIRContext &context, StringRef input,
                                          PipelineOptions &pipeline,
                                          bool onOneRank = false) {
  DriverOptions &o = options();
  auto file = llvm::MemoryBuffer::getFileOrSTDIN(input);
  if (!file) {
    (void)fail(input + ": cannot read: " + file.getError().message());
    return nullptr;
  }
  SmallVector<std::string> remarks;
  auto config = ::megalodon::parseConfig((*file)->getBuffer(), input, remarks);
  for (const std::string &remark : remarks)
    llvm::WithColor::remark(llvm::errs()) << remark << "\n";
  if (!config) {
    (void)fail(llvm::toString(config.takeError()));
    return nullptr;
  }
  int64_t length = o.length > 0 ? int64_t(o.length) : config->cacheCapacity();
  MeshShape mesh = llvm::cantFail(MeshShape::parse(o.mesh));
  // Generation runs on one rank; asked for by default only there.
  std::string wanted = o.entry;
  if (mesh.ranks() > 1 && !o.entry.getNumOccurrences())
    wanted = "train,score";
  auto entries = ::megalodon::parseEntries(wanted, {o.batch, length});
  if (!entries) {
    (void)fail(llvm::toString(entries.takeError()));
    return nullptr;
  }
  for (::megalodon::EntrySpec &entry : *entries)
    entry.packed = o.packed && entry.kind != ::megalodon::EntryKind::Generate;
  // The documents of a packed row end before it does.
  if (config->hasFullAttention())
    for (const ::megalodon::EntrySpec &entry : *entries)
      if (entry.length > config->cacheCapacity() && !entry.packed) {
        (void)fail("--entry: " + ::megalodon::entryName(entry.kind) +
                   ": expected at most max_seq_len " +
                   llvm::Twine(config->cacheCapacity()) + " tokens, got " +
                   llvm::Twine(entry.length));
        return nullptr;
      }
  if (o.packed && mesh[Axis::Chunk] > 1) {
    (void)fail("--packed: expected a mesh with cp=1, got cp=" +
               llvm::Twine(mesh[Axis::Chunk]) +
               "; a rank along cp does not see the documents in front of it");
    return nullptr;
  }
  if (llvm::Error error = checkMesh(*config, *entries, mesh)) {
    (void)fail(llvm::toString(std::move(error)));
    return nullptr;
  }
  if (!onOneRank && failed(cutRows(*entries, mesh, config->numLayers)))
    return nullptr;
  if (config->layerwiseCkpt && !o.recompute.getNumOccurrences())
    pipeline.recompute = Recompute::Full;
  return ::megalodon::importConfig(context, *config, o.precision, *entries);
}

static LogicalResult writeBytes(StringRef path, ArrayRef<char> bytes) {
  std::string message;
  auto file = openOutputFile(path, &message);
  if (!file)
    return fail(message);
  file->os().write(bytes.data(), bytes.size());
  file->os().flush();
  if (file->os().has_error())
    return fail(path + ": cannot write: " + file->os().error().message());
  file->keep();
  return success();
}

static LogicalResult dumpPhase(ModuleOp module, Phase phase, StringRef folder) {
  if (std::error_code error = llvm::sys::fs::create_directories(folder))
    return fail(folder + ": cannot create: " + error.message());
  std::string text;
  llvm::raw_string_ostream out(text);
  module.print(out, OpPrintingFlags()
                        .enableDebugInfo()
                        .useLocalScope()
                        .printNameLocAsPrefix());
  std::string number = (static_cast<int>(phase) < 9 ? "0" : "") +
                       std::to_string(static_cast<int>(phase) + 1);
  return writeBytes(
      (folder + "/" + number + "." + phaseName(phase) + ".mlir").str(), text);
}

static LogicalResult writeStatistics(ArrayRef<EntryStatistics> rows,
                                     StatisticsFormat format, StringRef path) {
  std::string text;
  llvm::raw_string_ostream out(text);
  printStatistics(rows, format, out);
  return writeBytes(path, text);
}

LogicalResult
mlir::megalodon::compile(MLIRContext &context, StringRef input,
                         StringRef output,
                         std::function<std::unique_ptr<Pass>()> gpuBackend) {
  DriverOptions &o = options();
  if (failed(checkOptions()))
    return failure();
  const bool verify = o.verifyNumerics || o.verifyEachPhase;
  if (o.compileTo == Phase::Plan && output == "-" && !verify)
    return fail("a plan is a binary file: name it with -o FILE, or print the "
                "IR of a phase with --compile-to=PHASE");
  PipelineOptions pipeline{o.cpu,     o.recompute,        o.mesh,
                           o.zero,    o.pipelineSchedule, chunksOf(o),
                           o.cema,    o.attention,        o.gemm,
                           o.cores,   o.saveAssembly,     o.timestepNorm,
                           o.target,  o.gpuArch,          o.cudaPath,
                           gpuBackend};

  DefaultTimingManager timing;
  applyDefaultTimingManagerCLOptions(timing);
  TimingScope root = timing.getRootScope();

  auto sources = std::make_shared<llvm::SourceMgr>();
  SourceMgrDiagnosticHandler diagnostics(*sources, &context);
  OwningOpRef<ModuleOp> module;
  // lld resets every command-line option of the process when it has linked, so
  // what is read after codegen is copied here.
  const Phase from = o.compileFrom, to = o.compileTo;
  const std::string dumpFolder = o.dumpPhases, statsFile = o.statsFile,
                    brokenKernel = o.negateKernel;
  const StatisticsFormat statsFormat = o.statsFormat;
  const bool wantsStatistics = llvm::AreStatisticsEnabled();
  std::vector<EntryStatistics> statistics;
  {
    TimingScope scope = root.nest("import");
    if (input.ends_with(".json")) {
      if (from != Phase::Import)
        return fail(
            "--compile-from: a config has no earlier phase to resume from");
      module = importModule(context, input, pipeline);
    } else {
      std::string message;
      auto file = openInputFile(input, &message);
      if (!file)
        return fail(message);
      sources->AddNewSourceBuffer(std::move(file), SMLoc());
      module = parseSourceFile<ModuleOp>(sources, &context);
      // Hand-written modules need not repeat what the command line says.
      if (module && !(*module)->hasAttr(kPrecisionAttr))
        (*module)->setAttr(kPrecisionAttr,
                           StringAttr::get(&context, o.precision));
    }
  }
  if (!module)
    return failure();

  auto runPhase = [&](ModuleOp module, Phase phase) -> LogicalResult {
    PassManager passes(&context);
    TimingScope scope = root.nest(phaseName(phase));
    passes.enableTiming(scope);
    if (failed(applyPassManagerCLOptions(passes)) ||
        failed(addPhase(
            passes, phase, pipeline,
            [](const std::string &message) { (void)fail(message); })) ||
        failed(passes.run(module)))
      return failure();
    if (phase == Phase::Lower && !brokenKernel.empty() &&
        !negateKernel(module, brokenKernel))
      return fail("--test-negate-kernel: expected a kernel '" + brokenKernel +
                  "'");
    return success();
  };
  if (verify) {
    auto precision = (*module)->getAttrOfType<StringAttr>(kPrecisionAttr);
    OwningOpRef<ModuleOp> reference;
    if (input.ends_with(".json") &&
        llvm::cantFail(MeshShape::parse(o.mesh))[Axis::Pipeline] > 1) {
      reference = importModule(context, input, pipeline, /*onOneRank=*/true);
      if (!reference)
        return failure();
    }
    return verifyNumerics(reference ? *reference : *module, *module, from,
                          {o.verifyEachPhase, o.verifySeed, o.verifyInputs,
                           precision.str(), o.verifySlack},
                          {runPhase, writePlan});
  }
  for (const PhaseInfo &info : phases()) {
    // Import has made the module already; its border is verified all the same.
    if (info.phase < from || (info.phase == from && from != Phase::Import))
      continue;
    if (info.phase > to)
      break;
    if (info.phase == Phase::Plan) {
      TimingScope scope = root.nest(info.name);
      auto bytes = writePlan(*module);
      if (failed(bytes) ||
          (wantsStatistics &&
           failed(writeStatistics(statistics, statsFormat, statsFile))))
        return failure();
      return writeBytes(
          output, ArrayRef<char>(reinterpret_cast<const char *>(bytes->data()),
                                 bytes->size()));
    }
    if (failed(runPhase(*module, info.phase)))
      return failure();
    if (!dumpFolder.empty() &&
        failed(dumpPhase(*module, info.phase, dumpFolder)))
      return failure();
    if (wantsStatistics)
      collectStatistics(*module, info.name, statistics);
  }
  if (wantsStatistics &&
      failed(writeStatistics(statistics, statsFormat, statsFile)))
    return failure();
  std::string text;
  llvm::raw_string_ostream out(text);
  module->print(out);
  out << "\n";
  return writeBytes(output, text);
}
