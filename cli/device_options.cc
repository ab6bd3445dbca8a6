#include "cli/device_options.h"

#include <fmt/format.h>
#include <net/if.h>

#include <algorithm>

#include "cli/runtime_dir.h"
#include "cli/size.h"

namespace cli {
namespace {

constexpr size_t kMaxSerial = 20;

std::vector<std::string> split_words(std::string_view text) {
  std::vector<std::string> words(1);
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ',') {
      words.back() += text[i];
    } else if (i + 1 < text.size() && text[i + 1] == ',') {
      words.back() += text[i++];
    } else {
      words.emplace_back();
    }
  }
  return words;
}

// The value of "key=value" where `word` is of that form.
std::optional<std::string_view> value_of(std::string_view word, std::string_view key) {
  if (!word.starts_with(key) || word.size() == key.size() || word[key.size()] != '=') {
    return std::nullopt;
  }
  return word.substr(key.size() + 1);
}

std::unexpected<base::Error> twice(std::string_view key) {
  return base::fail(fmt::format("{} is given twice", key));
}

}  // namespace

base::Result<DiskOption> parse_disk(std::string_view text) {
  std::vector<std::string> words = split_words(text);
  DiskOption disk;
  disk.path = words[0];
  if (disk.path.empty()) return base::fail("no path: write it as PATH[,ro][,raw][,serial=NAME]");
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i] == "ro") {
      disk.read_only = true;
    } else if (words[i] == "raw") {
      disk.raw = true;
    } else if (auto serial = value_of(words[i], "serial")) {
      bool printable = std::ranges::all_of(*serial, [](char c) { return c > ' ' && c <= '~'; });
      if (serial->empty() || serial->size() > kMaxSerial || !printable) {
        return base::fail(fmt::format("serial '{}' must be 1 to {} printable ASCII characters",
                                      *serial, kMaxSerial));
      }
      if (!disk.serial.empty()) return twice("serial");
      disk.serial = *serial;
    } else {
      return base::fail(fmt::format(
          "'{}' is not known: use ro, raw or serial=NAME (a comma in the path is written twice)",
          words[i]));
    }
  }
  return disk;
}

base::Result<NetOption> parse_net(std::string_view text) {
  std::vector<std::string> words = split_words(text);
  NetOption net;
  bool user = words[0] == "user";
  if (auto tap = value_of(words[0], "tap")) {
    net.tap = *tap;
    if (net.tap.empty() || net.tap.size() >= IFNAMSIZ || net.tap.find('/') != std::string::npos) {
      return base::fail(fmt::format("'{}' is no interface name: it has 1 to {} characters", net.tap,
                                    IFNAMSIZ - 1));
    }
  } else if (!user) {
    return base::fail(fmt::format("'{}' is no kind of network: use user or tap=NAME", words[0]));
  }
  for (size_t i = 1; i < words.size(); ++i) {
    if (auto mac = value_of(words[i], "mac")) {
      if (net.mac) return twice("mac");
      TRY_ASSIGN(net.mac, virtio::parse_mac(*mac));
    } else if (auto forward = value_of(words[i], "hostfwd"); forward && user) {
      TRY_ASSIGN(virtio::HostForward parsed, virtio::parse_host_forward(*forward));
      net.host_forwards.push_back(parsed);
    } else {
      return base::fail(fmt::format("'{}' is not known: use {}mac=MAC", words[i],
                                    user ? "hostfwd=tcp:[ADDRESS]:HOSTPORT-GUESTPORT or " : ""));
    }
  }
  return net;
}

base::Result<uint32_t> parse_cid(std::string_view text) {
  // 0 to 2 are the hypervisor, the host's loopback and the host; all ones is "any".
  TRY_ASSIGN(uint64_t number, parse_number(text, 3, 0xFFFF'FFFE));
  return static_cast<uint32_t>(number);
}

base::Result<VsockOption> parse_vsock(std::string_view text) {
  VsockOption vsock;
  for (const std::string& word : split_words(text)) {
    if (auto cid = value_of(word, "cid")) {
      if (vsock.cid != 0) return twice("cid");
      auto number = parse_cid(*cid);
      if (!number) return std::unexpected(number.error().with("cid"));
      vsock.cid = *number;
    } else if (auto path = value_of(word, "path")) {
      if (!vsock.path.empty()) return twice("path");
      vsock.path = *path;
    } else {
      return base::fail(fmt::format("'{}' is not known: write it as cid=N,path=SOCKET", word));
    }
  }
  if (vsock.cid == 0) return base::fail("no cid: write it as cid=3,path=SOCKET");
  if (vsock.path.empty()) return base::fail("no path: write it as cid=3,path=SOCKET");
  TRY(check_socket_path(vsock.path));
  return vsock;
}

}  // namespace cli
