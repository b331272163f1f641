// The subcommands of megalodon-run. Each adds its options to the application
// and the callback that runs it.
#pragma once

namespace CLI {
class App;
} // namespace CLI

namespace megalodon {

void addDoctor(CLI::App &app);
void addEval(CLI::App &app);
void addGenerate(CLI::App &app);
void addBench(CLI::App &app);
void addConvert(CLI::App &app);
void addInspect(CLI::App &app);
void addInvoke(CLI::App &app);
void addSimulate(CLI::App &app);
void addTokenize(CLI::App &app);
void addTrain(CLI::App &app);

} // namespace megalodon
