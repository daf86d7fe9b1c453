#include "common/base/bilinear.h"
#include "common/base/dtypes.h"
#include "common/cpu/threads.h"
#include "flow_warp/flow_warp.h"

namespace mmdcn::flow_warp {
namespace {

// The neighbours of the sample of pixel p, whose offset stands at offset[p] and offset[pixels + p].
template <typename S>
Corners<Compute<S>> corners_of(const Shape& s, const S* offset, int64_t p) {
  using T = Compute<S>;
  const T y = static_cast<T>(p / s.width) + static_cast<T>(s.unit_y) * to_compute(offset[p]);
  const T x =
      static_cast<T>(p % s.width) + static_cast<T>(s.unit_x) * to_compute(offset[s.pixels() + p]);
  return bilinear_corners(y, x, static_cast<int32_t>(s.height), static_cast<int32_t>(s.width));
}

// Calls f(index, weight) for each neighbour inside the image.
template <typename T, typename F>
void for_neighbours(const Corners<T>& c, const F& f) {
  if (c.i00 >= 0) f(c.i00, c.w00);
  if (c.i01 >= 0) f(c.i01, c.w01);
  if (c.i10 >= 0) f(c.i10, c.w10);
  if (c.i11 >= 0) f(c.i11, c.w11);
}

template <typename S>
void forward_image(const Shape& s, const S* input, const S* offset, S* output) {
  for (int64_t p = 0; p < s.pixels(); ++p) {
    const Corners<Compute<S>> corners = corners_of(s, offset, p);
    for (int64_t c = 0; c < s.channels; ++c) {
      const S* map = input + c * s.pixels();
      Compute<S> sum = 0;
      for_neighbours(corners, [&](int32_t i, auto weight) { sum += weight * to_compute(map[i]); });
      output[c * s.pixels() + p] = from_compute<S>(sum);
    }
  }
}

// grad_input (zeros at the start) and grad_offset may be null. One image, so that each thread owns
// what it adds to.
template <typename S>
void backward_image(const Shape& s, const S* grad_output, const S* input, const S* offset,
                    Compute<S>* grad_input, S* grad_offset) {
  using T = Compute<S>;
  const auto value = [](const S* map, int32_t i) { return i >= 0 ? to_compute(map[i]) : T(0); };
  for (int64_t p = 0; p < s.pixels(); ++p) {
    const Corners<T> corners = corners_of(s, offset, p);
    T dots[4] = {};
    for (int64_t c = 0; c < s.channels; ++c) {
      const int64_t first = c * s.pixels();
      const T grad = to_compute(grad_output[first + p]);
      if (grad_input) {
        for_neighbours(corners,
                       [&](int32_t i, T weight) { grad_input[first + i] += weight * grad; });
      }
      dots[0] += grad * value(input + first, corners.i00);
      dots[1] += grad * value(input + first, corners.i01);
      dots[2] += grad * value(input + first, corners.i10);
      dots[3] += grad * value(input + first, corners.i11);
    }
    if (!grad_offset) continue;
    const T y = bilinear_grad_y(corners.lx, dots[0], dots[1], dots[2], dots[3]);
    const T x = bilinear_grad_x(corners.ly, dots[0], dots[1], dots[2], dots[3]);
    grad_offset[p] = from_compute<S>(static_cast<T>(s.unit_y) * y);
    grad_offset[s.pixels() + p] = from_compute<S>(static_cast<T>(s.unit_x) * x);
  }
}

Tensor forward(const Tensor& input, const Tensor& offset, std::vector<int64_t> unit) {
  const Shape s = make_shape(input, offset, unit);
  const Tensor maps = contiguous_tensor(input);
  const Tensor offsets = contiguous_tensor(offset);
  Tensor output = empty_tensor(maps, shape_of(maps));
  dispatch_floating(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    parallel_items(s.batch, [&](int64_t n) {
      const int64_t first = n * s.channels * s.pixels();
      forward_image(s, maps.const_data_ptr<S>() + first,
                    offsets.const_data_ptr<S>() + n * 2 * s.pixels(),
                    output.mutable_data_ptr<S>() + first);
    });
  });
  return output;
}

std::tuple<Tensor, Tensor> backward(const Tensor& grad_output, const Tensor& input,
                                    const Tensor& offset, std::vector<int64_t> unit,
                                    bool need_input, bool need_offset, bool /*deterministic*/) {
  const Shape s = make_shape(input, offset, unit);
  check_like(grad_output, "grad_output", input, "input");
  check_shape(grad_output, "grad_output", {s.batch, s.channels, s.height, s.width});
  const Tensor grads = contiguous_tensor(grad_output);
  const Tensor maps = contiguous_tensor(input);
  const Tensor offsets = contiguous_tensor(offset);
  const ScalarType own = input.scalar_type();
  // Many points may add to a pixel, so the sums are kept in the type of computation.
  Tensor grad_input = need_input ? zero_tensor(maps, shape_of(maps), compute_scalar_type(own))
                                 : empty_tensor(maps, {0}, compute_scalar_type(own));
  Tensor grad_offset =
      need_offset ? empty_tensor(offsets, shape_of(offsets)) : empty_tensor(offsets, {0});
  dispatch_floating(own, [&](auto zero) {
    using S = decltype(zero);
    parallel_items(s.batch, [&](int64_t n) {
      const int64_t first = n * s.channels * s.pixels(), first_offset = n * 2 * s.pixels();
      backward_image(s, grads.const_data_ptr<S>() + first, maps.const_data_ptr<S>() + first,
                     offsets.const_data_ptr<S>() + first_offset,
                     need_input ? grad_input.mutable_data_ptr<Compute<S>>() + first : nullptr,
                     need_offset ? grad_offset.mutable_data_ptr<S>() + first_offset : nullptr);
    });
  });
  return {cast(grad_input, own), grad_offset};
}

}  // namespace
}  // namespace mmdcn::flow_warp

STABLE_TORCH_LIBRARY_IMPL(mmdcn, CPU, m) {
  m.impl("flow_warp", TORCH_BOX(&mmdcn::flow_warp::forward));
  m.impl("flow_warp_backward", TORCH_BOX(&mmdcn::flow_warp::backward));
}
