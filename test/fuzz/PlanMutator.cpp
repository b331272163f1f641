// Changes plans as plans: numbers and letters where the schema has them, and
// whole elements of its lists; then computes the digest anew. The loader sees
// what a malicious compiler could have written, not noise behind a bad digest.
#include "runtime/core/File.h"
#include "runtime/plan/PlanFile.h"
#include "test/fuzz/Fuzz.h"
#include "test/runtime/cuda/Plan_object.h"
#include <algorithm>
#include <cstring>
#include <flatbuffers/reflection.h>
#include <functional>
#include <random>

using namespace megalodon;
namespace fb = megalodon::plan::fb;

extern "C" size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t maxSize);

namespace {

using Random = std::minstd_rand;

/// A number or a letter inside a buffer.
struct Slot {
  uint8_t *address;
  size_t bytes;
};

/// Finds every slot of a verified buffer.
class SlotFinder {
public:
  explicit SlotFinder(std::vector<Slot> &slots) : slots(slots) {
    static const std::string text = readText(PLAN_SCHEMA);
    schema = reflection::GetSchema(text.data());
  }

  void find(uint8_t *payload) {
    table(*schema->root_table(),
          *flatbuffers::GetMutableRoot<flatbuffers::Table>(payload));
  }

private:
  // Long lists add nothing but time.
  static constexpr flatbuffers::uoffset_t kElements = 64;

  const reflection::Object &object(const reflection::Type &type) const {
    return *schema->objects()->Get(flatbuffers::uoffset_t(type.index()));
  }
  void number(uint8_t *address, reflection::BaseType type) {
    slots.push_back({address, flatbuffers::GetTypeSize(type)});
  }
  void structure(const reflection::Object &type, uint8_t *address) {
    for (const reflection::Field *field : *type.fields())
      number(address + field->offset(), field->type()->base_type());
  }
  void letters(flatbuffers::String *text) {
    for (flatbuffers::uoffset_t i = 0; i < std::min(text->size(), kElements);
         ++i)
      slots.push_back({text->Data() + i, 1});
  }

  static uint8_t *follow(uint8_t *offset) {
    return offset + flatbuffers::ReadScalar<flatbuffers::uoffset_t>(offset);
  }

  void list(const reflection::Type &type, flatbuffers::VectorOfAny *vector) {
    const auto count = std::min(vector->size(), kElements);
    const size_t width = flatbuffers::GetTypeSize(type.element());
    for (flatbuffers::uoffset_t i = 0; i < count; ++i) {
      uint8_t *const element = vector->Data() + i * width;
      if (type.element() == reflection::Obj)
        table(object(type),
              *reinterpret_cast<flatbuffers::Table *>(follow(element)));
      else if (type.element() == reflection::String)
        letters(reinterpret_cast<flatbuffers::String *>(follow(element)));
      else
        number(element, type.element());
    }
  }

  bool isKnownUnion(const reflection::Object &type,
                    const reflection::Field &field,
                    const flatbuffers::Table &from) const {
    const reflection::Field *which = type.fields()->LookupByKey(
        (field.name()->str() + flatbuffers::UnionTypeFieldSuffix()).c_str());
    const auto value = flatbuffers::GetFieldI<uint8_t>(from, *which);
    const reflection::Enum *all =
        schema->enums()->Get(flatbuffers::uoffset_t(field.type()->index()));
    return value != 0 && all->values()->LookupByKey(int64_t(value));
  }

  void table(const reflection::Object &type, flatbuffers::Table &from) {
    for (const reflection::Field *field : *type.fields()) {
      uint8_t *address = from.GetAddressOf(field->offset());
      if (!address)
        continue;
      const reflection::Type &of = *field->type();
      switch (of.base_type()) {
      case reflection::String:
        letters(reinterpret_cast<flatbuffers::String *>(follow(address)));
        break;
      case reflection::Vector:
        list(of, reinterpret_cast<flatbuffers::VectorOfAny *>(follow(address)));
        break;
      case reflection::Obj:
        if (object(of).is_struct())
          structure(object(of), address);
        else
          table(object(of),
                *reinterpret_cast<flatbuffers::Table *>(follow(address)));
        break;
      case reflection::Union:
        // A verified union may still be of no type that the schema knows.
        if (isKnownUnion(type, *field, from))
          table(flatbuffers::GetUnionType(*schema, type, *field, from),
                *reinterpret_cast<flatbuffers::Table *>(follow(address)));
        break;
      default:
        number(address, of.base_type());
      }
    }
  }

  const reflection::Schema *schema;
  std::vector<Slot> &slots;
};

} // namespace

/// Gives a slot another value: a limit, a neighbour, or another slot's.
static void changeSlot(const std::vector<Slot> &slots, Random &random) {
  const Slot &slot = slots[random() % slots.size()];
  uint64_t value = 0;
  std::memcpy(&value, slot.address, slot.bytes);
  switch (random() % 8) {
  case 0:
    value = 0;
    break;
  case 1:
    value += 1;
    break;
  case 2:
    value -= 1;
    break;
  case 3:
    value = ~uint64_t(0) >> (random() % 64);
    break;
  case 4:
    value = uint64_t(1) << (random() % 64);
    break;
  case 5:
    value *= 2;
    break;
  case 6:
    value = random();
    break;
  default: {
    const Slot &other = slots[random() % slots.size()];
    value = 0;
    std::memcpy(&value, other.address, other.bytes);
  }
  }
  std::memcpy(slot.address, &value, slot.bytes);
}

template <typename T>
static std::unique_ptr<T> copyOf(const std::unique_ptr<T> &from) {
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(T::TableType::Pack(builder, from.get()));
  return std::unique_ptr<T>(
      flatbuffers::GetRoot<typename T::TableType>(builder.GetBufferPointer())
          ->UnPack());
}
template <typename T> static T copyOf(const T &from) { return from; }

/// Collects, for every list of a plan, a way to change it.
class ListMutations {
public:
  explicit ListMutations(Random &random) : random(random) {}

  template <typename T> void add(std::vector<T> &list) {
    all.push_back([this, &list] {
      const size_t count = list.size();
      if (count == 0) {
        list.resize(1);
        if constexpr (!std::is_arithmetic_v<T> && !std::is_enum_v<T> &&
                      !std::is_same_v<T, std::string>)
          list.back() = std::make_unique<typename T::element_type>();
        return;
      }
      const size_t at = random() % count, other = random() % count;
      switch (random() % 3) {
      case 0:
        list.erase(list.begin() + std::ptrdiff_t(at));
        break;
      case 1:
        if (count < 64)
          list.push_back(copyOf(list[at]));
        break;
      default:
        std::swap(list[at], list[other]);
      }
    });
  }

  void collect(fb::PlanT &plan) {
    add(plan.cpu_features);
    add(plan.variables);
    add(plan.kernels);
    add(plan.functions);
    add(plan.communicators);
    add(plan.images);
    for (auto &communicator : plan.communicators) {
      add(communicator->axes);
      add(communicator->stages);
    }
    for (auto &variable : plan.variables) {
      add(variable->shape);
      add(variable->splits);
      add(variable->stages);
    }
    for (auto &function : plan.functions) {
      add(function->inputs);
      add(function->outputs);
      add(function->programs);
      for (auto &program : function->programs)
        collect(*program);
    }
  }

  void one() { all[random() % all.size()](); }

private:
  void collect(fb::ProgramT &program) {
    add(program.buffers);
    add(program.segments);
    add(program.actions);
    add(program.update_actions);
    for (auto &segment : program.segments) {
      add(segment->commands);
      for (auto &command : segment->commands) {
        if (fb::DispatchT *dispatch = command->operation.AsDispatch()) {
          add(dispatch->args);
          add(dispatch->immediates);
        }
        if (auto *collective = command->operation.AsCollectiveStart())
          add(collective->items);
      }
    }
  }

  Random &random;
  std::vector<std::function<void()>> all;
};

/// FlatBuffers' verifier looks at where a list begins, not its elements.
static bool isAligned(const flatbuffers::Vector<int64_t> *list) {
  return !list || list->size() == 0 ||
         reinterpret_cast<uintptr_t>(list->Data()) % 8 == 0;
}

/// Whether the payload verifies and its lists can be read.
static bool isReadable(const std::vector<uint8_t> &payload) {
  flatbuffers::Verifier verifier(payload.data(), payload.size());
  if (!fb::VerifyPlanBuffer(verifier))
    return false;
  const fb::Plan *plan = fb::GetPlan(payload.data());
  for (const fb::Variable *variable : *plan->variables())
    if (!isAligned(variable->shape()))
      return false;
  for (const fb::Function *function : *plan->functions())
    for (const fb::Program *program : *function->programs())
      for (const fb::Segment *segment : *program->segments())
        for (const fb::Command *command : *segment->commands())
          if (const fb::Dispatch *dispatch = command->operation_as_Dispatch())
            if (!isAligned(dispatch->immediates()))
              return false;
  return true;
}

/// A command of no known operation can be read, but not written.
static void dropUnwritable(fb::PlanT &plan) {
  for (auto &function : plan.functions)
    for (auto &program : function->programs)
      for (auto &segment : program->segments) {
        auto &commands = segment->commands;
        commands.erase(std::remove_if(commands.begin(), commands.end(),
                                      [](const auto &command) {
                                        return !command->operation.value;
                                      }),
                       commands.end());
      }
}

/// A list of the payload with an element more, less or elsewhere.
static std::vector<uint8_t> withAnotherList(const uint8_t *payload,
                                            Random &random) {
  fb::PlanT plan;
  fb::GetPlan(payload)->UnPackTo(&plan);
  dropUnwritable(plan);
  ListMutations mutations(random);
  mutations.collect(plan);
  mutations.one();
  dropUnwritable(plan);
  flatbuffers::FlatBufferBuilder builder;
  // Also numbers that are their defaults get a slot.
  builder.ForceDefaults(true);
  fb::FinishPlanBuffer(builder, fb::Plan::Pack(builder, &plan));
  return {builder.GetBufferPointer(),
          builder.GetBufferPointer() + builder.GetSize()};
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size,
                                          size_t maxSize, unsigned seed) {
  Random random(seed);
  plan::Header header;
  if (size <= sizeof(header) || random() % 64 == 0)
    return LLVMFuzzerMutate(data, size, maxSize);
  std::memcpy(&header, data, sizeof(header));
  std::vector<uint8_t> payload(data + sizeof(header), data + size);
  if (!isReadable(payload) || random() % 16 == 0) {
    const size_t room = maxSize - sizeof(header);
    payload.resize(room);
    payload.resize(
        LLVMFuzzerMutate(payload.data(), size - sizeof(header), room));
  } else if (random() % 2) {
    std::vector<Slot> slots;
    SlotFinder(slots).find(payload.data());
    for (size_t i = 0; i < 1 + random() % 3; ++i)
      changeSlot(slots, random);
  } else {
    payload = withAnotherList(payload.data(), random);
  }
  if (random() % 64 == 0)
    header.features ^= uint64_t(1) << (random() % 4);
  const std::vector<uint8_t> file =
      plan::sealPlan(payload.data(), payload.size(), header.features);
  if (file.size() > maxSize)
    return LLVMFuzzerMutate(data, size, maxSize);
  std::memcpy(data, file.data(), file.size());
  return file.size();
}
