// libslirp, loaded when the first user-mode network is made: linking it would load glib with it
// each time the program starts, which costs more than the whole start-up otherwise takes.
#pragma once

#include <slirp/libslirp.h>

#include "vmm/base/result.h"

namespace virtio {

// The functions used, as libslirp.h declares them. The library stays loaded for the process's life.
struct SlirpLibrary {
  decltype(&slirp_new) create;
  decltype(&slirp_cleanup) cleanup;
  decltype(&slirp_pollfds_fill) pollfds_fill;
  decltype(&slirp_pollfds_poll) pollfds_poll;
  decltype(&slirp_input) input;
  decltype(&slirp_add_hostfwd) add_hostfwd;

  static base::Result<SlirpLibrary> load();
};

}  // namespace virtio
