// The sampling of dcnv3 and dcnv4 on the GPU.
#pragma once

#include "common/cuda/host.h"
#include "common/aggregation/aggregation.h"

namespace mmdcn {

template <typename S>
void dcnv3_forward_cuda(const CudaDevice& device, const DCNv3Shape& s, const S* input,
                        const DCNv3Points<const S>& points, bool softmax, S* output);

// grad_points has the layout of points. grad_input has the dtype of computation; it is zero, or
// empty if it is not needed.
template <typename S>
void dcnv3_backward_cuda(const CudaDevice& device, const DCNv3Shape& s, const S* grad_output,
                         const S* input, const DCNv3Points<const S>& points, bool softmax,
                         const Tensor& grad_input, const DCNv3Points<S>& grad_points,
                         bool deterministic);

}  // namespace mmdcn
