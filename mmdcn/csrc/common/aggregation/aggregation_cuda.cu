#include "common/aggregation/aggregation_cuda.h"

#include "common/aggregation/aggregation_kernels.cuh"
#include "common/cuda/gradient_sum.h"
#include "common/cuda/window.h"

namespace mmdcn::aggregation {
namespace {

Grid make_grid(const Shape& s) {
  return {
      window_grid(s),     to_int32(s.channels), to_int32(s.groups), to_int32(s.group_channels()),
      to_int32(s.taps()), s.offset_scale,       s.remove_center,    s.softmax};
}

template <typename S>
PointData<S> point_data(const Points<S>& p) {
  return {p.offset, p.weight, p.offset_pixel, p.offset_group, p.weight_pixel, p.weight_group};
}

int64_t count_teams(const Shape& s) { return s.batch * s.out_pixels() * s.groups; }

}  // namespace

template <typename S>
void Cuda::forward(const Shape& s, const Tensor& input, const Points<const S>& points,
                   const Tensor& output) const {
  ForwardParams<S> p{make_grid(s), input.const_data_ptr<S>(), point_data(points),
                     output.mutable_data_ptr<S>()};
  constexpr int kVector = 16 / sizeof(S);
  const bool vectors = vectors_fit<S>(kVector, s.group_channels(), {p.input, p.output});
  const int64_t vector = vectors ? kVector : 1;
  p.log_team_size = log_team_size(s.group_channels(), vector);
  const int64_t chunks = team_chunks(s.group_channels(), vector, p.log_team_size);
  p.chunks = to_int32(chunks);
  p.items = count_teams(s) * chunks;
  device_.launch(vectors ? forward_kernel<S, kVector> : forward_kernel<S, 1>, p, p.items,
                 p.log_team_size);
}

template <typename S>
Tensor Cuda::backward(const Shape& s, const Tensor& grad_output, const Tensor& input,
                      const Points<const S>& points, const Points<S>& grad_points, bool need_input,
                      bool deterministic) const {
  using T = Compute<S>;
  const ScalarType own = input.scalar_type();
  const Tensor grad_input = zeros_if(need_input, input, compute_scalar_type(own));
  BackwardParams<S> p{make_grid(s), grad_output.const_data_ptr<S>(), input.const_data_ptr<S>(),
                      point_data(points)};
  p.grad_points = point_data(grad_points);
  p.items = count_teams(s);
  Tensor softmax_buffer;
  if constexpr (std::is_same_v<S, T>) {
    p.grad_softmax = grad_points.weight;
  } else if (s.softmax) {
    softmax_buffer = empty_tensor(grad_input, {p.items * s.taps()});
    p.grad_softmax = softmax_buffer.template mutable_data_ptr<T>();
  }
  // Vectors as wide as the atomics, which take more time than the loads do.
  constexpr int kVector = 16 / sizeof(T);
  const bool vectors = vectors_fit<S>(kVector, s.group_channels(), {p.input, p.grad_output});
  p.log_team_size = log_team_size(s.group_channels(), vectors ? kVector : 1);
  const MaxMagnitudeParams<S> grad_bound{
      p.grad_output, s.batch * s.out_pixels(), s.channels, 0, 1, to_int32(s.channels)};
  const MaxMagnitudeParams<S> weight_bound{points.weight,       s.batch * s.out_pixels(),
                                           points.weight_pixel, points.weight_group,
                                           to_int32(s.groups),  to_int32(s.taps())};
  const auto add = [&](const GradientSum<T>& target) {
    p.grad_input = target;
    device_.launch(vectors ? backward_kernel<S, kVector> : backward_kernel<S, 1>, p, p.items,
                   p.log_team_size);
  };
  GradientAccumulator<T> accumulator(device_, grad_input, deterministic);
  const int64_t summands = s.out_pixels() * s.taps();
  if (s.softmax) {  // weights of at most 1
    accumulator.template run<S>({grad_bound}, summands, add);
  } else {
    accumulator.template run<S>({grad_bound, weight_bound}, summands, add);
  }
  return cast(grad_input, own);
}

#define MMDCN_INSTANTIATE(S)                                                          \
  template void Cuda::forward<S>(const Shape&, const Tensor&, const Points<const S>&, \
                                 const Tensor&) const;                                \
  template Tensor Cuda::backward<S>(const Shape&, const Tensor&, const Tensor&,       \
                                    const Points<const S>&, const Points<S>&, bool, bool) const;
MMDCN_INSTANTIATE(double)
MMDCN_INSTANTIATE(float)
MMDCN_INSTANTIATE(BFloat16)
MMDCN_INSTANTIATE(Half)

}  // namespace mmdcn::aggregation
