#include "dcnv3/dcnv3.h"

#include "common/aggregation/aggregation_cpu.h"

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  using mmdcn::aggregation::Cpu;
  m.impl("dcnv3", TORCH_BOX(&mmdcn::dcnv3::forward<Cpu>));
  m.impl("dcnv3_backward", TORCH_BOX(&mmdcn::dcnv3::backward<Cpu>));
}
