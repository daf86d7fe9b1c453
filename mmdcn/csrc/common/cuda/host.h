// The host's side of the kernels: device, stream, launches, buffers.
#pragma once

#include <cuda_runtime.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/macros.h>

#include <algorithm>
#include <bit>

#include "common/base/tensor.h"
#include "common/cuda/device.cuh"

namespace mmdcn {

// While it lives, the device of a tensor is the current one; work goes to its current stream.
class CudaDevice {
 public:
  explicit CudaDevice(const Tensor& tensor) : guard_(tensor.get_device_index()) {
    void* stream = nullptr;
    STABLE_TORCH_ERROR_CODE_CHECK(
        aoti_torch_get_current_cuda_stream(tensor.get_device_index(), &stream));
    stream_ = static_cast<cudaStream_t>(stream);
  }

  // Enough blocks for `items` teams; the kernels go round the items with any number of blocks.
  template <typename P>
  void launch(void (*kernel)(P), P params, int64_t items, int log_team_size) const {
    if (items == 0) return;
    constexpr int64_t kMaxBlocks = 1 << 20;
    const int64_t teams = kBlockThreads >> log_team_size;
    const int64_t blocks = std::min((items + teams - 1) / teams, kMaxBlocks);
    void* arguments[] = {&params};
    // CUDA 12 takes a pointer to const, from which it cannot deduce the type of a function.
    STD_CUDA_CHECK(cudaLaunchKernel<void(P)>(kernel, dim3(static_cast<unsigned>(blocks)),
                                             dim3(kBlockThreads), arguments, 0, stream_));
  }

 private:
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};

// Kernels hold the sizes of single axes in 32 bits.
inline int32_t to_int32(int64_t size) {
  MMDCN_CHECK(size >= INT32_MIN && size <= INT32_MAX,
              "sizes and options: expected numbers below 2^31, got ", size);
  return static_cast<int32_t>(size);
}

// The data of a tensor, null when it is empty.
template <typename T>
T* data_if_any(const Tensor& tensor) {
  return tensor.numel() > 0 ? tensor.mutable_data_ptr<T>() : nullptr;
}

// Zeros with the sizes of `like`, or an empty tensor.
inline Tensor zeros_if(bool needed, const Tensor& like, ScalarType type) {
  return needed ? zero_tensor(like, shape_of(like), type) : empty_tensor(like, {0}, type);
}

// A tensor like an optional one if that is there and a result is needed, else an empty one of the
// dtype and device of `other`.
inline Tensor empty_like_if(bool needed, const std::optional<Tensor>& like, const Tensor& other) {
  return needed && like ? empty_tensor(*like, shape_of(*like)) : empty_tensor(other, {0});
}

// Threads for `channels` in vectors of V, at most a warp.
inline int log_team_size(int64_t channels, int64_t vector) {
  const int64_t threads = std::min<int64_t>((channels + vector - 1) / vector, kWarpThreads);
  return std::bit_width(static_cast<uint64_t>(threads) - 1);
}

inline int64_t team_chunks(int64_t channels, int64_t vector, int log_team_size) {
  const int64_t channels_at_once = vector << log_team_size;
  return (channels + channels_at_once - 1) / channels_at_once;
}

// Whether accesses of V elements to rows of `divisor` elements each are aligned.
template <typename S>
bool vectors_fit(int64_t vector, int64_t divisor, std::initializer_list<const void*> addresses) {
  bool aligned = divisor % vector == 0;
  for (const void* address : addresses) {
    aligned = aligned && reinterpret_cast<uintptr_t>(address) % (vector * sizeof(S)) == 0;
  }
  return aligned;
}

}  // namespace mmdcn
