// megalodon-run bench: how fast each function of a plan runs, where its time
// goes, and how that compares with what the machine can do.
#include "runtime/core/Error.h"
#include "runtime/device.h"
#include "runtime/parallel/Mesh.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/session.h"
#include "runtime/train/Initialize.h"
#include "tools/megalodon-run/Commands.h"
#include "tools/megalodon-run/Ranks.h"
#include "tools/megalodon-run/SampleInputs.h"
#include "tools/megalodon-run/Text.h"
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstring>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <sys/resource.h>

namespace megalodon {

namespace {

using Json = nlohmann::ordered_json;

struct BenchOptions {
  std::string plan, function;
  bool json = false;
  int repeat = 5;
  SessionOptions session;
  RankOptions ranks;
};

/// One line of the table: all dispatches of a kernel, or all products.
struct Row {
  std::string name;
  int64_t calls = 0;
  double bytes = 0, flops = 0;
  std::vector<double> seconds; ///< one entry a run
};

struct Result {
  std::string function;
  int64_t batch = 0, length = 0;
  double seconds = 0, modelFlops = 0;
  std::vector<Row> rows;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle]
                           : (values[middle - 1] + values[middle]) / 2;
}

/// Rows of the table, and where each command of the segments stands in them.
struct Table {
  std::vector<Row> rows;
  std::vector<std::vector<int>> rowOf; ///< [segment][command], or -1
};

/// How often a call runs each segment.
std::vector<int64_t> runsOf(const plan::Program &program) {
  std::vector<int64_t> runs(program.segments.size());
  for (const auto *list : {&program.actions, &program.updateActions})
    for (const plan::Action &action : *list)
      if (action.kind == plan::ActionKind::Run)
        runs[action.segment] += 1;
  return runs;
}

/// The table without times.
Table makeTable(const plan::LoadedPlan &plan, const plan::Function &function,
                const plan::Program &program) {
  Table table;
  std::map<std::string, int> known;
  const int64_t batch = function.localBatch(), length = function.localLength();
  const double tokens = double(batch * length);
  const std::vector<int64_t> runs = runsOf(program);
  auto add = [&](size_t segment, const std::string &name, double bytes,
                 double flops) {
    auto [entry, isNew] = known.emplace(name, int(table.rows.size()));
    if (isNew) {
      table.rows.emplace_back();
      table.rows.back().name = name;
    }
    Row &row = table.rows[size_t(entry->second)];
    row.calls += runs[segment];
    row.bytes += bytes * double(runs[segment]);
    row.flops += flops * double(runs[segment]);
    return entry->second;
  };
  for (size_t s = 0; s < program.segments.size(); ++s) {
    std::map<uint32_t, int> events; // under way, and their rows
    table.rowOf.emplace_back();
    for (const plan::Command &command : program.segments[s].commands) {
      int row = -1;
      if (auto *dispatch = std::get_if<plan::Dispatch>(&command.operation)) {
        row = add(s, plan.kernels[dispatch->kernel].symbol, dispatch->bytes,
                  dispatch->flops);
      } else if (auto *product =
                     std::get_if<plan::Product>(&command.operation)) {
        const double m = product->m < 0 ? tokens : double(product->m),
                     n = product->n < 0 ? tokens : double(product->n),
                     k = product->k < 0 ? tokens : double(product->k);
        row = add(s, "product",
                  4 * (m * k + k * n + m * n * (product->accumulate ? 2 : 1)),
                  2 * m * n * k);
      } else if (auto *copy =
                     std::get_if<plan::CopyStart>(&command.operation)) {
        row = add(s, "copy",
                  2 * double(copy->bytes) *
                      double(plan::timesOf(copy->dynamic, batch, length)),
                  0);
      } else if (auto *collective =
                     std::get_if<plan::CollectiveStart>(&command.operation)) {
        row = add(s, plan::collectiveName(plan, *collective),
                  double(collective->shareBytes(batch, length)), 0);
        events[collective->event] = row;
      } else if (auto event =
                     events.find(std::get<plan::Wait>(command.operation).event);
                 event != events.end()) {
        row = event->second; // a wait for a message is time the message takes
      }
      table.rowOf.back().push_back(row);
    }
  }
  return table;
}

Result measure(Session &session, size_t index, int repeat) {
  using Clock = std::chrono::steady_clock;
  const plan::Function &function = session.plan().functions[index];
  Result result;
  result.function = function.name;
  result.batch = function.batch;
  result.length = function.length;
  result.modelFlops = function.modelFlops;
  Table table = makeTable(session.plan(), function,
                          function.programs[size_t(session.place().pipeline)]);
  result.rows = std::move(table.rows);
  fillSampleInputs(session, index);
  // Touches all memory, loads all code; the second run captures what a GPU
  // replays.
  // Where a sequence has an end, runs go on from its start when it is reached.
  int64_t seen = 0;
  auto rewind = [&] {
    const int64_t most = session.plan().context;
    if (most > 0 && seen + function.length > most) {
      session.resetState(index);
      seen = 0;
    }
    seen += function.length;
  };
  auto warm = [&] {
    rewind();
    session.run(index);
  };
  warm();
  warm();
  session.device().finish();
  std::vector<double> seconds;
  for (int run = 0; run < repeat; ++run) {
    rewind();
    const Clock::time_point start = Clock::now();
    session.run(index);
    session.device().finish();
    seconds.push_back(
        std::chrono::duration<double>(Clock::now() - start).count());
  }
  result.seconds = median(seconds);
  session.setProfiling(true);
  for (int run = 0; run < repeat; ++run) {
    rewind();
    session.run(index);
    for (Row &row : result.rows)
      row.seconds.push_back(0);
    for (size_t s = 0; s < table.rowOf.size(); ++s)
      for (size_t i = 0; i < table.rowOf[s].size(); ++i)
        if (table.rowOf[s][i] >= 0)
          result.rows[size_t(table.rowOf[s][i])].seconds.back() +=
              session.commandSeconds()[s][i];
  }
  session.setProfiling(false);
  std::sort(result.rows.begin(), result.rows.end(),
            [](const Row &left, const Row &right) {
              return median(left.seconds) > median(right.seconds);
            });
  return result;
}

/// The machine's yardsticks in the plan's precision, a second; products 0 if
/// the plan has none.
struct Yardsticks {
  double bytes, flops, products;
  double allFlops, allProducts; ///< of all ranks together
};

/// Measured on all ranks at the same time, so that ranks on one machine share
/// it as they do when they work.
Yardsticks measureYardsticks(const Session &session) {
  World &world = session.world();
  world.all().barrier({"beginning to measure", -1}, world.timeout);
  const DeviceLimits limits = session.device().measure();
  Yardsticks own = {limits.bytesPerSecond, limits.flopsPerSecond,
                    limits.productsPerSecond, 0, 0};
  double sums[2] = {own.flops, own.products};
  world.all()
      .allReduce(sums, 2, ElementType::F64)
      ->wait({"adding up the ranks' speeds", -1}, world.timeout);
  own.allFlops = sums[0];
  own.allProducts = sums[1];
  return own;
}

Json resultJson(const Result &result, const Yardsticks &machine) {
  const double tokens = double(result.batch * result.length);
  Json out = {
      {"function", result.function},
      {"batch", result.batch},
      {"length", result.length},
      {"seconds", result.seconds},
      {"tokens_per_second", tokens / result.seconds},
      {"model_flops", result.modelFlops},
      {"share_of_peak", result.modelFlops / result.seconds / machine.allFlops}};
  if (machine.allProducts > 0)
    out["share_of_product_rate"] =
        result.modelFlops / result.seconds / machine.allProducts;
  Json &kernels = out["kernels"] = Json::array();
  for (const Row &row : result.rows) {
    const double seconds = median(row.seconds);
    kernels.push_back(
        {{"name", row.name},
         {"calls", row.calls},
         {"seconds", seconds},
         {"bytes", row.bytes},
         {"flops", row.flops},
         {"share_of_bandwidth", row.bytes / seconds / machine.bytes},
         {"share_of_peak", row.flops / seconds / machine.flops}});
  }
  return out;
}

void printResult(const Result &result, const Yardsticks &machine) {
  const double tokens = double(result.batch * result.length);
  std::printf("\n%s, batch %s, length %s: %s ms, %s tokens/s",
              result.function.c_str(), grouped(result.batch).c_str(),
              grouped(result.length).c_str(),
              decimal(result.seconds * 1e3, 3).c_str(),
              grouped(int64_t(tokens / result.seconds)).c_str());
  std::printf(
      "; dense flops %s G at %s GF/s = %s %% of peak",
      decimal(result.modelFlops * 1e-9, 2).c_str(),
      decimal(result.modelFlops / result.seconds * 1e-9, 1).c_str(),
      decimal(100 * result.modelFlops / result.seconds / machine.allFlops, 1)
          .c_str());
  if (machine.allProducts > 0)
    std::printf(
        ", %s %% of the library's product rate",
        decimal(100 * result.modelFlops / result.seconds / machine.allProducts,
                1)
            .c_str());
  std::printf("\n");
  double total = 0;
  for (const Row &row : result.rows)
    total += median(row.seconds);
  std::vector<std::vector<std::string>> rows = {
      {"kernel", "calls", "ms", "time %", "MB", "MF", "GB/s", "of memory %",
       "GF/s", "of peak %"}};
  for (const Row &row : result.rows) {
    const double seconds = std::max(median(row.seconds), 1e-9);
    rows.push_back({row.name, grouped(row.calls), decimal(seconds * 1e3, 3),
                    decimal(100 * seconds / total, 1),
                    decimal(row.bytes * 1e-6, 2), decimal(row.flops * 1e-6, 1),
                    decimal(row.bytes / seconds * 1e-9, 1),
                    decimal(100 * row.bytes / seconds / machine.bytes, 1),
                    decimal(row.flops / seconds * 1e-9, 1),
                    decimal(100 * row.flops / seconds / machine.flops, 1)});
  }
  printTable(rows);
}

/// All ranks run; rank 0 prints what it saw.
void bench(const BenchOptions &options,
           std::shared_ptr<const plan::LoadedPlan> plan, World &world) {
  Session session(plan, options.session, world);
  const bool prints = world.rank() == 0;
  std::vector<size_t> functions;
  if (!options.function.empty())
    functions.push_back(session.function(options.function));
  else
    for (size_t i = 0; i < plan->functions.size(); ++i)
      functions.push_back(i);

  const Yardsticks machine = measureYardsticks(session);
  initializeParameters(session, 1);
  Json json = {{"plan", plan->path},
               {"device", session.device().name()},
               {"precision", plan->precision},
               {"ranks", world.size()},
               {"threads", session.threads()},
               {"repeat", options.repeat},
               {"memory_bytes_per_second", machine.bytes},
               {"peak_flops_per_second", machine.flops}};
  if (machine.products > 0)
    json["product_flops_per_second"] = machine.products;
  if (prints && !options.json) {
    std::printf("%s, %s, ", plan->path.c_str(), plan->precision.c_str());
    if (world.size() > 1)
      std::printf("mesh %s, rank 0 of %d, ", plan::meshText(plan->mesh).c_str(),
                  world.size());
    std::printf("%d threads, medians of %d runs\n", session.threads(),
                options.repeat);
    if (!session.device().isHost())
      std::printf("device: %s\n", session.device().name().c_str());
    std::printf("machine: memory %s GB/s, multiply-add peak %s GF/s",
                decimal(machine.bytes * 1e-9, 1).c_str(),
                decimal(machine.flops * 1e-9, 1).c_str());
    if (machine.products > 0)
      std::printf(", library products %s GF/s",
                  decimal(machine.products * 1e-9, 1).c_str());
    std::printf("\n");
  }
  for (size_t function : functions) {
    const Result result = measure(session, function, options.repeat);
    if (options.json)
      json["functions"].push_back(resultJson(result, machine));
    else if (prints)
      printResult(result, machine);
  }
  if (!prints)
    return;
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const int64_t peakBytes = int64_t(usage.ru_maxrss) * 1024;
  json["peak_memory_bytes"] = peakBytes;
  if (options.json)
    std::cout << json.dump(2) << '\n';
  else
    std::printf("\npeak memory of the process: %s bytes\n",
                grouped(peakBytes).c_str());
}

void benchOnRanks(BenchOptions &options) {
  if (options.repeat < 1)
    throw Error(str("--repeat: expected at least 1, got ", options.repeat));
  const auto plan = plan::LoadedPlan::open(options.plan);
  onRanks(options.ranks, *plan, options.session,
          [&](World &world) { bench(options, plan, world); });
}

} // namespace

void addBench(CLI::App &app) {
  auto options = std::make_shared<BenchOptions>();
  CLI::App *command =
      app.add_subcommand("bench", "measures each function of a plan");
  command->add_option("plan", options->plan, "plan file")->required();
  command->add_flag("--json", options->json, "print JSON");
  command->add_option("--function", options->function,
                      "measure only this function");
  command->add_option("--gpu", options->session.gpu,
                      "GPU of a plan for GPUs (default: the ranks of a machine "
                      "take its GPUs in turn)");
  command->add_option("--threads", options->session.threads,
                      "number of threads (0: all processors)");
  command->add_option("--repeat", options->repeat,
                      "runs to take the median of");
  addRankOptions(*command, options->ranks);
  command->callback([options] { benchOnRanks(*options); });
}

} // namespace megalodon
