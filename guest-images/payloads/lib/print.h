// printf to the serial port, one call one write. Knows %s %c %d %u %x %% with l or ll,
// a width, '0' and '-'; lines longer than its buffer are cut.
#pragma once

__attribute__((format(printf, 1, 2))) void Print(const char *format, ...);
