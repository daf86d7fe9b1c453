// Kernels of the RoI operators. A bin of each of them is a weighted sum over the outer product of
// samples along y and along x; an operator says which, in a struct `Op` that the kernels get by
// value. T is the type of computation, `roi` five numbers:
//
//   Bin<T, Axis> bin(const Grid&, const T* roi, const Site&)
//                     the samples, scale and mask of a bin; an Axis has `count` samples, and
//                     bool sample(k, &s) fills in sample k, or returns false if it does not count
//   void store(const Grid&, const T* roi, const Site&, T dy, T dx, T dmask)
//                     takes the gradients of the bin's position, for a mask of 1, and of its mask;
//                     called where the gradients of the bins are needed
//
// A team of threads owns the channels of an offset group in one bin, in the forward a chunk of
// them, and spreads over these channels, which are innermost everywhere.
#pragma once

#include <cassert>

#include "common/cuda/device.cuh"
#include "common/roi_pool/roi_math.h"

namespace mmdcn::roi_pool {

// Input (batch, height, width, cells, channels), output (rois, bins, channels): Shape with the
// channels last.
struct Grid {
  int32_t batch, height, width;
  int32_t out_channels, out_h, out_w, group_h, group_w;
  int32_t offset_groups, group_channels;

  __device__ int32_t bins() const { return out_h * out_w; }
  __device__ int32_t channels() const { return out_channels * group_h * group_w; }
  __device__ int32_t cell_of(int32_t row, int32_t column) const {
    return static_cast<int32_t>(static_cast<int64_t>(row) * group_h / out_h * group_w +
                                static_cast<int64_t>(column) * group_w / out_w);
  }
};

template <typename T, typename Axis>
struct Bin {
  Axis y, x;
  T scale, mask;
};

// The bilinear samples of one bin along an axis that an operator places by Axis::position and
// Axis::counts.
template <typename T, typename Axis>
struct SampledAxis {
  Axis axis;
  T shift;
  int32_t bin, count, map_size;

  __device__ bool sample(int32_t k, AxisSample<T>* s) const {
    const T position = axis.position(shift, bin, k);
    if (!Axis::counts(position, map_size)) return false;
    *s = clamped_sample(position, map_size);
    return true;
  }

  // How many samples count.
  __device__ int32_t kept() const {
    int32_t kept = 0;
    for (int32_t k = 0; k < count; ++k) {
      kept += Axis::counts(axis.position(shift, bin, k), map_size);
    }
    return kept;
  }
};

// The image of a RoI, or -1: the kernels leave out a RoI whose image does not exist.
template <typename T>
__device__ int32_t image_of(const T* roi, int32_t batch) {
  if (!(roi[0] >= T(0) && roi[0] < static_cast<T>(batch))) return -1;
  const int32_t image = static_cast<int32_t>(roi[0]);
  return static_cast<T>(image) == roi[0] ? image : -1;
}

template <typename T>
struct CheckParams {
  const T* rois;
  int64_t count;
  int32_t batch;
};

template <typename T>
__global__ void __launch_bounds__(kBlockThreads) check_kernel(const CheckParams<T> p) {
  for (Items items(p.count, 0); items.more(); items.advance()) {
    const bool batch_index_is_in_range = image_of(p.rois + 5 * items.item(), p.batch) >= 0;
    assert(batch_index_is_in_range);
  }
}

template <typename S, typename Op>
struct ForwardParams {
  Grid grid;
  Op op;
  const S* input;
  const Compute<S>* rois;
  S* output;
  int64_t items;   // rois * bins * offset groups * chunks
  int32_t chunks;  // of the channels of an offset group
  int32_t log_team_size;
};

template <typename S, typename Op>
struct BackwardParams {
  Grid grid;
  Op op;
  const S *grad_output, *input;
  const Compute<S>* rois;
  GradientSum<Compute<S>> grad_input;  // all null when not needed
  bool need_bins;                      // whether the operator wants gradients of the bins
  int64_t items;                       // rois * bins * offset groups
  int32_t log_team_size;
};

// What a team works on.
struct Site {
  int64_t roi;
  int32_t bin, row, column, group;
};

__device__ inline Site make_site(const Grid& g, int64_t item) {
  Site site;
  site.roi = divide(divide(item, g.offset_groups, &site.group), g.bins(), &site.bin);
  site.row = site.bin / g.out_w;
  site.column = site.bin - site.row * g.out_w;
  return site;
}

// The position of a group's first channel, in the input's pixels and in the output.
__device__ inline int32_t first_channel(const Grid& g, const Site& site) {
  return g.cell_of(site.row, site.column) * g.out_channels + site.group * g.group_channels;
}
__device__ inline int64_t output_at(const Grid& g, const Site& site) {
  return (site.roi * g.bins() + site.bin) * g.out_channels + site.group * g.group_channels;
}

// Positions of the four neighbours of a sample: bit 0 is the right, bit 1 the lower one.
template <typename T>
__device__ int64_t neighbour_at(const Grid& g, const AxisSample<T>& y, const AxisSample<T>& x,
                                int i) {
  const int32_t pixel = (i & 2 ? y.hi : y.lo) * g.width + (i & 1 ? x.hi : x.lo);
  return static_cast<int64_t>(pixel) * g.channels();
}

// Calls f(y, x) for the samples of a bin.
template <typename T, typename Axis, typename F>
__device__ void for_each_sample(const Bin<T, Axis>& bin, const F& f) {
  for (int32_t i = 0; i < bin.y.count; ++i) {
    AxisSample<T> y;
    if (!bin.y.sample(i, &y)) continue;
    for (int32_t j = 0; j < bin.x.count; ++j) {
      AxisSample<T> x;
      if (bin.x.sample(j, &x)) f(y, x);
    }
  }
}

template <typename S, int V, typename Op>
__global__ void __launch_bounds__(kBlockThreads, kForwardBlocks<Compute<S>>)
    forward_kernel(const ForwardParams<S, Op> p) {
  using T = Compute<S>;
  const Grid& g = p.grid;
  const Team team(p.log_team_size);
  for (Items items(p.items, p.log_team_size); items.more(); items.advance()) {
    int32_t chunk;
    const Site site = make_site(g, divide(items.item(), p.chunks, &chunk));
    const int32_t channel = (chunk * team.size + team.lane) * V;
    if (!items.exists() || channel >= g.group_channels) continue;
    const T* roi = p.rois + 5 * site.roi;
    const int32_t image = image_of(roi, g.batch);
    T sum[V] = {}, factor = T(0);
    if (image >= 0) {
      const auto bin = p.op.bin(g, roi, site);
      const S* input = p.input + static_cast<int64_t>(image) * g.height * g.width * g.channels() +
                       first_channel(g, site) + channel;
      for_each_sample<T>(bin, [&](const AxisSample<T>& y, const AxisSample<T>& x) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const T w = (i & 2 ? y.weight_hi : y.weight_lo) * (i & 1 ? x.weight_hi : x.weight_lo);
          const Pack<S, V> values = load_if<V>(w != T(0), input + neighbour_at(g, y, x, i));
#pragma unroll
          for (int v = 0; v < V; ++v) sum[v] += w * to_compute(values.at[v]);
        }
      });
      factor = bin.mask * bin.scale;
    }
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] *= factor;
    store<V>(p.output + output_at(g, site) + channel, sum);
  }
}

// Adds the upstream gradient times `factor` to the pixels of a bin, A channels at a time.
template <int A, bool kFixed, typename S, typename T, typename Axis>
__device__ void scatter_bin(const Team& team, const GradientSum<T>& out, const Grid& g,
                            int64_t first, const Bin<T, Axis>& bin, const S* grad) {
  const double scale = kFixed ? *out.scale : 0.0;
  const T factor = bin.mask * bin.scale;
  for (int32_t c = team.lane * A; c < g.group_channels; c += team.size * A) {
    const Pack<S, A> upstream = load<A>(grad + c);
    for_each_sample<T>(bin, [&](const AxisSample<T>& y, const AxisSample<T>& x) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const T w = (i & 2 ? y.weight_hi : y.weight_lo) * (i & 1 ? x.weight_hi : x.weight_lo);
        if (w == T(0)) continue;
        T values[A];
#pragma unroll
        for (int a = 0; a < A; ++a) values[a] = w * factor * to_compute(upstream.at[a]);
        const int64_t at = first + neighbour_at(g, y, x, i) + c;
        if constexpr (kFixed) {
          add_fixed<A>(out.fixed + at, values, scale);
        } else {
          atomic_add<A>(out.sum + at, values);
        }
      }
    });
  }
}

template <typename S, int V, typename Op>
__global__ void __launch_bounds__(kBlockThreads, kBackwardBlocks<Compute<S>>)
    backward_kernel(const BackwardParams<S, Op> p) {
  using T = Compute<S>;
  const Grid& g = p.grid;
  const Team team(p.log_team_size);
  for (Items items(p.items, p.log_team_size); items.more(); items.advance()) {
    const Site site = make_site(g, items.item());
    const T* roi = p.rois + 5 * site.roi;
    const int32_t image = items.exists() ? image_of(roi, g.batch) : -1;
    T dy = T(0), dx = T(0), dmask = T(0);
    if (image >= 0) {
      const auto bin = p.op.bin(g, roi, site);
      const int64_t first =
          static_cast<int64_t>(image) * g.height * g.width * g.channels() + first_channel(g, site);
      const S* grad = p.grad_output + output_at(g, site);
      for (int32_t c = team.lane * V; p.need_bins && c < g.group_channels; c += team.size * V) {
        const Pack<S, V> upstream = load<V>(grad + c);
        for_each_sample<T>(bin, [&](const AxisSample<T>& y, const AxisSample<T>& x) {
          T dots[4] = {};
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const Pack<S, V> values = load<V>(p.input + first + neighbour_at(g, y, x, i) + c);
#pragma unroll
            for (int v = 0; v < V; ++v) {
              dots[i] += to_compute(upstream.at[v]) * to_compute(values.at[v]);
            }
          }
          const T upper = x.weight_lo * dots[0] + x.weight_hi * dots[1];
          const T lower = x.weight_lo * dots[2] + x.weight_hi * dots[3];
          dmask += y.weight_lo * upper + y.weight_hi * lower;
          dy += y.slope * (lower - upper);
          dx += x.slope * (y.weight_lo * (dots[1] - dots[0]) + y.weight_hi * (dots[3] - dots[2]));
        });
      }
      dy *= bin.scale, dx *= bin.scale, dmask *= bin.scale;
      if (p.grad_input.fixed) {
        scatter_bin<1, true>(team, p.grad_input, g, first, bin, grad);
      } else if (p.grad_input.sum && V == 4 && MMDCN_VECTOR_ATOMICS) {
        scatter_bin<V, false>(team, p.grad_input, g, first, bin, grad);
      } else if (p.grad_input.sum) {
        scatter_bin<1, false>(team, p.grad_input, g, first, bin, grad);
      }
    }
    if (!p.need_bins) continue;
    dy = team.sum(dy), dx = team.sum(dx), dmask = team.sum(dmask);
    if (items.exists() && team.lane == 0) p.op.store(g, roi, site, dy, dx, dmask);
  }
}

}  // namespace mmdcn::roi_pool
