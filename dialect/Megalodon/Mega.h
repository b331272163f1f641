// Ops of the megalodon dialect that only MEGA has. A header of their own: most
// of the compiler knows nothing of them.
#pragma once
#include "dialect/Megalodon/Megalodon.h"

#define GET_OP_CLASSES
#include "dialect/Megalodon/MegaOps.h.inc"
