// Ends the machine at once with an exit status for the host's shell: `exit-machine STATUS`, 0 to
// 127, as root. Nothing is unmounted: sync first. The port is minivmm's (docs/devices.md); Debian's
// cloud kernel has no /dev/port, so the instruction is executed here.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <unistd.h>

enum { kExitPort = 0xF4 };

int main(int argc, char** argv) {
  char* end = NULL;
  long status = argc == 2 ? strtol(argv[1], &end, 10) : -1;
  if (status < 0 || status > 127 || *end != 0) {
    fprintf(stderr, "usage: exit-machine STATUS (0 to 127)\n");
    return 2;
  }
  if (ioperm(kExitPort, 1, 1) != 0) {
    fprintf(stderr, "exit-machine: ioperm: %s\n", strerror(errno));
    return 1;
  }
  outb((unsigned char)status, kExitPort);
  pause();  // the machine ends while this vCPU waits
  return 1;
}
