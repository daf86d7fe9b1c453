// Arguments and sizes of position-sensitive RoI pooling, shared by the devices.
#pragma once

#include "common/roi_pool.h"

namespace mmdcn {

// One cell per bin. Raises for every argument that does not fit; the message names it, what was
// expected and got.
RoiPoolShape ps_roi_pool_shape(const Tensor& input, const Tensor& rois,
                               const std::vector<int64_t>& output_size, double spatial_scale);

}  // namespace mmdcn
