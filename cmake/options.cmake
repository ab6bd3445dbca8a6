# Warnings, sanitizers and linking, the same for every target of the project.
add_library(minivmm_options INTERFACE)
target_include_directories(minivmm_options INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_options(minivmm_options INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Werror>)
target_link_libraries(minivmm_options INTERFACE Threads::Threads)

# Applied to the whole tree but the payload guests, which have no host runtime.
function(minivmm_sanitize target)
  if(MINIVMM_SANITIZE)
    target_compile_options(${target} INTERFACE -fsanitize=${MINIVMM_SANITIZE}
      -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(${target} INTERFACE -fsanitize=${MINIVMM_SANITIZE})
  endif()
  if(MINIVMM_FUZZ)
    target_compile_options(${target} INTERFACE -fsanitize=fuzzer-no-link,address,undefined
      -fno-sanitize-recover=all)
    target_link_options(${target} INTERFACE -fsanitize=address,undefined)
  endif()
endfunction()
minivmm_sanitize(minivmm_options)

# GCC 12's -Warray-bounds and friends misfire under the sanitizers' instrumentation. -Wtsan: TSan
# does not know fences; ours order accesses between host and guest, which it does not see either.
if(MINIVMM_SANITIZE AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  target_compile_options(minivmm_options INTERFACE
    -Wno-maybe-uninitialized -Wno-array-bounds -Wno-stringop-overflow -Wno-restrict -Wno-tsan)
endif()

# Relocations packed: less of a program is read before it starts. They need a C library that knows
# them (2.36), also where it is linked statically, which the linker does not check.
include(CheckCXXSourceCompiles)
include(CMakePushCheckState)
cmake_push_check_state()
set(CMAKE_REQUIRED_LINK_OPTIONS -Wl,-z,pack-relative-relocs)
check_cxx_source_compiles("
#include <features.h>
#if !__GLIBC_PREREQ(2, 36)
#error
#endif
int main() { return 0; }" MINIVMM_PACKS_RELOCATIONS)
cmake_pop_check_state()

# A program that runs on any Linux, and starts without the dynamic linker. The sanitizers' runtimes are
# not made for that.
function(minivmm_link_static target)
  if(NOT MINIVMM_SANITIZE AND NOT MINIVMM_FUZZ)
    target_link_options(${target} PRIVATE -static-pie
      $<$<BOOL:${MINIVMM_PACKS_RELOCATIONS}>:-Wl,-z,pack-relative-relocs>)
  endif()
endfunction()

# A static library for one folder of the project.
function(minivmm_library name)
  add_library(${name} STATIC ${ARGN})
  target_link_libraries(${name} PUBLIC minivmm_options)
endfunction()

# Precompiled headers, in a form that ccache can keep (it wants
# CCACHE_SLOPPINESS=pch_defines,time_macros as well).
function(minivmm_precompile target)
  target_precompile_headers(${target} PRIVATE ${ARGN})
  target_compile_options(${target} PRIVATE
    $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>
    "$<$<COMPILE_LANG_AND_ID:CXX,Clang>:SHELL:-Xclang -fno-pch-timestamp>")
endfunction()
