#include "roi_avg_pool/roi_avg_pool.h"

#include "common/roi_pool/roi_pool_cuda.h"

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CUDA, m) {
  using mmdcn::roi_avg_pool::Op;
  m.impl("roi_avg_pool", TORCH_BOX(&mmdcn::roi_pool::box_forward<Op>));
  m.impl("roi_avg_pool_backward", TORCH_BOX(&mmdcn::roi_pool::box_backward<Op>));
}
