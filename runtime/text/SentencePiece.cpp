#include "runtime/core/Error.h"
#include "runtime/core/File.h"
#include "runtime/core/MemoryLibrary.h"
#include "runtime/core/Utf8.h"
#include "runtime/text/SentencePieceModule.h"
#include "runtime/text/SentencePieceRules.h"
#include "runtime/text/Tokenizer.h"
#include <algorithm>
#include <dlfcn.h>
#include <optional>

using namespace megalodon;

#ifndef MEGALODON_SENTENCEPIECE

std::shared_ptr<const Tokenizer>
megalodon::openSentencePiece(const std::string &path) {
  throw Error(str("--tokenizer: ", path,
                  ": this build has no SentencePiece: install "
                  "libsentencepiece-dev and configure again, or use "
                  "--tokenizer bytes"));
}

#else

extern "C" const char megalodonSentencePieceModule[],
    megalodonSentencePieceModuleEnd[];

/// U+2581, which stands for a space in pieces.
static constexpr std::string_view kSpaceMark = "\xE2\x96\x81",
                                  kReplacement = "\xEF\xBF\xBD";

static OpenSentencePieceModel *loadModule(const std::string &path) {
  // Once, and never unloaded: models hold on to its code.
  static std::string reason;
  static void *const handle = openLibrary(
      "megalodon-sentencepiece", megalodonSentencePieceModule,
      size_t(megalodonSentencePieceModuleEnd - megalodonSentencePieceModule),
      reason);
  if (!handle)
    throw Error(str(path,
                    ": a SentencePiece model needs the library "
                    "libsentencepiece.so.0, which cannot be loaded (",
                    reason, "): install libsentencepiece0"));
  auto *open = reinterpret_cast<OpenSentencePieceModel *>(
      ::dlsym(handle, kOpenSentencePieceModel));
  if (!open)
    throw Error(str(path, ": the SentencePiece module is damaged"));
  return open;
}

static std::string withSpaces(std::string_view piece) {
  std::string text;
  while (!piece.empty())
    if (piece.substr(0, kSpaceMark.size()) == kSpaceMark) {
      text += ' ';
      piece.remove_prefix(kSpaceMark.size());
    } else {
      text += piece[0];
      piece.remove_prefix(1);
    }
  return text;
}

namespace {

/// What a token adds to a text.
struct Surface {
  PieceKind kind;
  std::string text; ///< one byte of a byte piece
};

class SentencePieceDecoder final : public TextDecoder {
public:
  SentencePieceDecoder(const std::vector<Surface> &surfaces, bool dropsSpace)
      : surfaces(surfaces), dropsSpace(dropsSpace) {}

  std::string push(int32_t token) override {
    if (token < 0 || size_t(token) >= surfaces.size())
      throw Error(str("token: expected an id below the tokenizer's ",
                      surfaces.size(), ", got ", token));
    const Surface &surface = surfaces[size_t(token)];
    if (surface.kind == PieceKind::Byte) {
      dropsSpace = false;
      pending += surface.text;
      return takeCharacters(false);
    }
    std::string text = takeCharacters(true);
    std::string_view added = surface.text;
    if (dropsSpace && surface.kind == PieceKind::Normal && !added.empty()) {
      if (added[0] == ' ')
        added.remove_prefix(1);
      dropsSpace = false;
    }
    return text.append(added);
  }

  std::string finish() override { return takeCharacters(true); }

private:
  /// The whole characters in front of `pending`; at the end of a run of bytes
  /// also what is none.
  std::string takeCharacters(bool atEnd) {
    std::string text;
    size_t at = 0;
    while (at < pending.size()) {
      const Utf8Piece piece =
          firstUtf8(std::string_view(pending).substr(at, 4));
      if (piece.cut && !atEnd)
        break;
      text += piece.valid ? std::string_view(pending).substr(at, piece.bytes)
                          : kReplacement;
      at += piece.bytes;
    }
    pending.erase(0, at);
    return text;
  }

  const std::vector<Surface> &surfaces;
  bool dropsSpace; ///< the next text loses a space in front
  std::string pending;
};

class SentencePieceTokenizer final : public Tokenizer {
public:
  explicit SentencePieceTokenizer(const std::string &path);

  const std::string &name() const override { return path; }
  const Sha256::Digest &digest() const override { return ownDigest; }
  int64_t vocabulary() const override { return model->size(); }
  int32_t bos() const override { return model->bos(); }
  int32_t eos() const override { return model->eos(); }
  void verifyText(std::string_view text) const override;
  size_t firstPart(std::string_view text, size_t partBytes) const override;
  void encodePart(std::string_view part, bool continues,
                  std::vector<int32_t> &tokens) const override;
  std::unique_ptr<TextDecoder> decoder() const override {
    return std::make_unique<SentencePieceDecoder>(surfaces, dropsSpace);
  }

private:
  /// How the tokens of a part behind a line's end are found.
  enum class Cut {
    Never,    ///< pieces reach over line ends
    Newline,  ///< with a newline in front, whose tokens are taken away: so the
              ///< part gets no space in front that the document has not
    Separate, ///< on its own: a line's end is a space to the model
  };

  std::vector<int> ids(std::string_view text) const;
  std::string textOf(const std::vector<int> &ids) const;
  void describePieces();
  Cut chooseCut() const;

  std::string path;
  Sha256::Digest ownDigest;
  std::unique_ptr<const SentencePieceModel> model;
  std::vector<Surface> surfaces;
  std::vector<int> newline; ///< the tokens of a document of one newline
  bool dropsSpace = false;
  Cut cut = Cut::Never;
};

} // namespace

SentencePieceTokenizer::SentencePieceTokenizer(const std::string &path)
    : path(path) {
  const MappedFile file(path);
  OpenSentencePieceModel *open = loadModule(path);
  ownDigest = Sha256::of(file.data(), file.size());
  const std::string_view bytes(reinterpret_cast<const char *>(file.data()),
                               file.size());
  std::string reason;
  try {
    verifySentencePieceRules(bytes);
    model.reset(open(bytes.data(), bytes.size(), &reason));
  } catch (const Error &error) {
    reason = error.what();
  }
  if (!model || model->size() < 1)
    throw Error(str(path, ": expected a SentencePiece model, got something ",
                    "else", reason.empty() ? "" : str(" (", reason, ")")));
  describePieces();
  newline = ids("\n");
  cut = chooseCut();
}

std::vector<int> SentencePieceTokenizer::ids(std::string_view text) const {
  std::vector<int> found;
  if (std::string reason = model->encode(text, found); !reason.empty())
    throw Error(str(path, ": cannot encode: ", reason));
  return found;
}

std::string SentencePieceTokenizer::textOf(const std::vector<int> &ids) const {
  std::string text;
  if (std::string reason = model->decode(ids, text); !reason.empty())
    throw Error(str(path, ": cannot decode: ", reason));
  return text;
}

void SentencePieceTokenizer::describePieces() {
  bool probed = false;
  for (int32_t id = 0; id < model->size(); ++id) {
    const std::string piece = model->piece(id);
    Surface surface{model->kind(id), {}};
    if (surface.kind == PieceKind::Byte)
      // "<0xE2>", the only form the library knows.
      surface.text =
          static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16));
    else if (surface.kind == PieceKind::Unknown)
      surface.text = textOf({id});
    else if (surface.kind != PieceKind::Control)
      surface.text = withSpaces(piece);
    // Whether a text loses the space in front is a setting of the model that
    // shows in what it decodes.
    if (!probed && surface.kind == PieceKind::Normal &&
        surface.text.size() > 1 && surface.text[0] == ' ') {
      probed = true;
      dropsSpace = textOf({id}) == surface.text.substr(1);
    }
    surfaces.push_back(std::move(surface));
  }
}

SentencePieceTokenizer::Cut SentencePieceTokenizer::chooseCut() const {
  bool acrossWords = false;
  for (const Surface &surface : surfaces) {
    if (surface.kind != PieceKind::Normal)
      continue;
    const std::string &text = surface.text;
    if (text.find('\n') != text.npos &&
        text.find_first_not_of('\n') != text.npos)
      return Cut::Never;
    const size_t space = text.find_last_of(' ');
    acrossWords |=
        space != text.npos && space > 0 && text.find_first_not_of(' ') < space;
  }
  auto joined = [](std::vector<int> left, const std::vector<int> &right,
                   size_t skip) {
    left.insert(left.end(), right.begin() + ptrdiff_t(skip), right.end());
    return left;
  };
  const std::vector<int> whole = ids("a\nb"), first = ids("a\n"),
                         behind = ids("\nb");
  if (!newline.empty() && behind.size() >= newline.size() &&
      std::equal(newline.begin(), newline.end(), behind.begin()) &&
      whole == joined(first, behind, newline.size()))
    return Cut::Newline;
  if (newline.empty() && !acrossWords && whole == joined(first, ids("b"), 0))
    return Cut::Separate;
  return Cut::Never;
}

void SentencePieceTokenizer::verifyText(std::string_view text) const {
  if (size_t at = firstInvalidUtf8(text); at != text.npos)
    throw Error(str("byte ", at, ": expected UTF-8, got 0x", std::hex,
                    int(static_cast<unsigned char>(text[at]))));
}

size_t SentencePieceTokenizer::firstPart(std::string_view text,
                                         size_t partBytes) const {
  if (cut == Cut::Never || text.size() <= partBytes)
    return text.size();
  // Behind a line's end and before something else than a line's end: pieces may
  // hold several of them. The last such place in the part, else the next.
  auto usable = [&](size_t at) {
    return text[at - 1] == '\n' && text[at] != '\n' && text[at] != '\r';
  };
  for (size_t at = partBytes; at > 0; --at)
    if (usable(at))
      return at;
  for (size_t at = partBytes + 1; at < text.size(); ++at)
    if (usable(at))
      return at;
  return text.size();
}

void SentencePieceTokenizer::encodePart(std::string_view part, bool continues,
                                        std::vector<int32_t> &tokens) const {
  if (!continues || cut == Cut::Separate) {
    const std::vector<int> found = ids(part);
    tokens.insert(tokens.end(), found.begin(), found.end());
    return;
  }
  const std::vector<int> found = ids(str("\n", part));
  if (found.size() < newline.size() ||
      !std::equal(newline.begin(), newline.end(), found.begin()))
    throw Error(str(path, ": the model joins line ends with what follows"));
  tokens.insert(tokens.end(), found.begin() + ptrdiff_t(newline.size()),
                found.end());
}

std::shared_ptr<const Tokenizer>
megalodon::openSentencePiece(const std::string &path) {
  return std::make_shared<SentencePieceTokenizer>(path);
}

#endif
