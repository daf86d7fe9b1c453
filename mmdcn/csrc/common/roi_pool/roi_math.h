// Geometry that the RoI operators share, for host and device.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/base/macros.h"

namespace mmdcn::roi_pool {

template <typename T>
MMDCN_HOST_DEVICE bool is_finite(T value) {
  return value - value == T(0);
}

// NaN becomes `low`.
template <typename T>
MMDCN_HOST_DEVICE T clamp_to(T value, T low, T high) {
  return !(value > low) ? low : value > high ? high : value;
}

// A RoI is a row (batch index, x1, y1, x2, y2). If a coordinate is not finite, it pools to 0.
template <typename T>
MMDCN_HOST_DEVICE bool roi_is_finite(const T* roi) {
  return is_finite(roi[1]) && is_finite(roi[2]) && is_finite(roi[3]) && is_finite(roi[4]);
}

// Linear interpolation along one axis at a position clamped into the map, as RoIAlign does it.
// The derivative of the sample is slope * (value at hi - value at lo).
template <typename T>
struct AxisSample {
  int32_t lo, hi;
  T weight_lo, weight_hi, slope;
};

template <typename T>
MMDCN_HOST_DEVICE AxisSample<T> clamped_sample(T position, int32_t size) {
  const T clamped = clamp_to(position, T(0), static_cast<T>(size - 1));
  const bool inside = clamped == position;
  AxisSample<T> s;
  s.lo = static_cast<int32_t>(clamped);
  s.hi = inside && s.lo + 1 < size ? s.lo + 1 : s.lo;
  s.weight_hi = clamped - static_cast<T>(s.lo);
  s.weight_lo = T(1) - s.weight_hi;
  s.slope = inside ? T(1) : T(0);
  return s;
}

// Pixels [begin, end) of one axis.
struct PixelRange {
  int32_t begin, end;

  MMDCN_HOST_DEVICE void add(int32_t pixel) {
    begin = pixel < begin ? pixel : begin;
    end = pixel >= end ? pixel + 1 : end;
  }
};

// A corner in whole pixels, rounded half away from zero; the limit keeps the integers below exact.
template <typename T>
MMDCN_HOST_DEVICE int64_t rounded_corner(T position) {
  constexpr T kLimit = T(1 << 30);
  return static_cast<int64_t>(clamp_to(std::round(position), -kLimit, kLimit));
}

// Bin `bin` of `bins` of a box that starts at `start`: from floor(bin size / bins) up to
// ceil((bin + 1) size / bins), both clipped to [0, limit].
MMDCN_HOST_DEVICE PixelRange bin_pixels(int64_t bin, int64_t bins, int64_t start, int64_t size,
                                        int64_t limit) {
  const int64_t begin = start + bin * size / bins;
  const int64_t end = start + ((bin + 1) * size + bins - 1) / bins;
  return {static_cast<int32_t>(clamp_to(begin, int64_t{0}, limit)),
          static_cast<int32_t>(clamp_to(end, int64_t{0}, limit))};
}

}  // namespace mmdcn::roi_pool
