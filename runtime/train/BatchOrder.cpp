#include "runtime/core/Error.h"
#include "runtime/train/Data.h"
#include "runtime/train/Random.h"
#include <algorithm>
#include <numeric>

using namespace megalodon;

BatchOrder::BatchOrder(const Corpus &corpus, Order order, uint64_t seed,
                       int64_t batch, int64_t length, bool packed)
    : corpus(corpus), order(order), seed(seed), batch(batch), length(length),
      callsPerLap(corpus.size() / (batch * length)), packed(packed) {
  int64_t needed = order == Order::Random ? length + 1 : batch * length;
  if (corpus.size() < needed)
    throw Error(str("training data: expected at least ", needed, " tokens for ",
                    batch, " rows of ", length, ", got ", corpus.size()));
}

BatchOrder::Position BatchOrder::position(int64_t call) const {
  if (order == Order::Random)
    return {0, call};
  return {call / callsPerLap, call % callsPerLap};
}

int64_t BatchOrder::begin(int64_t call, int64_t row) const {
  CounterRandom random(seed, hashName("data order"));
  if (order == Order::Random)
    return static_cast<int64_t>(
        random.below(corpus.size() - length, call * batch + row));
  const auto [lap, piece] = position(call);
  const int64_t within = (row * callsPerLap + piece) * length;
  if (order == Order::Documents)
    return within;
  int64_t offset = static_cast<int64_t>(random.below(corpus.size(), lap));
  return (offset + within) % corpus.size();
}

const BatchOrder::Shuffle &BatchOrder::shuffleOf(int64_t epoch) const {
  if (shuffle.epoch == epoch)
    return shuffle;
  const int64_t count = corpus.documents();
  shuffle.documents.resize(count);
  std::iota(shuffle.documents.begin(), shuffle.documents.end(), 0);
  // Fisher and Yates, with a stream of random numbers for each epoch.
  const CounterRandom random(seed, hashName(str("document order ", epoch)));
  for (int64_t i = count - 1; i > 0; --i)
    std::swap(shuffle.documents[i],
              shuffle.documents[random.below(uint64_t(i) + 1, uint64_t(i))]);
  shuffle.begins.resize(count + 1);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t document = shuffle.documents[i];
    shuffle.begins[i + 1] = shuffle.begins[i] +
                            corpus.documentBegin(document + 1) -
                            corpus.documentBegin(document);
  }
  shuffle.epoch = epoch;
  return shuffle;
}

/// Tokens and, unless null, which of them begin a document.
void BatchOrder::readWindow(int64_t epoch, int64_t begin, int64_t count,
                            int32_t *tokens, char *starts) const {
  if (order != Order::Documents) {
    corpus.read(begin, count, tokens);
    if (starts)
      corpus.markDocuments(begin, count, starts);
    return;
  }
  if (starts)
    std::fill_n(starts, count, 0);
  const Shuffle &shuffle = shuffleOf(epoch);
  begin %= corpus.size();
  auto found =
      std::upper_bound(shuffle.begins.begin(), shuffle.begins.end(), begin) - 1;
  auto place = static_cast<size_t>(found - shuffle.begins.begin());
  int64_t within = begin - *found;
  while (count > 0) {
    const int64_t first = corpus.documentBegin(shuffle.documents[place]),
                  size = shuffle.begins[place + 1] - shuffle.begins[place],
                  piece = std::min(count, size - within);
    corpus.read(first + within, piece, tokens);
    if (starts) {
      starts[0] = within == 0;
      starts += piece;
    }
    tokens += piece;
    count -= piece;
    within = 0;
    place = (place + 1) % shuffle.documents.size();
  }
}

void BatchOrder::read(int64_t call, int32_t *tokens, int32_t *targets) const {
  read(call, Box::whole({batch, length}), tokens, targets);
}

void BatchOrder::read(int64_t call, const Box &box, int32_t *tokens,
                      int32_t *targets, int32_t *resets) const {
  const int64_t rows = box.valid({batch, length}, 0),
                count = box.valid({batch, length}, 1);
  if (tokens)
    std::fill_n(tokens, box.elements(), 0);
  if (targets)
    std::fill_n(targets, box.elements(), kIgnoredTarget);
  if (resets)
    std::fill_n(resets, box.elements(), 0);
  std::vector<int32_t> window(count + 1);
  std::vector<char> starts(packed ? count + 1 : 0);
  for (int64_t row = 0; row < rows && count > 0; ++row) {
    readWindow(position(call).epoch,
               begin(call, box.offset[0] + row) + box.offset[1], count + 1,
               window.data(), packed ? starts.data() : nullptr);
    const int64_t at = row * box.extent[1];
    if (tokens)
      std::copy_n(window.data(), count, tokens + at);
    if (targets)
      std::copy_n(window.data() + 1, count, targets + at);
    for (int64_t i = 0; packed && i < count; ++i) {
      if (resets)
        resets[at + i] = starts[i];
      if (targets && starts[i + 1])
        targets[at + i] = kIgnoredTarget;
    }
  }
}

bool BatchOrder::startsFresh(int64_t call) const {
  return order == Order::Random || call % callsPerLap == 0;
}
