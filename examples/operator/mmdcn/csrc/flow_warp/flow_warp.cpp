#include <torch/csrc/stable/library.h>

STABLE_TORCH_LIBRARY_FRAGMENT(mmdcn, m) {
  m.def("flow_warp(Tensor input, Tensor offset, int[] unit) -> Tensor");
  // need_*: whether a gradient is wanted; an unwanted one comes back as an empty tensor.
  // deterministic: gradients must be the same bits in every run (on the CPU they always are).
  m.def(
      "flow_warp_backward(Tensor grad_output, Tensor input, Tensor offset, int[] unit, bool "
      "need_input, "
      "bool need_offset, bool deterministic) -> (Tensor, Tensor)");
}
