#include "dcnv3/dcnv3.h"

#include "common/aggregation/aggregation_cuda.h"

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CUDA, m) {
  using mmdcn::aggregation::Cuda;
  m.impl("dcnv3", TORCH_BOX(&mmdcn::dcnv3::forward<Cuda>));
  m.impl("dcnv3_backward", TORCH_BOX(&mmdcn::dcnv3::backward<Cuda>));
}
