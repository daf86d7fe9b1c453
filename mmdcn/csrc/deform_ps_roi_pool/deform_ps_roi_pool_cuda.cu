#include "deform_ps_roi_pool/deform_ps_roi_pool.h"

#include "common/roi_pool/roi_pool_cuda.h"
#include "deform_ps_roi_pool/deform_ps_roi_pool_math.h"

namespace mmdcn::deform_ps_roi_pool {
namespace {

using roi_pool::Grid;
using roi_pool::is_finite;
using roi_pool::Site;

// Gradients of a bin's offset and mask, in the type of computation.
template <typename T>
struct BinGradient {
  T dx, dy, mask;
};

template <typename S, typename T = Compute<S>>
struct Op {
  T spatial_scale, trans_std;
  int32_t samples, part_h, part_w;
  const S *offset, *mask;     // may be null
  BinGradient<T>* gradients;  // (rois, offset groups, bins), null unless wanted

  using Bin = roi_pool::Bin<T, roi_pool::SampledAxis<T, Axis<T>>>;

  __device__ int32_t parts() const { return part_h * part_w; }
  __device__ int32_t part_of(const Grid& g, const Site& site) const {
    return static_cast<int32_t>(static_cast<int64_t>(site.row) * part_h / g.out_h * part_w +
                                static_cast<int64_t>(site.column) * part_w / g.out_w);
  }

  __device__ Bin bin(const Grid& g, const T* roi, const Site& site) const {
    const Axis<T> y = make_axis(roi[2], roi[4], spatial_scale, g.out_h, samples);
    const Axis<T> x = make_axis(roi[1], roi[3], spatial_scale, g.out_w, samples);
    const bool finite = roi_pool::roi_is_finite(roi) && is_finite(y.start) && is_finite(x.start) &&
                        is_finite(y.size) && is_finite(x.size);
    const int32_t count = finite ? samples : 0;
    Bin bin{
        {y, T(0), site.row, count, g.height}, {x, T(0), site.column, count, g.width}, T(0), T(1)};
    const int64_t group = site.roi * g.offset_groups + site.group;
    const int32_t part = part_of(g, site);
    if (mask) bin.mask = load_value(mask + group * parts() + part);
    if (finite && offset) {
      const S* dx = offset + 2 * group * parts() + part;
      bin.x.shift = trans_std * x.size * load_value(dx);
      bin.y.shift = trans_std * y.size * load_value(dx + parts());
    }
    const T kept = static_cast<T>(bin.y.kept()) * static_cast<T>(bin.x.kept());
    if (kept > T(0)) bin.scale = T(1) / kept;
    return bin;
  }

  __device__ void store(const Grid& g, const T* roi, const Site& site, T dy, T dx, T dmask) const {
    const Bin b = bin(g, roi, site);
    const T unit = trans_std * b.mask;
    BinGradient<T> gradient{T(0), T(0), dmask};
    if (b.x.count > 0) gradient.dx = unit * b.x.axis.size * dx;
    if (b.y.count > 0) gradient.dy = unit * b.y.axis.size * dy;
    gradients[(site.roi * g.offset_groups + site.group) * g.bins() + site.bin] = gradient;
  }
};

// Sums of the gradients of a part's bins.
template <typename S>
struct PartsParams {
  Grid grid;
  Op<S> op;
  S *grad_offset, *grad_mask;  // may be null
  int64_t items;               // rois * offset groups * parts
};

template <typename S>
__global__ void __launch_bounds__(kBlockThreads, kBackwardBlocks<Compute<S>>)
    parts_kernel(const PartsParams<S> p) {
  using T = Compute<S>;
  for (Items items(p.items, 0); items.more(); items.advance()) {
    if (!items.exists()) continue;
    int32_t part;
    const int64_t group = divide(items.item(), p.op.parts(), &part);
    BinGradient<T> total{};
    Site site{};
    for (site.row = 0; site.row < p.grid.out_h; ++site.row) {
      for (site.column = 0; site.column < p.grid.out_w; ++site.column) {
        if (p.op.part_of(p.grid, site) != part) continue;
        const BinGradient<T>& g =
            p.op.gradients[group * p.grid.bins() + site.row * p.grid.out_w + site.column];
        total.dx += g.dx, total.dy += g.dy, total.mask += g.mask;
      }
    }
    if (p.grad_mask) store_value(p.grad_mask + items.item(), total.mask);
    if (!p.grad_offset) continue;
    S* dx = p.grad_offset + 2 * group * p.op.parts() + part;
    store_value(dx, total.dx);
    store_value(dx + p.op.parts(), total.dy);
  }
}

template <typename S, typename T = Compute<S>>
Op<S> make_op(const Shape& s, const std::optional<Tensor>& offset,
              const std::optional<Tensor>& mask) {
  return {static_cast<T>(s.spatial_scale),
          static_cast<T>(s.trans_std),
          to_int32(s.samples),
          to_int32(s.part_h),
          to_int32(s.part_w),
          data_or_null<S>(offset),
          data_or_null<S>(mask)};
}

Tensor forward(const Tensor& input, const Tensor& rois, std::optional<Tensor> offset_any,
               std::optional<Tensor> mask_any, std::vector<int64_t> output_size,
               int64_t output_channels, int64_t group_size, std::vector<int64_t> part_size,
               int64_t sample_per_part, double spatial_scale, double trans_std) {
  const Shape s = make_shape(input, rois, offset_any, mask_any, output_size, output_channels,
                             group_size, part_size, sample_per_part, spatial_scale, trans_std);
  const CudaDevice device(input);
  const std::optional<Tensor> offset = contiguous_tensor(offset_any),
                              mask = contiguous_tensor(mask_any);
  return dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    return roi_pool::forward<S>(device, s, input,
                                roi_pool::checked_rois<Compute<S>>(device, s, rois),
                                make_op<S>(s, offset, mask));
  });
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input,
                                            const Tensor& rois, std::optional<Tensor> offset_any,
                                            std::optional<Tensor> mask_any,
                                            std::vector<int64_t> output_size,
                                            int64_t output_channels, int64_t group_size,
                                            std::vector<int64_t> part_size, int64_t sample_per_part,
                                            double spatial_scale, double trans_std, bool need_input,
                                            bool need_offset, bool deterministic) {
  const Shape s = make_shape(input, rois, offset_any, mask_any, output_size, output_channels,
                             group_size, part_size, sample_per_part, spatial_scale, trans_std);
  roi_pool::check_grad_output(grad_output, s, input);
  const CudaDevice device(input);
  const std::optional<Tensor> offset = contiguous_tensor(offset_any),
                              mask = contiguous_tensor(mask_any);
  const Tensor grad_offset = empty_like_if(need_offset, offset, input);
  const Tensor grad_mask = empty_like_if(need_offset, mask, input);
  return dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    using T = Compute<S>;
    PartsParams<S> p{roi_pool::make_grid(s), make_op<S>(s, offset, mask),
                     data_if_any<S>(grad_offset), data_if_any<S>(grad_mask),
                     s.rois * s.offset_groups * s.parts()};
    const bool need_bins = p.grad_offset || p.grad_mask;
    const Tensor gradients =
        zero_tensor(input, {need_bins ? s.rois * s.offset_groups * s.bins() * 3 : 0},
                    compute_scalar_type(input.scalar_type()));
    if (need_bins) p.op.gradients = static_cast<BinGradient<T>*>(gradients.data_ptr());
    const Tensor grad_input = roi_pool::backward<S>(
        device, s, grad_output, input, roi_pool::checked_rois<T>(device, s, rois), p.op, mask,
        need_input, need_bins, deterministic);
    if (need_bins) device.launch(parts_kernel<S>, p, p.items, 0);
    return std::make_tuple(grad_input, grad_offset, grad_mask);
  });
}

}  // namespace
}  // namespace mmdcn::deform_ps_roi_pool

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CUDA, m) {
  m.impl("deform_ps_roi_pool", TORCH_BOX(&mmdcn::deform_ps_roi_pool::forward));
  m.impl("deform_ps_roi_pool_backward", TORCH_BOX(&mmdcn::deform_ps_roi_pool::backward));
}
