// The files and queues of a model file system (model_storage.h).
#pragma once

#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "snapshot/storage.h"
#include "tests/support/model_storage.h"

namespace test {

class ModelStorage : public snapshot::Storage {
 public:
  explicit ModelStorage(ModelFileSystem& system);
  const std::string& path() const override { return path_; }
  base::Result<std::unique_ptr<snapshot::File>> create(const std::string& name, Caching) override;
  base::Result<std::unique_ptr<snapshot::File>> open(const std::string& name, Access,
                                                     Caching) override;
  base::Result<void> rename(const std::string& from, const std::string& to) override;
  base::Result<void> remove(const std::string& name) override;
  base::Result<void> make_directory(const std::string& name) override;
  base::Result<std::vector<std::string>> list(const std::string& directory) override;
  base::Result<bool> exists(const std::string& name) override;
  base::Result<void> sync_directory(const std::string& name) override;
  base::Result<uint64_t> free_bytes() override;
  base::Result<std::unique_ptr<snapshot::IoQueue>> make_queue(unsigned entries) override;

 private:
  ModelFileSystem& system_;
  const std::string path_ = "model";
};

class ModelFile : public snapshot::File {
 public:
  // With the file system's mutex held.
  ModelFile(ModelFileSystem& system, Inode inode, std::string name,
            snapshot::Storage::Access access, snapshot::Storage::Caching caching);
  ~ModelFile() override;
  const std::string& name() const override { return name_; }
  base::Result<uint64_t> size() const override;
  base::Result<void> read(uint64_t offset, std::span<std::byte> into) const override;
  base::Result<void> write(uint64_t offset, std::span<const std::byte> from) override;
  base::Result<void> truncate(uint64_t size) override;
  base::Result<void> allocate(uint64_t offset, uint64_t length) override;
  base::Result<void> punch(uint64_t offset, uint64_t length) override;
  base::Result<void> sync() override;
  base::Result<bool> try_lock(Lock) override;
  base::Result<void> unlock() override;
  uint32_t alignment() const override { return alignment_; }

 private:
  friend class ModelQueue;
  // With the mutex held.
  base::Result<void> check_writable(const char* what) const;
  // An errno: of this sync, or of another open file's that this one has not heard of (as Linux
  // tells it, errseq_t). 0: none.
  int sync_error(const std::optional<Fault>& fault) const;
  base::Result<void> check_aligned(uint64_t offset, const void* memory, uint64_t length) const;

  ModelFileSystem& system_;
  const Inode inode_;
  const std::string name_;
  const bool writable_;
  const uint32_t alignment_;
  mutable uint64_t heard_;  // of failed syncs of the inode
};

class ModelQueue : public snapshot::IoQueue {
 public:
  ModelQueue(ModelFileSystem& system, unsigned entries, base::EventFd event);
  ~ModelQueue() override;
  base::Result<void> readv(Operation&, snapshot::File&, std::span<const iovec>,
                           uint64_t offset) override;
  base::Result<void> writev(Operation&, snapshot::File&, std::span<const iovec>,
                            uint64_t offset) override;
  base::Result<void> sync(Operation&, snapshot::File&) override;
  base::Result<void> allocate(Operation&, snapshot::File&, uint64_t offset,
                              uint64_t length) override;
  base::Result<void> punch(Operation&, snapshot::File&, uint64_t offset, uint64_t length) override;
  base::Result<void> submit() override;
  Operation* next_completion() override;
  Operation* wait_completion() override;
  base::EventFd& event() override { return event_; }
  unsigned in_flight() const override {
    return static_cast<unsigned>(prepared_.size() + running_.size());
  }

 private:
  struct Transfer {
    Call call = Call::kRead;
    Operation* operation = nullptr;
    const ModelFile* file = nullptr;
    std::span<const iovec> vectors;
    uint64_t offset = 0, length = 0;
    // Since submit():
    std::optional<Fault> fault;
    uint64_t serial = 0;                                 // of the event
    std::shared_ptr<const std::vector<std::byte>> data;  // of a write, as submitted
    Contents to_sync;                                    // of a sync, as covered by it
  };

  base::Result<void> prepare(Call call, Operation& operation, const snapshot::File& file,
                             std::span<const iovec> vectors, uint64_t offset, uint64_t length);
  // With the mutex held.
  void start(Transfer& transfer);
  int finish(Transfer& transfer);
  int finish_read(Transfer& transfer);
  int finish_change(Transfer& transfer);
  Operation* complete_one();

  ModelFileSystem& system_;
  const unsigned entries_;
  base::EventFd event_;
  std::optional<std::mt19937_64> random_;
  std::vector<Transfer> prepared_, running_;
};

}  // namespace test
