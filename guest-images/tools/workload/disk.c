// The disk: a log of chained, checksummed records that are flushed (a record counts when its
// fdatasync has returned), and a file without a name whose blocks are written around the page
// cache, punched out and compared. Everything is read back from the disk at a check.
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "shared.h"

enum {
  kRecordBytes = 512,
  kSlots = 1024,  // the log is a ring
  kBatch = 4,     // records to one flush
  kPayload = 59,
  kBlocks = 256,
  kBlockWords = kPageSize / sizeof(uint64_t),
};
static const uint64_t kMagic = 0x64726f6365726d76u;

struct Record {
  uint64_t magic, worker, sequence;
  uint64_t previous;  // the sum of the record before
  uint64_t payload[kPayload];
  uint64_t sum;  // of all words before it
};
_Static_assert(sizeof(struct Record) == kRecordBytes, "a record is a sector");

static uint64_t RecordSeed(uint64_t worker, uint64_t sequence) { return worker << 48 ^ sequence; }

static uint64_t RecordSum(const struct Record* record) {
  return Sum((const uint64_t*)record, kRecordBytes / sizeof(uint64_t) - 1);
}

static bool IsRecord(const struct Record* record, uint64_t sequence) {
  return record->magic == kMagic && record->sequence == sequence &&
         record->sum == RecordSum(record) &&
         IsPattern(record->payload, kPayload, RecordSeed(record->worker, sequence));
}

static bool Transfer(int fd, void* data, size_t size, off_t offset, bool write) {
  for (size_t done = 0; done < size;) {
    ssize_t n = write ? pwrite(fd, (char*)data + done, size - done, offset + (off_t)done)
                      : pread(fd, (char*)data + done, size - done, offset + (off_t)done);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    done += (size_t)n;
  }
  return true;
}

struct Log {
  int fd, direct;  // the same file, the second around the page cache
  uint64_t worker, next, previous;
  struct Record* ring;  // for reading all of it
};

static struct Log OpenLog(unsigned number) {
  struct Log log = {.worker = number, .ring = aligned_alloc(kPageSize, kSlots * kRecordBytes)};
  char path[256];
  snprintf(path, sizeof path, "%s/log.%u", settings.directory, number);
  log.fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  log.direct = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
  if (log.fd < 0 || log.direct < 0 || !log.ring) Fail("%s: %s", path, strerror(errno));
  memset(log.ring, 0, kSlots * kRecordBytes);
  if (!Transfer(log.fd, log.ring, kSlots * kRecordBytes, 0, true) || fsync(log.fd) != 0) {
    Fail("%s: %s", path, strerror(errno));
  }
  return log;
}

static void Append(struct Log* log) {
  for (int i = 0; i < kBatch; i++, log->next++) {
    struct Record record = {
        .magic = kMagic, .worker = log->worker, .sequence = log->next, .previous = log->previous};
    FillPattern(record.payload, kPayload, RecordSeed(log->worker, log->next));
    log->previous = record.sum = RecordSum(&record);
    off_t offset = (off_t)(log->next % kSlots * kRecordBytes);
    if (!Transfer(log->fd, &record, sizeof record, offset, true)) {
      Fail("write record %llu: %s", (unsigned long long)log->next, strerror(errno));
    }
  }
  if (fdatasync(log->fd) != 0) Fail("fdatasync: %s", strerror(errno));
  self->progress = log->next;
}

static void VerifyRing(const struct Log* log, int fd, const char* way) {
  if (!Transfer(fd, log->ring, kSlots * kRecordBytes, 0, false)) {
    Fail("read the log %s: %s", way, strerror(errno));
  }
  uint64_t first = log->next > kSlots ? log->next - kSlots : 0, previous = 0;
  for (uint64_t sequence = first; sequence < log->next; sequence++) {
    const struct Record* record = &log->ring[sequence % kSlots];
    if (!IsRecord(record, sequence) || (sequence > first && record->previous != previous)) {
      Fail("record %llu, read %s, is wrong", (unsigned long long)sequence, way);
    }
    previous = record->sum;
  }
  if (log->next > 0 && previous != log->previous) Fail("the log's end, read %s, is wrong", way);
}

struct Blocks {
  int fd;
  uint64_t random, writes;
  uint64_t content[kBlocks];  // the number of the write; 0: a hole
  uint64_t* buffer;
};

static struct Blocks OpenBlocks(unsigned number) {
  struct Blocks blocks = {.random = number, .buffer = aligned_alloc(kPageSize, kPageSize)};
  char path[256];
  snprintf(path, sizeof path, "%s/blocks.%u", settings.directory, number);
  blocks.fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_DIRECT | O_CLOEXEC, 0644);
  // Open, and in no directory: only this process knows it.
  if (blocks.fd < 0 || !blocks.buffer || unlink(path) != 0 ||
      ftruncate(blocks.fd, kBlocks * kPageSize) != 0) {
    Fail("%s: %s", path, strerror(errno));
  }
  return blocks;
}

static uint64_t BlockSeed(uint64_t block, uint64_t content) {
  return 0xb10c000000000000u ^ block << 32 ^ content;
}

static void VerifyBlock(const struct Blocks* blocks, uint64_t block) {
  if (!Transfer(blocks->fd, blocks->buffer, kPageSize, (off_t)(block * kPageSize), false)) {
    Fail("read block %llu: %s", (unsigned long long)block, strerror(errno));
  }
  uint64_t content = blocks->content[block];
  bool right = content == 0 ? IsZero(blocks->buffer, kBlockWords)
                            : IsPattern(blocks->buffer, kBlockWords, BlockSeed(block, content));
  if (!right) {
    Fail("block %llu is not what write %llu wrote", (unsigned long long)block,
         (unsigned long long)content);
  }
}

static void ChangeBlock(struct Blocks* blocks) {
  uint64_t r = Next(&blocks->random), block = (r >> 8) % kBlocks;
  off_t offset = (off_t)(block * kPageSize);
  VerifyBlock(blocks, block);
  if ((r & 7) == 0) {
    if (fallocate(blocks->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, kPageSize) != 0) {
      Fail("punch a hole: %s", strerror(errno));
    }
    blocks->content[block] = 0;
    return;
  }
  uint64_t content = ++blocks->writes;
  FillPattern(blocks->buffer, kBlockWords, BlockSeed(block, content));
  if (!Transfer(blocks->fd, blocks->buffer, kPageSize, offset, true)) {
    Fail("write block %llu: %s", (unsigned long long)block, strerror(errno));
  }
  blocks->content[block] = content;
}

// Tells the disk which blocks are free: discard requests. Not every disk takes them.
static void Trim(int fd) {
  struct fstrim_range range = {.len = UINT64_MAX};
  if (ioctl(fd, FITRIM, &range) != 0 && errno != EOPNOTSUPP) Fail("FITRIM: %s", strerror(errno));
}

void DiskWorker(unsigned number) {
  struct Log log = OpenLog(number);
  struct Blocks blocks = OpenBlocks(number);
  int directory = open(settings.directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  for (uint64_t round = 0; Running(); round++) {
    Append(&log);
    ChangeBlock(&blocks);
    if (number == 0 && round % 128 == 127) Trim(directory);
    if (CheckWanted()) {
      VerifyRing(&log, log.fd, "from the page cache");
      VerifyRing(&log, log.direct, "from the disk");
      for (uint64_t block = 0; block < kBlocks; block++) VerifyBlock(&blocks, block);
      CheckDone(log.next + kBlocks);
    }
    Sleep(1000000000u / settings.rate * (kBatch + 1));
  }
}

int VerifyLog(const char* path) {
  static struct Record ring[kSlots];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0 || !Transfer(fd, ring, sizeof ring, 0, false)) {
    printf("workload: log %s: %s\n", path, errno ? strerror(errno) : "too short");
    return 1;
  }
  close(fd);
  uint64_t end = 0;  // behind the newest record
  for (int slot = 0; slot < kSlots; slot++) {
    const struct Record* record = &ring[slot];
    if (record->magic != kMagic || record->sequence % kSlots != (uint64_t)slot ||
        !IsRecord(record, record->sequence)) {
      if (IsZero((const uint64_t*)record, kRecordBytes / sizeof(uint64_t))) continue;
      printf("workload: log %s: slot %d has no record\n", path, slot);
      return 1;
    }
    if (record->sequence >= end) end = record->sequence + 1;
  }
  // The pages of the last batch, not flushed yet, may have come in any order: two at most. The
  // oldest records have been overwritten by those.
  const uint64_t kUnsettled = 2 * kPageSize / kRecordBytes;
  uint64_t first = end + kUnsettled > kSlots ? end + kUnsettled - kSlots : 0, sequence = first;
  while (sequence < end && IsRecord(&ring[sequence % kSlots], sequence) &&
         (sequence == first ||
          ring[sequence % kSlots].previous == ring[(sequence - 1) % kSlots].sum)) {
    sequence++;
  }
  if (sequence + kUnsettled < end) {
    printf("workload: log %s: the chain breaks at record %llu of %llu\n", path,
           (unsigned long long)sequence, (unsigned long long)end);
    return 1;
  }
  printf("workload: log ok records=%llu\n", (unsigned long long)sequence);
  return 0;
}
