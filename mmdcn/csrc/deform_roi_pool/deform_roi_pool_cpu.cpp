#include "deform_roi_pool/deform_roi_pool.h"

#include "common/roi_pool/roi_pool_cpu.h"
#include "deform_roi_pool/deform_roi_pool_math.h"

namespace mmdcn::deform_roi_pool {
namespace {

using roi_pool::is_finite;
using roi_pool::Plan;
using roi_pool::RoiTensors;

template <typename T>
struct Axes {
  Axes(const Shape& s, const T* roi)
      : y(make_axis(roi[2], roi[4], static_cast<T>(s.spatial_scale), s.out_h, s.sampling_ratio,
                    s.height)),
        x(make_axis(roi[1], roi[3], static_cast<T>(s.spatial_scale), s.out_w, s.sampling_ratio,
                    s.width)),
        finite(is_finite(x.start) && is_finite(y.start) && is_finite(x.size) && is_finite(y.size)),
        unit_y(finite ? static_cast<T>(s.gamma) * y.size : T(0)),
        unit_x(finite ? static_cast<T>(s.gamma) * x.size : T(0)) {}
  Axis<T> y, x;
  bool finite;
  T unit_y, unit_x;  // pixels per unit of offset
};

// The taps of bin `bin` of an axis.
template <typename T>
void plan_bin(Plan<T>& plan, const Axis<T>& axis, T shift, int64_t bin, int64_t size) {
  const int32_t begin = plan.size();
  for (int32_t k = 0; k < axis.points; ++k) {
    const T position = axis.position(shift, bin, k);
    if (axis.counts(position, size)) {
      plan.add(begin, roi_pool::clamped_sample(position, static_cast<int32_t>(size)));
    }
  }
}

template <typename T>
void plan_roi(const Shape& s, const T* roi, const T* offset, const T* mask, Plan<T>& plan) {
  const Axes<T> axes(s, roi);
  const T points = static_cast<T>(axes.y.points) * static_cast<T>(axes.x.points);
  const T scale = T(1) / std::max(points, T(1));
  const auto mask_of = [&](int64_t bin) { return mask ? mask[bin] : T(1); };
  const auto add_row = [&](int64_t i, T shift) {
    if (axes.finite) plan_bin(plan, axes.y, shift, i, s.height);
    return plan.size();
  };
  const auto add_column = [&](int64_t j, T shift) {
    if (axes.finite) plan_bin(plan, axes.x, shift, j, s.width);
    return plan.size();
  };
  if (!offset) {
    roi_pool::add_grid(
        s, plan, [&](int64_t i) { add_row(i, T(0)); }, [&](int64_t j) { add_column(j, T(0)); },
        [&](int32_t, int32_t) { return scale; }, mask_of);
    return;
  }
  for (int64_t b = 0; b < s.bins(); ++b) {
    const int32_t begin = plan.size();
    const int32_t middle = add_row(b / s.out_w, axes.unit_y * offset[s.bins() + b]);
    const int32_t end = add_column(b % s.out_w, axes.unit_x * offset[b]);
    plan.bins.push_back({begin, middle, middle, end, scale, mask_of(b)});
  }
}

template <typename T>
std::vector<Plan<T>> make_plans(const Shape& s, const RoiTensors<T>& tensors) {
  return roi_pool::make_plans<T>(s, tensors, [&](int64_t r, Plan<T>& plan) {
    plan_roi(s, tensors.roi(r), tensors.offset(r), tensors.mask(r), plan);
  });
}

Tensor forward(const Tensor& input, const Tensor& rois, std::optional<Tensor> offset,
               std::optional<Tensor> mask, std::vector<int64_t> output_size, double spatial_scale,
               int64_t sampling_ratio, double gamma) {
  const Shape s =
      make_shape(input, rois, offset, mask, output_size, spatial_scale, sampling_ratio, gamma);
  return roi_pool::dispatch_compute(input.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    return roi_pool::forward<T>(
        s, input, [&] { return make_plans<T>(s, RoiTensors<T>(rois, offset, mask)); });
  });
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input,
                                            const Tensor& rois, std::optional<Tensor> offset,
                                            std::optional<Tensor> mask,
                                            std::vector<int64_t> output_size, double spatial_scale,
                                            int64_t sampling_ratio, double gamma, bool need_input,
                                            bool need_offset, bool /*deterministic*/) {
  const Shape s =
      make_shape(input, rois, offset, mask, output_size, spatial_scale, sampling_ratio, gamma);
  roi_pool::check_grad_output(grad_output, s, input);
  const ScalarType own = input.scalar_type(), type = compute_scalar_type(own);
  return roi_pool::dispatch_compute(own, [&](auto zero) {
    using T = decltype(zero);
    const RoiTensors<T> tensors(rois, offset, mask);
    const std::vector<Plan<T>> plans = make_plans<T>(s, tensors);
    const roi_pool::Gradients<T> grads =
        roi_pool::backward<T>(s, grad_output, input, plans, need_input, need_offset);
    const bool for_offset = need_offset && offset, for_mask = need_offset && mask;
    const auto empty = [&](bool wanted, int64_t channels) {
      const std::vector<int64_t> shape{s.rois, channels, s.out_h, s.out_w};
      return torch::stable::empty(wanted ? shape : std::vector<int64_t>{0}, type);
    };
    const Tensor grad_offset = empty(for_offset, 2), grad_mask = empty(for_mask, 1);
    T* offset_ptr = grad_offset.template mutable_data_ptr<T>();
    T* mask_ptr = grad_mask.template mutable_data_ptr<T>();
    const T* sums = grads.bins.data();
    for (int64_t r = 0; need_offset && r < s.rois; ++r) {
      const Axes<T> axes(s, tensors.roi(r));
      for (int64_t b = 0; b < s.bins(); ++b, sums += 3) {
        const T factor = plans[r].bins[b].factor();
        if (for_mask) mask_ptr[r * s.bins() + b] = sums[0];
        if (!for_offset) continue;
        offset_ptr[(2 * r + 1) * s.bins() + b] = axes.unit_y * factor * sums[1];
        offset_ptr[2 * r * s.bins() + b] = axes.unit_x * factor * sums[2];
      }
    }
    return std::make_tuple(grads.input, cast(grad_offset, own), cast(grad_mask, own));
  });
}

}  // namespace
}  // namespace mmdcn::deform_roi_pool

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  m.impl("deform_roi_pool", TORCH_BOX(&mmdcn::deform_roi_pool::forward));
  m.impl("deform_roi_pool_backward", TORCH_BOX(&mmdcn::deform_roi_pool::backward));
}
