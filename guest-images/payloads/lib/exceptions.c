#include "exceptions.h"

#include <stdint.h>

#include "exit.h"
#include "idt.h"
#include "print.h"

enum { kExceptions = 32, kStubBytes = 16 };

struct ExceptionFrame {
  uint64_t vector, error_code, rip, cs, rflags, rsp, ss;
};

extern char exception_stubs[];

_Noreturn void ExceptionReport(const struct ExceptionFrame *frame, uint64_t cr2);

_Noreturn void ExceptionReport(const struct ExceptionFrame *frame, uint64_t cr2) {
  Print("exception: vector=%lu error=0x%lx rip=0x%lx rsp=0x%lx cr2=0x%lx ring=%lu\n", frame->vector,
        frame->error_code, frame->rip, frame->rsp, cr2, frame->cs & 3);
  Exit(kExitException);
}

void ExceptionsInit(void) {
  for (unsigned vector = 0; vector < kExceptions; vector++)
    IdtSetGate(vector, exception_stubs + vector * kStubBytes);
}
