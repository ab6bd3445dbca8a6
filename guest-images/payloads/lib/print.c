#include "print.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "serial.h"

enum { kLineBytes = 512, kDigits = 20 };

struct Line {
  char text[kLineBytes];
  size_t length;
};

struct Field {
  size_t width;
  bool left;
  bool zeros;
};

static void Put(struct Line *line, char c) {
  if (line->length < kLineBytes) line->text[line->length++] = c;
}

static void PutField(struct Line *line, struct Field field, const char *text, size_t length) {
  size_t padding = field.width > length ? field.width - length : 0;
  if (!field.left)
    for (; padding > 0; padding--) Put(line, field.zeros ? '0' : ' ');
  for (size_t i = 0; i < length; i++) Put(line, text[i]);
  for (; padding > 0; padding--) Put(line, ' ');
}

static void PutUnsigned(struct Line *line, struct Field field, uint64_t value, unsigned base,
                        bool negative) {
  char digits[kDigits + 1];
  size_t first = sizeof digits;
  do {
    digits[--first] = "0123456789abcdef"[value % base];
    value /= base;
  } while (value > 0);
  if (negative) digits[--first] = '-';
  PutField(line, field, digits + first, sizeof digits - first);
}

static void PutArgument(struct Line *line, struct Field field, char kind, bool is_long,
                        va_list *arguments) {
  switch (kind) {
    case 's': {
      const char *text = va_arg(*arguments, const char *);
      size_t length = 0;
      while (text[length] != '\0') length++;
      PutField(line, field, text, length);
      return;
    }
    case 'c': {
      char c = (char)va_arg(*arguments, int);
      PutField(line, field, &c, 1);
      return;
    }
    case 'd': {
      int64_t value = is_long ? va_arg(*arguments, long) : va_arg(*arguments, int);
      PutUnsigned(line, field, value < 0 ? 0 - (uint64_t)value : (uint64_t)value, 10, value < 0);
      return;
    }
    case 'u':
    case 'x': {
      uint64_t value =
          is_long ? va_arg(*arguments, unsigned long) : va_arg(*arguments, unsigned int);
      PutUnsigned(line, field, value, kind == 'x' ? 16 : 10, false);
      return;
    }
    default:
      Put(line, kind);
  }
}

void Print(const char *format, ...) {
  struct Line line;
  line.length = 0;
  va_list arguments;
  va_start(arguments, format);
  for (const char *cursor = format; *cursor != '\0'; cursor++) {
    if (*cursor != '%') {
      Put(&line, *cursor);
      continue;
    }
    cursor++;
    struct Field field = {0, false, false};
    bool is_long = false;
    for (; *cursor == '-' || *cursor == '0'; cursor++) {
      field.left |= *cursor == '-';
      field.zeros |= *cursor == '0';
    }
    for (; *cursor >= '0' && *cursor <= '9'; cursor++)
      field.width = field.width * 10 + (size_t)(*cursor - '0');
    for (; *cursor == 'l'; cursor++) is_long = true;
    if (*cursor == '\0') break;
    PutArgument(&line, field, *cursor, is_long, &arguments);
  }
  va_end(arguments);
  SerialWrite(line.text, line.length);
}
