// Parameters from the kernel command line: words key=value separated by blanks; the last
// one of a key counts, words nobody asks for are ignored. A value that cannot be read
// ends the payload with kExitUsage and a line that names it.
#pragma once

#include <stdbool.h>
#include <stdint.h>

// Copies the command line, at most kMaxCommandLine - 1 bytes of it.
enum { kMaxCommandLine = 2048 };
void OptionsInit(const char *command_line);
const char *OptionsCommandLine(void);

// Decimal or 0x hexadecimal, with an optional K, M or G (times 1024).
uint64_t OptionU64(const char *key, uint64_t fallback);

// The same with a limit: more than `most` is a usage error.
uint64_t OptionUpTo(const char *key, uint64_t fallback, uint64_t most);

// The index of the value in the NULL-terminated list, 0 when the key is not given.
unsigned OptionChoice(const char *key, const char *const *choices);
