// How the inner loops of the CPU kernels are compiled.
#pragma once

// MMDCN_CLONES compiles a function once per x86-64 level and picks one when the library loads;
// elsewhere the compiler's default target is used. Templates cannot be cloned: clone a plain
// function that calls an always-inline template.
#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__) && \
    __GNUC__ >= 11 && !defined(__SANITIZE_ADDRESS__)
#define MMDCN_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MMDCN_CLONES
#endif

// Before a loop whose iterations are independent, which the compiler cannot know.
#if defined(__clang__)
#define MMDCN_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#else
#define MMDCN_INDEPENDENT _Pragma("GCC ivdep")
#endif

#define MMDCN_INLINE inline __attribute__((always_inline))

namespace mmdcn {

// Bytes of the vectors in a cloned function, and in one whose loops are no faster with wider ones.
// It hands them to the templates that it calls, as kBytes: nothing else knows the width.
constexpr int kWideBytes = 64, kNarrowBytes = 32;

// Lanes that such a function adds to memory at once: processors forward the widest stores to the
// next load late.
constexpr int kSumLanes = 8;

}  // namespace mmdcn
