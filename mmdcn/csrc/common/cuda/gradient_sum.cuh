// Kernels behind sums of gradients that are the same in every run (see gradient_sum.h).
#pragma once

#include "common/cuda/device.cuh"

namespace mmdcn {

// An array of pixels, each with `groups` runs of `size` elements.
template <typename S>
struct MaxMagnitudeParams {
  const S* data;
  int64_t pixels, pixel_stride, group_stride;
  int32_t groups, size;
  unsigned long long* bits;  // of the largest magnitude as double, or of a NaN
};

template <typename S>
__global__ void __launch_bounds__(kBlockThreads)
    max_magnitude_kernel(const MaxMagnitudeParams<S> p) {
  double largest = 0.0;
  bool nan = false;
  const int64_t count = p.pixels * p.groups * p.size;
  for (Items items(count, 0); items.more(); items.advance()) {
    int32_t i, group;
    const int64_t pixel = divide(divide(items.item(), p.size, &i), p.groups, &group);
    const double value = fabs(static_cast<double>(
        load_value(p.data + pixel * p.pixel_stride + group * p.group_stride + i)));
    largest = value > largest ? value : largest;
    nan = nan || value != value;
  }
  // Magnitudes are ordered as their bits are, and a NaN is larger than all of them.
  unsigned long long bits = nan ? 0x7ff8000000000000ull : __double_as_longlong(largest);
  for (int step = kWarpThreads / 2; step > 0; step /= 2) {
    const unsigned long long other = __shfl_xor_sync(kWholeWarp, bits, step);
    bits = other > bits ? other : bits;
  }
  if (threadIdx.x % kWarpThreads == 0) atomicMax(p.bits, bits);
}

struct FixedScaleParams {
  const unsigned long long* bits;  // of bounds, whose product bounds a summand
  int32_t bounds;
  int32_t log_count;  // of the summands
  double* scale;      // then its inverse
};

// The largest power of two for which no sum can overflow. NaN, and so are the sums, where a bound
// is not finite.
template <typename>
__global__ void fixed_scale_kernel(const FixedScaleParams p) {
  if (blockIdx.x > 0 || threadIdx.x > 0) return;
  int exponent = 0;
  bool finite = true;
  for (int i = 0; i < p.bounds; ++i) {
    const double bound = __longlong_as_double(static_cast<long long>(p.bits[i]));
    int e = 0;
    finite = finite && bound - bound == 0.0;
    if (finite) frexp(bound, &e);
    exponent += e;
  }
  const int wanted = 62 - p.log_count - exponent;
  const int scale = wanted > 1000 ? 1000 : wanted < -1000 ? -1000 : wanted;
  p.scale[0] = finite ? ldexp(1.0, scale) : nan("");
  p.scale[1] = finite ? ldexp(1.0, -scale) : nan("");
}

template <typename T>
struct CollectParams {
  T* sum;
  unsigned long long* fixed;
  const double* scale;
  int64_t count;
};

// sum += fixed / scale, fixed = 0.
template <typename T>
__global__ void __launch_bounds__(kBlockThreads) collect_kernel(const CollectParams<T> p) {
  for (Items items(p.count, 0); items.more(); items.advance()) {
    if (!items.exists()) continue;
    const int64_t i = items.item();
    p.sum[i] +=
        static_cast<T>(static_cast<double>(static_cast<long long>(p.fixed[i])) * p.scale[1]);
    p.fixed[i] = 0;
  }
}

}  // namespace mmdcn
