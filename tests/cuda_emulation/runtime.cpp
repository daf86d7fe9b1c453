// Fibers, scheduling and statistics of the emulated device (see include/cuda_runtime.h).
#include <cuda_runtime.h>
#include <cxxabi.h>
#include <dlfcn.h>
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sys/mman.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cpu.h>
#include <torch/csrc/inductor/aoti_torch/generated/c_shim_cuda.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <tuple>
#include <vector>

#if !defined(__x86_64__)
#error "the switch between fibers is written for x86-64"
#endif

// Saves the registers that a call must preserve on the stack, and continues on another stack.
extern "C" void emulation_switch(void** save, void* load);
asm(R"(
.text
.globl emulation_switch
.hidden emulation_switch
emulation_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
)");

namespace emulation {

Thread* thread;
dim3 block_index{0}, block_size{1}, grid_size{1};
bool recording, vector_atomics;

namespace {

constexpr int kWarp = 32;
constexpr size_t kStackBytes = 256 * 1024;

enum class State { kReady, kWaiting, kDone };
enum class Order { kForward, kReverse, kRandom };

Order order = Order::kForward;
unsigned seed, max_blocks = 1u << 20;

struct Fiber : Thread {
  State state = State::kDone;
  const char* operation = nullptr;  // waited for
  void* stack = nullptr;
  void* stack_pointer = nullptr;
  unsigned accesses = 0;
};

struct Warp {
  uint64_t given[kWarp], values[kWarp];
  int arrived = 0;
};

// A warp-level request: one access of each of the warp's threads that took part.
struct Request {
  Access access;
  unsigned bytes;
  std::vector<uintptr_t> addresses;
};

struct Count {
  uint64_t requests = 0, accesses = 0, bytes = 0, sectors = 0;
};

std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<Warp> warps;
int block_arrived;
Fiber* running;
void* scheduler_stack_pointer;
const void* scheduler_stack_bottom;
size_t scheduler_stack_size;
void (*job)(const void*, void*);
const void* job_kernel;
void* job_parameter;

std::vector<std::vector<Request>> requests;  // by warp
std::map<std::tuple<std::string, Access, unsigned>, Count> counts;
uint64_t mixed_requests;
std::string report_text;

void switch_stacks(void** save, void* load, const void* bottom, size_t size, bool to_scheduler) {
  void* fake_stack = nullptr;
  __sanitizer_start_switch_fiber(&fake_stack, bottom, size);
  emulation_switch(save, load);
  const void* old_bottom = nullptr;
  size_t old_size = 0;
  __sanitizer_finish_switch_fiber(fake_stack, &old_bottom, &old_size);
  if (to_scheduler) {  // back in a fiber, from the scheduler
    scheduler_stack_bottom = old_bottom, scheduler_stack_size = old_size;
  }
}

void leave_fiber() {
  switch_stacks(&running->stack_pointer, scheduler_stack_pointer, scheduler_stack_bottom,
                scheduler_stack_size, true);
}

void wait(const char* operation) {
  running->state = State::kWaiting;
  running->operation = operation;
  leave_fiber();
}

void fiber_main() {
  __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_bottom, &scheduler_stack_size);
  for (;;) {
    job(job_kernel, job_parameter);
    running->state = State::kDone;
    leave_fiber();
  }
}

// Puts the fiber at the start of fiber_main.
void reset(Fiber& fiber) {
  if (!fiber.stack) {
    fiber.stack =
        mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (fiber.stack == MAP_FAILED) throw std::bad_alloc();
  }
  __asan_unpoison_memory_region(fiber.stack, kStackBytes);
  void** top = reinterpret_cast<void**>(static_cast<char*>(fiber.stack) + kStackBytes) - 2;
  *top = reinterpret_cast<void*>(&fiber_main);  // where `ret` goes
  fiber.stack_pointer = top - 6;                // six registers
  fiber.state = State::kDone;
}

void enter_fiber(Fiber& fiber) {
  thread = running = &fiber;
  switch_stacks(&scheduler_stack_pointer, fiber.stack_pointer, fiber.stack, kStackBytes, false);
}

std::string kernel_name(const void* kernel) {
  Dl_info info;
  if (!dladdr(kernel, &info) || !info.dli_sname) return "?";
  int status = 0;
  char* text = abi::__cxa_demangle(info.dli_sname, nullptr, nullptr, &status);
  std::string name = status == 0 ? text : info.dli_sname;
  free(text);
  return name.substr(0, name.find('('));
}

void count_requests() {
  const std::string name = kernel_name(job_kernel);
  for (std::vector<Request>& warp : requests) {
    for (Request& r : warp) {
      Count& count = counts[{name, r.access, r.bytes}];
      std::vector<uintptr_t> sectors;
      for (const uintptr_t address : r.addresses) {
        for (uintptr_t s = address / 32; s <= (address + r.bytes - 1) / 32; ++s)
          sectors.push_back(s);
      }
      std::sort(sectors.begin(), sectors.end());
      ++count.requests;
      count.accesses += r.addresses.size();
      count.bytes += r.addresses.size() * r.bytes;
      count.sectors += std::unique(sectors.begin(), sectors.end()) - sectors.begin();
    }
    warp.clear();
  }
}

void run_block() {
  const unsigned threads = block_size.x;
  for (unsigned t = 0; t < threads; ++t) {
    fibers[t]->state = State::kReady;
    fibers[t]->accesses = 0;
  }
  block_arrived = 0;
  for (Warp& warp : warps) warp.arrived = 0;
  std::vector<unsigned> turn(threads);
  std::iota(turn.begin(), turn.end(), 0);
  if (order == Order::kReverse) std::reverse(turn.begin(), turn.end());
  std::mt19937 random(seed++);
  for (unsigned done = 0; done < threads;) {
    if (order == Order::kRandom) std::shuffle(turn.begin(), turn.end(), random);
    bool progress = false;
    done = 0;
    for (const unsigned t : turn) {
      if (fibers[t]->state == State::kReady) {
        enter_fiber(*fibers[t]);
        progress = true;
      }
      done += fibers[t]->state == State::kDone;
    }
    if (progress || done == threads) continue;
    std::string text = "threads wait for others that never come:";
    for (unsigned t = 0; t < threads; ++t) {
      if (fibers[t]->state == State::kWaiting) {
        text += " thread " + std::to_string(t) + " in " + fibers[t]->operation;
        break;
      }
    }
    for (auto& fiber : fibers) reset(*fiber);
    throw std::runtime_error(kernel_name(job_kernel) + ": " + text);
  }
  if (recording) count_requests();
}

}  // namespace

void wait_for_block() {
  if (++block_arrived < static_cast<int>(block_size.x)) return wait("__syncthreads");
  block_arrived = 0;
  for (unsigned t = 0; t < block_size.x; ++t) fibers[t]->state = State::kReady;
}

const uint64_t* exchange(const char* operation, unsigned mask, uint64_t value) {
  if (mask != 0xffffffffu) {
    fprintf(stderr, "%s: only whole warps are emulated\n", operation);
    abort();
  }
  Warp& warp = warps[running->linear / kWarp];
  warp.given[running->linear % kWarp] = value;
  running->operation = operation;
  if (++warp.arrived < kWarp) {
    wait(operation);
    return warp.values;
  }
  warp.arrived = 0;
  std::copy(warp.given, warp.given + kWarp, warp.values);
  const unsigned first = running->linear / kWarp * kWarp;
  unsigned accesses = 0;
  for (unsigned t = first; t < first + kWarp; ++t) {
    accesses = std::max(accesses, fibers[t]->accesses);
  }
  for (unsigned t = first; t < first + kWarp; ++t) {
    if (strcmp(fibers[t]->operation, operation) != 0) {
      fprintf(stderr, "one warp in %s and %s at once\n", operation, fibers[t]->operation);
      abort();
    }
    fibers[t]->state = State::kReady;
    fibers[t]->accesses = accesses;  // from here on the threads are in step again
  }
  return warp.values;
}

// The n-th accesses of a warp's threads since its last operation belong to one request, as long as
// all threads that access something do the same.
void record(Access access, const void* address, unsigned bytes) {
  std::vector<Request>& warp = requests[running->linear / kWarp];
  const unsigned n = running->accesses++;
  if (n == warp.size()) warp.push_back({access, bytes, {}});
  mixed_requests += warp[n].access != access || warp[n].bytes != bytes;
  warp[n].addresses.push_back(reinterpret_cast<uintptr_t>(address));
}

void run_grid(const void* kernel, dim3 grid, dim3 block, size_t, void (*call)(const void*, void*),
              void* parameter) {
  static std::mutex mutex;
  const std::lock_guard lock(mutex);
  if (block.x % kWarp || block.y != 1 || block.z != 1 || grid.y != 1 || grid.z != 1) {
    throw std::runtime_error("only whole warps and one-dimensional grids are emulated");
  }
  block_size = block;
  grid_size = dim3(std::min(grid.x, max_blocks));
  job = call, job_kernel = kernel, job_parameter = parameter;
  for (unsigned t = static_cast<unsigned>(fibers.size()); t < block.x; ++t) {
    fibers.push_back(std::make_unique<Fiber>());
    fibers[t]->index = dim3(t, 0, 0);
    fibers[t]->linear = t;
    reset(*fibers[t]);
  }
  warps.resize(block.x / kWarp);
  requests.resize(block.x / kWarp);
  for (unsigned b = 0; b < grid_size.x; ++b) {
    block_index = dim3(order == Order::kReverse ? grid_size.x - 1 - b : b, 0, 0);
    run_block();
  }
}

}  // namespace emulation

extern "C" {

#define EXPORT __attribute__((visibility("default")))

// Order of the threads: 0 forward, 1 reverse, 2 random. At most max_blocks blocks in a grid.
// Whether the device adds four floats at once.
EXPORT void emulation_configure(int order, unsigned seed, unsigned max_blocks, int vector_atomics) {
  emulation::order = static_cast<emulation::Order>(order);
  emulation::seed = seed;
  emulation::max_blocks = max_blocks;
  emulation::vector_atomics = vector_atomics != 0;
}

// Starts counting anew, or stops it.
EXPORT void emulation_record(int on) {
  emulation::recording = on != 0;
  emulation::counts.clear();
  emulation::mixed_requests = 0;
}

// A line per kernel, kind of access and width: kernel, kind, bytes per thread, requests of warps,
// accesses of threads, bytes, sectors. Then "mixed" and how many accesses did not fit their warp's.
EXPORT const char* emulation_report() {
  emulation::report_text.clear();
  for (const auto& [key, count] : emulation::counts) {
    const auto& [name, access, width] = key;
    const char* kinds[] = {"load", "store", "atomic"};
    emulation::report_text += name + "\t" + kinds[access] + "\t" + std::to_string(width) + "\t" +
                              std::to_string(count.requests) + "\t" +
                              std::to_string(count.accesses) + "\t" + std::to_string(count.bytes) +
                              "\t" + std::to_string(count.sectors) + "\n";
  }
  emulation::report_text += "mixed\t" + std::to_string(emulation::mixed_requests) + "\n";
  return emulation::report_text.c_str();
}

// What the operators call on the host, which a torch without CUDA does not have.

AOTITorchError aoti_torch_create_device_guard(int32_t, DeviceGuardHandle* guard) {
  *guard = nullptr;
  return 0;
}
AOTITorchError aoti_torch_delete_device_guard(DeviceGuardHandle) { return 0; }
AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
AOTITorchError torch_c10_cuda_check_msg(int32_t, const char*, const char*, uint32_t, bool,
                                        char** message) {
  *message = nullptr;
  return 0;
}
void torch_c10_cuda_free_error_msg(char*) {}
AOTITorchError aoti_torch_cuda_bmm_out(AtenTensorHandle out, AtenTensorHandle self,
                                       AtenTensorHandle other) {
  return aoti_torch_cpu_bmm_out(out, self, other);
}
AOTITorchError aoti_torch_cuda_baddbmm_out(AtenTensorHandle out, AtenTensorHandle self,
                                           AtenTensorHandle first, AtenTensorHandle second,
                                           double beta, double alpha) {
  return aoti_torch_cpu_baddbmm_out(out, self, first, second, beta, alpha);
}
}
