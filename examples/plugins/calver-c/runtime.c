// The little of a libc that a plugin needs.

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

extern unsigned char __heap_base;

#define PAGE 65536u

// What lies before each piece: its size, so that `realloc` knows what to copy.
#define HEAD 16u

static uintptr_t top = 0;

void *malloc(size_t size) {
  if (top == 0) top = ((uintptr_t)&__heap_base + 15) & ~(uintptr_t)15;
  if (size > 0x7fffffff) abort();
  uintptr_t at = top + HEAD;
  uintptr_t end = (at + size + 15) & ~(uintptr_t)15;
  uintptr_t have = (uintptr_t)__builtin_wasm_memory_size(0) * PAGE;
  if (end > have && __builtin_wasm_memory_grow(0, (end - have + PAGE - 1) / PAGE) == (size_t)-1) abort();
  *(size_t *)top = size;
  top = end;
  return (void *)at;
}

void *realloc(void *old, size_t size) {
  void *new = malloc(size);
  if (old) {
    size_t had = *(size_t *)((uintptr_t)old - HEAD);
    memcpy(new, old, had < size ? had : size);
  }
  return new;
}

// dray makes a new instance for each call of a filter, so nothing has to be given back.
void free(void *memory) { (void)memory; }

void *memcpy(void *to, const void *from, size_t size) {
  unsigned char *out = to;
  const unsigned char *in = from;
  while (size--) *out++ = *in++;
  return to;
}

void *memset(void *to, int byte, size_t size) {
  unsigned char *out = to;
  while (size--) *out++ = (unsigned char)byte;
  return to;
}

int memcmp(const void *one, const void *other, size_t size) {
  const unsigned char *a = one, *b = other;
  for (; size--; a++, b++)
    if (*a != *b) return *a - *b;
  return 0;
}

size_t strlen(const char *text) {
  size_t length = 0;
  while (text[length]) length++;
  return length;
}
