#include "common/roi_pool/loops_cpu.h"

#include "common/cpu/vec.h"

namespace mmdcn::roi_pool {
namespace {

// Vectors side by side in registers.
template <typename T, int kBytes>
struct Vectors {
  static constexpr int kVectors = 4, N = kLanes<T, kBytes>, kSize = kVectors * N;
  Vec<T, N> at[kVectors] = {};

  Vectors() = default;
  MMDCN_INLINE Vectors(T weight, const T* from) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) at[v] = weight * load<N>(from + v * N);
  }
  MMDCN_INLINE void add(T weight, const T* from) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) at[v] += weight * load<N>(from + v * N);
  }
  MMDCN_INLINE void add(T weight, const Vectors& other) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) at[v] += weight * other.at[v];
  }
  MMDCN_INLINE void store_scaled(T scale, T* to) const {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) store<N>(to + v * N, scale * at[v]);
  }
  // The dot product, one part a lane.
  MMDCN_INLINE Vec<T, N> dot(const Vectors& other) const {
    return (at[0] * other.at[0] + at[1] * other.at[1]) +
           (at[2] * other.at[2] + at[3] * other.at[3]);
  }
};

template <int kBytes, typename T>
MMDCN_INLINE void pool_impl(const BinList<T>& b, const T* image, T* values) {
  using V = Vectors<T, kBytes>;
  for (int64_t i = 0; i < b.count; ++i) {
    const Bin<T>& bin = b.bins[b.list[i]];
    for (int64_t c = 0; c < kStrip; c += V::kSize) {
      V value;
      for (int32_t y = bin.y_begin; y < bin.y_end; ++y) {
        const T* row = image + b.row(b.taps[y]) + c;
        for (int32_t x = bin.x_begin; x < bin.x_end; ++x) {
          value.add(b.taps[y].weight * b.taps[x].weight, row + b.column(b.taps[x]));
        }
      }
      value.store_scaled(bin.scale * bin.mask, values + i * kStrip + c);
    }
  }
}

template <int kBytes, typename T>
MMDCN_INLINE void contract_impl(const BinList<T>& b, const T* image, const T* grad, T* sums) {
  using V = Vectors<T, kBytes>;
  for (int64_t i = 0; i < b.count; ++i) {
    const Bin<T>& bin = b.bins[b.list[i]];
    T total[3] = {};
    for (int64_t c = 0; c < kStrip; c += V::kSize) {
      V value, dy, dx;
      for (int32_t y = bin.y_begin; y < bin.y_end; ++y) {
        // The sum over a row first: its taps are shared by the value and the y derivative.
        const T* row = image + b.row(b.taps[y]) + c;
        V of_row;
        for (int32_t x = bin.x_begin; x < bin.x_end; ++x) {
          const T* pixel = row + b.column(b.taps[x]);
          of_row.add(b.taps[x].weight, pixel);
          dx.add(b.taps[y].weight * b.taps[x].slope, pixel);
        }
        value.add(b.taps[y].weight, of_row);
        dy.add(b.taps[y].slope, of_row);
      }
      const V upstream(T(1), grad + i * kStrip + c);
      const auto v = value.dot(upstream), y = dy.dot(upstream), x = dx.dot(upstream);
      for (int l = 0; l < V::N; ++l) total[0] += v[l], total[1] += y[l], total[2] += x[l];
    }
    for (int k = 0; k < 3; ++k) sums[3 * i + k] = bin.scale * total[k];
  }
}

template <int kBytes, typename T>
MMDCN_INLINE void scatter_impl(const BinList<T>& b, const T* grad, T* grad_image) {
  using V = Vectors<T, kBytes>;
  for (int64_t i = 0; i < b.count; ++i) {
    const Bin<T>& bin = b.bins[b.list[i]];
    for (int64_t c = 0; c < kStrip; c += V::kSize) {
      const V upstream(bin.scale * bin.mask, grad + i * kStrip + c);
      for (int32_t y = bin.y_begin; y < bin.y_end; ++y) {
        T* row = grad_image + b.row(b.taps[y]) + c;
        for (int32_t x = bin.x_begin; x < bin.x_end; ++x) {
          T* pixel = row + b.column(b.taps[x]);
          const T w = b.taps[y].weight * b.taps[x].weight;
#pragma GCC unroll 4
          for (int v = 0; v < V::kVectors; ++v) {
            T* to = pixel + v * V::N;
            store<V::N>(to, load<V::N>(to) + w * upstream.at[v]);
          }
        }
      }
    }
  }
}

}  // namespace

#define MMDCN_ROI_POOL_LOOPS(T)                                                             \
  MMDCN_CLONES void pool(const BinList<T>& b, const T* image, T* values) {                  \
    pool_impl<kNarrowBytes>(b, image, values);                                              \
  }                                                                                         \
  MMDCN_CLONES void contract(const BinList<T>& b, const T* image, const T* grad, T* sums) { \
    contract_impl<kNarrowBytes>(b, image, grad, sums);                                      \
  }                                                                                         \
  MMDCN_CLONES void scatter(const BinList<T>& b, const T* grad, T* grad_image) {            \
    scatter_impl<kNarrowBytes>(b, grad, grad_image);                                        \
  }
MMDCN_ROI_POOL_LOOPS(float)
MMDCN_ROI_POOL_LOOPS(double)

}  // namespace mmdcn::roi_pool
