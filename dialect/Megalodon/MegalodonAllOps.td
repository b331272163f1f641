// Every op of the dialect: what mlir-tblgen reads.
include "dialect/Megalodon/MegalodonOps.td"
include "dialect/Megalodon/MegalodonGradientOps.td"
include "dialect/Megalodon/MegalodonOptimizerOps.td"
include "dialect/Megalodon/MegalodonParallelOps.td"
include "dialect/Megalodon/MegalodonLayout.td"
