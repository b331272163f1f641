// Learning rates: the formulas of each schedule, its ends, and the golden run.
#include "runtime/train/Schedule.h"
#include "runtime/io/Safetensors.h"
#include "runtime/train/Tensors.h"
#include "test/runtime/TestPlan.h"
#include <cmath>
#include <cstdlib>

using namespace megalodon;

TEST(Schedule, WarmsUpFromTheInitialRatio) {
  for (ScheduleKind kind :
       {ScheduleKind::Linear, ScheduleKind::Cosine, ScheduleKind::Constant}) {
    Schedule schedule{kind, 2e-3, 10, 100, 0.1, 0.01, 1};
    EXPECT_DOUBLE_EQ(schedule.rate(0), 2e-4);
    EXPECT_DOUBLE_EQ(schedule.rate(5), 2e-3 * 0.55);
    EXPECT_DOUBLE_EQ(schedule.rate(10), 2e-3);
  }
}

TEST(Schedule, DecaysToTheEndRatio) {
  Schedule linear{ScheduleKind::Linear, 1, 10, 110, 0, 0.2, 1};
  EXPECT_DOUBLE_EQ(linear.ratio(60), 0.5 * 0.2 + 0.5);
  EXPECT_DOUBLE_EQ(linear.ratio(110), 0.2);
  EXPECT_DOUBLE_EQ(linear.ratio(500), 0.2);
  Schedule cosine{ScheduleKind::Cosine, 1, 10, 110, 0, 0.2, 1};
  EXPECT_NEAR(cosine.ratio(35), 0.2 + 0.4 * (std::sqrt(0.5) + 1), 1e-15);
  EXPECT_NEAR(cosine.ratio(60), 0.6, 1e-15);
  EXPECT_NEAR(cosine.ratio(110), 0.2, 1e-15);
  EXPECT_DOUBLE_EQ(cosine.ratio(111), 0.2);
  cosine.cycles = 2; // two half cosines: back at the top at the very end
  EXPECT_NEAR(cosine.ratio(110), 1, 1e-15);
  EXPECT_DOUBLE_EQ(cosine.ratio(111), 0.2);
  Schedule constant{ScheduleKind::Constant, 1, 10, 110, 0, 0.2, 1};
  EXPECT_DOUBLE_EQ(constant.ratio(500), 1);
}

TEST(Schedule, SurvivesAWarmupAsLongAsTheRun) {
  Schedule schedule{ScheduleKind::Cosine, 1, 10, 10, 0, 0.2, 1};
  EXPECT_DOUBLE_EQ(schedule.ratio(9), 0.9);
  EXPECT_DOUBLE_EQ(schedule.ratio(10), 0.2);
}

TEST(Schedule, RefusesOptionsThatMakeNoSense) {
  Schedule schedule;
  schedule.peak = -1;
  EXPECT_ERROR(schedule.verify(), "--lr: expected a positive number, got -1");
  schedule = {};
  schedule.endRatio = 2;
  EXPECT_ERROR(schedule.verify(), "--lr-end-ratio");
  EXPECT_ERROR(parseScheduleKind("step"),
               "--schedule: expected linear, cosine or constant, got 'step'");
}

TEST(Schedule, AgreesWithTheGoldenRun) {
  const char *golden = std::getenv("MEGALODON_GOLDEN");
  if (!golden)
    GTEST_SKIP() << "MEGALODON_GOLDEN is not set";
  SafetensorsFile file(str(golden, "/train_t1.safetensors"));
  std::vector<double> wanted(20);
  TensorView view{"lr",
                  ElementType::F64,
                  {20},
                  reinterpret_cast<std::byte *>(wanted.data()),
                  160};
  file.read(*file.find("lr"), view);
  Schedule schedule{ScheduleKind::Linear, 0.002, 5, 20, 1e-4, 0.01, 1};
  for (int64_t step = 0; step < 20; ++step)
    EXPECT_NEAR(schedule.rate(step), wanted[step], 1e-15);
}
