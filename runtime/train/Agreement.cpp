#include "runtime/train/Agreement.h"
#include "runtime/core/Error.h"
#include <exception>

using namespace megalodon;

std::string megalodon::shareText(World &world, const WaitContext &context,
                                 const std::string &text, int root) {
  if (world.size() == 1)
    return text;
  Communicator &all = world.all();
  int64_t size = int64_t(text.size());
  all.broadcast(&size, sizeof(size), root)->wait(context, world.timeout);
  std::string shared = text;
  shared.resize(size_t(size));
  if (size > 0)
    all.broadcast(shared.data(), shared.size(), root)
        ->wait(context, world.timeout);
  return shared;
}

std::vector<std::string> megalodon::gatherTexts(World &world,
                                                const WaitContext &context,
                                                const std::string &text) {
  if (world.size() == 1)
    return {text};
  Communicator &all = world.all();
  std::vector<int64_t> sizes(size_t(world.size()));
  const int64_t own = int64_t(text.size());
  all.allGather(&own, sizes.data(), sizeof(own))->wait(context, world.timeout);
  size_t most = 0;
  for (int64_t size : sizes)
    most = std::max(most, size_t(size));
  std::vector<std::string> texts(sizes.size());
  if (most == 0)
    return texts;
  // Equal blocks; texts are short.
  std::string padded = text, gathered(most * texts.size(), '\0');
  padded.resize(most);
  all.allGather(padded.data(), gathered.data(), most)
      ->wait(context, world.timeout);
  for (size_t i = 0; i < texts.size(); ++i)
    texts[i] = gathered.substr(i * most, size_t(sizes[i]));
  return texts;
}

void megalodon::together(World &world, const WaitContext &context,
                         const std::function<void()> &body) {
  if (world.size() == 1)
    return body();
  std::exception_ptr thrown;
  std::string message;
  try {
    body();
  } catch (const std::exception &error) {
    thrown = std::current_exception();
    message = error.what();
    if (message.empty())
      message = "unknown error";
  }
  const std::vector<std::string> messages =
      gatherTexts(world, context, message);
  for (size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].empty())
      continue;
    if (int(i) == world.rank())
      std::rethrow_exception(thrown);
    throw Error(str("rank ", i, ": ", messages[i]));
  }
}
