#include "common/roi_pool/roi_pool_cpu.h"
#include "ps_roi_pool/ps_roi_pool.h"
#include "ps_roi_pool/ps_roi_pool_math.h"

namespace mmdcn {
namespace {

template <typename T>
std::vector<RoiPlan<T>> make_plans(const RoiPoolShape& s, const Tensor& rois,
                                   double spatial_scale) {
  return make_box_plans<T>(s, rois, [&](T begin, T end, int64_t bin, int64_t bins, int64_t size) {
    return ps_roi_pool_bin(begin, end, static_cast<T>(spatial_scale), bin, bins, size);
  });
}

Tensor ps_roi_pool_cpu(const Tensor& input, const Tensor& rois, std::vector<int64_t> output_size,
                       double spatial_scale) {
  const RoiPoolShape s = ps_roi_pool_shape(input, rois, output_size, spatial_scale);
  return dispatch_compute(input.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    return roi_pool_forward<T>(s, input, make_plans<T>(s, rois, spatial_scale));
  });
}

Tensor ps_roi_pool_backward_cpu(const Tensor& grad_output, const Tensor& input, const Tensor& rois,
                                std::vector<int64_t> output_size, double spatial_scale,
                                bool /*deterministic*/) {
  const RoiPoolShape s = ps_roi_pool_shape(input, rois, output_size, spatial_scale);
  check_grad_output(grad_output, s, input);
  return dispatch_compute(input.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const auto plans = make_plans<T>(s, rois, spatial_scale);
    return roi_pool_backward<T>(s, grad_output, input, plans, true, false).input;
  });
}

}  // namespace
}  // namespace mmdcn

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  m.impl("ps_roi_pool", TORCH_BOX(&mmdcn::ps_roi_pool_cpu));
  m.impl("ps_roi_pool_backward", TORCH_BOX(&mmdcn::ps_roi_pool_backward_cpu));
}
