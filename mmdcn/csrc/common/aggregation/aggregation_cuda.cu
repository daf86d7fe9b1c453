#include "common/cuda/gradient_sum.h"
#include "common/aggregation/aggregation_cuda.h"
#include "common/aggregation/aggregation_kernels.cuh"

namespace mmdcn {
namespace {

DCNv3Grid make_grid(const DCNv3Shape& s, bool softmax) {
  DCNv3Grid g;
  g.height = to_int32(s.height), g.width = to_int32(s.width);
  g.channels = to_int32(s.channels);
  g.out_h = to_int32(s.out_h), g.out_w = to_int32(s.out_w);
  g.kernel_h = to_int32(s.kernel_h), g.kernel_w = to_int32(s.kernel_w);
  g.stride_h = to_int32(s.stride_h), g.stride_w = to_int32(s.stride_w);
  g.pad_h = to_int32(s.pad_h), g.pad_w = to_int32(s.pad_w);
  g.dilation_h = to_int32(s.dilation_h), g.dilation_w = to_int32(s.dilation_w);
  // The kernels place taps in 32 bits.
  to_int32(s.dilation_h * (s.kernel_h - 1)), to_int32(s.dilation_w * (s.kernel_w - 1));
  g.groups = to_int32(s.groups), g.group_channels = to_int32(s.group_channels());
  g.taps = to_int32(s.taps());
  g.offset_scale = s.offset_scale;
  g.remove_center = s.remove_center, g.softmax = softmax;
  return g;
}

template <typename S>
DCNv3PointData<S> point_data(const DCNv3Points<S>& p) {
  return {p.offset, p.weight, p.offset_pixel, p.offset_group, p.weight_pixel, p.weight_group};
}

int64_t count_teams(const DCNv3Shape& s) { return s.batch * s.out_pixels() * s.groups; }

}  // namespace

template <typename S>
void dcnv3_forward_cuda(const CudaDevice& device, const DCNv3Shape& s, const S* input,
                        const DCNv3Points<const S>& points, bool softmax, S* output) {
  DCNv3ForwardParams<S> p{make_grid(s, softmax), input, point_data(points), output};
  constexpr int kVector = 16 / sizeof(S);
  const bool vectors = vectors_fit<S>(kVector, s.group_channels(), {input, output});
  const int64_t vector = vectors ? kVector : 1;
  p.log_team_size = log_team_size(s.group_channels(), vector);
  const int64_t chunks = team_chunks(s.group_channels(), vector, p.log_team_size);
  p.chunks = to_int32(chunks);
  p.items = count_teams(s) * chunks;
  device.launch(vectors ? dcnv3_forward_kernel<S, kVector> : dcnv3_forward_kernel<S, 1>, p, p.items,
                p.log_team_size);
}

template <typename S>
void dcnv3_backward_cuda(const CudaDevice& device, const DCNv3Shape& s, const S* grad_output,
                         const S* input, const DCNv3Points<const S>& points, bool softmax,
                         const Tensor& grad_input, const DCNv3Points<S>& grad_points,
                         bool deterministic) {
  using T = Compute<S>;
  DCNv3BackwardParams<S> p{make_grid(s, softmax), grad_output, input, point_data(points)};
  p.grad_points = point_data(grad_points);
  p.items = count_teams(s);
  Tensor softmax_buffer;
  if constexpr (std::is_same_v<S, T>) {
    p.grad_softmax = grad_points.weight;
  } else if (softmax) {
    softmax_buffer = torch::stable::new_empty(grad_input, {p.items * s.taps()});
    p.grad_softmax = softmax_buffer.template mutable_data_ptr<T>();
  }
  // Vectors as wide as the atomics, which take more time than the loads do.
  constexpr int kVector = 16 / sizeof(T);
  const bool vectors = vectors_fit<S>(kVector, s.group_channels(), {input, grad_output});
  p.log_team_size = log_team_size(s.group_channels(), vectors ? kVector : 1);
  const MaxMagnitudeParams<S> grad_bound{grad_output, s.batch * s.out_pixels(), s.channels, 0,
                                         1,           to_int32(s.channels)};
  const MaxMagnitudeParams<S> weight_bound{points.weight,       s.batch * s.out_pixels(),
                                           points.weight_pixel, points.weight_group,
                                           to_int32(s.groups),  to_int32(s.taps())};
  const auto add = [&](const GradientSum<T>& target) {
    p.grad_input = target;
    device.launch(vectors ? dcnv3_backward_kernel<S, kVector> : dcnv3_backward_kernel<S, 1>, p,
                  p.items, p.log_team_size);
  };
  GradientAccumulator<T> accumulator(device, grad_input, deterministic);
  const int64_t summands = s.out_pixels() * s.taps();
  if (softmax) {  // weights of at most 1
    accumulator.template run<S>({grad_bound}, summands, add);
  } else {
    accumulator.template run<S>({grad_bound, weight_bound}, summands, add);
  }
}

#define MMDCN_INSTANTIATE(S)                                                                     \
  template void dcnv3_forward_cuda<S>(const CudaDevice&, const DCNv3Shape&, const S*,            \
                                      const DCNv3Points<const S>&, bool, S*);                    \
  template void dcnv3_backward_cuda<S>(const CudaDevice&, const DCNv3Shape&, const S*, const S*, \
                                       const DCNv3Points<const S>&, bool, const Tensor&,         \
                                       const DCNv3Points<S>&, bool);

MMDCN_INSTANTIATE(double)
MMDCN_INSTANTIATE(float)
MMDCN_INSTANTIATE(BFloat16)
MMDCN_INSTANTIATE(Half)

}  // namespace mmdcn
