// Every op of the dialect but MEGA's (MegaOps.td): what dialect/Megalodon/Megalodon.h declares.
include "dialect/Megalodon/MegalodonOps.td"
include "dialect/Megalodon/MegalodonGradientOps.td"
include "dialect/Megalodon/MegalodonOptimizerOps.td"
include "dialect/Megalodon/MegalodonParallelOps.td"
include "dialect/Megalodon/MegalodonLayout.td"
