#include "common/aggregation/backward_loops_cpu.h"

#include "common/base/bilinear.h"

namespace mmdcn::aggregation {
namespace {

// Of N channels from `channel` on of the output gradient of a (pixel, group) and of the neighbours
// of its points: dots[4 k + corner] (+)= their dot product, and the weighted gradient is added to
// `sums`, kAtOnce lanes at once, in the window, where all neighbours are if kInside. Returns
// whether any has strayed.
template <int kAtOnce, int kTaps, bool kInside, bool kSums, int N, typename S, typename T>
MMDCN_INLINE bool backward_chunk(int64_t taps, const S* grad, Image<S> image, int64_t channel,
                                 bool first, Neighbours<kInside, T> neighbours, int64_t point,
                                 InputSums<T> sums, T* dots) {
  constexpr int kPart = std::min(N, kAtOnce);
  static_assert(N <= 2 * kPart);
  const Vec<T, N> g = load<N>(grad);
  const Vec<T, kPart> part[2] = {load<kPart>(grad), load<kPart>(grad + N - kPart)};
  bool strayed = false;
  for (int64_t k = 0; k < (kTaps ? kTaps : taps); ++k) {
    Vec<T, N> product[4];
#pragma GCC unroll 4
    for (int corner = 0; corner < 4; ++corner) {
      const int64_t place = neighbours.place(point + k, corner);
      product[corner] = g * load<N>(image.at(place) + channel);
      if (!kSums) continue;
      if (!kInside && !sums.contains(place)) {
        strayed |= place != image.missing;
        continue;
      }
      const T w = neighbours.weight(point + k, corner);
      T* const out = sums.data + place + channel;
#pragma GCC unroll 2
      for (int h = 0; h < N / kPart; ++h) {
        store<kPart>(out + h * kPart, load<kPart>(out + h * kPart) + w * part[h]);
      }
    }
    Vec<T, 4> dot = sum_lanes_of_four<T, N>(product);
    if (!first) dot += load<4>(dots + 4 * k);
    store<4>(dots + 4 * k, dot);
  }
  return strayed;
}

template <int kBytes, int kAtOnce, int kTaps, bool kInside, bool kSums, typename S, typename T>
MMDCN_INLINE bool backward_impl(const Shape& s, const PointRange& range, const S* grad,
                                Image<S> image, const Block<T>& block, InputSums<T> sums, T* dots) {
  const int64_t taps = kTaps ? kTaps : s.taps(), size = s.group_channels();
  const Neighbours<kInside, T> neighbours(block, image.stride, s.width);
  const int64_t count = range.count, groups = range.groups;
  bool strayed = false;
  for_chunks<kLanes<S, kBytes>>(
      0, size, [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
        for (int v = 0; v < vectors; ++v, c += lanes) {
          int64_t at = 0;
          const S* from = grad + c;
          for (int64_t i = 0; i < count; ++i, from += s.channels) {
            for (int64_t channel = 0; channel < groups * size; channel += size, at += taps) {
              strayed |= backward_chunk<kAtOnce, kTaps, kInside, kSums, lanes>(
                  taps, from + channel, image, channel + c, c == 0, neighbours, at, sums,
                  dots + 4 * at);
            }
          }
        }
      });
  return strayed;
}

template <typename S, typename T>
MMDCN_INLINE void add_strays_impl(const Shape& s, const PointRange& range, const S* grad,
                                  const Image<S>& image, const Block<T>& block, InputSums<T> sums) {
  const int64_t size = s.group_channels();
  const Neighbours<false, T> neighbours(block, image.stride, s.width);
  for (int64_t at = 0; at < range.count * range.groups * s.taps(); ++at) {
    const int64_t i = at / s.taps() / range.groups, channel = at / s.taps() % range.groups * size;
    const S* const from = grad + i * s.channels + channel;
    for (int corner = 0; corner < 4; ++corner) {
      const int64_t place = neighbours.place(at, corner);
      if (place == image.missing || sums.contains(place)) continue;
      const T w = neighbours.weight(at, corner);
      T* const out = sums.data + place + channel;
      MMDCN_INDEPENDENT
      for (int64_t c = 0; c < size; ++c) out[c] += w * to_compute(from[c]);
    }
  }
}

template <int kBytes, typename From, typename To>
MMDCN_INLINE void copy_channels_impl(int64_t pixels, int64_t size, const From* from,
                                     int64_t from_stride, To* to, int64_t to_stride) {
  for (int64_t i = 0; i < pixels; ++i, from += from_stride, to += to_stride) {
    for_chunks<kLanes<From, kBytes>>(
        0, size, [&](auto vectors, auto lanes, int64_t c) __attribute__((always_inline)) {
          for (int v = 0; v < vectors; ++v, c += lanes) store<lanes>(to + c, load<lanes>(from + c));
        });
  }
}

template <typename T>
MMDCN_INLINE void point_gradients_impl(int64_t count, T scale, const T* __restrict dots,
                                       const T* __restrict value, int64_t stride,
                                       T* __restrict grad_offset, T* __restrict grad_weight) {
  MMDCN_INDEPENDENT
  for (int64_t j = 0; j < count; ++j) {
    const T d0 = dots[4 * j], d1 = dots[4 * j + 1], d2 = dots[4 * j + 2], d3 = dots[4 * j + 3];
    const T ly = value[kLy * stride + j], lx = value[kLx * stride + j];
    // A point outside has no derivative, even if its weight is NaN.
    const T touched = std::abs(d0) + std::abs(d1) + std::abs(d2) + std::abs(d3);
    const T w = touched == T(0) ? T(0) : value[kTapWeight * stride + j] * scale;
    const T hy = T(1) - ly, hx = T(1) - lx;
    grad_offset[2 * j] = w * bilinear_grad_x(ly, d0, d1, d2, d3);
    grad_offset[2 * j + 1] = w * bilinear_grad_y(lx, d0, d1, d2, d3);
    grad_weight[j] = hy * (hx * d0 + lx * d1) + ly * (hx * d2 + lx * d3);
  }
}

}  // namespace

// Clones need plain functions: one set per type.
#define MMDCN_BACKWARD_LOOPS(S)                                                              \
  MMDCN_CLONES bool backward_points(const Shape& s, const PointRange& range, const S* grad,  \
                                    const Image<S>& image, const Block<Compute<S>>& block,   \
                                    InputSums<Compute<S>> sums, Compute<S>* dots) {          \
    bool strayed = false;                                                                    \
    specialize(s.taps(), block.inside,                                                       \
               [&](auto taps, auto inside) __attribute__((always_inline)) {                  \
                 constexpr int kWide = kWideBytes, kAtOnce = kSumLanes;                      \
                 if (sums.data) {                                                            \
                   strayed = backward_impl<kWide, kAtOnce, taps, inside, true>(              \
                       s, range, grad, image, block, sums, dots);                            \
                 } else {                                                                    \
                   backward_impl<kWide, kAtOnce, taps, inside, false>(s, range, grad, image, \
                                                                      block, sums, dots);    \
                 }                                                                           \
               });                                                                           \
    return strayed;                                                                          \
  }                                                                                          \
  MMDCN_CLONES void add_strays(const Shape& s, const PointRange& range, const S* grad,       \
                               const Image<S>& image, const Block<Compute<S>>& block,        \
                               InputSums<Compute<S>> sums) {                                 \
    add_strays_impl(s, range, grad, image, block, sums);                                     \
  }

#define MMDCN_GRADIENT_LOOPS(T)                                                                   \
  MMDCN_CLONES void point_gradients(int64_t count, T scale, const T* dots, const Block<T>& block, \
                                    T* grad_offset, T* grad_weight) {                             \
    point_gradients_impl(count, scale, dots, block.value.get(), block.capacity, grad_offset,      \
                         grad_weight);                                                            \
  }

#define MMDCN_COPY_CHANNELS(From, To)                                               \
  MMDCN_CLONES void copy_channels(int64_t pixels, int64_t size, const From* from,   \
                                  int64_t from_stride, To* to, int64_t to_stride) { \
    copy_channels_impl<kWideBytes>(pixels, size, from, from_stride, to, to_stride); \
  }

MMDCN_BACKWARD_LOOPS(double)
MMDCN_BACKWARD_LOOPS(float)
MMDCN_BACKWARD_LOOPS(BFloat16)
MMDCN_BACKWARD_LOOPS(Half)
MMDCN_GRADIENT_LOOPS(double)
MMDCN_GRADIENT_LOOPS(float)
MMDCN_COPY_CHANNELS(double, double)
MMDCN_COPY_CHANNELS(float, float)
MMDCN_COPY_CHANNELS(BFloat16, BFloat16)
MMDCN_COPY_CHANNELS(float, BFloat16)
MMDCN_COPY_CHANNELS(Half, Half)
MMDCN_COPY_CHANNELS(float, Half)

}  // namespace mmdcn::aggregation
