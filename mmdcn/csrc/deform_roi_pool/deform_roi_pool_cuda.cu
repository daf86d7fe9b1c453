#include "deform_roi_pool/deform_roi_pool.h"

#include "common/roi_pool/roi_pool_cuda.h"
#include "deform_roi_pool/deform_roi_pool_math.h"

namespace mmdcn::deform_roi_pool {
namespace {

using roi_pool::Grid;
using roi_pool::is_finite;
using roi_pool::Site;

template <typename S, typename T = Compute<S>>
struct Op {
  T spatial_scale, gamma;
  int64_t sampling_ratio;
  const S *offset, *mask;      // may be null
  S *grad_offset, *grad_mask;  // null unless wanted

  using Bin = roi_pool::Bin<T, roi_pool::SampledAxis<T, Axis<T>>>;

  __device__ Bin bin(const Grid& g, const T* roi, const Site& site) const {
    const Axis<T> y = make_axis(roi[2], roi[4], spatial_scale, g.out_h, sampling_ratio, g.height);
    const Axis<T> x = make_axis(roi[1], roi[3], spatial_scale, g.out_w, sampling_ratio, g.width);
    const bool finite =
        is_finite(y.start) && is_finite(x.start) && is_finite(y.size) && is_finite(x.size);
    const T points = static_cast<T>(y.points) * static_cast<T>(x.points);
    const int64_t at = site.roi * g.bins() + site.bin;
    Bin bin{{y, T(0), site.row, finite ? y.points : 0, g.height},
            {x, T(0), site.column, finite ? x.points : 0, g.width},
            T(1) / (points > T(1) ? points : T(1)),
            mask ? load_value(mask + at) : T(1)};
    if (finite && offset) {
      bin.x.shift = gamma * x.size * load_value(offset + at + site.roi * g.bins());
      bin.y.shift = gamma * y.size * load_value(offset + at + (site.roi + 1) * g.bins());
    }
    return bin;
  }

  __device__ void store(const Grid& g, const T* roi, const Site& site, T dy, T dx, T dmask) const {
    const Bin b = bin(g, roi, site);
    const bool finite = is_finite(b.y.axis.start) && is_finite(b.x.axis.start) &&
                        is_finite(b.y.axis.size) && is_finite(b.x.axis.size);
    const int64_t at = site.roi * g.bins() + site.bin;
    if (grad_mask) store_value(grad_mask + at, dmask);
    if (!grad_offset) return;
    const T unit = finite ? gamma * b.mask : T(0);
    store_value(grad_offset + at + site.roi * g.bins(), finite ? unit * b.x.axis.size * dx : T(0));
    store_value(grad_offset + at + (site.roi + 1) * g.bins(),
                finite ? unit * b.y.axis.size * dy : T(0));
  }
};

Tensor forward(const Tensor& input, const Tensor& rois, std::optional<Tensor> offset_any,
               std::optional<Tensor> mask_any, std::vector<int64_t> output_size,
               double spatial_scale, int64_t sampling_ratio, double gamma) {
  const Shape s = make_shape(input, rois, offset_any, mask_any, output_size, spatial_scale,
                             sampling_ratio, gamma);
  const CudaDevice device(input);
  const std::optional<Tensor> offset = contiguous_tensor(offset_any),
                              mask = contiguous_tensor(mask_any);
  return dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const Op<S> op{static_cast<T>(spatial_scale), static_cast<T>(gamma), sampling_ratio,
                   data_or_null<S>(offset), data_or_null<S>(mask)};
    return roi_pool::forward<S>(device, s, input, roi_pool::checked_rois<T>(device, s, rois), op);
  });
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input,
                                            const Tensor& rois, std::optional<Tensor> offset_any,
                                            std::optional<Tensor> mask_any,
                                            std::vector<int64_t> output_size, double spatial_scale,
                                            int64_t sampling_ratio, double gamma, bool need_input,
                                            bool need_offset, bool deterministic) {
  const Shape s = make_shape(input, rois, offset_any, mask_any, output_size, spatial_scale,
                             sampling_ratio, gamma);
  roi_pool::check_grad_output(grad_output, s, input);
  const CudaDevice device(input);
  const std::optional<Tensor> offset = contiguous_tensor(offset_any),
                              mask = contiguous_tensor(mask_any);
  const Tensor grad_offset = empty_like_if(need_offset, offset, input);
  const Tensor grad_mask = empty_like_if(need_offset, mask, input);
  return dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    const Op<S> op{
        static_cast<T>(spatial_scale), static_cast<T>(gamma), sampling_ratio,
        data_or_null<S>(offset),       data_or_null<S>(mask), data_if_any<S>(grad_offset),
        data_if_any<S>(grad_mask)};
    const bool need_bins = op.grad_offset || op.grad_mask;
    const Tensor grad_input = roi_pool::backward<S>(device, s, grad_output, input,
                                                    roi_pool::checked_rois<T>(device, s, rois), op,
                                                    mask, need_input, need_bins, deterministic);
    return std::make_tuple(grad_input, grad_offset, grad_mask);
  });
}

}  // namespace
}  // namespace mmdcn::deform_roi_pool

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CUDA, m) {
  m.impl("deform_roi_pool", TORCH_BOX(&mmdcn::deform_roi_pool::forward));
  m.impl("deform_roi_pool_backward", TORCH_BOX(&mmdcn::deform_roi_pool::backward));
}
