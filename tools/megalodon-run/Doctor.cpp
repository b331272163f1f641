// megalodon-run doctor: what this machine has, what of it a plan can use, and
// whether the numbers that come out are right.
#include "runtime/core/Error.h"
#include "runtime/cpu/OneDnn.h"
#include "runtime/cpu/Probes.h"
#include "runtime/cuda/CublasLt.h"
#include "runtime/cuda/Images.h"
#include "runtime/cuda/Probes.h"
#include "runtime/io/Weights.h"
#include "runtime/plan/Traffic.h"
#include "runtime/train/Initialize.h"
#include "runtime/train/Random.h"
#include "tools/megalodon-run/Commands.h"
#include "tools/megalodon-run/SampleInputs.h"
#include "tools/megalodon-run/Text.h"
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstring>
#include <dlfcn.h>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <unistd.h>

namespace megalodon {

namespace {

using Json = nlohmann::ordered_json;

/// Above it, giving a plan parameters takes longer than a look should.
constexpr int64_t kMostParameters = 1'000'000'000;

struct DoctorOptions {
  std::string plan;
  bool json = false;
  SessionOptions session;
};

/// What body() returns, or why it could not: {"missing": ...}.
template <typename Body> Json orMissing(Body body) {
  try {
    return body();
  } catch (const std::exception &error) {
    return {{"missing", error.what()}};
  }
}

//===-- The machine -------------------------------------------------------===//

Json processor() {
  std::ifstream info("/proc/cpuinfo");
  std::string model, flags;
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (colon == std::string::npos)
      continue;
    if (line.rfind("model name", 0) == 0 && model.empty())
      model = line.substr(colon + 2);
    if (line.rfind("flags", 0) == 0 && flags.empty())
      flags = line.substr(colon + 2);
  }
  // Those that make kernels faster.
  constexpr const char *wanted[] = {"avx2",        "fma",      "f16c",
                                    "avx512f",     "avx512bw", "avx512_vnni",
                                    "avx512_bf16", "amx_bf16", "amx_tile"};
  Json features = Json::array();
  std::istringstream words(flags);
  for (std::string word; words >> word;)
    if (std::find(std::begin(wanted), std::end(wanted), word) !=
        std::end(wanted))
      features.push_back(word);
  ThreadPool pool(0);
  const cpu::MachineLimits limits = cpu::measureMachine(pool);
  return {{"model", model},
          {"threads", pool.size()},
          {"features", features},
          {"memory_bytes", int64_t(::sysconf(_SC_PHYS_PAGES)) *
                               int64_t(::sysconf(_SC_PAGE_SIZE))},
          {"memory_bytes_per_second", limits.bytesPerSecond},
          {"flops_per_second_f32", limits.flopsPerSecond},
          {"flops_per_second_f64", limits.flops64PerSecond}};
}

/// An entry point of a library that says its version.
template <typename Function>
Function *entry(const char *library, const char *name) {
  void *handle = ::dlopen(library, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const char *reason = ::dlerror();
    throw Error(reason ? reason : str(library, " was not found"));
  }
  auto *function = reinterpret_cast<Function *>(::dlsym(handle, name));
  if (!function)
    throw Error(str(library, " has no ", name));
  return function;
}

Json oneDnn() {
  struct Version {
    int major, minor, patch;
  };
  const Version *version =
      entry<const Version *()>("libdnnl.so.2", "dnnl_version")();
  return {{"version",
           str(version->major, ".", version->minor, ".", version->patch)}};
}

Json mpi() {
  char text[8192] = {};
  int length = 0;
  entry<int(char *, int *)>("libmpi.so.40", "MPI_Get_library_version")(text,
                                                                       &length);
  const std::string version(text);
  return {{"version", version.substr(0, version.find(','))}};
}

Json nccl() {
  int version = 0;
  entry<int(int *)>("libnccl.so.2", "ncclGetVersion")(&version);
  return {{"version",
           str(version / 10000, ".", version / 100 % 100, ".", version % 100)}};
}

Json cublasLt() {
  const size_t version = cuda::CublasLt::get().version();
  return {{"version",
           str(version / 10000, ".", version / 100 % 100, ".", version % 100)}};
}

Json driver() { return {{"cuda_version", cuda::Driver::get().versionText()}}; }

Json gpus() {
  Json list = Json::array();
  for (const cuda::Gpu &gpu : cuda::listGpus()) {
    auto context = std::make_shared<cuda::Context>(gpu);
    size_t free = 0, total = 0;
    context->driver.check(context->driver.cuMemGetInfo_v2(&free, &total),
                          "cuMemGetInfo");
    list.push_back({{"name", gpu.name},
                    {"compute_capability", str(gpu.major, ".", gpu.minor)},
                    {"multiprocessors", gpu.multiprocessors},
                    {"shared_bytes", gpu.sharedBytes},
                    {"memory_bytes", gpu.memoryBytes},
                    {"free_bytes", free},
                    {"memory_bytes_per_second", cuda::measureCopies(context)},
                    {"flops_per_second_f32", cuda::multiplyAddPeak(gpu)}});
  }
  return list;
}

//===-- The plan ----------------------------------------------------------===//

/// Most memory that a function of the plan takes on a rank.
uint64_t memoryOf(const plan::LoadedPlan &plan) {
  uint64_t most = 0;
  for (const plan::Function &function : plan.functions)
    for (const plan::Program &program : function.programs)
      most = std::max(most, plan::memoryOf(plan, function, program).total());
  return most;
}

Json planReport(const plan::LoadedPlan &plan, const DoctorOptions &options) {
  Json missing = Json::array();
  Json report = {{"path", plan.path},
                 {"target", plan.target},
                 {"precision", plan.precision},
                 {"ranks", plan.mesh.ranks()},
                 {"rank_bytes", memoryOf(plan)}};
  auto attempt = [&](auto body) {
    try {
      body();
    } catch (const std::exception &error) {
      missing.push_back(error.what());
    }
  };
  if (!plan.isCuda()) {
    for (const std::string &feature : plan::missingCpuFeatures(plan))
      missing.push_back(str("processor feature ", feature,
                            ": compile the plan for this machine (--cpu=native)"
                            " or for an older one"));
    if (plan.features & plan::kFeatureOneDnn)
      attempt([] { cpu::OneDnn::get(); });
  } else {
    report["images"] = cuda::imageNames(plan.images);
    attempt([&] {
      const std::vector<cuda::Gpu> gpus = cuda::listGpus();
      const cuda::Gpu &gpu =
          gpus.at(options.session.gpu < 0 ? 0 : size_t(options.session.gpu));
      const plan::GpuImage *image =
          cuda::chooseImage(plan.images, gpu.major, gpu.minor);
      if (image)
        report["image"] = str(image->ptx ? "PTX of " : "", image->arch);
      cuda::Module(std::make_shared<cuda::Context>(gpu), plan);
      if (memoryOf(plan) > gpu.memoryBytes)
        throw Error(str("memory: a rank needs ", memoryOf(plan), " bytes, ",
                        gpu.name, " has ", gpu.memoryBytes,
                        ": compile for a smaller batch or length, or for a "
                        "mesh of more GPUs"));
    });
    if (plan.features & plan::kFeatureCublasLt)
      attempt([] { cuda::CublasLt::get(); });
  }
  report["missing"] = missing;
  report["runs"] = missing.empty();
  return report;
}

//===-- Checks ------------------------------------------------------------===//

/// Matrices of a product that is no multiple of anything, and its result by
/// plain loops; numbers that bf16 holds exactly.
struct SampleProduct {
  static constexpr int64_t m = 67, n = 45, k = 83;
  std::vector<float> a, b, want;

  SampleProduct() : a(size_t(m * k)), b(size_t(k * n)), want(size_t(m * n)) {
    const CounterRandom random(1, 0);
    for (size_t i = 0; i < a.size(); ++i)
      a[i] = float(int(random.below(33, i)) - 16) / 16;
    for (size_t i = 0; i < b.size(); ++i)
      b[i] = float(int(random.below(33, a.size() + i)) - 16) / 16;
    for (int64_t row = 0; row < m; ++row)
      for (int64_t column = 0; column < n; ++column) {
        double sum = 0;
        for (int64_t i = 0; i < k; ++i)
          sum += double(a[size_t(row * k + i)]) * b[size_t(i * n + column)];
        want[size_t(row * n + column)] = float(sum);
      }
  }

  void compare(const std::vector<float> &got) const {
    for (size_t i = 0; i < want.size(); ++i)
      if (!(std::abs(got[i] - want[i]) <= 1e-5f * float(k)))
        throw Error(
            str("element ", i, ": expected ", want[i], ", got ", got[i]));
  }
};

void checkCpuProduct() {
  const SampleProduct sample;
  std::vector<float> got(sample.want.size());
  cpu::OneDnn::get().product(false, false, sample.m, sample.n, sample.k,
                             sample.a.data(), sample.k, sample.b.data(),
                             sample.n, 0, got.data(), sample.n);
  sample.compare(got);
}

void checkGpu(const cuda::Gpu &gpu, ElementType type) {
  auto context = std::make_shared<cuda::Context>(gpu);
  cuda::Products products(context);
  const cuda::Stream stream(context);
  const SampleProduct sample;
  auto upload = [&](const std::vector<float> &numbers) {
    std::vector<std::byte> bytes(numbers.size() * elementBytes(type));
    for (size_t i = 0; i < numbers.size(); ++i) {
      uint32_t bits;
      std::memcpy(&bits, &numbers[i], 4);
      const auto half = uint16_t(bits >> 16);
      if (type == ElementType::BF16)
        std::memcpy(&bytes[2 * i], &half, 2);
      else
        std::memcpy(&bytes[4 * i], &bits, 4);
    }
    Block block = context->allocate(bytes.size(), "a check");
    context->driver.check(context->driver.cuMemcpyHtoDAsync_v2(
                              cuda::addressOf(block.data()), bytes.data(),
                              bytes.size(), stream.handle),
                          "cuMemcpyHtoDAsync");
    stream.synchronize();
    return block;
  };
  const Block a = upload(sample.a), b = upload(sample.b),
              c = context->allocate(sample.want.size() * 4, "a check");
  products.run({false, false, false, sample.m, sample.n, sample.k, type,
                ElementType::F32},
               a.data(), b.data(), c.data(), stream);
  std::vector<float> got(sample.want.size());
  context->driver.check(
      context->driver.cuMemcpyDtoHAsync_v2(
          got.data(), cuda::addressOf(c.data()), got.size() * 4, stream.handle),
      "cuMemcpyDtoHAsync");
  stream.synchronize();
  sample.compare(got);
}

/// One small call, twice from the same start: finite, and the same bytes.
std::string checkPlan(std::shared_ptr<const plan::LoadedPlan> plan,
                      const DoctorOptions &options) {
  Session session(plan, options.session);
  size_t index = 0;
  for (const char *name :
       {"train_step", "grad", "generate", "score", "forward"})
    if (session.hasFunction(name))
      index = session.function(name);
  const plan::Function &function = plan->functions[index];
  const CallShape shape = {
      function.exact ? function.batch : 1,
      function.exact ? function.length : std::min<int64_t>(function.length, 8)};
  std::vector<std::string> first;
  for (int call = 0; call < 2; ++call) {
    initializeParameters(session, 1);
    for (const auto &moments :
         {session.firstMoments(), session.secondMoments()})
      for (const TensorView &moment : moments)
        moment.zero();
    fillSampleInputs(session, index, shape);
    session.run(index, shape);
    size_t at = 0;
    for (const TensorView &output : session.outputs(index, shape)) {
      if (firstNonFinite(output) >= 0)
        throw Error(str("function '", function.name, "': output '", output.name,
                        "' is not finite at element ", firstNonFinite(output)));
      std::string bytes(reinterpret_cast<const char *>(output.read()),
                        output.bytes);
      if (call == 0)
        first.push_back(std::move(bytes));
      else if (first[at++] != bytes)
        throw Error(str("function '", function.name, "': output '", output.name,
                        "' differs between two equal calls"));
    }
  }
  return str("function '", function.name, "', batch ", shape.batch, ", length ",
             shape.length);
}

Json runChecks(std::shared_ptr<const plan::LoadedPlan> plan, bool planRuns,
               const Json &machine, const DoctorOptions &options) {
  Json checks = Json::array();
  auto check = [&](const std::string &name, auto body) {
    try {
      const std::string detail = body();
      checks.push_back({{"name", name}, {"ok", true}, {"detail", detail}});
    } catch (const std::exception &error) {
      checks.push_back(
          {{"name", name}, {"ok", false}, {"detail", error.what()}});
    }
  };
  const std::string size =
      str(SampleProduct::m, " x ", SampleProduct::k, " by ", SampleProduct::k,
          " x ", SampleProduct::n);
  if (machine["onednn"].contains("version"))
    check("cpu products", [&] {
      checkCpuProduct();
      return size;
    });
  if (machine["gpus"].is_array() && machine["cublaslt"].contains("version"))
    for (const cuda::Gpu &gpu : cuda::listGpus())
      for (ElementType type : {ElementType::F32, ElementType::BF16})
        check(str("GPU ", gpu.ordinal, " products ", elementName(type)), [&] {
          checkGpu(gpu, type);
          return size;
        });
  if (!plan || !planRuns)
    return checks;
  if (plan->mesh.ranks() > 1 || plan->parameterCount() > kMostParameters) {
    checks.push_back({{"name", "plan"},
                      {"ok", true},
                      {"detail", "not run: it takes several ranks or more than "
                                 "a quick look"}});
    return checks;
  }
  check("plan", [&] { return checkPlan(plan, options); });
  return checks;
}

//===-- Output ------------------------------------------------------------===//

std::string bytesText(const Json &number) {
  return decimal(number.get<double>() / (1 << 30), 1) + " GiB";
}
std::string rateText(const Json &number, const char *unit) {
  return decimal(number.get<double>() * 1e-9, 0) + unit;
}

void print(const Json &report) {
  const Json &machine = report["machine"], &cpu = machine["cpu"];
  std::string features;
  for (const Json &feature : cpu["features"])
    features += " " + feature.get<std::string>();
  std::printf("cpu         %s, %d threads,%s\n",
              cpu["model"].get<std::string>().c_str(),
              cpu["threads"].get<int>(), features.c_str());
  std::printf("            memory %s, %s; %s f32, %s f64\n",
              bytesText(cpu["memory_bytes"]).c_str(),
              rateText(cpu["memory_bytes_per_second"], " GB/s").c_str(),
              rateText(cpu["flops_per_second_f32"], " GF/s").c_str(),
              rateText(cpu["flops_per_second_f64"], " GF/s").c_str());
  auto library = [&](const char *title, const Json &found) {
    for (const char *key : {"version", "cuda_version", "missing"})
      if (found.contains(key))
        std::printf("%-11s %s%s\n", title,
                    std::string_view(key) == "missing"        ? "not here: "
                    : std::string_view(key) == "cuda_version" ? "for CUDA "
                                                              : "",
                    found[key].get<std::string>().c_str());
  };
  library("oneDNN", machine["onednn"]);
  library("MPI", machine["mpi"]);
  library("driver", machine["driver"]);
  if (machine["gpus"].is_array()) {
    int ordinal = 0;
    for (const Json &gpu : machine["gpus"])
      std::printf("GPU %-7d %s, compute capability %s, %s, %s free, %s\n",
                  ordinal++, gpu["name"].get<std::string>().c_str(),
                  gpu["compute_capability"].get<std::string>().c_str(),
                  bytesText(gpu["memory_bytes"]).c_str(),
                  bytesText(gpu["free_bytes"]).c_str(),
                  rateText(gpu["memory_bytes_per_second"], " GB/s").c_str());
  }
  library("cuBLASLt", machine["cublaslt"]);
  library("NCCL", machine["nccl"]);
  if (report.contains("plan")) {
    const Json &plan = report["plan"];
    std::printf("\nplan        %s: %s, %s, %d rank(s), %s bytes a rank\n",
                plan["path"].get<std::string>().c_str(),
                plan["target"].get<std::string>().c_str(),
                plan["precision"].get<std::string>().c_str(),
                plan["ranks"].get<int>(),
                grouped(plan["rank_bytes"].get<int64_t>()).c_str());
    if (plan.contains("images"))
      std::printf("            code for %s; here runs %s\n",
                  plan["images"].get<std::string>().c_str(),
                  plan.contains("image")
                      ? plan["image"].get<std::string>().c_str()
                      : "none of it");
    for (const Json &missing : plan["missing"])
      std::printf("            missing: %s\n",
                  missing.get<std::string>().c_str());
    if (plan["runs"].get<bool>())
      std::printf("            runs here\n");
  }
  std::printf("\n");
  for (const Json &check : report["checks"])
    std::printf("%-6s      %s: %s\n", check["ok"].get<bool>() ? "ok" : "NOT OK",
                check["name"].get<std::string>().c_str(),
                check["detail"].get<std::string>().c_str());
}

void doctor(const DoctorOptions &options) {
  std::shared_ptr<const plan::LoadedPlan> plan;
  if (!options.plan.empty())
    plan = plan::LoadedPlan::open(options.plan);
  Json report, machine;
  machine["cpu"] = processor();
  machine["onednn"] = orMissing(oneDnn);
  machine["mpi"] = orMissing(mpi);
  machine["driver"] = orMissing(driver);
  machine["gpus"] = orMissing(gpus);
  machine["cublaslt"] = orMissing(cublasLt);
  machine["nccl"] = orMissing(nccl);
  report["machine"] = machine;
  if (plan)
    report["plan"] = planReport(*plan, options);
  const bool planRuns = !plan || report["plan"]["runs"].get<bool>();
  report["checks"] = runChecks(plan, planRuns, machine, options);
  if (options.json)
    std::cout << report.dump(2) << '\n';
  else
    print(report);
  bool good = planRuns;
  for (const Json &check : report["checks"])
    good &= check["ok"].get<bool>();
  if (!good)
    throw Error(planRuns ? "a check failed" : "the plan cannot run here");
}

} // namespace

void addDoctor(CLI::App &app) {
  auto options = std::make_shared<DoctorOptions>();
  CLI::App *command = app.add_subcommand(
      "doctor", "what this machine has, what of it a plan can use, and whether "
                "its numbers are right; takes about ten seconds");
  command->add_option("plan", options->plan, "plan file");
  command->add_flag("--json", options->json, "print JSON");
  command->add_option("--gpu", options->session.gpu,
                      "GPU that the plan would use");
  command->callback([options] { doctor(*options); });
}

} // namespace megalodon
