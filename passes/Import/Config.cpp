// Parsing and checking of model configs.
#include "passes/Import/Config.h"
#include "llvm/ADT/StringSet.h"
#include "llvm/ADT/Twine.h"
#include "llvm/Support/JSON.h"
#include "llvm/Support/raw_ostream.h"
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>

using namespace llvm;
using namespace megalodon;

namespace {

// The one list of fields and their JSON names: reading, writing and the
// suggestions for unknown names all walk it.

template <typename OptimizerT, typename Visitor>
void visitOptimizer(OptimizerT &optimizer, Visitor &&visit) {
  visit("name", optimizer.name);
  visit("beta1", optimizer.beta1);
  visit("beta2", optimizer.beta2);
  visit("epsilon", optimizer.epsilon);
  visit("weight_decay", optimizer.weightDecay);
  visit("clip", optimizer.clip);
}

template <typename ConfigT, typename Visitor>
void visitMegalodon(ConfigT &config, Visitor &&visit) {
  visit("num_layers", config.numLayers);
  visit("model_dim", config.modelDim);
  visit("z_dim", config.zDim);
  visit("value_dim", config.valueDim);
  visit("num_heads", config.numHeads);
  visit("ffn_hidden_dim", config.ffnHiddenDim);
  visit("cema_ndim", config.cemaNdim);
  visit("chunk_size", config.chunkSize);
  visit("efficient_attn", config.efficientAttn);
  visit("init_mode", config.initMode);
  visit("vocab_size", config.vocabSize);
  visit("output_size", config.outputSize);
  visit("norm_num_groups", config.normNumGroups);
  visit("norm_affine", config.normAffine);
  visit("norm_eps", config.normEps);
  visit("rope_base", config.ropeBase);
  visit("dropout", config.dropout);
  visit("hidden_dropout", config.hiddenDropout);
  visit("attention_dropout", config.attentionDropout);
  visit("swiglu", config.swiglu);
  visit("rescale_nffn", config.rescaleNffn);
  visit("scale_emb", config.scaleEmb);
  visit("share_emb", config.shareEmb);
  visit("layerwise_ckpt", config.layerwiseCkpt);
  visit("optimizer", config.optimizer);
}

/// LLaMA's fields in the words of its own configs; model_dim, heads and the
/// like are the same thing in both.
template <typename ConfigT, typename Visitor>
void visitLlama(ConfigT &config, Visitor &&visit) {
  visit("num_layers", config.numLayers);
  visit("dim", config.modelDim);
  visit("n_heads", config.numHeads);
  visit("n_kv_heads", config.keyHeads);
  visit("ffn_hidden_dim", config.ffnHiddenDim);
  visit("max_seq_len", config.chunkSize);
  visit("init_mode", config.initMode);
  visit("vocab_size", config.vocabSize);
  visit("norm_eps", config.normEps);
  visit("rope_base", config.ropeBase);
  visit("share_emb", config.shareEmb);
  visit("layerwise_ckpt", config.layerwiseCkpt);
  visit("optimizer", config.optimizer);
}

/// MEGA's fields, in MEGALODON's words where both have the same thing.
template <typename ConfigT, typename Visitor>
void visitMega(ConfigT &config, Visitor &&visit) {
  visit("num_layers", config.numLayers);
  visit("model_dim", config.modelDim);
  visit("z_dim", config.zDim);
  visit("value_dim", config.valueDim);
  visit("ffn_hidden_dim", config.ffnHiddenDim);
  visit("ema_ndim", config.cemaNdim);
  visit("chunk_size", config.chunkSize);
  visit("max_seq_len", config.maxSeqLen);
  visit("attention_function", config.attentionFunction);
  visit("rel_pos_bias", config.relativePositionBias);
  visit("rope_base", config.ropeBase);
  visit("norm_type", config.normType);
  visit("norm_affine", config.normAffine);
  visit("final_norm_affine", config.finalNormAffine);
  visit("norm_eps", config.normEps);
  visit("init_mode", config.initMode);
  visit("vocab_size", config.vocabSize);
  visit("scale_emb", config.scaleEmb);
  visit("share_emb", config.shareEmb);
  visit("dropout", config.dropout);
  visit("hidden_dropout", config.hiddenDropout);
  visit("attention_dropout", config.attentionDropout);
  visit("layerwise_ckpt", config.layerwiseCkpt);
  visit("optimizer", config.optimizer);
}

/// The model type decides which fields there are.
template <typename ConfigT, typename Visitor>
void visitConfig(ConfigT &config, Visitor &&visit) {
  visit("model_type", config.modelType);
  if (config.isLlama())
    visitLlama(config, visit);
  else if (config.isMega())
    visitMega(config, visit);
  else
    visitMegalodon(config, visit);
}

/// What a LLaMA has where its config says nothing: the 7B model of LLaMA-2.
void setLlamaDefaults(Config &config) {
  config.numLayers = 32;
  config.modelDim = 4096;
  config.numHeads = 32;
  config.ffnHiddenDim = 11008;
  config.chunkSize = 4096;
}

/// What a MEGA has where its config says nothing: the original's model of
/// enwik8.
void setMegaDefaults(Config &config) {
  config.numLayers = 12;
  config.modelDim = 512;
  config.zDim = 128;
  config.valueDim = config.ffnHiddenDim = 1024;
  config.initMode = "bert";
  config.scaleEmb = config.shareEmb = true;
}

/// The shortest digits that read back to `value`.
std::string text(double value) {
  char digits[32];
  for (int precision = 1; precision <= 17; ++precision) {
    std::snprintf(digits, sizeof(digits), "%.*g", precision, value);
    if (std::strtod(digits, nullptr) == value)
      break;
  }
  return digits;
}

std::string quoted(StringRef value) { return ("\"" + value + "\"").str(); }

/// Collects what is wrong with one file.
class Errors {
public:
  explicit Errors(StringRef file) : file(file) {}
  ~Errors() { consumeError(std::move(all)); }

  void add(const Twine &field, const Twine &message) {
    all = joinErrors(std::move(all),
                     createStringError(inconvertibleErrorCode(),
                                       file + ": " + field + ": " + message));
  }
  void expected(const Twine &field, const Twine &expected, const Twine &got) {
    add(field, "expected " + expected + ", got " + got);
  }
  Error take() { return std::move(all); }

private:
  StringRef file;
  Error all = Error::success();
};

/// Reads the fields of one JSON object.
class Reader {
public:
  Reader(const json::Object &object, StringRef prefix, Errors &errors)
      : object(object), prefix(prefix), errors(errors) {}

  void operator()(StringRef name, int64_t &field) {
    read(name, "an integer", [&](const json::Value &value) {
      std::optional<int64_t> number = value.getAsInteger();
      if (number)
        field = *number;
      return number.has_value();
    });
  }
  void operator()(StringRef name, double &field) {
    read(name, "a number", [&](const json::Value &value) {
      std::optional<double> number = value.getAsNumber();
      if (number)
        field = *number + 0.0; // -0, which prints as the integer, is 0
      return number.has_value();
    });
  }
  void operator()(StringRef name, bool &field) {
    read(name, "true or false", [&](const json::Value &value) {
      std::optional<bool> flag = value.getAsBoolean();
      if (flag)
        field = *flag;
      return flag.has_value();
    });
  }
  void operator()(StringRef name, std::string &field) {
    read(name, "a string", [&](const json::Value &value) {
      std::optional<StringRef> string = value.getAsString();
      if (string)
        field = string->str();
      return string.has_value();
    });
  }
  void operator()(StringRef name, OptimizerConfig &field) {
    read(name, "an object", [&](const json::Value &value) {
      const json::Object *block = value.getAsObject();
      if (block) {
        Reader reader(*block, "optimizer.", errors);
        visitOptimizer(field, reader);
        reader.refuseUnknown();
      }
      return block != nullptr;
    });
  }

  /// Every field was visited: any other name is a mistake.
  void refuseUnknown() {
    SmallVector<StringRef> unknown;
    for (const auto &[key, value] : object)
      if (!llvm::is_contained(known, StringRef(key)))
        unknown.push_back(key);
    llvm::sort(unknown);
    for (StringRef name : unknown) {
      StringRef nearest = known.front();
      for (StringRef candidate : known)
        if (candidate.edit_distance(name) < nearest.edit_distance(name))
          nearest = candidate;
      errors.add(prefix + name,
                 "unknown field; did you mean '" + nearest + "'?");
    }
  }

private:
  /// null stands for the default.
  template <typename Assign>
  void read(StringRef name, StringRef kind, Assign &&assign) {
    known.push_back(name);
    const json::Value *value = object.get(name);
    if (!value || value->getAsNull() || assign(*value))
      return;
    std::string got;
    raw_string_ostream(got) << *value;
    errors.expected(prefix + name, kind, got);
  }

  const json::Object &object;
  StringRef prefix;
  Errors &errors;
  SmallVector<StringRef, 32> known;
};

/// Writes the fields in the order of the list.
struct Writer {
  json::OStream &out;

  template <typename Field>
  void operator()(StringRef name, const Field &field) {
    out.attribute(name, field);
  }
  void operator()(StringRef name, double field) {
    out.attributeBegin(name);
    out.rawValue(text(field));
    out.attributeEnd();
  }
  void operator()(StringRef name, const std::string &field) {
    if (field.empty())
      out.attribute(name, nullptr);
    else
      out.attribute(name, field);
  }
  void operator()(StringRef name, const OptimizerConfig &optimizer) {
    out.attributeObject(name, [&] { visitOptimizer(optimizer, *this); });
  }
};

/// The parser keeps the last of two equal names; somebody meant the first.
/// `text` is well-formed JSON.
void refuseDuplicates(StringRef text, Errors &errors) {
  SmallVector<StringSet<>> objects;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '{')
      objects.emplace_back();
    else if (text[i] == '}')
      objects.pop_back();
    if (text[i] != '"')
      continue;
    size_t begin = ++i;
    while (text[i] != '"')
      i += text[i] == '\\' ? 2 : 1;
    StringRef string = text.slice(begin, i);
    if (!text.drop_front(i + 1).ltrim().starts_with(":"))
      continue;
    if (!objects.back().insert(string).second)
      errors.expected((objects.size() > 1 ? "optimizer." : "") + string,
                      "one value", "two");
  }
}

/// Checks of values.
class Validator {
public:
  Validator(const Config &config, StringRef file, Errors &errors,
            SmallVectorImpl<std::string> &remarks)
      : config(config), file(file), errors(errors), remarks(remarks) {}

  void run() {
    oneOf("model_type", config.modelType, {"megalodon", "mega", "llama"});
    if (config.isLlama())
      checkLlama();
    else if (config.isMega())
      checkMega();
    else
      checkMegalodon();

    const OptimizerConfig &optimizer = config.optimizer;
    oneOf("optimizer.name", optimizer.name, {"adamw"});
    decay("optimizer.beta1", optimizer.beta1);
    decay("optimizer.beta2", optimizer.beta2);
    positive("optimizer.epsilon", optimizer.epsilon);
    notNegative("optimizer.weight_decay", optimizer.weightDecay);
    notNegative("optimizer.clip", optimizer.clip);
  }

private:
  void checkLlama() {
    size("num_layers", config.numLayers);
    bool model = size("dim", config.modelDim);
    bool heads = size("n_heads", config.numHeads);
    bool keys = size("n_kv_heads", config.keyHeads);
    size("ffn_hidden_dim", config.ffnHiddenDim);
    size("max_seq_len", config.chunkSize);
    size("vocab_size", config.vocabSize);
    if (model && heads &&
        multiple("dim", config.modelDim, "n_heads", config.numHeads) &&
        config.modelDim / config.numHeads % 2 != 0)
      errors.expected("dim", "an even number of columns a head",
                      Twine(config.modelDim / config.numHeads) + " (dim " +
                          Twine(config.modelDim) + ", n_heads " +
                          Twine(config.numHeads) + ")");
    if (heads && keys)
      multiple("n_heads", config.numHeads, "n_kv_heads", config.keyHeads);
    initialisation();
    positive("norm_eps", config.normEps);
    positive("rope_base", config.ropeBase);
  }

  void checkMega() {
    size("num_layers", config.numLayers);
    size("model_dim", config.modelDim);
    if (size("z_dim", config.zDim) && config.zDim % 2 != 0)
      errors.expected("z_dim", "an even number of columns", Twine(config.zDim));
    size("value_dim", config.valueDim);
    size("ffn_hidden_dim", config.ffnHiddenDim);
    size("ema_ndim", config.cemaNdim);
    if (config.chunkSize == -1) {
      size("max_seq_len", config.maxSeqLen);
    } else if (size("chunk_size", config.chunkSize) && config.maxSeqLen != 0) {
      errors.expected("max_seq_len",
                      "no value beside chunk_size " + Twine(config.chunkSize),
                      Twine(config.maxSeqLen) +
                          "; full attention has chunk_size -1");
    }
    size("vocab_size", config.vocabSize);
    oneOf("attention_function", config.attentionFunction,
          {"softmax", "laplace"});
    oneOf("rel_pos_bias", config.relativePositionBias, {"rotary"});
    oneOf("norm_type", config.normType, {"layernorm", "rmsnorm"});
    initialisation();
    positive("norm_eps", config.normEps);
    positive("rope_base", config.ropeBase);
    noDropout("dropout", config.dropout);
    noDropout("hidden_dropout", config.hiddenDropout);
    noDropout("attention_dropout", config.attentionDropout);
  }

  void checkMegalodon() {
    size("num_layers", config.numLayers);
    bool model = size("model_dim", config.modelDim);
    bool keys = size("z_dim", config.zDim);
    bool values = size("value_dim", config.valueDim);
    bool heads = size("num_heads", config.numHeads);
    size("ffn_hidden_dim", config.ffnHiddenDim);
    size("cema_ndim", config.cemaNdim);
    size("chunk_size", config.chunkSize);
    bool vocabulary = size("vocab_size", config.vocabSize);
    bool output = size("output_size", config.outputSize);
    bool groups = size("norm_num_groups", config.normNumGroups);
    if (keys && heads &&
        multiple("z_dim", config.zDim, "num_heads", config.numHeads) &&
        config.headKeyDim() % 2 != 0)
      errors.expected("z_dim", "an even number of columns a head",
                      Twine(config.headKeyDim()) + " (z_dim " +
                          Twine(config.zDim) + ", num_heads " +
                          Twine(config.numHeads) + ")");
    if (values && heads)
      multiple("value_dim", config.valueDim, "num_heads", config.numHeads);
    if (model && groups &&
        multiple("model_dim", config.modelDim, "norm_num_groups",
                 config.normNumGroups) &&
        config.normNumGroups >= config.modelDim)
      errors.expected("norm_num_groups",
                      "less than model_dim " + Twine(config.modelDim),
                      Twine(config.normNumGroups));
    if (vocabulary && output && config.shareEmb &&
        config.outputSize != config.vocabSize)
      errors.expected("output_size",
                      "vocab_size " + Twine(config.vocabSize) +
                          " because share_emb is true",
                      Twine(config.outputSize));
    initialisation();
    if (!config.efficientAttn.empty() &&
        oneOf("efficient_attn", config.efficientAttn, {"swift", "fused"}))
      remarks.push_back((file +
                         ": efficient_attn: ignored, the compiler chooses how "
                         "attention is computed")
                            .str());
    positive("norm_eps", config.normEps);
    positive("rope_base", config.ropeBase);
    noDropout("dropout", config.dropout);
    noDropout("hidden_dropout", config.hiddenDropout);
    noDropout("attention_dropout", config.attentionDropout);
  }

  void initialisation() {
    oneOf("init_mode", config.initMode,
          {"he", "bert", "gaussian", "xavier", "none"});
  }
  /// Token ids are i32, and products of two sizes must fit i64.
  bool size(StringRef field, int64_t value) {
    constexpr int64_t largest = std::numeric_limits<int32_t>::max();
    if (value >= 1 && value <= largest)
      return true;
    errors.expected(field, "a number from 1 to " + Twine(largest),
                    Twine(value));
    return false;
  }
  bool multiple(StringRef field, int64_t value, StringRef ofField, int64_t of) {
    if (value % of == 0)
      return true;
    errors.expected(field, "a multiple of " + ofField + " " + Twine(of),
                    Twine(value));
    return false;
  }
  bool oneOf(StringRef field, StringRef value, ArrayRef<StringRef> choices) {
    if (llvm::is_contained(choices, value))
      return true;
    std::string list;
    for (auto [index, choice] : llvm::enumerate(choices))
      list += (index == 0                    ? ""
               : index + 1 == choices.size() ? " or "
                                             : ", ") +
              quoted(choice);
    errors.expected(field, list, quoted(value));
    return false;
  }
  void positive(StringRef field, double value) {
    if (!(value > 0 && std::isfinite(value)))
      errors.expected(field, "a positive number", text(value));
  }
  void notNegative(StringRef field, double value) {
    if (!(value >= 0 && std::isfinite(value)))
      errors.expected(field, "a number that is not negative", text(value));
  }
  void decay(StringRef field, double value) {
    if (!(value >= 0 && value < 1))
      errors.expected(field, "a number in [0, 1)", text(value));
  }
  void noDropout(StringRef field, double value) {
    if (value != 0)
      errors.expected(field, "0 (dropout is not supported)", text(value));
  }

  const Config &config;
  StringRef file;
  Errors &errors;
  SmallVectorImpl<std::string> &remarks;
};

/// Whether brackets are nested deeper than any config's; the JSON parser calls
/// itself for each, and would run out of stack. Brackets in texts count too:
/// there are none in a config's.
bool isTooDeep(StringRef text) {
  constexpr int deepest = 64;
  int depth = 0;
  for (char character : text) {
    depth += character == '{' || character == '[';
    depth -= character == '}' || character == ']';
    if (depth > deepest)
      return true;
  }
  return false;
}

} // namespace

Expected<Config> megalodon::parseConfig(StringRef text, StringRef file,
                                        SmallVectorImpl<std::string> &remarks) {
  if (isTooDeep(text))
    return createStringError(inconvertibleErrorCode(),
                             file + ": expected a flat JSON object, got more "
                                    "than 64 levels of nesting");
  Expected<json::Value> value = json::parse(text);
  if (!value)
    return createStringError(inconvertibleErrorCode(),
                             file + ": " + toString(value.takeError()));
  const json::Object *object = value->getAsObject();
  if (!object)
    return createStringError(inconvertibleErrorCode(),
                             file + ": expected a JSON object");
  Errors errors(file);
  refuseDuplicates(text, errors);
  Config config;
  if (object->getString("model_type") == StringRef("llama"))
    setLlamaDefaults(config);
  if (object->getString("model_type") == StringRef("mega"))
    setMegaDefaults(config);
  Reader reader(*object, "", errors);
  visitConfig(config, reader);
  reader.refuseUnknown();
  if (config.outputSize == -1)
    config.outputSize = config.vocabSize;
  if (config.keyHeads == -1)
    config.keyHeads = config.numHeads;
  // LLaMA's queries and values are as wide as the model.
  if (config.isLlama())
    config.zDim = config.valueDim = config.modelDim;
  // Values are judged only when all were read: a default in place of what the
  // file meant would break constraints of its own.
  if (Error error = errors.take())
    return std::move(error);
  Validator(config, file, errors, remarks).run();
  if (Error error = errors.take())
    return std::move(error);
  return config;
}

std::string megalodon::canonicalConfig(const Config &config) {
  std::string text;
  raw_string_ostream stream(text);
  json::OStream out(stream);
  out.object([&] { visitConfig(config, Writer{out}); });
  return text;
}
