// A Storage that hands every call to the one beneath: for tests that change a few of them.
#pragma once

#include <memory>
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

}  // namespace test
