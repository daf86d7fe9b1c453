#include "common/roi_pool/loops_cpu.h"

namespace mmdcn {
namespace {

// 256-bit vectors: every x86-64 level above the first has them, elsewhere they are split.
template <typename T>
struct Vector {
  typedef T type __attribute__((vector_size(32), aligned(sizeof(T)), may_alias));
};
template <typename T>
constexpr int kLanes = 32 / sizeof(T);
template <typename T>
constexpr int kBlock = 4 * kLanes<T>;  // channels that are summed in registers

template <typename T>
MMDCN_INLINE void pool_impl(const BinList<T>& b, const T* image, T* values) {
  typedef typename Vector<T>::type Vec;
  for (int64_t i = 0; i < b.count; ++i) {
    const Bin<T>& bin = b.bins[b.list[i]];
    for (int64_t c = 0; c < kStrip; c += kBlock<T>) {
      Vec v0 = {}, v1 = {}, v2 = {}, v3 = {};
      for (int32_t y = bin.y_begin; y < bin.y_end; ++y) {
        const T* row = image + b.row(b.taps[y]) + c;
        for (int32_t x = bin.x_begin; x < bin.x_end; ++x) {
          const Vec* p = reinterpret_cast<const Vec*>(row + b.taps[x].index * kStrip);
          const T w = b.taps[y].weight * b.taps[x].weight;
          v0 += w * p[0], v1 += w * p[1], v2 += w * p[2], v3 += w * p[3];
        }
      }
      Vec* out = reinterpret_cast<Vec*>(values + i * kStrip + c);
      const T scale = bin.scale * bin.mask;
      out[0] = scale * v0, out[1] = scale * v1, out[2] = scale * v2, out[3] = scale * v3;
    }
  }
}

template <typename T>
MMDCN_INLINE void contract_impl(const BinList<T>& b, const T* image, const T* grad, T* sums) {
  typedef typename Vector<T>::type Vec;
  for (int64_t i = 0; i < b.count; ++i) {
    const Bin<T>& bin = b.bins[b.list[i]];
    T total[3] = {};
    for (int64_t c = 0; c < kStrip; c += kBlock<T>) {
      Vec v0 = {}, v1 = {}, v2 = {}, v3 = {};
      Vec y0 = {}, y1 = {}, y2 = {}, y3 = {};
      Vec x0 = {}, x1 = {}, x2 = {}, x3 = {};
      for (int32_t y = bin.y_begin; y < bin.y_end; ++y) {
        // The sums of a row first: its taps are shared by the value and the y derivative.
        const T* row = image + b.row(b.taps[y]) + c;
        Vec r0 = {}, r1 = {}, r2 = {}, r3 = {};
        for (int32_t x = bin.x_begin; x < bin.x_end; ++x) {
          const Vec* p = reinterpret_cast<const Vec*>(row + b.taps[x].index * kStrip);
          const T w = b.taps[x].weight, slope = b.taps[y].weight * b.taps[x].slope;
          r0 += w * p[0], r1 += w * p[1], r2 += w * p[2], r3 += w * p[3];
          x0 += slope * p[0], x1 += slope * p[1], x2 += slope * p[2], x3 += slope * p[3];
        }
        const T w = b.taps[y].weight, slope = b.taps[y].slope;
        v0 += w * r0, v1 += w * r1, v2 += w * r2, v3 += w * r3;
        y0 += slope * r0, y1 += slope * r1, y2 += slope * r2, y3 += slope * r3;
      }
      const Vec* g = reinterpret_cast<const Vec*>(grad + i * kStrip + c);
      const Vec v = (v0 * g[0] + v1 * g[1]) + (v2 * g[2] + v3 * g[3]);
      const Vec dy = (y0 * g[0] + y1 * g[1]) + (y2 * g[2] + y3 * g[3]);
      const Vec dx = (x0 * g[0] + x1 * g[1]) + (x2 * g[2] + x3 * g[3]);
      for (int l = 0; l < kLanes<T>; ++l) total[0] += v[l], total[1] += dy[l], total[2] += dx[l];
    }
    for (int k = 0; k < 3; ++k) sums[3 * i + k] = bin.scale * total[k];
  }
}

template <typename T>
MMDCN_INLINE void scatter_impl(const BinList<T>& b, const T* grad, T* grad_image) {
  typedef typename Vector<T>::type Vec;
  for (int64_t i = 0; i < b.count; ++i) {
    const Bin<T>& bin = b.bins[b.list[i]];
    for (int64_t c = 0; c < kStrip; c += kBlock<T>) {
      const Vec* g = reinterpret_cast<const Vec*>(grad + i * kStrip + c);
      const T scale = bin.scale * bin.mask;
      const Vec g0 = scale * g[0], g1 = scale * g[1], g2 = scale * g[2], g3 = scale * g[3];
      for (int32_t y = bin.y_begin; y < bin.y_end; ++y) {
        T* row = grad_image + b.row(b.taps[y]) + c;
        for (int32_t x = bin.x_begin; x < bin.x_end; ++x) {
          Vec* p = reinterpret_cast<Vec*>(row + b.taps[x].index * kStrip);
          const T w = b.taps[y].weight * b.taps[x].weight;
          p[0] += w * g0, p[1] += w * g1, p[2] += w * g2, p[3] += w * g3;
        }
      }
    }
  }
}

}  // namespace

#define MMDCN_ROI_POOL_LOOPS(T)                                                             \
  MMDCN_CLONES void pool(const BinList<T>& b, const T* image, T* values) {                  \
    pool_impl(b, image, values);                                                            \
  }                                                                                         \
  MMDCN_CLONES void contract(const BinList<T>& b, const T* image, const T* grad, T* sums) { \
    contract_impl(b, image, grad, sums);                                                    \
  }                                                                                         \
  MMDCN_CLONES void scatter(const BinList<T>& b, const T* grad, T* grad_image) {            \
    scatter_impl(b, grad, grad_image);                                                      \
  }
MMDCN_ROI_POOL_LOOPS(float)
MMDCN_ROI_POOL_LOOPS(double)

}  // namespace mmdcn
