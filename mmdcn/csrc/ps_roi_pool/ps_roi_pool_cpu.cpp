#include "ps_roi_pool/ps_roi_pool.h"

#include "common/roi_pool/roi_pool_cpu.h"

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  using mmdcn::ps_roi_pool::Op;
  m.impl("ps_roi_pool", TORCH_BOX(&mmdcn::roi_pool::box_forward<Op>));
  m.impl("ps_roi_pool_backward", TORCH_BOX(&mmdcn::roi_pool::box_backward<Op>));
}
