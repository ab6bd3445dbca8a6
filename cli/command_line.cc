#include "cli/command_line.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <span>
#include <string_view>
#include <system_error>

#include "cli/commands/command.h"
#include "cli/exit_status.h"
#include "cli/version.h"
#include "vmm/base/heap.h"
#include "vmm/base/log.h"

namespace cli {
namespace {

int fail(int status, const std::string& text) {
  fmt::print(stderr, "minivmm: {}\n", base::one_line(text));
  return status;
}

// Stores have thousands of files. The usual soft limit of 1,024 is for programs that use select(2).
void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) < 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

// One that was closed would be given to a disk or a socket, and messages written there. Standard
// output is made one that cannot be written, so that what should go there is missed.
void fill_standard_descriptors() {
  for (int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (::fcntl(fd, F_GETFD) >= 0) continue;
    (void)!::open("/dev/null",
                  fd == STDERR_FILENO ? O_WRONLY : O_RDONLY);  // the lowest that is free
  }
}

std::string help() {
  std::string text =
      "minivmm: a minimal KVM monitor\n\nUsage: minivmm COMMAND …, or --help, --version\n\n";
  for (const Command& command : make_commands()) {
    text += fmt::format("  {:<12}{}\n", command.syntax->name(), command.syntax->description());
  }
  return text + R"(
Examples:
  minivmm run --kernel /boot/vmlinuz --initrd initrd.img --name job1
  minivmm run --help
  minivmm doctor
)";
}

int parse_and_run(std::span<const char* const> words) {
  if (words.empty()) return fail(kBadInput, "no command given: see minivmm --help");
  const std::string_view name = words.front();
  if (name == "--help" || name == "-h") {
    fmt::print("{}", help());
    return kSuccess;
  }
  if (name == "--version") {
    fmt::print("minivmm {}\n", kVersion);
    return kSuccess;
  }
  auto command = make_command(name);
  if (!command) {
    return fail(kBadInput, fmt::format("unknown {} {}: see minivmm --help",
                                       name.starts_with('-') ? "option" : "command", name));
  }
  auto for_help = command->syntax->parse(words.subspan(1));
  if (!for_help) return fail(kBadInput, for_help.error().text());
  if (*for_help) {
    fmt::print("{}", command->syntax->help());
    return kSuccess;
  }
  base::Result<int> status = command->run();
  return status ? *status : fail(command->failure_status, status.error().text());
}

}  // namespace

int run_command_line(int argc, const char* const* argv) {
  base::use_one_heap();
  fill_standard_descriptors();
  raise_descriptor_limit();
  int status = kSuccess, error = 0;
  try {
    status = parse_and_run(std::span(argv, static_cast<size_t>(argc)).subspan(argc > 0 ? 1 : 0));
    errno = EIO;  // of a write before, which is not known any more
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0) error = errno;
  } catch (const std::system_error& thrown) {  // fmt::print()
    if (std::ferror(stdout) == 0) throw;
    error = thrown.code().value();
  }
  // What could not be said is not done: whoever reads it would take a part for the whole.
  if (status != kSuccess || error == 0) return status;
  return fail(kFailure, fmt::format("standard output: {}", std::strerror(error)));
}

}  // namespace cli
