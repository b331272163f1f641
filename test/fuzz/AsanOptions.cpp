// LLVM's libraries are not instrumented, but the code of their headers in our
// objects is: one half marks memory of an allocator or a vector as out of
// bounds, the other half does not know. So those marks are left out.
extern "C" const char *__asan_default_options() {
  return "detect_container_overflow=0:allow_user_poisoning=0";
}
