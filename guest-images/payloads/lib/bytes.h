// The four functions a freestanding gcc may call on its own, and string comparison.
#pragma once

#include <stdbool.h>
#include <stddef.h>

void *memcpy(void *to, const void *from, size_t bytes);
void *memmove(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);

bool StringsEqual(const char *a, const char *b);
