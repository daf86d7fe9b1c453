#include "common/cuda/gradient_sum.h"

namespace mmdcn {

template <typename S>
void max_magnitude(const CudaDevice& device, const MaxMagnitudeParams<S>& p) {
  device.launch(max_magnitude_kernel<S>, p, p.pixels * p.groups * p.size, 0);
}

template <typename T>
GradientAccumulator<T>::GradientAccumulator(const CudaDevice& device, const Tensor& sum,
                                            bool deterministic)
    : device_(device), sum_(sum) {
  if (!deterministic || sum.numel() == 0) return;
  fixed_ = zero_tensor(sum, {sum.numel()}, ScalarType::Long);
  bounds_ = zero_tensor(sum, {2}, ScalarType::Long);
  scale_ = zero_tensor(sum, {2}, ScalarType::Double);
}

template <typename T>
GradientSum<T> GradientAccumulator<T>::target() const {
  GradientSum<T> target{};
  if (sum_.numel() > 0) target.sum = sum_.template mutable_data_ptr<T>();
  if (!fixed()) return target;
  target.fixed = data(fixed_);
  target.scale = scale_.template const_data_ptr<double>();
  return target;
}

template <typename T>
void GradientAccumulator<T>::set_scale(int32_t bounds, int64_t count) {
  const int32_t log_count = std::bit_width(static_cast<uint64_t>(count));
  device_.launch(fixed_scale_kernel<T>,
                 FixedScaleParams{data(bounds_), bounds, log_count,
                                  scale_.template mutable_data_ptr<double>()},
                 1, 0);
}

template <typename T>
void GradientAccumulator<T>::collect() {
  const GradientSum<T> t = target();
  device_.launch(collect_kernel<T>, CollectParams<T>{t.sum, t.fixed, t.scale, sum_.numel()},
                 sum_.numel(), 0);
}

template class GradientAccumulator<double>;
template class GradientAccumulator<float>;
template void max_magnitude<double>(const CudaDevice&, const MaxMagnitudeParams<double>&);
template void max_magnitude<float>(const CudaDevice&, const MaxMagnitudeParams<float>&);
template void max_magnitude<BFloat16>(const CudaDevice&, const MaxMagnitudeParams<BFloat16>&);
template void max_magnitude<Half>(const CudaDevice&, const MaxMagnitudeParams<Half>&);

}  // namespace mmdcn
