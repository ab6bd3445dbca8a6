// The command line as a whole: parses it, runs the command it names, prints errors.
#pragma once

namespace cli {

// What main() does. Errors are one line on stderr; the result is the exit status (exit_status.h).
int run_command_line(int argc, const char* const* argv);

}  // namespace cli
