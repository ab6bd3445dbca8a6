#include "tests/linux/guest.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace linux_tests {

namespace {

// As guest-images/common.sh says.
std::string cache() {
  if (const char* own = std::getenv("MINIVMM_CACHE")) return own;
  if (const char* xdg = std::getenv("XDG_CACHE_HOME")) return std::string(xdg) + "/minivmm";
  const char* home = std::getenv("HOME");
  return std::string(home ? home : "/root") + "/.cache/minivmm";
}

}  // namespace

Guest::Guest(std::string kernel) : kernel_(std::move(kernel)) {
  char name[] = "/tmp/minivmm-test-XXXXXX";
  if (::mkdtemp(name) == nullptr) throw std::runtime_error("mkdtemp");
  directory_ = name;
  if (!std::filesystem::exists(kernel_path())) {
    throw std::runtime_error(kernel_path() + " is missing: run guest-images/build.sh");
  }
}

Guest::~Guest() {
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

std::string Guest::kernel_path() const { return cache() + "/kernels/" + kernel_ + "/vmlinuz"; }

std::string Guest::release() const {
  std::ifstream file(cache() + "/kernels/" + kernel_ + "/version");
  std::string release;
  std::getline(file, release);
  return release;
}

std::string Guest::initrd_path() const {
  return has_script_ ? path("initrd.cpio") : cache() + "/initramfs/" + kernel_ + ".cpio";
}

Guest& Guest::script(const std::string& text) {
  std::ofstream(path("script")) << "#!/bin/sh\n" << text;
  std::string command = MINIVMM_SOURCE_DIR "/guest-images/add-script.sh " + cache() +
                        "/initramfs/" + kernel_ + ".cpio " + path("script") + " " +
                        path("initrd.cpio");
  if (std::system(command.c_str()) != 0) throw std::runtime_error(command);
  has_script_ = true;
  return *this;
}

std::vector<std::string> Guest::run(const std::vector<std::string>& more,
                                    const std::string& command_line) const {
  std::vector<std::string> arguments = {"run",         "--kernel",  kernel_path(), "--initrd",
                                        initrd_path(), "--cmdline", command_line};
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

std::string Guest::make_disk(const std::string& name, uint64_t size) const {
  std::ofstream(path(name)).close();
  std::filesystem::resize_file(path(name), size);
  return path(name);
}

}  // namespace linux_tests
