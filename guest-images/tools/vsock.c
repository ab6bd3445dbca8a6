// A small AF_VSOCK client and server for scripts in guests; busybox has none.
//   vsock cid               prints the guest's own CID
//   vsock connect CID PORT  stdin to the peer, the peer to stdout, until both have ended
//   vsock listen PORT       the same with the first peer that connects
//   vsock echo PORT [N]     sends back what peers send; ends after N connections
// Prints "vsock: listening on port PORT" to stderr once peers can connect.
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static int Fail(const char* what) {
  fprintf(stderr, "vsock: %s: %s\n", what, strerror(errno));
  return 1;
}

static bool WriteAll(int fd, const char* data, ssize_t size) {
  while (size > 0) {
    ssize_t n = write(fd, data, (size_t)size);
    if (n < 0) return false;
    data += n;
    size -= n;
  }
  return true;
}

// Copies what is readable now; false at the end of the stream or on an error (errno set).
static bool Copy(int from, int to) {
  char buffer[65536];
  errno = 0;
  ssize_t n = read(from, buffer, sizeof buffer);
  return n > 0 && WriteAll(to, buffer, n);
}

static int Relay(int peer) {
  struct pollfd ends[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = peer, .events = POLLIN}};
  while (ends[1].fd >= 0) {
    if (poll(ends, 2, -1) < 0) return Fail("poll");
    if (ends[0].revents && !Copy(STDIN_FILENO, peer)) {
      if (errno) return Fail("send");
      shutdown(peer, SHUT_WR);
      ends[0].fd = -1;
    }
    if (ends[1].revents && !Copy(peer, STDOUT_FILENO)) {
      if (errno) return Fail("receive");
      ends[1].fd = -1;
    }
  }
  close(peer);
  return 0;
}

static int Listen(unsigned port) {
  struct sockaddr_vm address = {
      .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
  int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr*)&address, sizeof address) != 0 || listen(fd, 16) != 0) {
    return -1;
  }
  fprintf(stderr, "vsock: listening on port %u\n", port);
  return fd;
}

static int Connect(unsigned cid, unsigned port) {
  struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = port};
  int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, (struct sockaddr*)&address, sizeof address) != 0) return -1;
  return fd;
}

static int Echo(unsigned port, long connections) {
  int server = Listen(port);
  if (server < 0) return Fail("listen");
  for (long served = 0; connections < 0 || served < connections; served++) {
    int peer = accept(server, NULL, NULL);
    if (peer < 0) return Fail("accept");
    while (Copy(peer, peer)) {
    }
    close(peer);
  }
  return 0;
}

static int PrintCid(void) {
  unsigned cid;
  int fd = open("/dev/vsock", O_RDONLY | O_CLOEXEC);
  if (fd < 0 || ioctl(fd, IOCTL_VM_SOCKETS_GET_LOCAL_CID, &cid) != 0) return Fail("/dev/vsock");
  printf("%u\n", cid);
  return 0;
}

static unsigned Number(const char* text) { return (unsigned)strtoul(text, NULL, 0); }

int main(int argc, char** argv) {
  const char* command = argc > 1 ? argv[1] : "";
  if (argc == 2 && strcmp(command, "cid") == 0) return PrintCid();
  if (argc == 4 && strcmp(command, "connect") == 0) {
    int peer = Connect(Number(argv[2]), Number(argv[3]));
    return peer < 0 ? Fail("connect") : Relay(peer);
  }
  if (argc == 3 && strcmp(command, "listen") == 0) {
    int server = Listen(Number(argv[2]));
    int peer = server < 0 ? -1 : accept(server, NULL, NULL);
    return peer < 0 ? Fail("listen") : Relay(peer);
  }
  if ((argc == 3 || argc == 4) && strcmp(command, "echo") == 0) {
    return Echo(Number(argv[2]), argc == 4 ? strtol(argv[3], NULL, 0) : -1);
  }
  fprintf(stderr, "usage: vsock cid | connect CID PORT | listen PORT | echo PORT [N]\n");
  return 2;
}
