// The heap, for programs whose threads a guest waits for.
#pragma once

#include <malloc.h>

namespace base {

// One heap for all threads: to be called before there is a second one. Otherwise malloc(3) maps one
// for each, and lets it grow by a page at a time, by mprotect(2); where the host of a virtual
// machine shadows its page tables, each such change may keep any thread of the program for
// milliseconds (docs/performance.md). Allocations that have to wait for no other thread reserve
// beforehand.
inline void use_one_heap() { (void)::mallopt(M_ARENA_MAX, 1); }

}  // namespace base
