// The host's side of the RoI operators on the GPU: layouts, launches.
#pragma once

#include "common/cuda/gradient_sum.h"
#include "common/roi_pool/roi_pool.h"
#include "common/roi_pool/roi_pool_kernels.cuh"

namespace mmdcn::roi_pool {

inline Grid make_grid(const Shape& s) {
  Grid g;
  g.batch = to_int32(s.batch), g.height = to_int32(s.height), g.width = to_int32(s.width);
  g.out_channels = to_int32(s.out_channels);
  g.out_h = to_int32(s.out_h), g.out_w = to_int32(s.out_w);
  g.group_h = to_int32(s.group_h), g.group_w = to_int32(s.group_w);
  g.offset_groups = to_int32(s.offset_groups);
  g.group_channels = to_int32(s.out_channels / s.offset_groups);
  to_int32(s.channels()), to_int32(s.bins());
  return g;
}

// View of an image tensor as (batch, height, width, cells, channels of a cell).
inline Tensor cells_view(const Tensor& t, const Shape& s) {
  return torch::stable::from_blob(
      t.data_ptr(), {t.size(0), t.size(2), t.size(3), s.cells(), s.out_channels},
      {t.stride(0), t.stride(2), t.stride(3), t.stride(1), t.stride(1) * s.cells()}, t.device(),
      t.scalar_type());
}

// View of a pooled tensor as (rois, height, width, channels).
inline Tensor bins_view(const Tensor& t) {
  return torch::stable::from_blob(t.data_ptr(), {t.size(0), t.size(2), t.size(3), t.size(1)},
                                  {t.stride(0), t.stride(2), t.stride(3), t.stride(1)}, t.device(),
                                  t.scalar_type());
}

// RoIs in the type of computation. Those of an image that does not exist are an error on the
// device, which the host sees later, as an index that is out of range is elsewhere in PyTorch.
template <typename T>
Tensor checked_rois(const CudaDevice& device, const Shape& s, const Tensor& rois) {
  const ScalarType type = sizeof(T) == 8 ? ScalarType::Double : ScalarType::Float;
  const Tensor result = contiguous_tensor(cast(rois, type));
  device.launch(check_kernel<T>,
                CheckParams<T>{result.const_data_ptr<T>(), s.rois, to_int32(s.batch)}, s.rois, 0);
  return result;
}

template <typename S, typename Op>
Tensor forward(const CudaDevice& device, const Shape& s, const Tensor& input, const Tensor& rois,
               const Op& op) {
  const Tensor cells = contiguous_tensor(cells_view(input, s));
  const Tensor pooled = empty_tensor(input, {s.rois, s.out_h, s.out_w, s.out_channels});
  ForwardParams<S, Op> p{make_grid(s), op, cells.const_data_ptr<S>(),
                         rois.const_data_ptr<Compute<S>>(), pooled.mutable_data_ptr<S>()};
  constexpr int kVector = 16 / sizeof(S);
  const int32_t channels = p.grid.group_channels;
  const bool vectors = vectors_fit<S>(kVector, channels, {p.input, p.output});
  p.log_team_size = log_team_size(channels, vectors ? kVector : 1);
  p.chunks = to_int32(team_chunks(channels, vectors ? kVector : 1, p.log_team_size));
  p.items = s.rois * s.bins() * s.offset_groups * p.chunks;
  device.launch(vectors ? forward_kernel<S, kVector, Op> : forward_kernel<S, 1, Op>, p, p.items,
                p.log_team_size);
  Tensor output = empty_tensor(input, {s.rois, s.out_channels, s.out_h, s.out_w});
  Tensor output_bins = bins_view(output);
  torch::stable::copy_(output_bins, pooled);
  return output;
}

// The gradient of the input, empty unless needed. A factor of the bins, with an element for each,
// may be larger than 1; null if there is none.
template <typename S, typename Op>
Tensor backward(const CudaDevice& device, const Shape& s, const Tensor& grad_output,
                const Tensor& input, const Tensor& rois, const Op& op,
                const std::optional<Tensor>& factor, bool need_input, bool need_bins,
                bool deterministic) {
  using T = Compute<S>;
  const Tensor cells = contiguous_tensor(cells_view(input, s));
  const Tensor grad = contiguous_tensor(bins_view(grad_output));
  const Tensor sums = zeros_if(need_input, cells, compute_scalar_type(input.scalar_type()));
  BackwardParams<S, Op> p{make_grid(s), op, grad.const_data_ptr<S>(), cells.const_data_ptr<S>(),
                          rois.const_data_ptr<T>()};
  p.need_bins = need_bins;
  // Vectors as wide as the atomics, which take more time than the loads do.
  constexpr int kVector = 16 / sizeof(T);
  const int32_t channels = p.grid.group_channels;
  const bool vectors = vectors_fit<S>(kVector, channels, {p.input, p.grad_output});
  p.log_team_size = log_team_size(channels, vectors ? kVector : 1);
  p.items = s.rois * s.bins() * s.offset_groups;
  const auto add = [&](const GradientSum<T>& target) {
    p.grad_input = target;
    device.launch(vectors ? backward_kernel<S, kVector, Op> : backward_kernel<S, 1, Op>, p, p.items,
                  p.log_team_size);
  };
  GradientAccumulator<T> accumulator(device, sums, deterministic);
  const auto bound = [](const S* data, int64_t size) {
    return MaxMagnitudeParams<S>{data, size, 1, 0, 1, 1};
  };
  const MaxMagnitudeParams<S> grad_bound = bound(p.grad_output, grad.numel());
  // The weights in a bin add up to 1 at most.
  const int64_t summands = s.rois * s.bins();
  if (factor) {
    accumulator.template run<S>(
        {grad_bound, bound(factor->template const_data_ptr<S>(), factor->numel())}, summands, add);
  } else {
    accumulator.template run<S>({grad_bound}, summands, add);
  }
  if (!need_input) return empty_tensor(input, {0});
  Tensor grad_input = empty_image(input, {s.batch, s.channels(), s.height, s.width},
                                  input.scalar_type(), is_channels_last(input));
  Tensor grad_cells = cells_view(grad_input, s);
  torch::stable::copy_(grad_cells, sums);
  return grad_input;
}

// Samples of whole pixels.
struct PixelAxis {
  int32_t begin, count;

  template <typename T>
  __device__ bool sample(int32_t k, AxisSample<T>* s) const {
    *s = {begin + k, begin + k, T(1), T(0), T(0)};
    return true;
  }
};

// Operators that take the mean over boxes of whole pixels. Op::make_shape checks the arguments,
// Op::range gives the pixels of a bin along one axis.
template <typename T, typename Op>
struct BoxPool {
  T spatial_scale;

  __device__ Bin<T, PixelAxis> bin(const Grid& g, const T* roi, const Site& site) const {
    Bin<T, PixelAxis> bin{{0, 0}, {0, 0}, T(0), T(1)};
    if (!roi_is_finite(roi)) return bin;
    const PixelRange y = Op::range(roi[2], roi[4], spatial_scale, site.row, g.out_h, g.height);
    const PixelRange x = Op::range(roi[1], roi[3], spatial_scale, site.column, g.out_w, g.width);
    bin.y = {y.begin, y.end - y.begin};
    bin.x = {x.begin, x.end - x.begin};
    const T area = static_cast<T>(bin.y.count) * static_cast<T>(bin.x.count);
    if (area > T(0)) bin.scale = T(1) / area;
    return bin;
  }
  __device__ void store(const Grid&, const T*, const Site&, T, T, T) const {}
};

template <typename Op>
Tensor box_forward(const Tensor& input, const Tensor& rois, std::vector<int64_t> output_size,
                   double spatial_scale) {
  const Shape s = Op::make_shape(input, rois, output_size, spatial_scale);
  const CudaDevice device(input);
  return dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    return forward<S>(device, s, input, checked_rois<T>(device, s, rois),
                      BoxPool<T, Op>{static_cast<T>(spatial_scale)});
  });
}

template <typename Op>
Tensor box_backward(const Tensor& grad_output, const Tensor& input, const Tensor& rois,
                    std::vector<int64_t> output_size, double spatial_scale, bool deterministic) {
  const Shape s = Op::make_shape(input, rois, output_size, spatial_scale);
  check_grad_output(grad_output, s, input);
  const CudaDevice device(input);
  return dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    return backward<S>(device, s, grad_output, input, checked_rois<T>(device, s, rois),
                       BoxPool<T, Op>{static_cast<T>(spatial_scale)}, std::nullopt, true, false,
                       deterministic);
  });
}

}  // namespace mmdcn::roi_pool
