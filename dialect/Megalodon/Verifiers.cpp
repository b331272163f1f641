// Verifiers of the megalodon dialect: one block a constraint, numbered as in
// the op's description.
#include "dialect/Megalodon/Megalodon.h"

using namespace mlir;
using namespace mlir::megalodon;
