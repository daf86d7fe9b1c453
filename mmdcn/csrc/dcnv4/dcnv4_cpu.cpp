#include "dcnv4/dcnv4.h"

#include "common/aggregation/aggregation_cpu.h"

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  using mmdcn::aggregation::Cpu;
  m.impl("dcnv4", TORCH_BOX(&mmdcn::dcnv4::forward<Cpu>));
  m.impl("dcnv4_backward", TORCH_BOX(&mmdcn::dcnv4::backward<Cpu>));
}
