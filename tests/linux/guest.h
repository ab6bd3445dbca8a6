// The Linux guests of the tests: Debian's kernels and the initramfs of guest-images/, with a script
// to run, in a temporary directory of the test's own.
#pragma once

#include <string>
#include <vector>

namespace linux_tests {

class Guest {
 public:
  // `kernel`: cloud, generic or backports-cloud (guest-images/README.md).
  explicit Guest(std::string kernel = "cloud");
  ~Guest();

  // The shell script that the guest's init runs; the guest powers off after it.
  Guest& script(const std::string& text);

  // Arguments of `minivmm run` for this guest, more options behind them.
  std::vector<std::string> run(const std::vector<std::string>& more = {},
                               const std::string& command_line = "quiet") const;

  // The release that `uname -r` will give.
  std::string release() const;
  std::string kernel_path() const;
  std::string initrd_path() const;
  // A path in the test's directory.
  std::string path(const std::string& name) const { return directory_ + "/" + name; }
  // A file of `size` zero bytes there, sparse.
  std::string make_disk(const std::string& name, uint64_t size) const;

 private:
  std::string kernel_;
  std::string directory_;
  bool has_script_ = false;
};

}  // namespace linux_tests
