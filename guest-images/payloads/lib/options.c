#include "options.h"

#include <stddef.h>

#include "bytes.h"
#include "exit.h"
#include "print.h"

static char command_line_[kMaxCommandLine];

enum { kMaxValue = 64 };

void OptionsInit(const char *command_line) {
  size_t i = 0;
  for (; command_line[i] != '\0' && i < kMaxCommandLine - 1; i++)
    command_line_[i] = command_line[i];
  command_line_[i] = '\0';
}

const char *OptionsCommandLine(void) { return command_line_; }

// Copies the value of the key's last occurrence; false when the key is not there.
static bool FindValue(const char *key, char value[kMaxValue]) {
  bool found = false;
  const char *cursor = command_line_;
  while (*cursor != '\0') {
    while (*cursor == ' ') cursor++;
    const char *wanted = key;
    while (*wanted != '\0' && *cursor == *wanted) cursor++, wanted++;
    bool matches = *wanted == '\0' && *cursor == '=';
    size_t length = 0;
    if (matches) cursor++;
    for (; *cursor != '\0' && *cursor != ' '; cursor++)
      if (matches && length < kMaxValue - 1) value[length++] = *cursor;
    if (matches) {
      value[length] = '\0';
      found = true;
    }
  }
  return found;
}

static int DigitValue(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return 16;
}

static int SuffixShift(char c) {
  switch (c) {
    case 'k':
    case 'K':
      return 10;
    case 'm':
    case 'M':
      return 20;
    case 'g':
    case 'G':
      return 30;
    default:
      return 0;
  }
}

static bool ParseU64(const char *text, uint64_t *result) {
  unsigned base = 10;
  if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) {
    base = 16;
    text += 2;
  }
  uint64_t value = 0;
  const char *cursor = text;
  for (; DigitValue(*cursor) < (int)base; cursor++) {
    if (__builtin_mul_overflow(value, base, &value) ||
        __builtin_add_overflow(value, (uint64_t)DigitValue(*cursor), &value))
      return false;
  }
  if (cursor == text) return false;
  int shift = SuffixShift(*cursor);
  if (shift != 0) {
    if (value > UINT64_MAX >> shift) return false;
    value <<= shift;
    cursor++;
  }
  *result = value;
  return *cursor == '\0';
}

uint64_t OptionUpTo(const char *key, uint64_t fallback, uint64_t most) {
  char value[kMaxValue];
  if (!FindValue(key, value)) return fallback;
  uint64_t result;
  if (!ParseU64(value, &result))
    FAIL_USAGE("usage: %s=%s: not a number (decimal or 0x hexadecimal, then K, M or G)\n", key,
               value);
  if (result > most) FAIL_USAGE("usage: %s=%s: at most %lu\n", key, value, most);
  return result;
}

uint64_t OptionU64(const char *key, uint64_t fallback) {
  return OptionUpTo(key, fallback, UINT64_MAX);
}

unsigned OptionChoice(const char *key, const char *const *choices) {
  char value[kMaxValue];
  if (!FindValue(key, value)) return 0;
  for (unsigned i = 0; choices[i] != NULL; i++)
    if (StringsEqual(value, choices[i])) return i;
  Print("usage: %s=%s: must be one of", key, value);
  for (unsigned i = 0; choices[i] != NULL; i++) Print(" %s", choices[i]);
  Print("\n");
  Exit(kExitUsage);
}
