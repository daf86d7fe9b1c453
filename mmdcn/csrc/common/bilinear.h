// Bilinear sampling with zero padding, the geometry shared by every operator and both devices.
#pragma once

#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define MMDCN_HOST_DEVICE __host__ __device__ __forceinline__
#else
#define MMDCN_HOST_DEVICE inline __attribute__((always_inline))
#endif

namespace mmdcn {

// The four neighbours of a sampling point: pixel index into an H x W map (-1 when the neighbour
// lies outside) and weight (0 then). ly, lx are the fractional parts.
template <typename T>
struct Corners {
  int32_t i00, i01, i10, i11;
  T w00, w01, w10, w11;
  T ly, lx;
};

// Branch-free so that a loop over points vectorises. Comparisons are false for NaN, hence a
// non-finite coordinate has four missing neighbours like any point outside the map.
template <typename T>
MMDCN_HOST_DEVICE Corners<T> bilinear_corners(T y, T x, int32_t height, int32_t width) {
  const bool inside = (y > T(-1)) & (y < T(height)) & (x > T(-1)) & (x < T(width));
  const T ys = inside ? y : T(0), xs = inside ? x : T(0);
  const T fy = std::floor(ys), fx = std::floor(xs);
  const int32_t y0 = static_cast<int32_t>(fy), x0 = static_cast<int32_t>(fx);
  const bool top = inside & (y0 >= 0), bottom = inside & (y0 + 1 < height);
  const bool left = x0 >= 0, right = x0 + 1 < width;
  const int32_t base = y0 * width + x0;
  Corners<T> p;
  p.ly = ys - fy;
  p.lx = xs - fx;
  const T hy = T(1) - p.ly, hx = T(1) - p.lx;
  p.i00 = (top & left) ? base : -1;
  p.i01 = (top & right) ? base + 1 : -1;
  p.i10 = (bottom & left) ? base + width : -1;
  p.i11 = (bottom & right) ? base + width + 1 : -1;
  p.w00 = (top & left) ? hy * hx : T(0);
  p.w01 = (top & right) ? hy * p.lx : T(0);
  p.w10 = (bottom & left) ? p.ly * hx : T(0);
  p.w11 = (bottom & right) ? p.ly * p.lx : T(0);
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
