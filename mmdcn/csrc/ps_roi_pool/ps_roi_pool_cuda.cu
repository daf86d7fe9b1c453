#include "common/roi_pool/roi_pool_cuda.h"
#include "ps_roi_pool/ps_roi_pool.h"
#include "ps_roi_pool/ps_roi_pool_math.h"

namespace mmdcn {
namespace {

struct PSRoiPoolPixels {
  template <typename T>
  static __device__ PixelRange range(T begin, T end, T spatial_scale, int64_t bin, int64_t bins,
                                     int64_t map_size) {
    return ps_roi_pool_bin(begin, end, spatial_scale, bin, bins, map_size);
  }
};

template <typename T>
using PSRoiPool = BoxPool<T, PSRoiPoolPixels>;

Tensor ps_roi_pool_cuda(const Tensor& input, const Tensor& rois, std::vector<int64_t> output_size,
                        double spatial_scale) {
  const RoiPoolShape s = ps_roi_pool_shape(input, rois, output_size, spatial_scale);
  return box_pool_cuda<PSRoiPool>(s, input, rois, spatial_scale);
}

Tensor ps_roi_pool_backward_cuda(const Tensor& grad_output, const Tensor& input, const Tensor& rois,
                                 std::vector<int64_t> output_size, double spatial_scale,
                                 bool deterministic) {
  const RoiPoolShape s = ps_roi_pool_shape(input, rois, output_size, spatial_scale);
  return box_pool_backward_cuda<PSRoiPool>(s, grad_output, input, rois, spatial_scale,
                                           deterministic);
}

}  // namespace
}  // namespace mmdcn

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CUDA, m) {
  m.impl("ps_roi_pool", TORCH_BOX(&mmdcn::ps_roi_pool_cuda));
  m.impl("ps_roi_pool_backward", TORCH_BOX(&mmdcn::ps_roi_pool_backward_cuda));
}
