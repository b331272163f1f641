#include "passes/Pipeline/Statistics.h"
#include "dialect/Megalodon/Megalodon.h"
#include "dialect/Plan/Plan.h"
#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Shard/IR/ShardOps.h"
#include "mlir/IR/SymbolTable.h"
#include "llvm/ADT/TypeSwitch.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/JSON.h"

using namespace mlir;
using namespace mlir::megalodon;

void Work::add(const Work &other) {
  for (auto [name, count] : other.ops)
    ops[name] += count;
  launches += other.launches;
  products += other.products;
  collectives += other.collectives;
  productFlops += other.productFlops;
  kernelFlops += other.kernelFlops;
  bytes += other.bytes;
  messageBytes += other.messageBytes;
}

//===-- Single ops --------------------------------------------------------===//

static double bytesOf(ValueRange values) {
  double bytes = 0;
  for (Value value : values)
    if (auto type = dyn_cast<RankedTensorType>(value.getType()))
      bytes += double(type.getNumElements()) *
               type.getElementType().getIntOrFloatBitWidth() / 8;
  return bytes;
}

/// Multiply-adds of a product whose weight (or its gradient) is [n, k]: once
/// for every row of the activation.
static double productFlops(Value activation, Value weight) {
  auto x = cast<RankedTensorType>(activation.getType());
  auto w = cast<RankedTensorType>(weight.getType());
  return 2.0 * x.getNumElements() / x.getDimSize(x.getRank() - 1) *
         w.getNumElements();
}

/// Whether a collective of the shard dialect has anyone to talk to.
template <typename Op> static bool hasPeers(Op op) {
  auto grid =
      SymbolTable::lookupNearestSymbolFrom<shard::GridOp>(op, op.getGridAttr());
  return llvm::any_of(op.getGridAxes(), [&](int16_t axis) {
    return grid && grid.getShape()[axis] > 1;
  });
}

static bool isMessage(Operation *op) {
  return TypeSwitch<Operation *, bool>(op)
      .Case<plan::CollectiveOp>([](auto) { return true; })
      .Case<shard::AllGatherOp, shard::AllReduceOp, shard::ReduceScatterOp>(
          [](auto collective) { return hasPeers(collective); })
      .Default([](Operation *) { return false; });
}

static Work workOf(Operation *op) {
  Work work;
  work.ops[op->getName().getStringRef()] = 1;
  if (isMessage(op)) {
    work.collectives = 1;
    work.messageBytes = bytesOf(op->getOperands());
  }
  auto product = [&](double flops) {
    work.products = 1;
    work.productFlops = flops;
  };
  TypeSwitch<Operation *>(op)
      .Case<LinearOp>([&](LinearOp linear) {
        product(productFlops(linear.getX(), linear.getWeight()));
      })
      .Case<LinearGradInputOp>([&](LinearGradInputOp grad) {
        product(productFlops(grad->getOperand(0), grad.getWeight()));
      })
      .Case<LinearGradWeightOp>([&](LinearGradWeightOp grad) {
        product(productFlops(grad->getOperand(0), grad->getResult(0)));
      })
      .Case<plan::ProductOp>([&](plan::ProductOp call) {
        product(call.getFlops().convertToDouble());
        work.bytes = call.getBytes().convertToDouble();
      })
      .Case<plan::DispatchOp>([&](plan::DispatchOp dispatch) {
        work.launches = 1;
        work.kernelFlops = dispatch.getFlops().convertToDouble();
        work.bytes = dispatch.getBytes().convertToDouble();
      });
  return work;
}

//===-- Functions ---------------------------------------------------------===//

namespace {
class Collector {
public:
  explicit Collector(ModuleOp module) : symbols(module) {}

  const Work &of(func::FuncOp function) {
    auto [place, isNew] = known.try_emplace(function, nullptr);
    if (!isNew)
      return *place->second;
    auto work = std::make_unique<Work>();
    for (Operation &op : function.getOps()) {
      if (auto call = dyn_cast<func::CallOp>(op))
        work->add(of(symbols.lookup<func::FuncOp>(call.getCallee())));
      else if (!op.hasTrait<OpTrait::IsTerminator>() &&
               !op.hasTrait<OpTrait::ConstantLike>())
        work->add(workOf(&op));
    }
    return *(known[function] = std::move(work));
  }

private:
  SymbolTable symbols;
  llvm::DenseMap<func::FuncOp, std::unique_ptr<Work>> known;
};
} // namespace

void mlir::megalodon::collectStatistics(ModuleOp module, StringRef phase,
                                        std::vector<EntryStatistics> &rows) {
  llvm::DenseSet<StringRef> called;
  for (auto function : module.getOps<func::FuncOp>())
    function.walk([&](func::CallOp call) { called.insert(call.getCallee()); });
  Collector collector(module);
  for (auto function : module.getOps<func::FuncOp>())
    if (!called.contains(function.getSymName()))
      rows.push_back(
          {phase.str(), function.getSymName().str(), collector.of(function)});
}

//===-- Printing ----------------------------------------------------------===//

static int64_t countOps(const Work &work) {
  int64_t count = 0;
  for (auto [name, times] : work.ops)
    count += times;
  return count;
}

static void printText(llvm::ArrayRef<EntryStatistics> rows,
                      llvm::raw_ostream &out) {
  size_t width = 5;
  for (const EntryStatistics &row : rows)
    width = std::max(width, row.entry.size());
  out << llvm::left_justify("phase", 15) << llvm::left_justify("entry", width)
      << "     ops  launches  products  product GFLOP  kernel GFLOP   MB moved"
         "  messages    MB sent\n";
  for (const auto &[phase, entry, work] : rows)
    out << llvm::left_justify(phase, 15) << llvm::left_justify(entry, width)
        << llvm::format("%8lld%10lld%10lld%15.3f%14.3f%11.2f%10lld%11.3f\n",
                        (long long)countOps(work), (long long)work.launches,
                        (long long)work.products, work.productFlops / 1e9,
                        work.kernelFlops / 1e9, work.bytes / 1e6,
                        (long long)work.collectives, work.messageBytes / 1e6);
}

static void printCsv(llvm::ArrayRef<EntryStatistics> rows,
                     llvm::raw_ostream &out) {
  out << "phase,entry,ops,launches,products,product_flops,kernel_flops,bytes,"
         "messages,message_bytes\n";
  for (const auto &[phase, entry, work] : rows)
    out << phase << ',' << entry << ',' << countOps(work) << ','
        << work.launches << ',' << work.products << ','
        << llvm::format("%.0f,%.0f,%.0f,%lld,%.0f\n", work.productFlops,
                        work.kernelFlops, work.bytes,
                        (long long)work.collectives, work.messageBytes);
}

static void printJson(llvm::ArrayRef<EntryStatistics> rows,
                      llvm::raw_ostream &out) {
  llvm::json::OStream json(out, /*IndentSize=*/2);
  json.array([&] {
    for (const EntryStatistics &row : rows)
      json.object([&] {
        const Work &work = row.work;
        json.attribute("phase", row.phase);
        json.attribute("entry", row.entry);
        json.attribute("launches", work.launches);
        json.attribute("products", work.products);
        json.attribute("product_flops", work.productFlops);
        json.attribute("kernel_flops", work.kernelFlops);
        json.attribute("bytes", work.bytes);
        json.attribute("messages", work.collectives);
        json.attribute("message_bytes", work.messageBytes);
        json.attributeObject("ops", [&] {
          for (auto [name, count] : work.ops)
            json.attribute(name, count);
        });
      });
  });
  out << "\n";
}

void mlir::megalodon::printStatistics(llvm::ArrayRef<EntryStatistics> rows,
                                      StatisticsFormat format,
                                      llvm::raw_ostream &out) {
  switch (format) {
  case StatisticsFormat::Text:
    return printText(rows, out);
  case StatisticsFormat::Csv:
    return printCsv(rows, out);
  case StatisticsFormat::Json:
    return printJson(rows, out);
  }
}
