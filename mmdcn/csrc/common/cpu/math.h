// Scalar maths written so that loops over it vectorise.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "common/cpu/target.h"

// exp of glibc 2.29 differs in errno alone; with that of all versions the library loads in older
// ones.
#if defined(__GLIBC__) && defined(__x86_64__)
__asm__(".symver exp, exp@GLIBC_2.2.5");
#elif defined(__GLIBC__) && defined(__aarch64__)
__asm__(".symver exp, exp@GLIBC_2.17");
#endif

namespace mmdcn {

// exp(x) for x <= 0, as a softmax needs it. NaN stays NaN.
MMDCN_INLINE double exp_nonpositive(double x) { return std::exp(x); }

// exp(x) = 2^n exp(r) with |r| <= ln(2) / 2, Taylor series to r^7: below 2 units in the last place.
MMDCN_INLINE float exp_nonpositive(float x) {
  const float clipped = x < -87.0f ? -87.0f : x;
  const float n = std::floor(clipped * 1.44269504f + 0.5f);
  const float r = (clipped - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.0f / 5040.0f;
  p = p * r + 1.0f / 720.0f;
  p = p * r + 1.0f / 120.0f;
  p = p * r + 1.0f / 24.0f;
  p = p * r + 1.0f / 6.0f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t bits = (static_cast<int32_t>(n != n ? 0.0f : n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof(scale));
  return x < -87.0f ? 0.0f : p * scale;
}

}  // namespace mmdcn
