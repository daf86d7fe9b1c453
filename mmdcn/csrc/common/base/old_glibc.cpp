// Lets a library that was built with a new compiler load where glibc and libstdc++ are older, down
// to those of manylinux_2_28: what these do not have it brings, hidden.
#include <new>

extern "C" {

// glibc >= 2.32 says here whether there is one thread, for shared pointers to count without
// atomics.
extern __attribute__((visibility("hidden"))) char __libc_single_threaded;
char __libc_single_threaded = 0;

// std::__throw_bad_array_new_length() of libstdc++ >= 11, which allocators call.
[[noreturn]] __attribute__((visibility("hidden"))) void _ZSt28__throw_bad_array_new_lengthv() {
  throw std::bad_array_new_length();
}
}
