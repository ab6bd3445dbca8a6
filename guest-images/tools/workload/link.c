// Two processes that send each other numbered, checksummed messages over a pipe or a connection.
// Some are always on their way, so that kernel buffers and sockets hold data at any moment; one
// that is lost, doubled, reordered or changed is found by the other side.
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "shared.h"

enum { kWindow = 8, kMaxWords = 256, kCheckMessages = 200 };

struct Message {
  uint64_t sequence;
  uint64_t words;
  uint64_t data[kMaxWords];
};

static uint64_t Words(uint64_t sequence) { return sequence * 7919 % kMaxWords + 1; }

// False at the end of the stream.
static bool ReadBytes(int fd, void* data, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t n = read(fd, (char*)data + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) Fail("receive: %s", strerror(errno));
    if (n == 0) return false;
    done += (size_t)n;
  }
  return true;
}

static void Send(int fd, uint64_t sequence, uint64_t seed) {
  struct Message message = {.sequence = sequence, .words = Words(sequence)};
  FillPattern(message.data, message.words, seed ^ sequence);
  size_t size = offsetof(struct Message, data) + message.words * sizeof(uint64_t);
  for (size_t done = 0; done < size;) {
    ssize_t n = write(fd, (const char*)&message + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) Fail("send: %s", strerror(errno));
    done += (size_t)n;
  }
}

// False at the end of the stream, which may be between two messages only.
static bool Receive(int fd, uint64_t sequence, uint64_t seed) {
  struct Message message;
  if (!ReadBytes(fd, &message, offsetof(struct Message, data))) return false;
  if (message.sequence != sequence || message.words != Words(sequence)) {
    Fail("got message %llu (%llu words) instead of %llu", (unsigned long long)message.sequence,
         (unsigned long long)message.words, (unsigned long long)sequence);
  }
  if (!ReadBytes(fd, message.data, message.words * sizeof(uint64_t)) ||
      !IsPattern(message.data, message.words, seed ^ sequence)) {
    Fail("message %llu is wrong", (unsigned long long)sequence);
  }
  return true;
}

static const uint64_t kRequest = 0x7265710000000000u, kAnswer = 0x616e730000000000u;

void LinkClient(int in, int out) {
  uint64_t sent = 0, received = 0;
  while (Running()) {
    // Those of a check all come back before it is done.
    uint64_t goal = CheckWanted() ? sent + kCheckMessages : sent + 1;
    while (sent < goal) {
      Send(out, sent++, kRequest);
      if (sent - received < kWindow) continue;
      if (!Receive(in, received, kAnswer)) Fail("the other side has closed");
      self->progress = ++received;
    }
    if (CheckWanted()) CheckDone(kCheckMessages);
    Sleep(5000000);
  }
  // The server ends with the stream, so nothing may be on its way then.
  while (received < sent) {
    if (!Receive(in, received++, kAnswer)) Fail("the other side has closed");
  }
  close(out);
}

void LinkServer(int in, int out) {
  uint64_t sequence = 0;
  for (;;) {
    struct pollfd ready = {.fd = in, .events = POLLIN};
    int n = poll(&ready, 1, 500);
    if (CheckWanted()) CheckDone(sequence);
    if (n <= 0) continue;
    if (!Receive(in, sequence, kRequest)) return;
    Send(out, sequence++, kAnswer);
    self->progress = sequence;
  }
}
