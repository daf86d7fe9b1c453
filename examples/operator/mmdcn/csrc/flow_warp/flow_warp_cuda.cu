#include "common/base/bilinear.h"
#include "common/cuda/gradient_sum.h"
#include "common/cuda/host.h"
#include "common/cuda/sampling.cuh"
#include "flow_warp/flow_warp.h"

namespace mmdcn::flow_warp {

// One thread for each pixel of the output. Pointers to gradients may be null.
template <typename S>
struct Params {
  const S *input, *offset;
  S* output;             // forward
  const S* grad_output;  // backward
  GradientSum<Compute<S>> grad_input;
  S* grad_offset;
  int64_t count, channels;  // of the pixels of all images, and of the channels
  int32_t height, width, unit_y, unit_x;
};

template <typename S>
struct Sample {
  Point<Compute<S>> point;
  int64_t map;     // where the first channel of the pixel's image starts
  int64_t offset;  // where its vertical offset stands
  int32_t pixel;

  __device__ Sample(const Params<S>& p, int64_t item) {
    const int32_t pixels = p.height * p.width;
    const int64_t image = divide(item, pixels, &pixel);
    map = image * p.channels * pixels;
    offset = image * 2 * pixels + pixel;
    int32_t column;
    const auto row = static_cast<Compute<S>>(divide(pixel, p.width, &column));
    point = make_point(
        row + p.unit_y * load_value(p.offset + offset),
        static_cast<Compute<S>>(column) + p.unit_x * load_value(p.offset + offset + pixels),
        Compute<S>(1), p.height, p.width);
  }

  // Calls f(neighbour, position in the map) for each neighbour inside the image.
  template <typename F>
  __device__ void for_neighbours(int32_t width, const F& f) const {
    for (int i = 0; i < 4; ++i) {
      if (point.inside >> i & 1) f(i, point.start + (i >> 1) * width + (i & 1));
    }
  }
};

template <typename S>
__global__ void __launch_bounds__(kBlockThreads) forward_kernel(const Params<S> p) {
  for (Items items(p.count, 0); items.more(); items.advance()) {
    if (!items.exists()) continue;
    const Sample<S> sample(p, items.item());
    for (int64_t c = 0; c < p.channels; ++c) {
      const int64_t first = sample.map + c * p.height * p.width;
      Compute<S> sum = 0;
      sample.for_neighbours(p.width, [&](int i, int32_t at) {
        sum += sample.point.corner(i) * load_value(p.input + first + at);
      });
      store_value(p.output + first + sample.pixel, sum);
    }
  }
}

template <typename S>
__global__ void __launch_bounds__(kBlockThreads) backward_kernel(const Params<S> p) {
  using T = Compute<S>;
  for (Items items(p.count, 0); items.more(); items.advance()) {
    if (!items.exists()) continue;
    const Sample<S> sample(p, items.item());
    T dots[4] = {};
    for (int64_t c = 0; c < p.channels; ++c) {
      const int64_t first = sample.map + c * p.height * p.width;
      const T grad = load_value(p.grad_output + first + sample.pixel);
      sample.for_neighbours(p.width, [&](int i, int32_t at) {
        dots[i] += grad * load_value(p.input + first + at);
        const T part = sample.point.corner(i) * grad;
        if (p.grad_input.fixed) {
          add_fixed<1>(p.grad_input.fixed + first + at, &part, *p.grad_input.scale);
        } else if (p.grad_input.sum) {
          atomic_add<1>(p.grad_input.sum + first + at, &part);
        }
      });
    }
    if (!p.grad_offset) continue;
    const T ly = sample.point.ly, lx = sample.point.lx;
    store_value(p.grad_offset + sample.offset,
                p.unit_y * bilinear_grad_y(lx, dots[0], dots[1], dots[2], dots[3]));
    store_value(p.grad_offset + sample.offset + p.height * p.width,
                p.unit_x * bilinear_grad_x(ly, dots[0], dots[1], dots[2], dots[3]));
  }
}

namespace {

template <typename S>
Params<S> make_params(const Shape& s, const Tensor& input, const Tensor& offset) {
  Params<S> p{};
  p.input = input.const_data_ptr<S>();
  p.offset = offset.const_data_ptr<S>();
  p.count = s.batch * s.pixels();
  p.channels = s.channels;
  p.height = to_int32(s.height);
  p.width = to_int32(s.width);
  p.unit_y = to_int32(s.unit_y);
  p.unit_x = to_int32(s.unit_x);
  return p;
}

Tensor forward(const Tensor& input, const Tensor& offset, std::vector<int64_t> unit) {
  const Shape s = make_shape(input, offset, unit);
  const CudaDevice device(input);
  const Tensor maps = contiguous_tensor(input);
  const Tensor offsets = contiguous_tensor(offset);
  Tensor output = empty_tensor(maps, shape_of(maps));
  dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    Params<S> p = make_params<S>(s, maps, offsets);
    p.output = data_if_any<S>(output);
    device.launch(forward_kernel<S>, p, p.count, 0);
  });
  return output;
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input,
                                    const Tensor& offset, std::vector<int64_t> unit,
                                    bool need_input, bool need_offset, bool deterministic) {
  const Shape s = make_shape(input, offset, unit);
  check_like(grad_output, "grad_output", input, "input");
  check_shape(grad_output, "grad_output", {s.batch, s.channels, s.height, s.width});
  const CudaDevice device(input);
  const Tensor grads = contiguous_tensor(grad_output);
  const Tensor maps = contiguous_tensor(input);
  const Tensor offsets = contiguous_tensor(offset);
  const ScalarType own = input.scalar_type();
  Tensor grad_input = zeros_if(need_input, maps, compute_scalar_type(own));
  Tensor grad_offset = empty_like_if(need_offset, offsets, maps);
  dispatch_floating(own, [&](auto zero) {
    using S = decltype(zero);
    Params<S> p = make_params<S>(s, maps, offsets);
    p.grad_output = grads.const_data_ptr<S>();
    p.grad_offset = data_if_any<S>(grad_offset);
    GradientAccumulator<Compute<S>> sum(device, grad_input, deterministic);
    MaxMagnitudeParams<S> bound{};
    bound.data = p.grad_output;
    bound.pixels = grads.numel();
    bound.pixel_stride = bound.group_stride = bound.groups = bound.size = 1;
    // All pixels of an image may sample the same one.
    sum.run({bound}, s.pixels(), [&](const GradientSum<Compute<S>>& target) {
      p.grad_input = target;
      device.launch(backward_kernel<S>, p, p.count, 0);
    });
  });
  return {cast(grad_input, own), grad_offset};
}

}  // namespace
}  // namespace mmdcn::flow_warp

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CUDA, m) {
  m.impl("flow_warp", TORCH_BOX(&mmdcn::flow_warp::forward));
  m.impl("flow_warp_backward", TORCH_BOX(&mmdcn::flow_warp::backward));
}
