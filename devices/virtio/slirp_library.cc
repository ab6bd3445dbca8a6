#include "devices/virtio/slirp_library.h"

#include <dlfcn.h>
#include <fmt/format.h>

namespace virtio {

base::Result<SlirpLibrary> SlirpLibrary::load() {
  constexpr const char* kName = "libslirp.so.0";
  void* handle = ::dlopen(kName, RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    return base::fail(fmt::format(
        "user-mode network: {}: install Debian's package libslirp0, or use a tap", ::dlerror()));
  }
  SlirpLibrary library;
  const char* missing = nullptr;
  auto find = [&]<typename Function>(Function& function, const char* symbol) {
    function = reinterpret_cast<Function>(::dlsym(handle, symbol));
    if (!function) missing = symbol;
  };
  find(library.create, "slirp_new");
  find(library.cleanup, "slirp_cleanup");
  find(library.pollfds_fill, "slirp_pollfds_fill");
  find(library.pollfds_poll, "slirp_pollfds_poll");
  find(library.input, "slirp_input");
  find(library.add_hostfwd, "slirp_add_hostfwd");
  if (missing) {
    return base::fail(fmt::format(
        "user-mode network: {} has no {}: libslirp 4.1 or newer is needed", kName, missing));
  }
  return library;
}

}  // namespace virtio
