// A plan for a processor with other features is refused by name; features of
// this one are recognised in LLVM's spelling.
#include "test/runtime/TestPlan.h"

using namespace megalodon;
using namespace megalodon::test;

TEST(CpuFeatures, NamesWhatIsMissing) {
  Damage damage;
  damage.cpuFeatures = {"avx99", "sse2", "frobnicate"};
  auto plan = loadPlan(damage);
  EXPECT_EQ(plan::missingCpuFeatures(*plan),
            (std::vector<std::string>{"avx99", "frobnicate"}));
  if (!onCuda())
    EXPECT_ERROR(Session(plan, {1}),
                 "test.plan: compiled for cpu 'native', but "
                 "this processor lacks: avx99, frobnicate");
}

#if defined(__x86_64__)
TEST(CpuFeatures, KnowsTheSpellingsOfLlvm) {
  Damage damage;
  damage.cpuFeatures = {"64bit", "cx8",  "fxsr", "mmx",
                        "sse",   "sse2", "x87"}; // every x86-64
  if (__builtin_cpu_supports("avx512bf16"))
    damage.cpuFeatures.push_back("avx512bf16");
  if (__builtin_cpu_supports("bmi"))
    damage.cpuFeatures.push_back("bmi");
  if (__builtin_cpu_supports("sse4.2"))
    damage.cpuFeatures.push_back("sse4.2");
  EXPECT_EQ(plan::missingCpuFeatures(*loadPlan(damage)),
            std::vector<std::string>{});
}
#endif
