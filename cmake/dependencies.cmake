# Debian packages the program links. Static archives are preferred where Debian has them: every
# shared library costs start-up time (`minivmm --version` is to take 2 ms at most).
find_package(PkgConfig REQUIRED)
find_package(Threads REQUIRED)
find_package(nlohmann_json REQUIRED)

function(minivmm_static_library target archive header)
  find_library(${target}_archive NAMES ${archive} REQUIRED)
  find_path(${target}_include NAMES ${header} REQUIRED)
  add_library(${target} UNKNOWN IMPORTED GLOBAL)
  set_target_properties(${target} PROPERTIES
    IMPORTED_LOCATION ${${target}_archive}
    INTERFACE_INCLUDE_DIRECTORIES ${${target}_include})
endfunction()

minivmm_static_library(uring liburing.a liburing.h)
minivmm_static_library(xxhash libxxhash.a xxhash.h)
minivmm_static_library(z libz.a zlib.h)
minivmm_static_library(lzma liblzma.a lzma.h)
minivmm_static_library(zstd libzstd.a zstd.h)
minivmm_static_library(lz4 liblz4.a lz4.h)
minivmm_static_library(bz2 libbz2.a bzlib.h)
minivmm_static_library(lzo liblzo2.a lzo/lzo1x.h)

# Debian has it as a shared library only, with glib behind it.
find_library(slirp_library NAMES slirp REQUIRED)
find_path(slirp_include NAMES slirp/libslirp.h REQUIRED)

# Header-only: HTTP of the control socket.
find_path(beast_include NAMES boost/beast/http.hpp REQUIRED)
