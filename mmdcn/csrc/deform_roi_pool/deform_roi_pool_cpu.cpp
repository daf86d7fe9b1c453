#include "common/roi_pool/roi_pool_cpu.h"
#include "deform_roi_pool/deform_roi_pool.h"
#include "deform_roi_pool/deform_roi_pool_math.h"

namespace mmdcn {
namespace {

template <typename T>
struct Axes {
  Axes(const DeformRoiPoolShape& s, const T* roi)
      : y(deform_roi_axis(roi[2], roi[4], static_cast<T>(s.spatial_scale), s.out_h,
                          s.sampling_ratio, s.height)),
        x(deform_roi_axis(roi[1], roi[3], static_cast<T>(s.spatial_scale), s.out_w,
                          s.sampling_ratio, s.width)),
        finite(is_finite(x.start) && is_finite(y.start) && is_finite(x.size) && is_finite(y.size)) {
  }
  DeformRoiAxis<T> y, x;
  bool finite;
};

// The taps of bin `bin` of an axis.
template <typename T>
void plan_bin(RoiPlan<T>& plan, const DeformRoiAxis<T>& axis, T shift, int64_t bin, int64_t size) {
  const int32_t begin = plan.size();
  for (int32_t k = 0; k < axis.points; ++k) {
    const T position = axis.position(shift, bin, k);
    if (deform_roi_samples(position, size)) {
      plan.add(begin, clamped_sample(position, static_cast<int32_t>(size)));
    }
  }
}

template <typename T>
void plan_roi(const DeformRoiPoolShape& s, const T* roi, const T* offset, const T* mask,
              RoiPlan<T>& plan) {
  const Axes<T> axes(s, roi);
  const T points = static_cast<T>(axes.y.points) * static_cast<T>(axes.x.points);
  const T scale = T(1) / std::max(points, T(1));
  std::vector<int32_t> at{0};  // where the taps of a row, then of a column of bins start
  if (axes.finite && !offset) {
    for (int64_t i = 0; i < s.out_h; ++i) {
      plan_bin(plan, axes.y, T(0), i, s.height);
      at.push_back(plan.size());
    }
    for (int64_t j = 0; j < s.out_w; ++j) {
      plan_bin(plan, axes.x, T(0), j, s.width);
      at.push_back(plan.size());
    }
  }
  const T unit_x = static_cast<T>(s.gamma) * axes.x.size;
  const T unit_y = static_cast<T>(s.gamma) * axes.y.size;
  for (int64_t b = 0; b < s.bins(); ++b) {
    const int64_t i = b / s.out_w, j = b % s.out_w;
    Bin<T> bin{0, 0, 0, 0, scale, mask ? mask[b] : T(1)};
    if (axes.finite && offset) {
      bin.y_begin = plan.size();
      plan_bin(plan, axes.y, unit_y * offset[s.bins() + b], i, s.height);
      bin.y_end = bin.x_begin = plan.size();
      plan_bin(plan, axes.x, unit_x * offset[b], j, s.width);
      bin.x_end = plan.size();
    } else if (axes.finite) {
      bin.y_begin = at[i], bin.y_end = at[i + 1];
      bin.x_begin = at[s.out_h + j], bin.x_end = at[s.out_h + j + 1];
    }
    plan.bins.push_back(bin);
  }
}

template <typename T>
struct Plans {
  Plans(const DeformRoiPoolShape& s, const Tensor& rois_any,
        const std::optional<Tensor>& offset_any, const std::optional<Tensor>& mask_any)
      : rois(compute_copy<T>(rois_any)) {
    std::optional<Tensor> offset, mask;
    if (offset_any) offset = compute_copy<T>(*offset_any);
    if (mask_any) mask = compute_copy<T>(*mask_any);
    const T* roi = rois.template const_data_ptr<T>();
    const T* offset_ptr = data_or_null<T>(offset);
    const T* mask_ptr = data_or_null<T>(mask);
    plans = make_plans<T>(s, roi, [&](int64_t r, RoiPlan<T>& plan) {
      plan_roi(s, roi + 5 * r, offset_ptr ? offset_ptr + r * 2 * s.bins() : nullptr,
               mask_ptr ? mask_ptr + r * s.bins() : nullptr, plan);
    });
  }
  Tensor rois;
  std::vector<RoiPlan<T>> plans;
};

Tensor deform_roi_pool_cpu(const Tensor& input, const Tensor& rois, std::optional<Tensor> offset,
                           std::optional<Tensor> mask, std::vector<int64_t> output_size,
                           double spatial_scale, int64_t sampling_ratio, double gamma) {
  const DeformRoiPoolShape s = deform_roi_pool_shape(input, rois, offset, mask, output_size,
                                                     spatial_scale, sampling_ratio, gamma);
  return dispatch_compute(input.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    return roi_pool_forward<T>(s, input, Plans<T>(s, rois, offset, mask).plans);
  });
}

std::tuple<Tensor, Tensor, Tensor> deform_roi_pool_backward_cpu(
    const Tensor& grad_output, const Tensor& input, const Tensor& rois,
    std::optional<Tensor> offset, std::optional<Tensor> mask, std::vector<int64_t> output_size,
    double spatial_scale, int64_t sampling_ratio, double gamma, bool need_input, bool need_offset,
    bool /*deterministic*/) {
  const DeformRoiPoolShape s = deform_roi_pool_shape(input, rois, offset, mask, output_size,
                                                     spatial_scale, sampling_ratio, gamma);
  check_grad_output(grad_output, s, input);
  const ScalarType own = input.scalar_type();
  return dispatch_compute(own, [&](auto zero) {
    using T = decltype(zero);
    const Plans<T> p(s, rois, offset, mask);
    const RoiPoolGradients<T> grads =
        roi_pool_backward<T>(s, grad_output, input, p.plans, need_input, need_offset);
    const bool for_offset = need_offset && offset, for_mask = need_offset && mask;
    const ScalarType type = compute_scalar_type(own);
    Tensor grad_offset = torch::stable::empty(
        for_offset ? std::vector<int64_t>{s.rois, 2, s.out_h, s.out_w} : std::vector<int64_t>{0},
        type);
    Tensor grad_mask = torch::stable::empty(
        for_mask ? std::vector<int64_t>{s.rois, 1, s.out_h, s.out_w} : std::vector<int64_t>{0},
        type);
    const T* roi = p.rois.template const_data_ptr<T>();
    T* offset_ptr = grad_offset.template mutable_data_ptr<T>();
    T* mask_ptr = grad_mask.template mutable_data_ptr<T>();
    const T* sums = grads.bins.data();
    for (int64_t r = 0; need_offset && r < s.rois; ++r) {
      const Axes<T> axes(s, roi + 5 * r);
      const T unit_x = axes.finite ? static_cast<T>(s.gamma) * axes.x.size : T(0);
      const T unit_y = axes.finite ? static_cast<T>(s.gamma) * axes.y.size : T(0);
      for (int64_t b = 0; b < s.bins(); ++b, sums += 3) {
        const T factor = p.plans[r].bins[b].mask;
        if (for_mask) mask_ptr[r * s.bins() + b] = sums[0];
        if (!for_offset) continue;
        offset_ptr[(2 * r + 1) * s.bins() + b] = unit_y * factor * sums[1];
        offset_ptr[2 * r * s.bins() + b] = unit_x * factor * sums[2];
      }
    }
    return std::make_tuple(grads.input, cast(grad_offset, own), cast(grad_mask, own));
  });
}

}  // namespace
}  // namespace mmdcn

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  m.impl("deform_roi_pool", TORCH_BOX(&mmdcn::deform_roi_pool_cpu));
  m.impl("deform_roi_pool_backward", TORCH_BOX(&mmdcn::deform_roi_pool_backward_cpu));
}
