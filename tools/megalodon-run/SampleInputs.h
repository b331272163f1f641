// Inputs of a function for runs whose results nobody keeps.
#pragma once
#include "runtime/session.h"

namespace megalodon {

/// Ids drawn evenly, a learning rate and step as in training, fresh state.
void fillSampleInputs(Session &session, size_t function, CallShape shape = {});

} // namespace megalodon
