// A Storage that hands every call to the one beneath: for tests that change a few of them.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "snapshot/storage.h"

namespace test {

class ForwardingStorage : public snapshot::Storage {
 public:
  explicit ForwardingStorage(std::unique_ptr<snapshot::Storage> beneath)
      : beneath_(std::move(beneath)) {}
  const std::string& path() const override { return beneath_->path(); }
  base::Result<std::unique_ptr<snapshot::File>> create(const std::string& name,
                                                       Caching caching) override {
    return beneath_->create(name, caching);
  }
  base::Result<std::unique_ptr<snapshot::File>> open(const std::string& name, Access access,
                                                     Caching caching) override {
    return beneath_->open(name, access, caching);
  }
  base::Result<void> rename(const std::string& from, const std::string& to) override {
    return beneath_->rename(from, to);
  }
  base::Result<void> remove(const std::string& name) override { return beneath_->remove(name); }
  base::Result<void> make_directory(const std::string& name) override {
    return beneath_->make_directory(name);
  }
  base::Result<std::vector<std::string>> list(const std::string& directory) override {
    return beneath_->list(directory);
  }
  base::Result<bool> exists(const std::string& name) override { return beneath_->exists(name); }
  base::Result<void> sync_directory(const std::string& name) override {
    return beneath_->sync_directory(name);
  }
  base::Result<uint64_t> free_bytes() override { return beneath_->free_bytes(); }
  base::Result<std::unique_ptr<snapshot::IoQueue>> make_queue(unsigned entries) override {
    return beneath_->make_queue(entries);
  }

 private:
  std::unique_ptr<snapshot::Storage> beneath_;
};

// A file of such a Storage that is only read.
class ForwardingFile : public snapshot::File {
 public:
  explicit ForwardingFile(std::unique_ptr<snapshot::File> beneath) : beneath_(std::move(beneath)) {}
  const std::string& name() const override { return beneath_->name(); }
  base::Result<uint64_t> size() const override { return beneath_->size(); }
  base::Result<void> read(uint64_t offset, std::span<std::byte> into) const override {
    return beneath_->read(offset, into);
  }
  void will_need(uint64_t offset, uint64_t length) const override {
    beneath_->will_need(offset, length);
  }
  base::Result<void> write(uint64_t, std::span<const std::byte>) override { return only_read(); }
  base::Result<void> truncate(uint64_t) override { return only_read(); }
  base::Result<void> allocate(uint64_t, uint64_t) override { return only_read(); }
  base::Result<void> punch(uint64_t, uint64_t) override { return only_read(); }
  base::Result<void> sync() override { return only_read(); }
  base::Result<bool> try_lock(Lock lock) override { return beneath_->try_lock(lock); }
  base::Result<void> unlock() override { return beneath_->unlock(); }
  uint32_t alignment() const override { return beneath_->alignment(); }

 private:
  base::Result<void> only_read() const { return base::fail(name() + " is only read"); }
  std::unique_ptr<snapshot::File> beneath_;
};

}  // namespace test
