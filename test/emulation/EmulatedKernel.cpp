#include "test/emulation/EmulatedKernel.h"
#include "test/emulation/runtime/Interface.h"
#include "llvm/IR/IRBuilder.h"
#include "llvm/Support/raw_ostream.h"

using namespace mlir;
using namespace mlir::megalodon;
namespace emulation = ::megalodon::emulation;

void mlir::megalodon::nameOps(gpu::GPUFuncOp function) {
  int64_t number = 0;
  function.walk<WalkOrder::PreOrder>([&](Operation *op) {
    std::string name =
        (op->getName().getStringRef() + " #" + Twine(number++)).str();
    op->setLoc(
        NameLoc::get(StringAttr::get(op->getContext(), name), op->getLoc()));
  });
}

int64_t EmulatedKernel::addSite(Operation *op) {
  std::string text;
  llvm::raw_string_ostream out(text);
  Location loc = op->getLoc();
  if (auto named = dyn_cast<NameLoc>(loc)) {
    out << named.getName().getValue();
    loc = named.getChildLoc();
  } else {
    out << op->getName();
  }
  if (!isa<UnknownLoc>(loc)) {
    std::string where;
    llvm::raw_string_ostream stream(where);
    loc.print(stream);
    StringRef inner = where;
    if (inner.consume_front("loc("))
      inner.consume_back(")");
    out << " (" << inner << ")";
  }
  sites.push_back(text);
  return sites.size() - 1;
}

LLVM::CallOp mlir::megalodon::callRuntime(OpBuilder &builder, Location loc,
                                          ModuleOp unit, StringRef name,
                                          Type result, ValueRange operands) {
  auto function = unit.lookupSymbol<LLVM::LLVMFuncOp>(name);
  if (!function) {
    OpBuilder::InsertionGuard guard(builder);
    builder.setInsertionPointToStart(unit.getBody());
    auto type = LLVM::LLVMFunctionType::get(
        result ? result : LLVM::LLVMVoidType::get(builder.getContext()),
        llvm::to_vector(operands.getTypes()));
    function = LLVM::LLVMFuncOp::create(builder, loc, name, type);
  }
  return LLVM::CallOp::create(builder, loc, function, operands);
}

//===-- Entry points
//-----------------------------------------------------------------------------------===//

namespace {
/// Builds the structs of runtime/Interface.h.
struct EntryBuilder {
  llvm::Module &module;
  const EmulatedKernel &kernel;
  llvm::LLVMContext &context = module.getContext();
  llvm::PointerType *pointer = llvm::PointerType::get(context, 0);
  llvm::IntegerType *word = llvm::Type::getInt64Ty(context),
                    *half = llvm::Type::getInt32Ty(context);

  llvm::Function *function(StringRef name, ArrayRef<llvm::Type *> arguments,
                           llvm::GlobalValue::LinkageTypes linkage) {
    auto *type = llvm::FunctionType::get(llvm::Type::getVoidTy(context),
                                         arguments, false);
    return llvm::Function::Create(type, linkage, name, module);
  }

  llvm::Constant *constant(llvm::Constant *value) {
    auto *global =
        new llvm::GlobalVariable(module, value->getType(), true,
                                 llvm::GlobalValue::InternalLinkage, value);
    return global;
  }

  llvm::Constant *array(llvm::Type *type, ArrayRef<llvm::Constant *> values) {
    return constant(llvm::ConstantArray::get(
        llvm::ArrayType::get(type, values.size()), values));
  }

  llvm::Constant *text(StringRef value) {
    return constant(llvm::ConstantDataArray::getString(context, value));
  }

  /// NAME.start(thread, table): calls the thread's code with the kernel's
  /// arguments.
  llvm::Function *start() {
    auto *function = this->function(kernel.name + ".start", {pointer, pointer},
                                    llvm::GlobalValue::InternalLinkage);
    llvm::IRBuilder<> b(llvm::BasicBlock::Create(context, "", function));
    llvm::Value *thread = function->getArg(0), *table = function->getArg(1);
    auto slot = [&](llvm::Type *type, llvm::Value *base, unsigned index) {
      return b.CreateLoad(type, b.CreateConstGEP1_64(type, base, index));
    };
    SmallVector<llvm::Value *> arguments = {thread};
    if (!kernel.sharedOffsets.empty()) {
      auto *shared = b.CreateLoad(
          pointer, b.CreateConstGEP1_64(b.getInt8Ty(), thread,
                                        offsetof(emulation::Thread, shared)));
      for (int64_t offset : kernel.sharedOffsets)
        arguments.push_back(
            b.CreateConstGEP1_64(b.getInt8Ty(), shared, offset));
    }
    if (kernel.words > 0) {
      auto *parameters = slot(pointer, table, 0);
      for (int64_t i = 0; i < kernel.words; ++i)
        arguments.push_back(slot(word, parameters, i));
    }
    for (unsigned i = 0; i < kernel.bufferBytes.size(); ++i)
      arguments.push_back(slot(pointer, table, i + 1));
    llvm::Function *body = module.getFunction(kernel.threadFunction());
    body->setLinkage(llvm::GlobalValue::InternalLinkage);
    b.CreateCall(body, arguments);
    b.CreateRetVoid();
    return function;
  }

  llvm::Constant *descriptor() {
    SmallVector<llvm::Constant *> sizes, places;
    for (int64_t bytes : kernel.bufferBytes)
      sizes.push_back(llvm::ConstantInt::get(word, bytes));
    for (const std::string &site : kernel.sites)
      places.push_back(text(site));
    auto number = [&](int64_t value) {
      return llvm::ConstantInt::get(half, value);
    };
    return constant(llvm::ConstantStruct::getAnon(
        {text(kernel.name), start(), array(word, sizes), array(pointer, places),
         number(kernel.threads), number(kernel.sharedBytes),
         number(kernel.bufferBytes.size()), number(kernel.meets)}));
  }
};
} // namespace

void mlir::megalodon::addEmulatedEntry(llvm::Module &module,
                                       const EmulatedKernel &kernel) {
  EntryBuilder entry{module, kernel};
  auto *run = entry.function("megalodon_emulate_block",
                             {entry.pointer, entry.pointer, entry.word},
                             llvm::GlobalValue::ExternalLinkage);
  auto *function = entry.function(kernel.name, {entry.pointer, entry.word},
                                  llvm::GlobalValue::ExternalLinkage);
  llvm::IRBuilder<> b(
      llvm::BasicBlock::Create(module.getContext(), "", function));
  b.CreateCall(run,
               {entry.descriptor(), function->getArg(0), function->getArg(1)});
  b.CreateRetVoid();
}
