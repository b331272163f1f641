// Every op of the dialect: what the reference in docs/dialect.md is made from.
include "dialect/Megalodon/MegalodonAllOps.td"
include "dialect/Megalodon/MegaOps.td"
