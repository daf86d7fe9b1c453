#include "deform_ps_roi_pool/deform_ps_roi_pool.h"

#include "common/roi_pool/roi_pool_cpu.h"
#include "deform_ps_roi_pool/deform_ps_roi_pool_math.h"

namespace mmdcn::deform_ps_roi_pool {
namespace {

using roi_pool::Bin;
using roi_pool::is_finite;
using roi_pool::Plan;
using roi_pool::RoiTensors;

template <typename T>
struct Axes {
  Axes(const Shape& s, const T* roi)
      : y(make_axis(roi[2], roi[4], static_cast<T>(s.spatial_scale), s.out_h, s.samples)),
        x(make_axis(roi[1], roi[3], static_cast<T>(s.spatial_scale), s.out_w, s.samples)) {
    const bool finite = roi_pool::roi_is_finite(roi) && is_finite(y.start) && is_finite(x.start) &&
                        is_finite(y.size) && is_finite(x.size);
    samples = finite ? s.samples : 0;
    unit_y = finite ? static_cast<T>(s.trans_std) * y.size : T(0);
    unit_x = finite ? static_cast<T>(s.trans_std) * x.size : T(0);
  }
  Axis<T> y, x;
  T unit_y, unit_x;  // pixels per unit of offset
  int64_t samples;
};

// Adds the taps of bin `bin` of an axis; returns their end, and counts the points in the map.
template <typename T>
int32_t plan_bin(Plan<T>& plan, const Axis<T>& axis, T shift, int64_t bin, int64_t samples,
                 int64_t size, T& kept) {
  const int32_t begin = plan.size();
  kept = 0;
  for (int64_t k = 0; k < samples; ++k) {
    const T position = axis.position(shift, bin, k);
    if (axis.counts(position, size)) {
      plan.add(begin, roi_pool::clamped_sample(position, static_cast<int32_t>(size)));
      kept += T(1);
    }
  }
  return plan.size();
}

template <typename T>
void plan_roi(const Shape& s, const T* roi, const T* offset, const T* mask, Plan<T>& plan) {
  const Axes<T> axes(s, roi);
  for (int64_t g = 0; g < s.offset_groups; ++g) {
    for (int64_t b = 0; b < s.bins(); ++b) {
      const int64_t part = s.part_of(b);
      const T dx = offset ? offset[2 * g * s.parts() + part] : T(0);
      const T dy = offset ? offset[(2 * g + 1) * s.parts() + part] : T(0);
      Bin<T> bin;
      T rows, columns;
      bin.y_begin = plan.size();
      bin.y_end = bin.x_begin =
          plan_bin(plan, axes.y, axes.unit_y * dy, b / s.out_w, axes.samples, s.height, rows);
      bin.x_end =
          plan_bin(plan, axes.x, axes.unit_x * dx, b % s.out_w, axes.samples, s.width, columns);
      bin.scale = rows * columns > 0 ? T(1) / (rows * columns) : T(0);
      bin.mask = mask ? mask[g * s.parts() + part] : T(1);
      plan.bins.push_back(bin);
    }
  }
}

template <typename T>
std::vector<Plan<T>> make_plans(const Shape& s, const RoiTensors<T>& tensors) {
  return roi_pool::make_plans<T>(s, tensors, [&](int64_t r, Plan<T>& plan) {
    plan_roi(s, tensors.roi(r), tensors.offset(r), tensors.mask(r), plan);
  });
}

Tensor forward(const Tensor& input, const Tensor& rois, std::optional<Tensor> offset,
               std::optional<Tensor> mask, std::vector<int64_t> output_size,
               int64_t output_channels, int64_t group_size, std::vector<int64_t> part_size,
               int64_t sample_per_part, double spatial_scale, double trans_std) {
  const Shape s = make_shape(input, rois, offset, mask, output_size, output_channels, group_size,
                             part_size, sample_per_part, spatial_scale, trans_std);
  return roi_pool::dispatch_compute(input.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    return roi_pool::forward<T>(
        s, input, [&] { return make_plans<T>(s, RoiTensors<T>(rois, offset, mask)); });
  });
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input,
                                            const Tensor& rois, std::optional<Tensor> offset,
                                            std::optional<Tensor> mask,
                                            std::vector<int64_t> output_size,
                                            int64_t output_channels, int64_t group_size,
                                            std::vector<int64_t> part_size, int64_t sample_per_part,
                                            double spatial_scale, double trans_std, bool need_input,
                                            bool need_offset, bool /*deterministic*/) {
  const Shape s = make_shape(input, rois, offset, mask, output_size, output_channels, group_size,
                             part_size, sample_per_part, spatial_scale, trans_std);
  roi_pool::check_grad_output(grad_output, s, input);
  const ScalarType own = input.scalar_type(), type = compute_scalar_type(own);
  return roi_pool::dispatch_compute(own, [&](auto zero) {
    using T = decltype(zero);
    const RoiTensors<T> tensors(rois, offset, mask);
    const std::vector<Plan<T>> plans = make_plans<T>(s, tensors);
    const roi_pool::Gradients<T> grads =
        roi_pool::backward<T>(s, grad_output, input, plans, need_input, need_offset);
    const auto zeros = [&](bool wanted, int64_t channels) {
      const std::vector<int64_t> shape{s.rois, channels, s.part_h, s.part_w};
      Tensor grad = torch::stable::empty(wanted ? shape : std::vector<int64_t>{0}, type);
      return torch::stable::zero_(grad);
    };
    const bool for_offset = need_offset && offset, for_mask = need_offset && mask;
    const Tensor grad_offset = zeros(for_offset, 2 * s.offset_groups);
    const Tensor grad_mask = zeros(for_mask, s.offset_groups);
    T* offset_ptr = grad_offset.template mutable_data_ptr<T>();
    T* mask_ptr = grad_mask.template mutable_data_ptr<T>();
    const T* sums = grads.bins.data();
    for (int64_t r = 0; need_offset && r < s.rois; ++r) {
      const Axes<T> axes(s, tensors.roi(r));
      const Bin<T>* bin = plans[r].bins.data();
      for (int64_t g = r * s.offset_groups; g < (r + 1) * s.offset_groups; ++g) {
        for (int64_t b = 0; b < s.bins(); ++b, ++bin, sums += 3) {
          const int64_t part = s.part_of(b);
          if (for_mask) mask_ptr[g * s.parts() + part] += sums[0];
          if (!for_offset) continue;
          offset_ptr[2 * g * s.parts() + part] += axes.unit_x * bin->factor() * sums[2];
          offset_ptr[(2 * g + 1) * s.parts() + part] += axes.unit_y * bin->factor() * sums[1];
        }
      }
    }
    return std::make_tuple(grads.input, cast(grad_offset, own), cast(grad_mask, own));
  });
}

}  // namespace
}  // namespace mmdcn::deform_ps_roi_pool

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  m.impl("deform_ps_roi_pool", TORCH_BOX(&mmdcn::deform_ps_roi_pool::forward));
  m.impl("deform_ps_roi_pool_backward", TORCH_BOX(&mmdcn::deform_ps_roi_pool::backward));
}
