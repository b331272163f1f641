// --trace: one file of what all ranks did.
#pragma once
#include "runtime/plan/Trace.h"
#include "runtime/session.h"

namespace megalodon {

/// Writes the ranks' traces to one file; called by all of them. Only rank 0
/// writes.
void writeTrace(const std::string &path, const plan::Trace &trace,
                Session &session);

} // namespace megalodon
