// The vectors of FIPS 180-4, and feeding in pieces.
#include "runtime/core/Sha256.h"
#include <gtest/gtest.h>

using megalodon::Sha256;

static std::string digest(const std::string &text) {
  return Sha256::hex(Sha256::of(text.data(), text.size()));
}

TEST(Sha256, Vectors) {
  EXPECT_EQ(digest(""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(digest("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(digest(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesOfAnySize) {
  const std::string text(1000, 'x');
  for (size_t piece : {1, 7, 55, 56, 63, 64, 65, 119, 128, 999}) {
    Sha256 hash;
    for (size_t at = 0; at < text.size(); at += piece)
      hash.update(text.data() + at, std::min(piece, text.size() - at));
    EXPECT_EQ(Sha256::hex(hash.finish()), digest(text)) << piece;
  }
}
