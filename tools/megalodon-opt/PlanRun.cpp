// The compiler's door to the runtime library.
#include "tools/megalodon-opt/PlanRun.h"
#include "runtime/io/Safetensors.h"
#include "runtime/parallel/Communicator.h"
#include "runtime/plan/LoadedPlan.h"
#include "runtime/session.h"
#include "runtime/train/Tensors.h"
#include <mutex>

using namespace megalodon;

struct PlanRun::Impl {
  std::shared_ptr<const plan::LoadedPlan> plan;
};

PlanRun::PlanRun(std::unique_ptr<Impl> impl) : impl(std::move(impl)) {}
PlanRun::~PlanRun() = default;

std::unique_ptr<PlanRun> PlanRun::open(const std::vector<uint8_t> &plan,
                                       std::string &error) {
  try {
    auto impl = std::make_unique<Impl>();
    impl->plan = plan::LoadedPlan::parse("the plan", plan.data(), plan.size());
    if (impl->plan->isCuda()) {
      error = "expected a plan for the cpu device, got one for GPUs";
      return nullptr;
    }
    return std::unique_ptr<PlanRun>(new PlanRun(std::move(impl)));
  } catch (const std::exception &exception) {
    error = exception.what();
    return nullptr;
  }
}

static void fill(const TensorView &view, const HostNumbers &numbers) {
  const size_t elements = view.bytes / elementBytes(view.type);
  const size_t given =
      isFloat(view.type) ? numbers.reals.size() : numbers.integers.size();
  if (given != elements)
    throw Error(str("tensor '", view.name, "': expected ", elements,
                    " elements, got ", given));
  for (size_t i = 0; i < elements; ++i)
    storeNumber(view, int64_t(i),
                isFloat(view.type) ? numbers.reals[i]
                                   : double(numbers.integers[i]));
}

static HostNumbers numbersOf(const TensorView &view) {
  HostNumbers numbers;
  const size_t elements = view.bytes / elementBytes(view.type);
  for (size_t i = 0; i < elements; ++i) {
    const double number = loadNumber(view, int64_t(i));
    if (isFloat(view.type))
      numbers.reals.push_back(number);
    else
      numbers.integers.push_back(int64_t(number));
  }
  return numbers;
}

std::string PlanRun::run(const std::string &function, const Read &read,
                         const Write &write) {
  std::mutex turn;
  auto body = [&](World &world) {
    SessionOptions options;
    options.threads = 1;
    options.poison = true;
    Session session(impl->plan, options, world);
    const size_t index = session.function(function);
    {
      const std::lock_guard<std::mutex> lock(turn);
      session.resetOptionalInputs(index);
      for (const TensorView &input : session.inputs(index))
        fill(input, read(world.rank(), input.name));
    }
    session.run(index);
    const std::lock_guard<std::mutex> lock(turn);
    for (const TensorView &output : session.outputs(index))
      write(world.rank(), output.name, numbersOf(output));
  };
  try {
    const int ranks = impl->plan->mesh.ranks();
    if (ranks > 1)
      runVirtualRanks(ranks, body);
    else
      body(*singleWorld());
    return "";
  } catch (const std::exception &exception) {
    return exception.what();
  }
}

std::map<std::string, FileTensor>
megalodon::readTensors(const std::string &path, std::string &error) {
  std::map<std::string, FileTensor> tensors;
  try {
    const SafetensorsFile file(path);
    for (const StoredTensor &stored : file.tensors()) {
      FileTensor &tensor = tensors[stored.name];
      tensor.shape = stored.shape;
      const size_t elements = size_t(stored.elements());
      TensorView view{stored.name,
                      stored.isFloat() ? ElementType::F64 : ElementType::I64,
                      stored.shape, nullptr, elements * 8};
      if (stored.isFloat()) {
        tensor.numbers.reals.resize(elements);
        view.memory =
            reinterpret_cast<std::byte *>(tensor.numbers.reals.data());
      } else {
        tensor.numbers.integers.resize(elements);
        view.memory =
            reinterpret_cast<std::byte *>(tensor.numbers.integers.data());
      }
      file.read(stored, view);
    }
  } catch (const std::exception &exception) {
    error = exception.what();
  }
  return tensors;
}
