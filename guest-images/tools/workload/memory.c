// Memory: pages that are rewritten, zeroed and given back in an order that a seed determines, each
// compared with what was last put there. A check compares every page, and replays all steps since
// the start to see that memory and counters are from the same moment.
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "shared.h"

enum { kWords = kPageSize / sizeof(uint64_t) };

// What is in a page: 0 zero bytes (never written, zeroed, given back), else the pattern's number.
struct Step {
  uint64_t page;
  uint64_t content;
  bool give_back;
};

static struct Step NextStep(uint64_t* random, uint64_t pages, uint64_t number) {
  uint64_t r = Next(random);
  bool zero = (r & 7) == 0;
  return (struct Step){.page = (r >> 8) % pages,
                       .content = zero ? 0 : number + 1,
                       .give_back = zero && (r >> 3 & 1)};
}

static uint64_t Seed(unsigned worker, uint64_t page, uint64_t content) {
  return ((uint64_t)(worker + 1) << 56) ^ page << 40 ^ content;
}

static void VerifyPage(const uint64_t* memory, unsigned worker, uint64_t page, uint64_t content) {
  const uint64_t* data = memory + page * kWords;
  bool right =
      content == 0 ? IsZero(data, kWords) : IsPattern(data, kWords, Seed(worker, page, content));
  if (!right) {
    Fail("page %llu is not what step %llu wrote", (unsigned long long)page,
         (unsigned long long)content);
  }
}

// The content that each page must have after `steps` steps.
static void Replay(uint64_t* content, unsigned worker, uint64_t pages, uint64_t steps) {
  uint64_t random = worker;
  for (uint64_t page = 0; page < pages; page++) content[page] = 0;
  for (uint64_t i = 0; i < steps; i++) {
    struct Step step = NextStep(&random, pages, i);
    content[step.page] = step.content;
  }
}

void MemoryWorker(unsigned number) {
  uint64_t pages = settings.memory_bytes / kPageSize, random = number, steps = 0;
  uint64_t* memory =
      mmap(NULL, settings.memory_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  uint64_t* content = calloc(pages, sizeof *content);
  uint64_t* replayed = calloc(pages, sizeof *replayed);
  if (memory == MAP_FAILED || !content || !replayed) Fail("no memory");
  // In one burst what a twentieth of a second has.
  uint64_t burst = settings.rate / 20 + 1;
  while (Running()) {
    for (uint64_t i = 0; i < burst; i++) {
      struct Step step = NextStep(&random, pages, steps);
      uint64_t* data = memory + step.page * kWords;
      VerifyPage(memory, number, step.page, content[step.page]);
      if (step.give_back) {
        madvise(data, kPageSize, MADV_DONTNEED);
      } else if (step.content == 0) {
        for (size_t word = 0; word < kWords; word++) data[word] = 0;
      } else {
        FillPattern(data, kWords, Seed(number, step.page, step.content));
      }
      content[step.page] = step.content;
      self->progress = ++steps;
    }
    if (CheckWanted()) {
      Replay(replayed, number, pages, steps);
      for (uint64_t page = 0; page < pages; page++) {
        if (content[page] != replayed[page]) {
          Fail("step %llu is not in the table of page %llu", (unsigned long long)replayed[page],
               (unsigned long long)page);
        }
        VerifyPage(memory, number, page, content[page]);
      }
      CheckDone(pages);
    }
    Sleep(50000000);
  }
}
