// Commands: dispatches, products, copies, collectives and waits.
#include "runtime/plan/Header.h"
#include "runtime/plan/PlanReader.h"
#include <algorithm>

namespace megalodon::plan {

Command PlanReader::readCommand(const fb::Command &from, const Context &context,
                                const std::string &field) {
  Command command;
  command.location = text(from.location());
  command.queue = from.queue();
  check(command.queue < kMaxQueues, field + ".queue", "expected one below ",
        kMaxQueues, ", got ", command.queue);
  check(command.queue == kMainQueue ||
            from.operation_type() == fb::Operation::CopyStart ||
            from.operation_type() == fb::Operation::CollectiveStart,
        field + ".queue", "expected ", uint32_t(kMainQueue),
        " for what nobody waits for, got ", command.queue);
  switch (from.operation_type()) {
  case fb::Operation::Dispatch:
    command.operation = readDispatch(*from.operation_as_Dispatch(), context,
                                     field + ".dispatch");
    break;
  case fb::Operation::Product:
    command.operation =
        readProduct(*from.operation_as_Product(), context, field + ".product");
    break;
  case fb::Operation::CopyStart:
    command.operation = readCopy(*from.operation_as_CopyStart(), context,
                                 field + ".copy_start");
    break;
  case fb::Operation::Wait: {
    const uint32_t event = from.operation_as_Wait()->event();
    check(events.erase(event) == 1, field + ".wait", "event ", event,
          " was not started");
    command.operation = Wait{event};
    break;
  }
  case fb::Operation::CollectiveStart:
    command.operation = readCollective(*from.operation_as_CollectiveStart(),
                                       context, field + ".collective_start");
    setQueue(std::get<CollectiveStart>(command.operation).communicator,
             command.queue, field + ".queue");
    break;
  default:
    fail(field, "unknown operation ", int(from.operation_type()));
  }
  return command;
}

/// The messages of a communicator are in order, so they stand on one queue.
void PlanReader::setQueue(uint32_t communicator, uint32_t queue,
                          const std::string &field) {
  std::optional<uint32_t> &known = plan.communicators[communicator].queue;
  if (!known)
    known = queue;
  check(*known == queue, field, "expected ", *known,
        " as for the other messages of communicator ", communicator, ", got ",
        queue);
}

Dispatch PlanReader::readDispatch(const fb::Dispatch &from,
                                  const Context &context,
                                  const std::string &field) const {
  Dispatch dispatch;
  dispatch.kernel = from.kernel();
  check(dispatch.kernel < plan.kernels.size(), field + ".kernel", "kernel ",
        dispatch.kernel, " is out of range (", plan.kernels.size(),
        " kernels)");
  for (uint32_t index : list(*from.args())) {
    buffer(context, index, field + ".args");
    dispatch.args.push_back(index);
  }
  if (from.immediates())
    for (int64_t immediate : list(*from.immediates()))
      dispatch.immediates.push_back(immediate);
  const fb::Grid *grid = from.grid();
  check(grid, field + ".grid", "is missing");
  dispatch.grid = {
      grid->factor(), grid->divisor(),
      enumerator<Outer>(grid->outer(), fb::Outer::MAX, field + ".grid.outer"),
      enumerator<Inner>(grid->inner(), fb::Inner::MAX, field + ".grid.inner")};
  // All terms grow with batch and length, so the compiled shape bounds them.
  check(dispatch.grid.factor > 0 && dispatch.grid.factor <= kMaxWorkgroups &&
            dispatch.grid.divisor > 0 && dispatch.grid.divisor <= kMaxElements,
        field + ".grid", "expected a positive factor and divisor, got ",
        dispatch.grid.factor, " and ", dispatch.grid.divisor);
  Grid unit = dispatch.grid;
  unit.factor = 1;
  check(unit.workgroups(context.batch, context.length) <=
            kMaxWorkgroups / dispatch.grid.factor,
        field + ".grid", "more than ", kMaxWorkgroups, " workgroups");
  if (plan.isCuda()) {
    check(unit.workgroups(context.batch, context.length) <=
              kMaxLaunch / dispatch.grid.factor,
          field + ".grid", "more than ", kMaxLaunch, " workgroups");
    const Kernel &kernel = plan.kernels[dispatch.kernel];
    check(kernel.words <= kFirstImmediate + dispatch.immediates.size(),
          field + ".immediates", "kernel '", kernel.symbol, "' takes ",
          kernel.words, " words, got ",
          kFirstImmediate + dispatch.immediates.size());
  }
  dispatch.flops = from.flops();
  dispatch.bytes = from.bytes();
  return dispatch;
}

Product PlanReader::readProduct(const fb::Product &from, const Context &context,
                                const std::string &field) const {
  Product product{from.a(),
                  from.b(),
                  from.c(),
                  from.trans_a(),
                  from.trans_b(),
                  from.m(),
                  from.n(),
                  from.k(),
                  from.tile_m(),
                  from.tile_n(),
                  from.accumulate(),
                  text(from.source()),
                  enumerator<ElementType>(from.type(), fb::ElementType::MAX,
                                          field + ".type"),
                  enumerator<ElementType>(from.result_type(),
                                          fb::ElementType::MAX,
                                          field + ".result_type")};
  const char *library = plan.isCuda() ? "cublaslt" : "onednn";
  check(from.library()->string_view() == library, field + ".library",
        "expected '", library, "', got '", from.library()->str(), "'");
  check(plan.features & (plan.isCuda() ? kFeatureCublasLt : kFeatureOneDnn),
        field + ".library", "the header lacks the feature bit of ", library);
  const bool narrow = product.type == ElementType::BF16;
  check((product.type == ElementType::F32 || narrow) &&
            (product.resultType == ElementType::F32 ||
             (narrow && product.resultType == ElementType::BF16)),
        field + ".type", "cannot multiply ", elementName(product.type), " to ",
        elementName(product.resultType));
  const int64_t tokens = context.batch * context.length;
  auto extent = [&](int64_t size, const char *name) {
    check(size == -1 || (size > 0 && size <= kMaxElements),
          str(field, ".", name), "expected -1 or a positive size, got ", size);
    return size == -1 ? tokens : size;
  };
  const int64_t m = extent(product.m, "m"), n = extent(product.n, "n"),
                k = extent(product.k, "k");
  check(product.tileM > 0 && product.tileN > 0, field,
        "expected positive tiles, got ", product.tileM, " x ", product.tileN);
  check((m + product.tileM - 1) / product.tileM <=
            kMaxWorkgroups / ((n + product.tileN - 1) / product.tileN),
        field, "more than ", kMaxWorkgroups, " tiles");
  auto matrix = [&](uint32_t index, int64_t rows, int64_t columns,
                    ElementType type, const char *name) -> const Buffer & {
    const size_t element = elementBytes(type);
    const Buffer &storage = buffer(context, index, str(field, ".", name));
    int64_t bytes;
    check(!__builtin_mul_overflow(rows, columns, &bytes) &&
              bytes <= kMaxElements &&
              uint64_t(bytes) * element <= storage.bytes,
          str(field, ".", name), "expected a buffer for ", rows, " x ", columns,
          " ", elementName(type), ", got ", storage.bytes, " bytes");
    check(storage.offset % element == 0, str(field, ".", name),
          "expected an offset that is a multiple of ", element, ", got ",
          storage.offset);
    return storage;
  };
  const Buffer &a = matrix(product.a, m, k, product.type, "a"),
               &b = matrix(product.b, k, n, product.type, "b"),
               &c = matrix(product.c, m, n, product.resultType, "c");
  const uint64_t written =
      uint64_t(m) * uint64_t(n) * elementBytes(product.resultType);
  const uint64_t element = elementBytes(product.type);
  check(
      !overlap(context, a, uint64_t(m) * uint64_t(k) * element, c, written) &&
          !overlap(context, b, uint64_t(k) * uint64_t(n) * element, c, written),
      field + ".c", "overlaps an operand");
  return product;
}

CopyStart PlanReader::readCopy(const fb::CopyStart &from,
                               const Context &context,
                               const std::string &field) {
  CopyStart copy{
      from.from(), from.to(), from.bytes(),
      enumerator<Dynamic>(from.dynamic(), fb::Dynamic::MAX, field + ".dynamic"),
      from.event()};
  const uint64_t times =
      uint64_t(timesOf(copy.dynamic, context.batch, context.length));
  const Buffer &source = buffer(context, copy.from, field + ".from"),
               &target = buffer(context, copy.to, field + ".to");
  uint64_t bytes;
  check(!__builtin_mul_overflow(copy.bytes, times, &bytes) &&
            bytes <= source.bytes && bytes <= target.bytes,
        field + ".bytes", "expected at most ",
        std::min(source.bytes, target.bytes), " bytes, got ", copy.bytes, " x ",
        times);
  check(!overlap(context, source, bytes, target, bytes), field + ".to",
        "overlaps the source");
  check(events.insert(copy.event).second, field + ".event", "event ",
        copy.event, " is already under way");
  return copy;
}

CollectiveStart PlanReader::readCollective(const fb::CollectiveStart &from,
                                           const Context &context,
                                           const std::string &field) {
  CollectiveStart collective{
      enumerator<CollectiveKind>(from.kind(), fb::CollectiveKind::MAX,
                                 field + ".kind"),
      from.communicator(),
      enumerator<ElementType>(from.type(), fb::ElementType::MAX,
                              field + ".type"),
      {},
      from.event(),
      from.last()};
  check(collective.communicator < plan.communicators.size(),
        field + ".communicator", "communicator ", collective.communicator,
        " is out of range (", plan.communicators.size(), " communicators)");
  const Communicator &communicator =
      plan.communicators[collective.communicator];
  check(communicator.isMember(context.program.stage), field + ".communicator",
        "pipeline rank ", context.program.stage, " is not in communicator ",
        collective.communicator);
  check(collective.kind == CollectiveKind::AllGather ||
            collective.type == ElementType::F32 ||
            collective.type == ElementType::F64 ||
            collective.type == ElementType::BF16 ||
            collective.type == ElementType::I32 ||
            collective.type == ElementType::I64,
        field + ".type", "cannot add up ", elementName(collective.type));
  check(from.items()->size() > 0, field + ".items",
        "expected at least one, got none");
  for (const fb::CollectiveItem *item : list(*from.items()))
    collective.items.push_back(
        readItem(*item, collective, uint64_t(communicator.size), context,
                 str(field, ".items[", collective.items.size(), "]")));
  check(events.insert(collective.event).second, field + ".event", "event ",
        collective.event, " is already under way");
  return collective;
}

CollectiveItem PlanReader::readItem(const fb::CollectiveItem &from,
                                    const CollectiveStart &collective,
                                    uint64_t ranks, const Context &context,
                                    const std::string &field) const {
  CollectiveItem item{
      from.from(), from.to(), from.rows(),
      enumerator<Dynamic>(from.dynamic(), fb::Dynamic::MAX, field + ".dynamic"),
      from.row_bytes()};
  const size_t element = elementBytes(collective.type);
  check(item.rows > 0 && item.rows <= kMaxElements && item.rowBytes > 0 &&
            item.rowBytes % element == 0,
        field, "expected rows of whole elements, got ", item.rows, " rows of ",
        item.rowBytes, " bytes");
  const Buffer &source = buffer(context, item.from, field + ".from"),
               &target = buffer(context, item.to, field + ".to");
  const uint64_t times =
      uint64_t(timesOf(item.dynamic, context.batch, context.length));
  uint64_t bytes, all;
  const bool fits =
      !__builtin_mul_overflow(uint64_t(item.rows), times, &bytes) &&
      !__builtin_mul_overflow(bytes, item.rowBytes, &bytes) &&
      !__builtin_mul_overflow(bytes, ranks, &all);
  const uint64_t read = collective.kind == CollectiveKind::ReduceScatter
                            ? all
                            : bytes,
                 written =
                     collective.kind == CollectiveKind::AllGather ? all : bytes;
  check(fits && read <= source.bytes && written <= target.bytes,
        field + ".row_bytes", "expected ", item.rows, " x ", times,
        " rows inside ", source.bytes, " and ", target.bytes,
        " bytes, got rows of ", item.rowBytes, " bytes of ", ranks, " ranks");
  check(source.offset % element == 0 && target.offset % element == 0 &&
            source.stride % element == 0 && target.stride % element == 0,
        field, "expected whole elements at ", source.offset, " and ",
        target.offset);
  if (collective.kind == CollectiveKind::AllReduce)
    check(item.from == item.to, field + ".to", "expected buffer ", item.from,
          ", got ", item.to);
  else
    check(!overlap(context, source, read, target, written), field + ".to",
          "overlaps the source");
  return item;
}

} // namespace megalodon::plan
