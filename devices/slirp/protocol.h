// What a machine and the process of its user-mode network say to each other, besides frames.
//
//   minivmm-slirp [restricted] [tcp:HOSTADDR:HOSTPORT-GUESTPORT]…
//
// Descriptor 3 is one end of a socket pair of type SOCK_SEQPACKET. The first message on it is the
// stack's: kReady once its ports are open, or a line that says why there is no network, and the
// stack ends. From then on each message is an Ethernet frame. The stack ends with its socket.
#pragma once

namespace slirp {

inline constexpr int kStackFd = 3;
inline constexpr const char* kRestricted = "restricted";
inline constexpr const char* kReadyOfAny = "ready ";
inline constexpr const char* kReady = "ready 1";  // the version of all this

}  // namespace slirp
