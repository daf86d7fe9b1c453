// Work is cut into items (strip of 32 output channels, cell, image). The thread that has an item
// copies its part of the map into channels-last order, pools all RoIs of the image from it, and in
// the backward owns that part of the input's gradient. So there are no atomics, what is sampled
// stays in cache, and results do not depend on the number of threads.
#include "common/roi_pool/roi_pool_cpu.h"

#include "common/cpu/buffer.h"
#include "common/cpu/transpose.h"
#include "common/roi_pool/loops_cpu.h"

namespace mmdcn::roi_pool {
namespace {

// Output channels [channel, channel + size), all of one offset group.
struct Strip {
  int64_t index, channel, size, offset_group;
};

struct Item : Strip {
  int64_t cell, image;
};

template <typename T>
class Items {
 public:
  Items(const Shape& s, const std::vector<Plan<T>>& plans)
      : s_(s),
        group_channels_(s.out_channels / s.offset_groups),
        group_strips_(ceil_div(group_channels_, kStrip)),
        rois_of_(s.batch),
        rows_of_(s.batch, PixelRange{static_cast<int32_t>(s.height), 0}),
        bins_of_(s.offset_groups * s.cells()) {
    for (int64_t r = 0; r < s.rois; ++r) {
      PixelRange& rows = rows_of_[plans[r].image];
      rows.begin = std::min(rows.begin, plans[r].rows.begin);
      rows.end = std::max(rows.end, plans[r].rows.end);
      rois_of_[plans[r].image].push_back(r);
    }
    for (int64_t g = 0; g < s.offset_groups; ++g) {
      for (int64_t b = 0; b < s.bins(); ++b) {
        bins_of_[g * s.cells() + s.cell_of(b)].push_back(static_cast<int32_t>(g * s.bins() + b));
      }
    }
  }

  int64_t strips() const { return s_.offset_groups * group_strips_; }

  Strip strip(int64_t index) const {
    const int64_t group = index / group_strips_, first = index % group_strips_ * kStrip;
    return {index, group * group_channels_ + first, std::min(kStrip, group_channels_ - first),
            group};
  }

  // Shares the items out to threads; each calls start() once and what that returns for each item.
  template <typename Start>
  void for_each(const Start& start) const {
    const auto run = [&](int64_t begin, int64_t end) {
      const auto work = start();
      for (int64_t i = begin; i < end; ++i) {
        work(Item{strip(i / s_.batch / s_.cells()), i / s_.batch % s_.cells(), i % s_.batch});
      }
    };
    parallel_for(0, strips() * s_.cells() * s_.batch, 1, run);
  }

  const std::vector<int64_t>& rois(const Item& item) const { return rois_of_[item.image]; }
  const std::vector<int32_t>& bins(const Item& item) const {
    return bins_of_[item.offset_group * s_.cells() + item.cell];
  }
  // The rows of the image that its RoIs read.
  PixelRange rows(const Item& item) const { return rows_of_[item.image]; }

 private:
  const Shape& s_;
  int64_t group_channels_, group_strips_;
  std::vector<std::vector<int64_t>> rois_of_;
  std::vector<PixelRange> rows_of_;
  std::vector<std::vector<int32_t>> bins_of_;
};

// Copies between a strip of a map in its tensor, channels first or last, and a buffer of
// [pixel][kStrip] for the map's rows [rows.begin, rows.end).
struct StripLayout {
  StripLayout(const Shape& s, bool channels_last)
      : pixel(channels_last ? s.channels() : 1),
        channel(channels_last ? s.cells() : s.cells() * s.pixels()),
        cell(channels_last ? 1 : s.pixels()),
        image(s.channels() * s.pixels()),
        width(s.width),
        pixels(s.pixels()) {}

  int64_t start(const Item& item) const {
    return item.image * image + item.channel * channel + item.cell * cell;
  }

  template <typename S, typename T>
  void load(const Item& item, PixelRange rows, const S* tensor, T* buffer) const {
    const int64_t first = rows.begin * width, count = (rows.end - rows.begin) * width;
    const S* src = tensor + start(item) + first * pixel;
    if (item.size < kStrip) std::fill_n(buffer, count * kStrip, T(0));
    if (pixel == 1) return transpose_block(src, channel, buffer, kStrip, item.size, count);
    for (int64_t i = 0; i < count; ++i) {
      for (int64_t c = 0; c < item.size; ++c) {
        buffer[i * kStrip + c] = convert<T>(src[i * pixel + c * channel]);
      }
    }
  }

  // Zero outside the rows.
  template <typename S, typename T>
  void store(const Item& item, PixelRange rows, const T* buffer, S* tensor) const {
    S* dst = tensor + start(item);
    const int64_t first = rows.begin * width, last = std::max(first, rows.end * width);
    for (int64_t c = 0; c < item.size; ++c) {
      for (int64_t i = 0; i < first; ++i) dst[i * pixel + c * channel] = S(T(0));
      for (int64_t i = last; i < pixels; ++i) dst[i * pixel + c * channel] = S(T(0));
    }
    dst += first * pixel;
    if (pixel == 1) {
      return transpose_block(buffer, kStrip, dst, channel, last - first, item.size);
    }
    for (int64_t i = 0; i < last - first; ++i) {
      for (int64_t c = 0; c < item.size; ++c) {
        dst[i * pixel + c * channel] = convert<S>(buffer[i * kStrip + c]);
      }
    }
  }

  int64_t pixel, channel, cell, image, width, pixels;
};

// Copies a strip of a RoI of the output, [channel][bin], from and to kStrip channels for each bin,
// `ld` elements from bin to bin.
template <typename T, typename S>
void store_bins(const Shape& s, const Strip& strip, const T* values, int64_t ld, S* output) {
  transpose_block(values, ld, output + strip.channel * s.bins(), s.bins(), s.bins(), strip.size);
}

template <typename S, typename T>
void load_bins(const Shape& s, const Strip& strip, const S* output, T* values, int64_t ld) {
  for (int64_t b = 0; strip.size < kStrip && b < s.bins(); ++b) {
    std::fill_n(values + b * ld, kStrip, T(0));
  }
  transpose_block(output + strip.channel * s.bins(), s.bins(), values, ld, strip.size, s.bins());
}

// All of the output as [strip][bin][RoI][kStrip], for position-sensitive pooling: its items have a
// few bins of every RoI, and threads that work on single bins of the output itself would share its
// cache lines.
template <typename T>
class AllBins {
 public:
  AllBins(const Shape& s, const Items<T>& items)
      : used(s.cells() > 1),
        s_(s),
        items_(items),
        data_(make_buffer<T>(used ? items.strips() * s.bins() * s.rois * kStrip : 0)) {}

  T* at(int64_t strip, int64_t bin, int64_t roi) const {
    return data_.get() + ((strip * s_.bins() + bin) * s_.rois + roi) * kStrip;
  }

  // Calls f(strip, position of the RoI in the output, its bin 0 here, distance of bins).
  template <typename F>
  void for_each_roi(const F& f) const {
    parallel_for(0, used ? s_.rois : 0, 8, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        for (int64_t i = 0; i < items_.strips(); ++i) {
          f(items_.strip(i), r * s_.out_channels * s_.bins(), at(i, 0, r), s_.rois * kStrip);
        }
      }
    });
  }

  const bool used;

 private:
  const Shape& s_;
  const Items<T>& items_;
  Buffer<T> data_;
};

template <typename T>
BinList<T> bin_list(const Shape& s, const Plan<T>& plan, const std::vector<int32_t>& bins,
                    PixelRange rows) {
  return {plan.taps.data(), plan.bins.data(), bins.data(), static_cast<int64_t>(bins.size()),
          s.width,          rows.begin};
}

// Sums of [strip][bin][RoI][3] over the strips of an offset group: [RoI][offset group][bin][3].
template <typename T>
std::vector<T> add_strips(const Shape& s, const Items<T>& items, const T* sums) {
  const int64_t bins = s.bins(), size = s.offset_groups * bins * 3;
  std::vector<T> totals(s.rois * size);
  parallel_for(0, s.rois, 8, [&](int64_t begin, int64_t end) {
    for (int64_t strip = 0; strip < items.strips(); ++strip) {
      const int64_t group = items.strip(strip).offset_group;
      for (int64_t b = 0; b < bins; ++b) {
        const T* part = sums + (strip * bins + b) * s.rois * 3;
        for (int64_t r = begin; r < end; ++r) {
          T* total = totals.data() + r * size + (group * bins + b) * 3;
          for (int k = 0; k < 3; ++k) total[k] += part[3 * r + k];
        }
      }
    }
  });
  return totals;
}

// Calls f with a value of the storage type of a tensor that is computed in T.
template <typename T, typename F>
void dispatch_storage(ScalarType type, const F& f) {
  if constexpr (sizeof(T) == 8) {
    f(double{});
  } else {
    dispatch_floating(type, [&](auto zero) {
      if constexpr (sizeof(zero) < 8) f(zero);
    });
  }
}

}  // namespace

template <typename T>
void forward(const Shape& s, const Tensor& input_any, const std::vector<Plan<T>>& plans,
             const Tensor& output) {
  const bool channels_last = is_channels_last(input_any);
  const Tensor input = channels_last ? input_any : contiguous_tensor(input_any);
  const Items<T> items(s, plans);
  const StripLayout layout(s, channels_last);
  const AllBins<T> all_bins(s, items);
  dispatch_storage<T>(input.scalar_type(), [&](auto zero) {
    using S = decltype(zero);
    const S* input_ptr = input.const_data_ptr<S>();
    S* output_ptr = output.mutable_data_ptr<S>();
    items.for_each([&] {
      return [&, image = make_buffer<T>(s.pixels() * kStrip),
              values = make_buffer<T>(s.bins() * kStrip)](const Item& item) {
        const std::vector<int32_t>& bins = items.bins(item);
        const PixelRange rows = items.rows(item);
        if (bins.empty()) return;
        if (rows.begin < rows.end) layout.load(item, rows, input_ptr, image.get());
        for (const int64_t r : items.rois(item)) {
          pool(bin_list(s, plans[r], bins, rows), image.get(), values.get());
          if (!all_bins.used) {
            store_bins(s, item, values.get(), kStrip, output_ptr + r * s.out_channels * s.bins());
            continue;
          }
          for (size_t i = 0; i < bins.size(); ++i) {
            std::copy_n(values.get() + i * kStrip, kStrip,
                        all_bins.at(item.index, bins[i] % s.bins(), r));
          }
        }
      };
    });
    all_bins.for_each_roi([&](const Strip& strip, int64_t at, const T* values, int64_t ld) {
      store_bins(s, strip, values, ld, output_ptr + at);
    });
  });
}

template <typename T>
Gradients<T> backward(const Shape& s, const Tensor& grad_any, const Tensor& input_any,
                      const std::vector<Plan<T>>& plans, bool need_input, bool need_bins) {
  const bool channels_last = is_channels_last(input_any);
  const Tensor input = channels_last ? input_any : contiguous_tensor(input_any);
  const Tensor grad_output = contiguous_tensor(grad_any);
  const ScalarType type = input.scalar_type();
  if (s.rois == 0) {  // which may have any number of bins
    const Tensor zeros =
        need_input ? zero_tensor(input, shape_of(input), type) : empty_tensor(input, {0});
    return {zeros, {}};
  }
  const Items<T> items(s, plans);
  const StripLayout layout(s, channels_last);
  const AllBins<T> all_bins(s, items);

  Gradients<T> grads;
  grads.input = need_input ? empty_image(input, {s.batch, s.channels(), s.height, s.width}, type,
                                         channels_last)
                           : empty_tensor(input, {0});
  // [strip][bin][RoI][3]
  const Buffer<T> sums = make_buffer<T>(need_bins ? items.strips() * s.bins() * s.rois * 3 : 0);

  dispatch_storage<T>(type, [&](auto zero) {
    using S = decltype(zero);
    const S* input_ptr = input.const_data_ptr<S>();
    const S* grad_ptr = grad_output.const_data_ptr<S>();
    S* grad_input_ptr = need_input ? grads.input.template mutable_data_ptr<S>() : nullptr;
    all_bins.for_each_roi([&](const Strip& strip, int64_t at, T* values, int64_t ld) {
      load_bins(s, strip, grad_ptr + at, values, ld);
    });
    items.for_each([&] {
      const int64_t size = s.pixels() * kStrip;
      return [&, image = make_buffer<T>(need_bins ? size : 0),
              grad_image = make_buffer<T>(need_input ? size : 0),
              grad = make_buffer<T>(s.bins() * kStrip),
              bin_sums = make_buffer<T>(s.bins() * 3)](const Item& item) {
        const std::vector<int32_t>& bins = items.bins(item);
        const PixelRange rows = items.rows(item);
        const int64_t pixels = std::max(0, rows.end - rows.begin) * s.width;
        if (need_bins && pixels) layout.load(item, rows, input_ptr, image.get());
        if (need_input) std::fill_n(grad_image.get(), pixels * kStrip, T(0));
        for (const int64_t r : items.rois(item)) {
          const BinList<T> list = bin_list(s, plans[r], bins, rows);
          if (!all_bins.used) {
            load_bins(s, item, grad_ptr + r * s.out_channels * s.bins(), grad.get(), kStrip);
          }
          for (size_t i = 0; all_bins.used && i < bins.size(); ++i) {
            std::copy_n(all_bins.at(item.index, bins[i] % s.bins(), r), kStrip,
                        grad.get() + i * kStrip);
          }
          if (need_bins) {
            contract(list, image.get(), grad.get(), bin_sums.get());
            for (size_t i = 0; i < bins.size(); ++i) {
              const int64_t bin = item.index * s.bins() + bins[i] % s.bins();
              std::copy_n(bin_sums.get() + 3 * i, 3, sums.get() + (bin * s.rois + r) * 3);
            }
          }
          if (need_input) scatter(list, grad.get(), grad_image.get());
        }
        if (need_input) layout.store(item, rows, grad_image.get(), grad_input_ptr);
      };
    });
  });

  if (need_bins) grads.bins = add_strips(s, items, sums.get());
  return grads;
}

#define MMDCN_INSTANTIATE(T)                                                         \
  template void forward<T>(const Shape&, const Tensor&, const std::vector<Plan<T>>&, \
                           const Tensor&);                                           \
  template Gradients<T> backward<T>(const Shape&, const Tensor&, const Tensor&,      \
                                    const std::vector<Plan<T>>&, bool, bool);
MMDCN_INSTANTIATE(float)
MMDCN_INSTANTIATE(double)

}  // namespace mmdcn::roi_pool
