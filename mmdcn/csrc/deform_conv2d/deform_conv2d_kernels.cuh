// Kernels of deformable convolution: sampled columns, and the gradients that follow from those of
// the columns. A team of threads owns one deformable group of one output pixel: its threads compute
// a sampling point each, hand the points round, and spread over the channels.
#pragma once

#include "common/cuda/sampling.cuh"

namespace mmdcn::deform_conv2d {

// The sizes of Shape as the kernels need them.
struct Grid : WindowGrid {
  int32_t channels, deform_groups;
  int32_t group_channels, deform_channels;  // of a group of either kind

  __device__ int32_t taps() const { return kernel_h * kernel_w; }
  // The columns of a pixel: [group][tap][channel of the group].
  __device__ int64_t columns() const { return static_cast<int64_t>(taps()) * channels; }
  __device__ int64_t column(int32_t channel, int32_t tap) const {
    const int32_t group = channel / group_channels;
    return static_cast<int64_t>(group) * taps() * group_channels +
           static_cast<int64_t>(tap) * group_channels + (channel - group * group_channels);
  }
};

template <typename S>
struct ColumnsParams {
  Grid grid;
  const S *input, *offset, *mask;  // mask may be null
  S* columns;
  int64_t first_pixel;  // of the columns, over all images
  int64_t items;        // pixels * deformable groups * chunks
  int32_t chunks;       // of the channels of a deformable group
  int32_t log_team_size;
};

template <typename S>
struct BackwardParams {
  Grid grid;
  const S *grad_columns, *input, *offset, *mask;
  GradientSum<Compute<S>> grad_input;  // all null when not needed
  S *grad_offset, *grad_mask;          // null when not needed
  int64_t first_pixel;
  int64_t items;  // pixels * deformable groups
  int32_t log_team_size;
};

// What a team works on.
template <typename T>
struct Site {
  int64_t column_pixel;  // counted from the first one of the columns
  int64_t image;
  int32_t deform_group;
  int64_t first_plane;  // of the mask, for this image and group
  int64_t pixel;        // of the image
  T base_y, base_x;
};

template <typename T>
__device__ Site<T> make_site(const Grid& g, int64_t first_pixel, int64_t item) {
  Site<T> site;
  int32_t x, y;
  site.column_pixel = divide(item, g.deform_groups, &site.deform_group);
  site.image = divide(divide(first_pixel + site.column_pixel, g.out_w, &x), g.out_h, &y);
  site.base_y = static_cast<T>(static_cast<int64_t>(y) * g.stride_h - g.pad_h);
  site.base_x = static_cast<T>(static_cast<int64_t>(x) * g.stride_w - g.pad_w);
  site.first_plane = (site.image * g.deform_groups + site.deform_group) * g.taps();
  site.pixel = static_cast<int64_t>(y) * g.out_w + x;
  return site;
}

// Positions of tap k in the tensors of masks and of vertical offsets; a horizontal offset stands a
// plane further on.
struct Tap {
  int64_t plane_size, mask, offset;

  template <typename T>
  __device__ Tap(const Grid& g, const Site<T>& site, int32_t k)
      : plane_size(static_cast<int64_t>(g.out_h) * g.out_w),
        mask((site.first_plane + k) * plane_size + site.pixel),
        offset(2 * (site.first_plane + k) * plane_size + site.pixel) {}
};

template <typename S, typename T>
__device__ Point<T> point_at(const Grid& g, const Site<T>& site, int32_t k, const S* offset,
                             const S* mask) {
  const Tap tap(g, site, k);
  const int32_t row = k / g.kernel_w, column = k - row * g.kernel_w;
  const T y = site.base_y + static_cast<T>(row * g.dilation_h) + load_value(offset + tap.offset);
  const T x = site.base_x + static_cast<T>(column * g.dilation_w) +
              load_value(offset + tap.offset + tap.plane_size);
  return make_point(y, x, mask ? load_value(mask + tap.mask) : T(1), g.height, g.width);
}

template <typename T>
__device__ ImageGroup image_group(const Grid& g, const Site<T>& site) {
  return {site.image * g.height * g.width * g.channels + site.deform_group * g.deform_channels,
          g.channels, g.width};
}

template <typename S, int V>
__global__ void __launch_bounds__(kBlockThreads, kForwardBlocks<Compute<S>>)
    columns_kernel(const ColumnsParams<S> p) {
  using T = Compute<S>;
  const Grid& g = p.grid;
  const Team team(p.log_team_size);
  for (Items items(p.items, p.log_team_size); items.more(); items.advance()) {
    int32_t chunk;
    const Site<T> site = make_site<T>(g, p.first_pixel, divide(items.item(), p.chunks, &chunk));
    const int32_t channel = (chunk * team.size + team.lane) * V;
    const bool active = items.exists() && channel < g.deform_channels;
    const ImageGroup group = image_group(g, site);
    S* columns = p.columns + site.column_pixel * g.columns() +
                 g.column(site.deform_group * g.deform_channels + channel, 0);
    for (int32_t first = 0; first < g.taps(); first += team.size) {
      const int32_t count = min(team.size, g.taps() - first);
      Point<T> own{};
      if (team.lane < count) {
        own = point_at(g, site, first + team.lane, p.offset, p.mask);
      }
      for (int32_t j = 0; j < count; ++j) {
        T sum[V] = {};
        add_sample<V>(p.input, group, from(team, own, j), channel, active, sum);
        if (active) store<V>(columns, sum);
        columns += g.group_channels;
      }
    }
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
    const Site<T> site = make_site<T>(g, p.first_pixel, items.item());
    const ImageGroup group = image_group(g, site);
    const S* grad_columns = p.grad_columns + site.column_pixel * g.columns();
    for (int32_t first = 0; first < g.taps(); first += team.size) {
      const int32_t count = min(team.size, g.taps() - first), k = first + team.lane;
      Point<T> own{};
      if (team.lane < count) own = point_at(g, site, k, p.offset, p.mask);
      PointGradient<T> result{};
      for (int32_t j = 0; j < count; ++j) {
        const Point<T> point = from(team, own, j);
        const auto grad = [&](int32_t c) {
          return grad_columns + g.column(site.deform_group * g.deform_channels + c, first + j);
        };
        if (p.grad_offset) {
          const PointGradient<T> part =
              point_gradient<V>(team, p.input, group, point, grad, g.deform_channels, exists);
          const PointGradient<T> whole = sum(team, part);
          if (team.lane == j) result = whole;
        }
        scatter<V>(team, p.grad_input, group, point, grad, g.deform_channels, exists);
      }
      if (!exists || team.lane >= count || !p.grad_offset) continue;
      const Tap tap(g, site, k);
      store_value(p.grad_offset + tap.offset, result.y);
      store_value(p.grad_offset + tap.offset + tap.plane_size, result.x);
      if (p.grad_mask) store_value(p.grad_mask + tap.mask, result.weight);
    }
  }
}

// sum += part.
template <typename S>
struct AccumulateParams {
  Compute<S>* sum;
  const S* part;
  int64_t count;
};

template <typename S>
__global__ void __launch_bounds__(kBlockThreads) accumulate_kernel(const AccumulateParams<S> p) {
  for (Items items(p.count, 0); items.more(); items.advance()) {
    if (items.exists()) p.sum[items.item()] += load_value(p.part + items.item());
  }
}

}  // namespace mmdcn::deform_conv2d
