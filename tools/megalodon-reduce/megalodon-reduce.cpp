// Makes a module that shows a fault small: edits it while a test program, run
// on every candidate, still exits with 0.
#include "mlir/IR/MLIRContext.h"
#include "mlir/Parser/Parser.h"
#include "mlir/Support/FileUtilities.h"
#include "passes/Pipeline/Registration.h"
#include "tools/megalodon-reduce/Reducer.h"
#include "llvm/Support/CommandLine.h"
#include "llvm/Support/FileSystem.h"
#include "llvm/Support/FileUtilities.h"
#include "llvm/Support/InitLLVM.h"
#include "llvm/Support/Program.h"
#include "llvm/Support/ToolOutputFile.h"
#include "llvm/Support/WithColor.h"

using namespace mlir;
namespace cl = llvm::cl;

static int fail(const llvm::Twine &message) {
  llvm::WithColor::error(llvm::errs(), "megalodon-reduce") << message << "\n";
  return 1;
}

static unsigned countOps(ModuleOp module) {
  unsigned count = 0;
  module.walk([&](Operation *op) { count += op != module; });
  return count;
}

namespace {
/// Runs the test program on a module written to a temporary file.
class TestProgram {
public:
  TestProgram(std::string program, ArrayRef<std::string> arguments)
      : program(std::move(program)), arguments(arguments) {}

  bool operator()(ModuleOp module) {
    SmallString<128> path;
    int descriptor;
    if (std::error_code error = llvm::sys::fs::createTemporaryFile(
            "megalodon-reduce", "mlir", descriptor, path)) {
      trouble = "cannot create a temporary file: " + error.message();
      return false;
    }
    llvm::FileRemover remover(path);
    llvm::raw_fd_ostream out(descriptor, /*shouldClose=*/true);
    module.print(out, OpPrintingFlags().enableDebugInfo());
    out.close();
    if (out.has_error()) {
      trouble =
          "cannot write " + path.str().str() + ": " + out.error().message();
      out.clear_error();
      return false;
    }
    SmallVector<StringRef> command{program};
    llvm::append_range(command, arguments);
    command.push_back(path);
    std::string message;
    int code = llvm::sys::ExecuteAndWait(
        program, command, std::nullopt, {std::nullopt, "", ""}, 0, 0, &message);
    if (code < 0)
      trouble = program + ": " + message;
    return code == 0;
  }

  /// What kept the program from being run, as text; empty when nothing did.
  std::string trouble;

private:
  std::string program;
  ArrayRef<std::string> arguments;
};
} // namespace

int main(int argc, char **argv) {
  llvm::InitLLVM init(argc, argv);
  static cl::OptionCategory category("Reduction options");
  static cl::opt<std::string> input(cl::Positional, cl::Required,
                                    cl::desc("FILE.mlir"), cl::cat(category));
  static cl::opt<std::string> output("o", cl::init("-"), cl::cat(category),
                                     cl::desc("where the small module goes"));
  static cl::opt<std::string> test(
      "test", cl::Required, cl::cat(category), cl::value_desc("program"),
      cl::desc("exits with 0 for a module, its last argument, that still shows "
               "the fault"));
  static cl::list<std::string> testArguments(
      "test-arg", cl::cat(category), cl::desc("arguments before the module"));
  cl::HideUnrelatedOptions(category);
  cl::ParseCommandLineOptions(
      argc, argv, "makes a module small while a test still passes\n");

  DialectRegistry registry;
  megalodon::registerDialects(registry);
  MLIRContext context(registry);
  OwningOpRef<ModuleOp> module = parseSourceFile<ModuleOp>(input, &context);
  if (!module)
    return 1;
  auto program = llvm::sys::findProgramByName(test);
  if (!program)
    return fail(test + ": " + program.getError().message());
  TestProgram isInteresting(*program, testArguments);
  if (!isInteresting(*module))
    return fail(isInteresting.trouble.empty()
                    ? test + ": expected exit status 0 for the whole module; "
                             "nothing to reduce"
                    : isInteresting.trouble);
  unsigned before = countOps(*module);
  auto [reduced, tests] = megalodon::reduce(
      *module, [&](ModuleOp candidate) { return isInteresting(candidate); });
  std::string message;
  auto file = openOutputFile(output, &message);
  if (!file)
    return fail(message);
  reduced->print(file->os());
  file->os() << "\n";
  file->keep();
  llvm::errs() << "megalodon-reduce: " << before << " ops to "
               << countOps(*reduced) << " in " << tests << " tests\n";
  return 0;
}
