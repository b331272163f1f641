// megalodon-run: executes compiled plans. Each subcommand has its own file.
#include "runtime/core/Error.h"
#include "runtime/core/MapErrors.h"
#include "tools/megalodon-run/Commands.h"
#include <CLI/CLI.hpp>
#include <iostream>
#include <new>

int main(int argc, char **argv) {
  CLI::App app{"runs plans compiled by megalodon-opt", "megalodon-run"};
  app.require_subcommand(1);
  megalodon::addTrain(app);
  megalodon::addGenerate(app);
  megalodon::addEval(app);
  megalodon::addInvoke(app);
  megalodon::addInspect(app);
  megalodon::addBench(app);
  megalodon::addConvert(app);
  megalodon::addSimulate(app);
  megalodon::addDoctor(app);
  megalodon::addTokenize(app);
  megalodon::reportMapErrors();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError &error) {
    return app.exit(error);
  } catch (const std::bad_alloc &) {
    std::cerr << "megalodon-run: error: out of memory\n";
    return 1;
  } catch (const std::exception &error) {
    std::cerr << "megalodon-run: error: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
