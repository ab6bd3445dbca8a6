// The ways out of a payload. Exit status of the VM: 0 the payload did what it was asked,
// 1 it found something wrong, 2 it was asked wrongly, 3 an exception (a bug in it).
#pragma once

enum { kExitOk = 0, kExitFailed = 1, kExitUsage = 2, kExitException = 3 };

// Flushes the serial port and ends the VM by the first of these that is there: exit port
// 0xF4, ACPI power off by port 0x604, keyboard controller reset, triple fault.
_Noreturn void Exit(unsigned status);

// Prints the message and ends with kExitUsage.
#define FAIL_USAGE(...) \
  do {                  \
    Print(__VA_ARGS__); \
    Exit(kExitUsage);   \
  } while (0)
