# Tests of the compiler: MLIR modules and configs through megalodon-opt and FileCheck.
import os

import lit.formats

config.name = "megalodon"
config.test_format = lit.formats.ShTest(execute_external=False)
config.suffixes = [".mlir", ".test"]
config.excludes = ["Inputs"]
config.test_source_root = os.path.dirname(__file__)
config.test_exec_root = config.megalodon_test_output
config.environment["PATH"] = os.pathsep.join([config.megalodon_tools, config.llvm_tools, config.environment["PATH"]])
config.substitutions.append(("%models", config.megalodon_models))
config.substitutions.append(("%root", os.path.dirname(config.megalodon_models)))
