// Functions: programs, buffers, segments, and the order of their actions.
#include "runtime/plan/PlanReader.h"
#include <map>

namespace megalodon::plan {

void PlanReader::readVariableList(const flatbuffers::Vector<uint32_t> &from,
                                  Function &function, const std::string &field,
                                  std::vector<uint32_t> &into) const {
  std::set<std::string> names;
  for (uint32_t index : list(from)) {
    check(index < plan.variables.size(), field, "variable ", index,
          " is out of range (", plan.variables.size(), " variables)");
    const Variable &variable = plan.variables[index];
    check(names.insert(variable.name).second, field, "name '", variable.name,
          "' stands twice");
    check(variable.role != Role::Residual, field, "'", variable.name,
          "' is nothing that the outside sees");
    checkShape(variable, function, field);
    if (variable.dynamic != Dynamic::None)
      readParts(variable, 0, function.dataParts, field);
    if (variable.dynamic == Dynamic::BatchLength)
      readParts(variable, 1, function.chunkParts, field);
    into.push_back(index);
  }
}

void PlanReader::readParts(const Variable &variable, uint32_t dimension,
                           int64_t &parts, const std::string &field) const {
  if (!parts)
    parts = variable.parts(dimension);
  check(parts == variable.parts(dimension), field, "'", variable.name,
        "': expected dimension ", dimension, " in ", parts, " parts, got ",
        variable.parts(dimension));
}

void PlanReader::checkShape(const Variable &variable, const Function &function,
                            const std::string &field) const {
  if (variable.dynamic != Dynamic::None)
    check(variable.shape[0] == function.batch, field, "'", variable.name,
          "': expected ", function.batch, " rows, got ", variable.shape[0]);
  if (variable.dynamic == Dynamic::BatchLength)
    check(variable.shape[1] == function.length, field, "'", variable.name,
          "': expected length ", function.length, ", got ", variable.shape[1]);
}

void PlanReader::readFunction(const fb::Function &from) {
  Function function;
  function.name = nameIn(from.name(), "functions");
  const std::string field = str("function '", function.name, "'");
  check(plan.findFunction(function.name) < 0, "functions", "name '",
        function.name, "' stands twice");
  function.batch = from.batch();
  function.length = from.length();
  check(function.batch > 0 && function.length > 0 &&
            function.batch <= kMaxBatch &&
            function.length <= kMaxElements / function.batch,
        field, "expected a batch from 1 to ", kMaxBatch,
        " and a positive length, got ", function.batch, " x ", function.length);
  function.exact = from.exact();
  // Before the tensors say it: as the mesh cuts.
  function.dataParts = function.chunkParts = 0;
  readVariableList(*from.inputs(), function, field + ".inputs",
                   function.inputs);
  readVariableList(*from.outputs(), function, field + ".outputs",
                   function.outputs);
  if (!function.dataParts)
    function.dataParts = plan.mesh.dp;
  if (!function.chunkParts)
    function.chunkParts = plan.mesh.cp;
  std::map<std::string, uint32_t> inputs;
  for (uint32_t input : function.inputs)
    inputs.emplace(plan.variables[input].name, input);
  for (uint32_t output : function.outputs) {
    auto same = inputs.find(plan.variables[output].name);
    check(same == inputs.end() || same->second == output, field + ".outputs",
          "'", plan.variables[output].name,
          "' is another variable than the input of that name");
  }
  check(from.programs()->size() == uint32_t(plan.mesh.pp), field + ".programs",
        "expected ", plan.mesh.pp, ", got ", from.programs()->size());
  for (const fb::Program *program : list(*from.programs()))
    readProgram(*program, function,
                str(field, ".programs[", function.programs.size(), "]"));
  checkMessages(function, &Program::actions, field + ".actions");
  checkMessages(function, &Program::updateActions, field + ".update_actions");
  function.modelFlops = from.model_flops();
  plan.functions.push_back(std::move(function));
}

void PlanReader::readProgram(const fb::Program &from, Function &function,
                             const std::string &field) {
  Program program;
  program.stage = from.stage();
  check(program.stage == function.programs.size(), field + ".stage",
        "expected ", function.programs.size(), ", got ", program.stage);
  program.arenaBytes = from.arena_bytes();
  check(program.arenaBytes <= kMaxBytes, field + ".arena_bytes",
        "expected at most ", kMaxBytes, ", got ", program.arenaBytes);
  program.microbatches = from.microbatches();
  program.slots = from.slots();
  check(program.microbatches > 0 && program.microbatches <= kMaxMicrobatches &&
            program.slots > 0 && program.slots <= kMaxMicrobatches,
        field, "expected from 1 to ", kMaxMicrobatches,
        " microbatches and slots, got ", program.microbatches, " and ",
        program.slots);
  check(function.programs.empty() ||
            program.microbatches == function.microbatches(),
        field + ".microbatches", "expected as many as in the first program");
  const int64_t cut = function.dataParts * program.microbatches;
  check(function.batch % cut == 0 && function.length % function.chunkParts == 0,
        field, "expected a batch that is a multiple of ", cut,
        " and a length that is a multiple of ", function.chunkParts, ", got ",
        function.batch, " x ", function.length);
  const Context context{function, program, function.batch / cut,
                        function.length / function.chunkParts};
  for (const fb::Buffer *buffer : list(*from.buffers()))
    readBuffer(*buffer, context,
               str(field, ".buffers[", program.buffers.size(), "]"));
  for (const fb::Segment *segment : list(*from.segments()))
    readSegment(*segment, context,
                str(field, ".segments[", program.segments.size(), "]"));
  for (const fb::Action *action : list(*from.actions()))
    program.actions.push_back(
        readAction(*action, context,
                   str(field, ".actions[", program.actions.size(), "]")));
  for (const fb::Action *action : list(*from.update_actions()))
    program.updateActions.push_back(readAction(
        *action, context,
        str(field, ".update_actions[", program.updateActions.size(), "]")));
  function.programs.push_back(std::move(program));
}

void PlanReader::readSegment(const fb::Segment &from, const Context &context,
                             const std::string &field) {
  Segment segment;
  segment.name = text(from.name());
  events.clear();
  for (const fb::Command *command : list(*from.commands()))
    segment.commands.push_back(
        readCommand(*command, context,
                    str(field, ".commands[", segment.commands.size(), "]")));
  check(events.empty(), field + ".commands", "event ",
        events.empty() ? 0 : *events.begin(),
        " is started and never waited for");
  context.program.segments.push_back(std::move(segment));
}

Action PlanReader::readAction(const fb::Action &from, const Context &context,
                              const std::string &field) const {
  const Program &program = context.program;
  Action action{
      enumerator<ActionKind>(from.kind(), fb::ActionKind::MAX, field + ".kind"),
      from.segment(),
      from.buffer(),
      from.peer(),
      from.channel(),
      from.microbatch(),
      from.slot(),
      enumerator<Dynamic>(from.dynamic(), fb::Dynamic::MAX,
                          field + ".dynamic")};
  check(action.microbatch < program.microbatches, field + ".microbatch",
        "microbatch ", action.microbatch, " is out of range (",
        program.microbatches, ")");
  check(action.slot < program.slots, field + ".slot", "slot ", action.slot,
        " is out of range (", program.slots, ")");
  if (action.kind == ActionKind::Run) {
    check(action.segment < program.segments.size(), field + ".segment",
          "segment ", action.segment, " is out of range (",
          program.segments.size(), " segments)");
    return action;
  }
  const Buffer &memory = buffer(context, action.buffer, field + ".buffer");
  check(action.peer < uint32_t(plan.mesh.pp) && action.peer != program.stage,
        field + ".peer", "expected another of ", plan.mesh.pp,
        " pipeline ranks, got ", action.peer);
  check(action.channel <= kMaxChannel, field + ".channel", "expected at most ",
        kMaxChannel, ", got ", action.channel);
  const uint64_t times =
      uint64_t(timesOf(action.dynamic, context.batch, context.length));
  check(memory.bytes > 0 && memory.bytes % times == 0, field + ".buffer",
        "expected a multiple of ", times, " bytes, got ", memory.bytes);
  return action;
}

void PlanReader::checkMessages(const Function &function,
                               std::vector<Action> Program::*list,
                               const std::string &field) const {
  using Message = std::pair<uint64_t, Dynamic>;
  // By sender, receiver and channel.
  std::map<std::array<uint32_t, 3>, std::vector<Message>> sent, received;
  for (const Program &program : function.programs)
    for (const Action &action : program.*list) {
      if (action.kind == ActionKind::Run)
        continue;
      const Message message = {program.buffers[action.buffer].bytes,
                               action.dynamic};
      if (action.kind == ActionKind::Send)
        sent[{program.stage, action.peer, action.channel}].push_back(message);
      else
        received[{action.peer, program.stage, action.channel}].push_back(
            message);
    }
  check(sent == received, field,
        "what is sent between pipeline ranks is not what is received");
}

void PlanReader::readBuffer(const fb::Buffer &from, const Context &context,
                            const std::string &field) const {
  const Program &program = context.program;
  Buffer buffer{
      from.variable(),
      from.offset(),
      from.bytes(),
      text(from.name()),
      from.stride(),
      enumerator<Indexed>(from.index(), fb::Indexed::MAX, field + ".index")};
  const uint64_t copies = copiesOf(buffer, program);
  uint64_t room = program.arenaBytes;
  if (buffer.variable != -1) {
    check(buffer.variable >= 0 &&
              size_t(buffer.variable) < plan.variables.size(),
          field + ".variable", "index ", buffer.variable, " is out of range (",
          plan.variables.size(), " variables)");
    const Variable &variable = plan.variables[size_t(buffer.variable)];
    checkShape(variable, context.function, field);
    check(variable.isHeldBy(program.stage), field, "'", variable.name,
          "' is not held by pipeline rank ", program.stage);
    room = variable.localBytes();
    // A smaller call packs its rows, so its microbatches lie closer.
    check(buffer.index != Indexed::Microbatch ||
              variable.dynamic == Dynamic::None ||
              (buffer.offset == 0 && buffer.stride == room / copies &&
               room % copies == 0 && buffer.bytes <= buffer.stride),
          field, "expected one of ", copies, " equal parts of '", variable.name,
          "'");
  } else {
    check(buffer.offset % 64 == 0 && buffer.stride % 64 == 0, field + ".offset",
          "expected a multiple of 64, got ", buffer.offset, " and stride ",
          buffer.stride);
  }
  check(buffer.index != Indexed::None || buffer.stride == 0, field + ".stride",
        "expected 0 without an index, got ", buffer.stride);
  check(buffer.stride <= kMaxBytes && buffer.offset <= room &&
            buffer.bytes <= room - buffer.offset &&
            (copies - 1) * buffer.stride <= room - buffer.offset - buffer.bytes,
        field, "expected a range inside ", room, " bytes, got ", buffer.bytes,
        " bytes at ", buffer.offset,
        copies > 1 ? str(" and stride ", buffer.stride) : "");
  context.program.buffers.push_back(std::move(buffer));
}

uint64_t PlanReader::copiesOf(const Buffer &buffer, const Program &program) {
  return buffer.index == Indexed::Microbatch ? program.microbatches
         : buffer.index == Indexed::Slot     ? program.slots
                                             : 1;
}

const Buffer &PlanReader::buffer(const Context &context, uint32_t index,
                                 const std::string &field) const {
  const std::vector<Buffer> &buffers = context.program.buffers;
  check(index < buffers.size(), field, "buffer ", index, " is out of range (",
        buffers.size(), " buffers)");
  return buffers[index];
}

bool PlanReader::overlap(const Context &context, const Buffer &left,
                         uint64_t leftBytes, const Buffer &right,
                         uint64_t rightBytes) {
  if (left.index != right.index || left.stride != right.stride) {
    leftBytes += (copiesOf(left, context.program) - 1) * left.stride;
    rightBytes += (copiesOf(right, context.program) - 1) * right.stride;
  }
  return left.variable == right.variable &&
         left.offset < right.offset + rightBytes &&
         right.offset < left.offset + leftBytes;
}

} // namespace megalodon::plan
