// Bilinear sampling with zero padding, the geometry shared by every operator and both devices.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/base/macros.h"

namespace mmdcn {

// The four neighbours of a sampling point: pixel index into an H x W map (-1 when the neighbour
// lies outside) and weight (0 then). ly, lx are the fractional parts.
template <typename T>
struct Corners {
  int32_t i00, i01, i10, i11;
  T w00, w01, w10, w11;
  T ly, lx;
};

// One axis: the two neighbours at start and start + 1, their weights (0 when missing), and masks
// with all bits set for a neighbour inside [0, size).
template <typename T>
struct Axis {
  int32_t start, low_mask, high_mask;
  T low, high, fraction;
};

// Free of branches, so that a loop over points vectorises. A position at or beyond the border
// pixel's far neighbour, and NaN, for which every comparison is false, has no neighbours.
template <typename T>
MMDCN_HOST_DEVICE Axis<T> bilinear_axis(T position, int32_t size) {
  T p = position > T(-1) ? position : T(-2);
  p = p < static_cast<T>(size) ? p : static_cast<T>(size);
  const T floor = std::floor(p);
  Axis<T> a;
  a.start = static_cast<int32_t>(floor);
  a.fraction = p - floor;
  a.low_mask = (a.start >> 31 | (size - 1 - a.start) >> 31) ^ -1;
  a.high_mask = ((a.start + 1) >> 31 | (size - 2 - a.start) >> 31) ^ -1;
  a.low = a.low_mask ? T(1) - a.fraction : T(0);
  a.high = a.high_mask ? a.fraction : T(0);
  return a;
}

template <typename T>
MMDCN_HOST_DEVICE Corners<T> bilinear_corners(T y, T x, int32_t height, int32_t width) {
  const Axis<T> v = bilinear_axis(y, height), h = bilinear_axis(x, width);
  const int32_t base = v.start * width + h.start;
  Corners<T> p;
  p.i00 = base | ~(v.low_mask & h.low_mask);
  p.i01 = (base + 1) | ~(v.low_mask & h.high_mask);
  p.i10 = (base + width) | ~(v.high_mask & h.low_mask);
  p.i11 = (base + width + 1) | ~(v.high_mask & h.high_mask);
  p.w00 = v.low * h.low;
  p.w01 = v.low * h.high;
  p.w10 = v.high * h.low;
  p.w11 = v.high * h.high;
  p.ly = v.fraction;
  p.lx = h.fraction;
  return p;
}

// d(sample)/dy and d(sample)/dx contracted with an upstream gradient: s_ab is the dot product of
// that gradient with neighbour ab (0 for a missing one).
template <typename T>
MMDCN_HOST_DEVICE T bilinear_grad_y(T lx, T s00, T s01, T s10, T s11) {
  return (T(1) - lx) * (s10 - s00) + lx * (s11 - s01);
}

template <typename T>
MMDCN_HOST_DEVICE T bilinear_grad_x(T ly, T s00, T s01, T s10, T s11) {
  return (T(1) - ly) * (s01 - s00) + ly * (s11 - s10);
}

}  // namespace mmdcn
