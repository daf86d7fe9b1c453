// The mapping to measure against: one thread per channel, as in the original DCNv3. Every thread
// reads its own offsets and weights and computes all coordinates again.
#include "common/base/bilinear.h"
#include "common/cuda/device.cuh"

namespace mmdcn {

struct ScalarParams {
  const Half *input, *offset, *weight;
  Half* output;
  int64_t size;  // of the output
  int height, width, channels, groups, out_h, out_w, kernel, stride;
};

// No padding, no dilation.
__global__ void scalar_dcnv3_kernel(const ScalarParams p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= p.size) return;
  const int channel = i % p.channels, group = channel / (p.channels / p.groups);
  const int64_t pixel = i / p.channels;
  const int x = pixel % p.out_w, y = pixel / p.out_w % p.out_h;
  const int64_t image = pixel / p.out_w / p.out_h;
  const int taps = p.kernel * p.kernel;
  const int64_t first = (pixel * p.groups + group) * taps;
  float sum = 0.0f;
  for (int k = 0; k < taps; ++k) {
    const float at_x = x * p.stride + k / p.kernel + load_value(p.offset + 2 * (first + k));
    const float at_y = y * p.stride + k % p.kernel + load_value(p.offset + 2 * (first + k) + 1);
    const Corners<float> c = bilinear_corners(at_y, at_x, p.height, p.width);
    const auto value = [&](int32_t index) {
      if (index < 0) return 0.0f;
      const int64_t at = (image * p.height * p.width + index) * p.channels + channel;
      return load_value(p.input + at);
    };
    const float sample =
        c.w00 * value(c.i00) + c.w01 * value(c.i01) + c.w10 * value(c.i10) + c.w11 * value(c.i11);
    sum += load_value(p.weight + first + k) * sample;
  }
  store_value(p.output + i, sum);
}

}  // namespace mmdcn

extern "C" __attribute__((visibility("default"))) void scalar_dcnv3(
    const void* input, const void* offset, const void* weight, void* output, int batch, int height,
    int width, int channels, int groups, int out_h, int out_w, int kernel, int stride) {
  using namespace mmdcn;
  ScalarParams p{static_cast<const Half*>(input),
                 static_cast<const Half*>(offset),
                 static_cast<const Half*>(weight),
                 static_cast<Half*>(output),
                 static_cast<int64_t>(batch) * out_h * out_w * channels,
                 height,
                 width,
                 channels,
                 groups,
                 out_h,
                 out_w,
                 kernel,
                 stride};
  void* arguments[] = {&p};
  cudaLaunchKernel(scalar_dcnv3_kernel, dim3(static_cast<unsigned>((p.size + 255) / 256)),
                   dim3(256), arguments, 0, nullptr);
}
