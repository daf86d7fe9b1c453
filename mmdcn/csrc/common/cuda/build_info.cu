// What the CUDA library was built with, for `python -m mmdcn.collect_env`.
#include <cuda_runtime.h>
#include <torch/csrc/stable/library.h>

#include <string>

#define MMDCN_TEXT(...) #__VA_ARGS__
#define MMDCN_EXPANDED_TEXT(...) MMDCN_TEXT(__VA_ARGS__)

namespace {

std::string cuda_build() {
#if defined(__CUDACC__)
  return "CUDA " + std::to_string(__CUDACC_VER_MAJOR__) + "." +
         std::to_string(__CUDACC_VER_MINOR__) +
         ", architectures " MMDCN_EXPANDED_TEXT(__CUDA_ARCH_LIST__);
#else
  return "no CUDA";  // emulated
#endif
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(mmdcn, m) { m.def("_cuda_build() -> str"); }

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CompositeExplicitAutograd, m) {
  m.impl("_cuda_build", TORCH_BOX(&cuda_build));
}
