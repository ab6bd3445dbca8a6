#include "bytes.h"

void *memcpy(void *to, const void *from, size_t bytes) {
  void *cursor = to;
  __asm__ volatile("rep movsb" : "+D"(cursor), "+S"(from), "+c"(bytes) : : "memory");
  return to;
}

void *memmove(void *to, const void *from, size_t bytes) {
  if ((char *)to <= (const char *)from || (char *)to >= (const char *)from + bytes)
    return memcpy(to, from, bytes);
  char *target = to;
  const char *source = from;
  while (bytes-- > 0) {
    target[bytes] = source[bytes];
    __asm__ volatile("" : : : "memory");  // keeps gcc from turning the loop into memmove
  }
  return to;
}

void *memset(void *to, int value, size_t bytes) {
  void *cursor = to;
  __asm__ volatile("rep stosb" : "+D"(cursor), "+c"(bytes) : "a"(value) : "memory");
  return to;
}

int memcmp(const void *a, const void *b, size_t bytes) {
  const unsigned char *left = a, *right = b;
  for (; bytes > 0; bytes--, left++, right++)
    if (*left != *right) return *left - *right;
  return 0;
}

bool StringsEqual(const char *a, const char *b) {
  for (; *a == *b; a++, b++)
    if (*a == '\0') return true;
  return false;
}
