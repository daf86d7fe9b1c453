// Bilinear sampling on the GPU, shared by the convolutions. Images are channels last; a team of
// threads spreads over the channels of a group.
#pragma once

#include "common/base/bilinear.h"
#include "common/cuda/device.cuh"

namespace mmdcn {

// The sizes of SlidingWindow as the kernels need them.
struct WindowGrid {
  int32_t height, width, out_h, out_w;
  int32_t kernel_h, kernel_w, stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w;
};

// A sampling point: its first neighbour's pixel, which of the four lie inside the image (bits 0 to
// 3: top left, top right, bottom left, bottom right), fractions, and the factor of the sample.
template <typename T>
struct Point {
  int32_t start, inside;
  T ly, lx, weight;

  // Weight of a neighbour, without the factor of the sample.
  __device__ T corner(int i) const { return (i & 2 ? ly : T(1) - ly) * (i & 1 ? lx : T(1) - lx); }
};

template <typename T>
__device__ Point<T> make_point(T y, T x, T weight, int32_t height, int32_t width) {
  const Axis<T> v = bilinear_axis(y, height), h = bilinear_axis(x, width);
  const int32_t columns = (h.low_mask & 1) | (h.high_mask & 2);
  return {v.start * width + h.start, (v.low_mask & columns) | (v.high_mask & columns << 2),
          v.fraction, h.fraction, weight};
}

template <typename T>
__device__ Point<T> from(const Team& team, const Point<T>& p, int source) {
  return {team.from(p.start, source), team.from(p.inside, source), team.from(p.ly, source),
          team.from(p.lx, source), team.from(p.weight, source)};
}

// A group of channels of an image of a batch.
struct ImageGroup {
  int64_t first;            // position of its first element
  int32_t channels, width;  // of the image

  // Position of the first element of neighbour i of a point.
  template <typename T>
  __device__ int64_t neighbour(const Point<T>& p, int i) const {
    return first + static_cast<int64_t>(p.start + (i >> 1) * width + (i & 1)) * channels;
  }
};

// sum += the sample of V channels from `channel` on.
template <int V, typename S, typename T>
__device__ void add_sample(const S* input, const ImageGroup& group, const Point<T>& p,
                           int32_t channel, bool active, T* sum) {
  const int32_t inside = active ? p.inside : 0;
  Pack<S, V> values[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[i] = load_if<V>(inside >> i & 1, input + group.neighbour(p, i) + channel);
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const T w = p.corner(i) * p.weight;
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] += w * to_compute(values[i].at[v]);
  }
}

// The gradients of a point.
template <typename T>
struct PointGradient {
  T y, x, weight;
};

// This thread's part of them. The sample's upstream gradient for channel c stands at grad(c), with
// the next V - 1 behind it.
template <int V, typename S, typename T, typename Grad>
__device__ PointGradient<T> point_gradient(const Team& team, const S* input,
                                           const ImageGroup& group, const Point<T>& p,
                                           const Grad& grad, int32_t channels, bool active) {
  const int32_t inside = active ? p.inside : 0;
  T dots[4] = {};
#pragma unroll 1  // one round for most sizes of a group
  for (int32_t c = team.lane * V; c < channels; c += team.size * V) {
    Pack<S, V> values[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      values[i] = load_if<V>(inside >> i & 1, input + group.neighbour(p, i) + c);
    }
    const Pack<S, V> g = load_if<V>(inside != 0, grad(c));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
#pragma unroll
      for (int v = 0; v < V; ++v) dots[i] += to_compute(g.at[v]) * to_compute(values[i].at[v]);
    }
  }
  PointGradient<T> result;
  const T weight = p.inside ? p.weight : T(0);  // even if it is NaN
  result.y = weight * bilinear_grad_y(p.lx, dots[0], dots[1], dots[2], dots[3]);
  result.x = weight * bilinear_grad_x(p.ly, dots[0], dots[1], dots[2], dots[3]);
  result.weight = T(0);
#pragma unroll
  for (int i = 0; i < 4; ++i) result.weight += p.corner(i) * dots[i];
  return result;
}

template <typename T>
__device__ PointGradient<T> sum(const Team& team, const PointGradient<T>& g) {
  return {team.sum(g.y), team.sum(g.x), team.sum(g.weight)};
}

// Adds the upstream gradient to those of the neighbours. Neighbouring threads add to neighbouring
// channels, A at a time.
template <int A, bool kFixed, typename T, typename Grad>
__device__ void scatter_point(const Team& team, const GradientSum<T>& out, const ImageGroup& group,
                              const Point<T>& p, const Grad& grad, int32_t channels) {
  const double scale = kFixed ? *out.scale : 0.0;
#pragma unroll 1
  for (int32_t c = team.lane * A; c < channels; c += team.size * A) {
    const auto g = load<A>(grad(c));
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (!(p.inside >> i & 1)) continue;
      const T w = p.corner(i) * p.weight;
      T values[A];
#pragma unroll
      for (int a = 0; a < A; ++a) values[a] = w * to_compute(g.at[a]);
      const int64_t at = group.neighbour(p, i) + c;
      if constexpr (kFixed) {
        add_fixed<A>(out.fixed + at, values, scale);
      } else {
        atomic_add<A>(out.sum + at, values);
      }
    }
  }
}

// grad as in point_gradient.
template <int V, typename T, typename Grad>
__device__ void scatter(const Team& team, const GradientSum<T>& out, const ImageGroup& group,
                        const Point<T>& p, const Grad& grad, int32_t channels, bool active) {
  if (!active || !p.inside || !out.sum) return;
  if (out.fixed) {
    scatter_point<1, true>(team, out, group, p, grad, channels);
  } else if (V == 4 && MMDCN_VECTOR_ATOMICS) {
    scatter_point<V, false>(team, out, group, p, grad, channels);
  } else {
    scatter_point<1, false>(team, out, group, p, grad, channels);
  }
}

}  // namespace mmdcn
