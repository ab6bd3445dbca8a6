#include "cli/command_line.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>

#include "cli/commands/command.h"
#include "cli/exit_status.h"
#include "cli/version.h"
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

// The command that was being parsed when parsing ended.
const CLI::App& chosen(const CLI::App& root) {
  for (const CLI::App* app : root.get_subcommands()) return *app;
  return root;
}

int usage_error(const CLI::App& root, const CLI::ParseError& error) {
  const CLI::App& app = chosen(root);
  std::string command = &app == &root ? "minivmm" : "minivmm " + app.get_name();
  std::string text = error.what();
  if (error.get_name() == "ValidationError") return fail(kBadInput, text);
  return fail(kBadInput, fmt::format("{}: see {} --help", text, command));
}

int parse_and_run(int argc, const char* const* argv) {
  CLI::App root("minivmm: a minimal KVM monitor", "minivmm");
  root.set_version_flag("--version", std::string("minivmm ") + kVersion, "print the version");
  root.footer(R"(Examples:
  minivmm run --kernel /boot/vmlinuz --initrd initrd.img --name job1
  minivmm run --help
  minivmm doctor
)");
  std::vector<Command> commands = add_commands(root, argc > 1 ? argv[1] : "");
  try {
    root.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    fmt::print("{}", root.help());
    return kSuccess;
  } catch (const CLI::CallForVersion& version) {
    fmt::print("{}\n", version.what());
    return kSuccess;
  } catch (const CLI::ParseError& error) {
    return usage_error(root, error);
  }
  for (const Command& command : commands) {
    if (!command.app->parsed()) continue;
    base::Result<int> status = command.run();
    return status ? *status : fail(command.failure_status, status.error().text());
  }
  return fail(kBadInput, "no command given: see minivmm --help");
}

}  // namespace

int run_command_line(int argc, const char* const* argv) {
  fill_standard_descriptors();
  raise_descriptor_limit();
  int status = kSuccess, error = 0;
  try {
    status = parse_and_run(argc, argv);
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
