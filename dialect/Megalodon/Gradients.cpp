// Vector-Jacobian products of the forward ops.
#include "dialect/Megalodon/Megalodon.h"

using namespace mlir;
using namespace mlir::megalodon;
