// The part of a SentencePiece model that the library follows without looking.
#pragma once
#include <string_view>

namespace megalodon {

/// Checks the rules by which a model rewrites text before it is cut into
/// pieces. They are a double-array trie and a table of replacements, and the
/// library follows their offsets wherever they lead. Throws Error with what is
/// wrong, also when the model is no protocol buffer.
void verifySentencePieceRules(std::string_view model);

} // namespace megalodon
