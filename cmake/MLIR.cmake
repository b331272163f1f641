# LLVM/MLIR 22 as Debian ships it: the two shared libraries, no static component libraries.
find_package(MLIR 22.1 REQUIRED CONFIG)
list(APPEND CMAKE_MODULE_PATH "${MLIR_CMAKE_DIR}" "${LLVM_CMAKE_DIR}")
include(TableGen)
include(AddLLVM)
include(AddMLIR)

# mlir_tablegen takes its search path from the directory property.
include_directories(SYSTEM ${LLVM_INCLUDE_DIRS} ${MLIR_INCLUDE_DIRS})

# Everything that sees MLIR headers links this.
add_library(MegalodonMLIR INTERFACE)
target_include_directories(MegalodonMLIR SYSTEM INTERFACE ${LLVM_INCLUDE_DIRS} ${MLIR_INCLUDE_DIRS})
target_link_libraries(MegalodonMLIR INTERFACE MLIR LLVM)
target_compile_options(MegalodonMLIR INTERFACE -fno-exceptions -fno-rtti)
separate_arguments(MEGALODON_LLVM_DEFINITIONS NATIVE_COMMAND ${LLVM_DEFINITIONS})
target_compile_options(MegalodonMLIR INTERFACE ${MEGALODON_LLVM_DEFINITIONS})
