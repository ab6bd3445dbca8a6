// The values of --disk, --net and --vsock. Plain data; nothing is opened here.
//
// A value is a list of words separated by commas; a comma that belongs to a word is written twice.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "devices/virtio/mac_address.h"
#include "devices/virtio/net_user.h"
#include "vmm/base/result.h"

namespace cli {

// PATH[,ro][,raw][,serial=S]
struct DiskOption {
  std::string path;
  bool read_only = false;
  bool raw = false;  // whatever its first bytes look like
  std::string
      serial;  // at most 20 bytes of printable ASCII (virtio 1.2, 5.2.6: VIRTIO_BLK_T_GET_ID)
};

// user[,hostfwd=…]…[,mac=M] or tap=NAME[,mac=M]
struct NetOption {
  std::string tap;                                 // empty: user mode
  std::vector<virtio::HostForward> host_forwards;  // user mode only
  std::optional<virtio::MacAddress> mac;
  bool was_tap = false;  // of a saved machine
};

// cid=N,path=SOCKET
struct VsockOption {
  uint32_t cid = 0;  // 3 to 2^32 - 2
  std::string path;
};

base::Result<DiskOption> parse_disk(std::string_view text);
base::Result<NetOption> parse_net(std::string_view text);
base::Result<VsockOption> parse_vsock(std::string_view text);
base::Result<uint32_t> parse_cid(std::string_view text);

}  // namespace cli
