#include "cli/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <nlohmann/json.hpp>

#include "cli/commands/command.h"
#include "cli/control_server.h"
#include "cli/exit_status.h"
#include "cli/runtime_dir.h"
#include "cli/vm_registry.h"
#include "tests/support/fake_target.h"
#include "tests/support/temporary_directory.h"

namespace cli {
namespace {

using testing::HasSubstr;

// The whole program but main(), with a runtime directory of its own.
struct CommandLine : testing::Test {
  CommandLine() { ::setenv("XDG_RUNTIME_DIR", directory.path().c_str(), 1); }
  ~CommandLine() override { ::unsetenv("XDG_RUNTIME_DIR"); }

  int run(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "minivmm");
    testing::internal::CaptureStdout();
    testing::internal::CaptureStderr();
    int status = run_command_line(static_cast<int>(arguments.size()), arguments.data());
    std::fflush(nullptr);
    out = testing::internal::GetCapturedStdout();
    err = testing::internal::GetCapturedStderr();
    return status;
  }
  // Bad input: status 2, nothing on stdout, one line that says `text`, nothing left behind.
  void expect_refused(std::vector<const char*> arguments, const char* text) {
    EXPECT_EQ(run(std::move(arguments)), kBadInput);
    EXPECT_EQ(out, "");
    EXPECT_THAT(err, HasSubstr(text));
    EXPECT_THAT(err, testing::StartsWith("minivmm: "));
    EXPECT_EQ(std::ranges::count(err, '\n'), 1) << err;
    EXPECT_TRUE(directory.empty());
  }
  test::TemporaryDirectory directory;
  std::string out, err;
};

TEST_F(CommandLine, PrintsItsVersion) {
  EXPECT_EQ(run({"--version"}), 0);
  EXPECT_EQ(out, std::string("minivmm ") + MINIVMM_VERSION + "\n");
}

TEST_F(CommandLine, RefusesWhatItDoesNotKnow) {
  expect_refused({}, "no command given");
  expect_refused({"rnu"}, "rnu");
  expect_refused({"--color"}, "--color");
  expect_refused({"run"}, "no --kernel");
  expect_refused({"run", "--kernel", "k", "--color"}, "--color: see minivmm run --help");
  expect_refused({"run", "--kernel", "k", "--cpus", "many"}, "--cpus: 'many'");
  expect_refused({"run", "--kernel", "k", "--cmdline", "a\nb"}, "control characters");
  expect_refused({"run", "--kernel", "k", "--memory", "1\n2"}, "'1?2' is no size");
  expect_refused({"pause"}, "NAME");
  expect_refused({"stats", "a", "b"}, "b: see minivmm stats --help");
  expect_refused({"ps", "--json", "--quiet"}, "--json");
  expect_refused({"stop", "a", "--timeout", "soon"}, "--timeout: 'soon'");
  expect_refused({"completion", "fish"}, "there is bash");
}

TEST_F(CommandLine, EveryCommandHasHelpWithAnExample) {
  for (const Command& command : make_commands()) {
    std::string name(command.syntax->name());
    EXPECT_EQ(run({name.c_str(), "--help"}), 0);
    EXPECT_THAT(out, HasSubstr("minivmm " + name)) << name;
    EXPECT_THAT(out, HasSubstr("Example")) << name;
    EXPECT_EQ(err, "");
  }
  EXPECT_EQ(run({"--help"}), 0);
  EXPECT_THAT(out, HasSubstr("doctor"));
}

TEST_F(CommandLine, HelpOfRunSaysEveryExitStatus) {
  run({"run", "--help"});
  for (int status : {kSuccess, kBadInput, kGuestReset, kGuestPanic, kStopped, kVmmError}) {
    EXPECT_THAT(out, HasSubstr("\n  " + std::to_string(status))) << status;
  }
}

TEST_F(CommandLine, CommandsFailWithoutTheMachine) {
  for (const char* command : {"pause", "resume", "stop", "stats"}) {
    EXPECT_EQ(run({command, "job1"}), kFailure);
    EXPECT_EQ(err, "minivmm: no machine named job1 runs (none does)\n");
  }
  EXPECT_EQ(run({"ps", "--json"}), 0);
  EXPECT_EQ(out, "[]\n");
}

// With a machine that is served by this process.
struct ClientCommands : CommandLine {
  ClientCommands()
      : name(*VmName::claim(*prepare_runtime_dir(), "job1", "")),
        server(*ControlServer::start(*base::UnixListener::create(name.socket()), target)) {}

  test::FakeTarget target;
  VmName name;
  std::unique_ptr<ControlServer> server;
};

TEST_F(ClientCommands, PauseAndResume) {
  EXPECT_EQ(run({"pause", "job1"}), 0);
  EXPECT_TRUE(target.paused_);
  EXPECT_EQ(run({"resume", "job1"}), 0);
  EXPECT_FALSE(target.paused_);
  target.trouble_ = "the vCPUs do not stand";
  EXPECT_EQ(run({"pause", "job1"}), kFailure);
  EXPECT_EQ(err, "minivmm: the vCPUs do not stand\n");
}

TEST_F(ClientCommands, PsListsTheMachine) {
  EXPECT_EQ(run({"ps"}), 0);
  EXPECT_THAT(out, testing::MatchesRegex("NAME[^\n]*\njob1 +[0-9]+ Running +2 +256 MiB\n"));
  EXPECT_EQ(run({"ps", "--quiet"}), 0);
  EXPECT_EQ(out, "job1\n");
  EXPECT_EQ(run({"ps", "--json"}), 0);
  EXPECT_EQ(nlohmann::json::parse(out), (nlohmann::json{{{"name", "job1"},
                                                         {"pid", ::getpid()},
                                                         {"state", "Running"},
                                                         {"vcpu_count", 2},
                                                         {"mem_size_mib", 256},
                                                         {"api_socket", name.socket()}}}));
}

TEST_F(CommandLine, PsSaysOfAMachineThatItDoesNotServeYet) {
  VmName name = *VmName::claim(*prepare_runtime_dir(), "job1", "");
  auto listener = *base::UnixListener::bind(name.socket());
  EXPECT_EQ(run({"ps"}), 0);
  EXPECT_THAT(out, HasSubstr(" Not started "));
  ASSERT_TRUE(listener.listen());
  EXPECT_EQ(run({"ps"}), 0);
  EXPECT_THAT(out, HasSubstr(" No answer "));
}

TEST_F(ClientCommands, StatsForPeopleAndPrograms) {
  EXPECT_EQ(run({"stats", "job1"}), 0);
  EXPECT_THAT(out, testing::MatchesRegex("disk0.reads +3\n"));
  EXPECT_EQ(run({"stats", "job1", "--json"}), 0);
  EXPECT_EQ(nlohmann::json::parse(out), target.stats());
}

TEST_F(ClientCommands, StopPressesThePowerButton) {
  EXPECT_EQ(run({"stop", "job1", "--timeout", "0"}), 0);
  EXPECT_EQ(target.asked_, "power;");
}

TEST_F(ClientCommands, StopSaysThatTheGuestDoesNotListen) {
  EXPECT_EQ(run({"stop", "job1", "--timeout", "1"}), kFailure);
  EXPECT_THAT(err, HasSubstr("job1 still runs after 1 s"));
  EXPECT_THAT(err, HasSubstr("minivmm stop --force job1"));
}

TEST_F(ClientCommands, StopWithForceWaitsForTheEnd) {
  std::optional<VmName> held(std::move(name));
  target.on_stop_ = [&] { held.reset(); };
  EXPECT_EQ(run({"stop", "job1", "--force"}), 0);
  EXPECT_EQ(target.asked_, "stop;");
  EXPECT_FALSE(held);
}

TEST_F(CommandLine, DoctorTellsProgramsWhatTheHostCanDo) {
  int status = run({"doctor", "--json"});
  auto report = nlohmann::json::parse(out);
  EXPECT_THAT(report["ring0"].get<std::string>(), testing::AnyOf("hardware", "emulated", "absent"));
  EXPECT_TRUE(report["instructions_per_second"].is_number());
  EXPECT_TRUE(report["dirty_ring"].is_boolean());
  std::vector<std::string> names;
  bool missing = false;
  for (const auto& check : report["checks"]) {
    names.push_back(check["name"]);
    EXPECT_NE(check["found"], "") << check["name"];
    std::string state = check["state"];
    EXPECT_THAT(state, testing::AnyOf("ok", "limited", "missing"));
    EXPECT_TRUE(state == "ok" || check["advice"] != "") << check["name"];
    missing = missing || state == "missing";
  }
  EXPECT_THAT(names,
              testing::ElementsAre("kvm", "ring0", "dirty_log", "userfaultfd", "io_uring",
                                   "real_time", "huge_pages", "memory", "tap", "user_network"));
  EXPECT_EQ(status, missing ? kFailure : kSuccess);
}

TEST_F(CommandLine, DoctorTellsPeopleTheSame) {
  run({"doctor"});
  for (const char* name : {"kvm", "ring0", "userfaultfd", "io_uring", "huge_pages"}) {
    EXPECT_THAT(out, HasSubstr(name));
  }
}

TEST_F(CommandLine, CompletionKnowsEveryCommandAndOption) {
  EXPECT_EQ(run({"completion", "bash"}), 0);
  for (const Command& command : make_commands()) {
    const std::string name(command.syntax->name());
    EXPECT_THAT(out, HasSubstr("        " + name + ") words="));
    for (const Option& option : command.syntax->options()) {
      EXPECT_THAT(out, HasSubstr(std::string(option.name()))) << name;
    }
  }
}

// What bash offers for the line up to the cursor.
std::string completions(const std::string& script, const std::string& words) {
  std::string command = script + "\nCOMP_WORDS=(" + words +
                        "); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _minivmm; "
                        "printf '%s\\n' \"${COMPREPLY[@]}\"";
  int ends[2];
  EXPECT_EQ(::pipe(ends), 0);
  pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    ::execlp("bash", "bash", "-c", command.c_str(), nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  std::string text;
  char chunk[4096];
  ssize_t count;
  while ((count = ::read(ends[0], chunk, sizeof chunk)) > 0) {
    text.append(chunk, static_cast<size_t>(count));
  }
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0) << text;
  return text;
}

TEST_F(CommandLine, CompletionWorksInBash) {
  run({"completion", "bash"});
  EXPECT_EQ(completions(out, "minivmm do"), "doctor\n");
  EXPECT_EQ(completions(out, "minivmm run --cons"), "--console\n");
  EXPECT_EQ(completions(out, "minivmm run --console s"), "serial\n");
  EXPECT_EQ(completions(out, "minivmm run --boot = d"), "direct\n");
  EXPECT_EQ(completions(out, "minivmm run --kernel " MINIVMM_SOURCE_DIR "/READ"),
            MINIVMM_SOURCE_DIR "/README.md\n");
  EXPECT_EQ(completions(out, "minivmm completion b"), "bash\n");
  EXPECT_EQ(completions("minivmm() { echo job1; }\n" + out, "minivmm stop j"), "job1\n");
}

}  // namespace
}  // namespace cli
