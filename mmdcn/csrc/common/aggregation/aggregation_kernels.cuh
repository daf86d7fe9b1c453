// Kernels of dcnv3 and dcnv4. A team of threads owns one group of one output pixel: its threads
// compute a sampling point each, hand the points round, and spread over the channels.
#pragma once

#include "common/cuda/sampling.cuh"

namespace mmdcn::aggregation {

// The sizes of Shape as the kernels need them.
struct Grid : WindowGrid {
  int32_t channels, groups, group_channels, taps;
  double offset_scale;
  bool remove_center, softmax;
};

// Offsets as (dx, dy) pairs and one weight a tap, with the strides of Points.
template <typename S>
struct PointData {
  S *offset, *weight;
  int64_t offset_pixel, offset_group, weight_pixel, weight_group;

  __device__ int64_t offset_at(int64_t pixel, int32_t group) const {
    return pixel * offset_pixel + group * offset_group;
  }
  __device__ int64_t weight_at(int64_t pixel, int32_t group) const {
    return pixel * weight_pixel + group * weight_group;
  }
};

template <typename S>
struct ForwardParams {
  Grid grid;
  const S* input;
  PointData<const S> points;
  S* output;
  int64_t items;   // pixels * groups * chunks
  int32_t chunks;  // of the channels of a group
  int32_t log_team_size;
};

template <typename S>
struct BackwardParams {
  Grid grid;
  const S *grad_output, *input;
  PointData<const S> points;
  GradientSum<Compute<S>> grad_input;  // all null when not needed
  PointData<S> grad_points;
  Compute<S>* grad_softmax;  // room for the weights' gradients; only with softmax
  int64_t items;             // pixels * groups
  int32_t log_team_size;
};

// What a team works on.
template <typename T>
struct Site {
  int64_t pixel;  // over all images
  int64_t image;
  int32_t group;
  T base_y, base_x;
};

template <typename T>
__device__ Site<T> make_site(const Grid& g, int64_t item) {
  Site<T> site;
  int32_t x, y;
  site.pixel = divide(item, g.groups, &site.group);
  site.image = divide(divide(site.pixel, g.out_w, &x), g.out_h, &y);
  site.base_y = static_cast<T>(static_cast<int64_t>(y) * g.stride_h);
  site.base_x = static_cast<T>(static_cast<int64_t>(x) * g.stride_w);
  return site;
}

// Maximum and scale of the softmax over the weights of a group's taps: exp(w - top) * scale.
template <typename T>
struct Softmax {
  T top, scale;
};

template <typename S, typename T = Compute<S>>
__device__ Softmax<T> softmax_of(const Team& team, const S* weight, int32_t taps) {
  T top = load_value(weight);
  for (int32_t k = 1 + team.lane; k < taps; k += team.size) {
    const T w = load_value(weight + k);
    top = w > top ? w : top;
  }
  for (int step = team.size / 2; step > 0; step /= 2) {
    const T other = __shfl_xor_sync(kWholeWarp, top, step);
    top = other > top ? other : top;
  }
  T total = T(0);
  for (int32_t k = team.lane; k < taps; k += team.size) {
    total += exp(load_value(weight + k) - top);
  }
  return {top, T(1) / team.sum(total)};
}

// Tap k of a group: width outer, height inner.
template <typename S, typename T>
__device__ Point<T> point_at(const Grid& g, const Site<T>& site, int32_t k, const S* offset,
                             const S* weight, const Softmax<T>& softmax) {
  const int32_t center = g.kernel_h * g.kernel_w / 2;
  int32_t row;
  const int32_t column =
      static_cast<int32_t>(divide(g.remove_center && k >= center ? k + 1 : k, g.kernel_h, &row));
  const int32_t half_h = g.dilation_h * (g.kernel_h - 1) / 2;
  const int32_t half_w = g.dilation_w * (g.kernel_w - 1) / 2;
  const T scale = static_cast<T>(g.offset_scale);
  const T grid_x = (half_w - g.pad_w) + (column * g.dilation_w - half_w) * scale;
  const T grid_y = (half_h - g.pad_h) + (row * g.dilation_h - half_h) * scale;
  const T x = site.base_x + grid_x + load_value(offset + 2 * k) * scale;
  const T y = site.base_y + grid_y + load_value(offset + 2 * k + 1) * scale;
  T w = load_value(weight + k);
  if (g.softmax) w = exp(w - softmax.top) * softmax.scale;
  return make_point(y, x, w, g.height, g.width);
}

template <typename T>
__device__ ImageGroup image_group(const Grid& g, const Site<T>& site) {
  return {site.image * g.height * g.width * g.channels + site.group * g.group_channels, g.channels,
          g.width};
}

// Position of the first element of a group in the output.
template <typename T>
__device__ int64_t output_at(const Grid& g, const Site<T>& site) {
  return site.pixel * g.channels + site.group * g.group_channels;
}

template <typename S, int V>
__global__ void __launch_bounds__(kBlockThreads, kForwardBlocks<Compute<S>>)
    forward_kernel(const ForwardParams<S> p) {
  using T = Compute<S>;
  const Grid& g = p.grid;
  const Team team(p.log_team_size);
  for (Items items(p.items, p.log_team_size); items.more(); items.advance()) {
    int32_t chunk;
    const Site<T> site = make_site<T>(g, divide(items.item(), p.chunks, &chunk));
    const int32_t channel = (chunk * team.size + team.lane) * V;
    const bool active = items.exists() && channel < g.group_channels;
    const S* offset = p.points.offset + p.points.offset_at(site.pixel, site.group);
    const S* weight = p.points.weight + p.points.weight_at(site.pixel, site.group);
    const Softmax<T> softmax = g.softmax ? softmax_of(team, weight, g.taps) : Softmax<T>{};
    const ImageGroup group = image_group(g, site);
    T sum[V] = {};
    for (int32_t first = 0; first < g.taps; first += team.size) {
      const int32_t count = min(team.size, g.taps - first);
      Point<T> own{};
      if (team.lane < count) {
        own = point_at(g, site, first + team.lane, offset, weight, softmax);
      }
      for (int32_t j = 0; j < count; ++j) {
        add_sample<V>(p.input, group, from(team, own, j), channel, active, sum);
      }
    }
    if (active) store<V>(p.output + output_at(g, site) + channel, sum);
  }
}

template <typename S, int V>
__global__ void __launch_bounds__(kBlockThreads, kBackwardBlocks<Compute<S>>)
    backward_kernel(const BackwardParams<S> p) {
  using T = Compute<S>;
  const Grid& g = p.grid;
  const Team team(p.log_team_size);
  for (Items items(p.items, p.log_team_size); items.more(); items.advance()) {
    const bool exists = items.exists();
    const Site<T> site = make_site<T>(g, items.item());
    // Points and their gradients have the same layout.
    const int64_t offset = p.points.offset_at(site.pixel, site.group);
    const int64_t weight = p.points.weight_at(site.pixel, site.group);
    const Softmax<T> softmax =
        g.softmax ? softmax_of(team, p.points.weight + weight, g.taps) : Softmax<T>{};
    const ImageGroup group = image_group(g, site);
    const S* upstream = p.grad_output + output_at(g, site);
    const auto grad = [upstream](int32_t c) { return upstream + c; };
    T mean = T(0);  // of the weights' gradients, weighted
    for (int32_t first = 0; first < g.taps; first += team.size) {
      const int32_t count = min(team.size, g.taps - first), k = first + team.lane;
      Point<T> own{};
      if (team.lane < count) {
        own = point_at(g, site, k, p.points.offset + offset, p.points.weight + weight, softmax);
      }
      PointGradient<T> result{};
      for (int32_t j = 0; j < count; ++j) {
        const Point<T> point = from(team, own, j);
        const PointGradient<T> part =
            point_gradient<V>(team, p.input, group, point, grad, g.group_channels, exists);
        const PointGradient<T> whole = sum(team, part);
        if (team.lane == j) result = whole;
        scatter<V>(team, p.grad_input, group, point, grad, g.group_channels, exists);
      }
      if (!exists || team.lane >= count) continue;
      const T scale = static_cast<T>(g.offset_scale);
      store_value(p.grad_points.offset + offset + 2 * k, result.x * scale);
      store_value(p.grad_points.offset + offset + 2 * k + 1, result.y * scale);
      if (g.softmax) {
        p.grad_softmax[weight + k] = result.weight;
        mean += own.weight * result.weight;
      } else {
        store_value(p.grad_points.weight + weight + k, result.weight);
      }
    }
    if (!g.softmax) continue;
    mean = team.sum(mean);
    for (int32_t k = team.lane; exists && k < g.taps; k += team.size) {
      const T w = exp(load_value(p.points.weight + weight + k) - softmax.top) * softmax.scale;
      // The other factor was written by this thread, above.
      store_value(p.grad_points.weight + weight + k, w * (p.grad_softmax[weight + k] - mean));
    }
  }
}

}  // namespace mmdcn::aggregation
