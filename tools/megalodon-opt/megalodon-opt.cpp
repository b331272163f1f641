// megalodon-opt: the compiler.
#include "tools/megalodon-opt/Main.h"

int main(int argc, char **argv) {
  return mlir::megalodon::runMegalodonOpt(argc, argv);
}
