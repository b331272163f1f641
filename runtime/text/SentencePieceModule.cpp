#include "runtime/text/SentencePieceModule.h"
#include <exception>
#include <memory>
#include <sentencepiece_processor.h>

using namespace megalodon;

namespace {

/// Every member of the library's class is virtual, and a version with another
/// order of them would be called wrongly in silence. Calls with the class's
/// name in front are calls of symbols, which the loader finds or refuses.
class Model final : public SentencePieceModel {
  using Processor = sentencepiece::SentencePieceProcessor;

public:
  std::string open(std::string_view data) {
    return reasonOf(
        [&] { return processor.Processor::LoadFromSerializedProto(data); });
  }
  int32_t size() const override { return processor.Processor::GetPieceSize(); }
  int32_t bos() const override { return processor.Processor::bos_id(); }
  int32_t eos() const override { return processor.Processor::eos_id(); }
  std::string piece(int32_t id) const override {
    return processor.Processor::IdToPiece(id);
  }
  PieceKind kind(int32_t id) const override {
    return processor.Processor::IsControl(id)   ? PieceKind::Control
           : processor.Processor::IsUnknown(id) ? PieceKind::Unknown
           : processor.Processor::IsByte(id)    ? PieceKind::Byte
           : processor.Processor::IsUnused(id)  ? PieceKind::Unused
                                                : PieceKind::Normal;
  }
  std::string encode(std::string_view text,
                     std::vector<int> &ids) const override {
    return reasonOf([&] { return processor.Processor::Encode(text, &ids); });
  }
  std::string decode(const std::vector<int> &ids,
                     std::string &text) const override {
    return reasonOf([&] { return processor.Processor::Decode(ids, &text); });
  }

private:
  /// Why a call failed, or "". The library answers damaged models with a
  /// status; but its trie throws.
  template <typename Call> static std::string reasonOf(Call call) {
    try {
      const sentencepiece::util::Status status = call();
      return status.ok() ? std::string() : status.ToString();
    } catch (const std::exception &error) {
      return *error.what() ? error.what() : "an exception";
    }
  }

  Processor processor;
};

} // namespace

extern "C" __attribute__((visibility(
    "default"))) OpenSentencePieceModel megalodonOpenSentencePieceModel;

SentencePieceModel *megalodonOpenSentencePieceModel(const char *data,
                                                    size_t bytes,
                                                    std::string *reason) {
  auto model = std::make_unique<Model>();
  *reason = model->open({data, bytes});
  return reason->empty() ? model.release() : nullptr;
}
