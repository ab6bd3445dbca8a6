#include "vmm/vm_state.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

constexpr uint32_t kKhz = 2'000'000;  // two ticks a nanosecond

TEST(VmState, AContinuedClockStandsStillMeanwhile) {
  ClockState saved{.guest_ns = 1000, .realtime_ns = 50'000, .host_tsc = 1, .host_khz = kKhz};
  EXPECT_EQ(guest_clock(saved, ClockPolicy::kContinue, 90'000), 1000u);
  EXPECT_EQ(guest_clock(saved, ClockPolicy::kCatchUp, 90'000), 41'000u);
  EXPECT_EQ(guest_clock(saved, ClockPolicy::kCatchUp, 10'000), 1000u)
      << "the host's clock was set back";
}

TEST(VmState, TheTscAdvancesAsTheGuestsClock) {
  ClockState saved{.guest_ns = 1000, .realtime_ns = 0, .host_tsc = 7'000'000, .host_khz = kKhz};
  uint64_t offset = 0 - 6'000'000ull;  // the guest reads 1'000'000
  // Another host, whose TSC has begun anew.
  ClockState now{.guest_ns = 1500, .realtime_ns = 0, .host_tsc = 300, .host_khz = kKhz};
  EXPECT_EQ(now.host_tsc + tsc_offset_here(offset, kKhz, saved, now), 1'000'000u + 1000);
  // The same host: with the clock not jumping, the offset stays.
  now = {.guest_ns = 2000, .realtime_ns = 0, .host_tsc = 7'002'000, .host_khz = kKhz};
  EXPECT_EQ(tsc_offset_here(offset, kKhz, saved, now), offset);
}

TEST(VmState, AYearDoesNotOverflow) {
  constexpr uint64_t kYearNs = 365ull * 86400 * 1'000'000'000;
  ClockState saved{.guest_ns = 0, .realtime_ns = 0, .host_tsc = 0, .host_khz = kKhz};
  ClockState now{.guest_ns = kYearNs, .realtime_ns = 0, .host_tsc = 5, .host_khz = kKhz};
  EXPECT_EQ(tsc_offset_here(0, kKhz, saved, now) + 5, 2 * kYearNs);
}

TEST(VmState, AScaledTscIsTheGuestsToo) {
  ClockState saved{.guest_ns = 0, .realtime_ns = 0, .host_tsc = 4'000'000, .host_khz = kKhz};
  ClockState now{.guest_ns = 0, .realtime_ns = 0, .host_tsc = 600, .host_khz = 2 * kKhz};
  // The other host's TSC is twice as fast; KVM halves it.
  EXPECT_EQ(300 + tsc_offset_here(0, kKhz, saved, now), 4'000'000u);
}

TEST(VmState, FrequenciesThatKvmTakesForTheSame) {
  EXPECT_TRUE(same_tsc_frequency(2'596'138, 2'596'141));
  EXPECT_TRUE(same_tsc_frequency(1'000'000, 1'000'250));
  EXPECT_FALSE(same_tsc_frequency(1'000'000, 1'000'300));
  EXPECT_FALSE(same_tsc_frequency(2'400'000, 2'600'000));
  EXPECT_TRUE(same_tsc_frequency(0, 2'600'000)) << "not known";
}

TEST(VmState, ChipsInTheWrongPlaceAreRefused) {
  IrqchipState state;
  for (uint32_t i = 0; i < 3; ++i) state.chips[i].chip_id = i;
  std::vector<std::byte> data;
  state.encode(base::Encoder(data));
  EXPECT_TRUE(IrqchipState::decode(base::Decoder(data)));
  data[0] = std::byte{2};
  EXPECT_FALSE(IrqchipState::decode(base::Decoder(data)));
  data[0] = std::byte{0};
  data.pop_back();
  EXPECT_EQ(IrqchipState::decode(base::Decoder(data)).error().text(),
            "section 'irqchip' is too short or contains impossible values");
}

}  // namespace
}  // namespace vmm
