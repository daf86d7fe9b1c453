#include "dcnv4/dcnv4.h"

#include "common/aggregation/aggregation_cuda.h"

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CUDA, m) {
  using mmdcn::aggregation::Cuda;
  m.impl("dcnv4", TORCH_BOX(&mmdcn::dcnv4::forward<Cuda>));
  m.impl("dcnv4_backward", TORCH_BOX(&mmdcn::dcnv4::backward<Cuda>));
}
