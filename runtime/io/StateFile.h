// What a session remembers of its sequences, in a file or in another session.
#pragma once
#include "runtime/session.h"

namespace megalodon {

/// Writes the state.* tensors of a function's first `rows` rows to a
/// safetensors file, with the config and precision of the model beside them.
void saveState(Session &session, size_t function, int64_t rows,
               const std::string &path);

/// Reads them back, to the bit. Throws Error naming file and tensor when the
/// file comes from a model of another config or precision, has other tensors,
/// types or rows, or values that no session leaves; nothing is changed then.
void restoreState(Session &session, size_t function, int64_t rows,
                  const std::string &path);

/// Copies the state of one session's function to another's, which may be the
/// same. Both are of plans of one model. Throws Error when they keep different
/// tensors.
void copyState(Session &from, size_t fromFunction, Session &to,
               size_t toFunction, int64_t rows);

/// How many tokens each of the rows has consumed. Throws Error when the
/// function keeps no state.
std::vector<int64_t> statePositions(Session &session, size_t function,
                                    int64_t rows);

} // namespace megalodon
