#include "runtime/convert/Pickle.h"
#include "runtime/core/Error.h"
#include <algorithm>
#include <cstring>
#include <deque>
#include <set>
#include <unordered_map>

namespace megalodon::convert {

using Type = StoredTensor::Type;

namespace {

struct StorageClass {
  const char *name;
  Type type;
};
constexpr StorageClass storageClasses[] = {
    {"DoubleStorage", Type::F64}, {"FloatStorage", Type::F32},
    {"HalfStorage", Type::F16},   {"BFloat16Storage", Type::BF16},
    {"LongStorage", Type::I64},   {"IntStorage", Type::I32},
    {"ShortStorage", Type::I16},  {"ByteStorage", Type::U8},
    {"CharStorage", Type::I8},    {"BoolStorage", Type::Bool}};

constexpr size_t kKeyBytes = 64;

/// A value of the pickle's machine. Values refer to each other by number and
/// never own each other, so nothing here recurses, however deep a pickle nests.
struct Value {
  enum Kind {
    None,
    Bool,
    Integer,
    Float,
    Text,
    Tuple,
    List,
    Dict,        // of any class; items are keys and values in turn
    OrderedDict, // the class
    RebuildTensor,
    RebuildParameter,
    StorageClass,
    Storage,
    Tensor
  } kind = None;
  int64_t number = 0;    // Integer, Bool; Storage: elements; Tensor: offset
  std::string text;      // Text; Storage: key
  Type type = Type::F32; // StorageClass, Storage, Tensor
  std::vector<uint32_t> items;         // Tuple, List, Dict; Tensor: its storage
  std::vector<int64_t> shape, strides; // Tensor
};

const char *kindName(Value::Kind kind) {
  constexpr const char *names[] = {
      "None",       "a bool",  "an integer", "a float", "a string",
      "a tuple",    "a list",  "a dict",     "a class", "a function",
      "a function", "a class", "a storage",  "a tensor"};
  return names[kind];
}

class Machine {
public:
  Machine(const std::string &path, const std::byte *data, size_t bytes)
      : path(path), next(data), end(data + bytes), begin(data) {}

  /// Runs the pickle; the value it leaves.
  const Value &run();

  const Value &at(uint32_t value) const { return values[value]; }

private:
  template <typename... Pieces> Error wrong(const Pieces &...pieces) const {
    return Error(str(path, ": the pickle: ", pieces...));
  }

  template <typename T> T take() {
    T value;
    need(sizeof(T));
    std::memcpy(&value, next, sizeof(T));
    next += sizeof(T);
    return value;
  }
  void need(uint64_t bytes) const {
    if (bytes > uint64_t(end - next))
      throw wrong("expected ", bytes, " more bytes at ", next - begin, ", got ",
                  end - next);
  }
  std::string takeText(uint64_t bytes) {
    need(bytes);
    std::string text(reinterpret_cast<const char *>(next), bytes);
    next += bytes;
    return text;
  }
  std::string takeLine() {
    const auto *newline = std::find(next, end, std::byte('\n'));
    if (newline == end)
      throw wrong("a name has no end");
    std::string text = takeText(uint64_t(newline - next));
    ++next;
    return text;
  }

  uint32_t make(Value value) {
    values.push_back(std::move(value));
    return uint32_t(values.size() - 1);
  }
  void push(Value value) { stack.push_back(make(std::move(value))); }
  void pushInteger(int64_t number, Value::Kind kind = Value::Integer) {
    Value value;
    value.kind = kind;
    value.number = number;
    push(std::move(value));
  }
  void pushText(uint64_t bytes) {
    Value value;
    value.kind = Value::Text;
    value.text = takeText(bytes);
    push(std::move(value));
  }
  void pushKind(Value::Kind kind) {
    Value value;
    value.kind = kind;
    push(std::move(value));
  }

  /// The lowest element of the stack that the current mark allows to take.
  size_t floor() const { return marks.empty() ? 0 : marks.back(); }
  uint32_t pop() {
    if (stack.size() <= floor())
      throw wrong("the stack is empty at ", next - begin);
    const uint32_t value = stack.back();
    stack.pop_back();
    return value;
  }
  Value &top() {
    if (stack.size() <= floor())
      throw wrong("the stack is empty at ", next - begin);
    return values[stack.back()];
  }
  std::vector<uint32_t> popToMark() {
    if (marks.empty())
      throw wrong("a mark is missing at ", next - begin);
    std::vector<uint32_t> list(stack.begin() + std::ptrdiff_t(marks.back()),
                               stack.end());
    stack.resize(marks.back());
    marks.pop_back();
    return list;
  }
  void pushTuple(size_t count) {
    Value value;
    value.kind = Value::Tuple;
    value.items.resize(count);
    for (size_t i = count; i-- > 0;)
      value.items[i] = pop();
    push(std::move(value));
  }

  const Value &expect(uint32_t value, Value::Kind kind,
                      const char *what) const {
    if (values[value].kind != kind)
      throw wrong(what, ": expected ", kindName(kind), ", got ",
                  kindName(values[value].kind));
    return values[value];
  }
  std::vector<int64_t> numbers(uint32_t tuple, const char *what) const {
    std::vector<int64_t> list;
    for (uint32_t item : expect(tuple, Value::Tuple, what).items)
      list.push_back(expect(item, Value::Integer, what).number);
    return list;
  }

  void step(uint8_t opcode);
  void global(const std::string &module, const std::string &name);
  void persistentId();
  void reduce();
  void rebuildTensor(const std::vector<uint32_t> &arguments);
  void remember(uint32_t key) {
    top();
    memo[key] = stack.back();
  }
  void recall(uint32_t key) {
    auto found = memo.find(key);
    if (found == memo.end())
      throw wrong("value ", key, " was never remembered");
    stack.push_back(found->second);
  }
  void extend(Value::Kind kind, std::vector<uint32_t> items) {
    Value &target = top();
    if (target.kind != kind)
      throw wrong("expected ", kindName(kind), " to add to, got ",
                  kindName(target.kind));
    if (kind == Value::Dict && items.size() % 2)
      throw wrong("a dict has a key without a value");
    target.items.insert(target.items.end(), items.begin(), items.end());
  }

  const std::string &path;
  const std::byte *next, *const end, *const begin;
  std::deque<Value> values;
  std::vector<uint32_t> stack;
  std::vector<size_t> marks;
  std::unordered_map<uint32_t, uint32_t> memo;
};

void Machine::global(const std::string &module, const std::string &name) {
  if (module == "collections" && name == "OrderedDict")
    return pushKind(Value::OrderedDict);
  if (module == "torch._utils" && name == "_rebuild_tensor_v2")
    return pushKind(Value::RebuildTensor);
  if (module == "torch._utils" && name == "_rebuild_parameter")
    return pushKind(Value::RebuildParameter);
  if (module == "torch")
    for (const StorageClass &known : storageClasses)
      if (name == known.name) {
        Value value;
        value.kind = Value::StorageClass;
        value.type = known.type;
        return push(std::move(value));
      }
  throw wrong("refused the global '", module, ".", name,
              "': expected what a dict of tensors needs and nothing else");
}

/// ("storage", class, key, device, elements)
void Machine::persistentId() {
  const Value id = expect(pop(), Value::Tuple, "a storage's id");
  if (id.items.size() != 5 ||
      expect(id.items[0], Value::Text, "a storage's id").text != "storage")
    throw wrong("a storage's id: expected ('storage', class, key, device, "
                "elements), got a tuple of ",
                id.items.size());
  Value storage;
  storage.kind = Value::Storage;
  storage.type =
      expect(id.items[1], Value::StorageClass, "a storage's class").type;
  storage.text = expect(id.items[2], Value::Text, "a storage's key").text;
  storage.number =
      expect(id.items[4], Value::Integer, "a storage's size").number;
  // The pickle may name it once and mean it often, each time with a copy.
  if (storage.text.size() > kKeyBytes)
    throw wrong("a storage's key: expected at most ", kKeyBytes, " bytes, got ",
                storage.text.size());
  if (storage.number < 0)
    throw wrong("a storage's size: expected at least 0, got ", storage.number);
  push(std::move(storage));
}

/// (storage, offset, shape, strides, requires_grad, hooks[, metadata])
void Machine::rebuildTensor(const std::vector<uint32_t> &arguments) {
  if (arguments.size() < 6 || arguments.size() > 7)
    throw wrong("a tensor: expected 6 or 7 arguments, got ", arguments.size());
  Value tensor;
  tensor.kind = Value::Tensor;
  const Value &storage =
      expect(arguments[0], Value::Storage, "a tensor's storage");
  tensor.type = storage.type;
  tensor.items = {arguments[0]};
  tensor.number =
      expect(arguments[1], Value::Integer, "a tensor's offset").number;
  tensor.shape = numbers(arguments[2], "a tensor's shape");
  tensor.strides = numbers(arguments[3], "a tensor's strides");
  if (tensor.shape.size() != tensor.strides.size() || tensor.shape.size() > 16)
    throw wrong("a tensor: expected as many strides as dimensions, at most 16, "
                "got ",
                tensor.shape.size(), " and ", tensor.strides.size());
  // The last element that the view reaches must be in the storage.
  int64_t last = tensor.number, elements = 1;
  bool bad = tensor.number < 0;
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    int64_t reach = 0;
    bad |= tensor.shape[i] < 0 || tensor.strides[i] < 0 ||
           __builtin_mul_overflow(elements, tensor.shape[i], &elements) ||
           __builtin_mul_overflow(std::max<int64_t>(tensor.shape[i] - 1, 0),
                                  tensor.strides[i], &reach) ||
           __builtin_add_overflow(last, reach, &last);
  }
  // A view that repeats elements could stand for more than memory holds.
  if (bad || (elements > 0 && last >= storage.number) ||
      elements > storage.number)
    throw wrong("a tensor of shape ", shapeText(tensor.shape), ", strides ",
                shapeText(tensor.strides), " and offset ", tensor.number,
                " reaches outside its storage of ", storage.number,
                " elements");
  push(std::move(tensor));
}

void Machine::reduce() {
  const std::vector<uint32_t> arguments =
      expect(pop(), Value::Tuple, "arguments").items;
  const Value::Kind callee = values[pop()].kind;
  if (callee == Value::RebuildTensor)
    return rebuildTensor(arguments);
  if (callee == Value::RebuildParameter && !arguments.empty()) {
    expect(arguments[0], Value::Tensor, "a parameter's data");
    stack.push_back(arguments[0]);
    return;
  }
  if (callee == Value::OrderedDict && arguments.empty())
    return pushKind(Value::Dict);
  throw wrong("refused to call ", kindName(callee), " with ", arguments.size(),
              " arguments");
}

void Machine::step(uint8_t opcode) {
  switch (opcode) {
  case 0x80: { // PROTO
    const uint8_t protocol = take<uint8_t>();
    if (protocol < 2 || protocol > 5)
      throw wrong("expected protocol 2 to 5, got ", int(protocol));
    return;
  }
  case 0x95: // FRAME
    take<uint64_t>();
    return;
  case '(':
    return marks.push_back(stack.size());
  case '}':
    return pushKind(Value::Dict);
  case ']':
    return pushKind(Value::List);
  case ')':
    return pushTuple(0);
  case 0x85: // TUPLE1 to TUPLE3
  case 0x86:
  case 0x87:
    return pushTuple(size_t(opcode - 0x84));
  case 't': {
    Value value;
    value.kind = Value::Tuple;
    value.items = popToMark();
    return push(std::move(value));
  }
  case 'N':
    return pushKind(Value::None);
  case 0x88: // NEWTRUE, NEWFALSE
  case 0x89:
    return pushInteger(opcode == 0x88, Value::Bool);
  case 'J':
    return pushInteger(take<int32_t>());
  case 'K':
    return pushInteger(take<uint8_t>());
  case 'M':
    return pushInteger(take<uint16_t>());
  case 0x8a: { // LONG1: little-endian, two's complement
    const uint8_t bytes = take<uint8_t>();
    if (bytes > 8)
      throw wrong("expected integers of at most 8 bytes, got ", int(bytes));
    const std::string text = takeText(bytes);
    int64_t number = !text.empty() && (text.back() & 0x80) ? -1 : 0;
    std::memcpy(&number, text.data(), text.size());
    return pushInteger(number);
  }
  case 'G': // a float, which no tensor needs
    take<uint64_t>();
    return pushKind(Value::Float);
  case 'X': // BINUNICODE, SHORT_BINUNICODE
    return pushText(take<uint32_t>());
  case 0x8c:
    return pushText(take<uint8_t>());
  case 'q': // BINPUT, LONG_BINPUT, MEMOIZE
    return remember(take<uint8_t>());
  case 'r':
    return remember(take<uint32_t>());
  case 0x94:
    return remember(uint32_t(memo.size()));
  case 'h': // BINGET, LONG_BINGET
    return recall(take<uint8_t>());
  case 'j':
    return recall(take<uint32_t>());
  case 'c': {
    const std::string module = takeLine();
    return global(module, takeLine());
  }
  case 0x93: { // STACK_GLOBAL
    const std::string name = expect(pop(), Value::Text, "a global").text;
    return global(expect(pop(), Value::Text, "a global").text, name);
  }
  case 'Q':
    return persistentId();
  case 'R':
    return reduce();
  case 's': {
    const uint32_t value = pop(), key = pop();
    return extend(Value::Dict, {key, value});
  }
  case 'u':
    return extend(Value::Dict, popToMark());
  case 'a':
    return extend(Value::List, {pop()});
  case 'e':
    return extend(Value::List, popToMark());
  case 'b': // BUILD: a state_dict's _metadata, which says nothing of tensors
    expect(pop(), Value::Dict, "attributes");
    if (top().kind != Value::Dict)
      throw wrong("refused to set attributes of ", kindName(top().kind));
    return;
  default:
    throw wrong("refused opcode ", int(opcode), " at ", next - begin - 1);
  }
}

const Value &Machine::run() {
  while (true) {
    const uint8_t opcode = take<uint8_t>();
    if (opcode == '.')
      break;
    step(opcode);
  }
  if (stack.size() != 1 || !marks.empty())
    throw wrong("expected one value, got ", stack.size());
  return values[stack.back()];
}

void putText(std::string &out, const std::string &text) {
  const auto bytes = uint32_t(text.size());
  out += 'X';
  out.append(reinterpret_cast<const char *>(&bytes), sizeof(bytes));
  out += text;
}

void putInteger(std::string &out, int64_t number) {
  out += char(0x8a);
  out += char(sizeof(number));
  out.append(reinterpret_cast<const char *>(&number), sizeof(number));
}

void putTuple(std::string &out, const std::vector<int64_t> &numbers) {
  out += '(';
  for (int64_t number : numbers)
    putInteger(out, number);
  out += 't';
}

} // namespace

std::vector<PickledTensor> readPickle(const std::string &path,
                                      const std::byte *data, size_t bytes) {
  // A byte can make a value of some hundred bytes. A tensor takes about 300.
  constexpr size_t kMost = size_t(8) << 20;
  if (bytes > kMost)
    throw Error(str(path, ": the pickle: expected at most ", kMost,
                    " bytes, got ", bytes));
  Machine machine(path, data, bytes);
  const Value &root = machine.run();
  if (root.kind != Value::Dict)
    throw Error(
        str(path, ": expected a dict of tensors, got ", kindName(root.kind)));
  std::vector<PickledTensor> list;
  std::set<std::string> names;
  for (size_t i = 0; i < root.items.size(); i += 2) {
    const Value &key = machine.at(root.items[i]),
                &value = machine.at(root.items[i + 1]);
    if (key.kind != Value::Text)
      throw Error(
          str(path, ": expected names as keys, got ", kindName(key.kind)));
    if (value.kind != Value::Tensor)
      throw Error(str(path, ": '", key.text, "': expected a tensor, got ",
                      kindName(value.kind)));
    if (!names.insert(key.text).second)
      throw Error(str(path, ": tensor '", key.text, "' stands twice"));
    const Value &storage = machine.at(value.items[0]);
    list.push_back({key.text, value.type, storage.text, storage.number,
                    value.number, value.shape, value.strides});
  }
  return list;
}

std::string writePickle(const std::vector<PickledTensor> &tensors) {
  std::string out = "\x80\x02"
                    "ccollections\nOrderedDict\n)R(";
  for (const PickledTensor &tensor : tensors) {
    const auto *storage = std::find_if(
        std::begin(storageClasses), std::end(storageClasses),
        [&](const StorageClass &known) { return known.type == tensor.type; });
    if (storage == std::end(storageClasses))
      throw Error(
          str("tensor '", tensor.name, "': torch has no storage of its type"));
    putText(out, tensor.name);
    out += "ctorch._utils\n_rebuild_tensor_v2\n((";
    putText(out, "storage");
    out += str("ctorch\n", storage->name, "\n");
    putText(out, tensor.storage);
    putText(out, "cpu");
    putInteger(out, tensor.storageElements);
    out += "tQ";
    putInteger(out, tensor.offset);
    putTuple(out, tensor.shape);
    putTuple(out, tensor.strides);
    out += "\x89"
           "ccollections\nOrderedDict\n)RtR";
  }
  out += "u.";
  return out;
}

} // namespace megalodon::convert
