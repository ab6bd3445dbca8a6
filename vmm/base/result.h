// Errors as values. Every fallible function of the project returns Result<T>; an Error is one line
// for a person: what was tried, on what, why it failed, and where possible what to do about it.
#pragma once

#include <cstring>
#include <expected>
#include <string>
#include <utility>

namespace base {

class [[nodiscard]] Error {
 public:
  explicit Error(std::string what, int os_error = 0)
      : what_(std::move(what)), os_error_(os_error) {}

  // "what: strerror(os_error)", or only "what" where no system call failed.
  std::string text() const {
    return os_error_ == 0 ? what_ : what_ + ": " + std::strerror(os_error_);
  }
  // errno of the failed call, 0 where there was none.
  int os_error() const { return os_error_; }

  // The same error seen one level up: "context: what".
  Error with(const std::string& context) const { return Error(context + ": " + what_, os_error_); }

 private:
  std::string what_;
  int os_error_;
};

template <typename T = void>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(std::string what, int os_error = 0) {
  return std::unexpected(Error(std::move(what), os_error));
}

// For a system call that has just failed: takes errno.
inline std::unexpected<Error> fail_errno(std::string what) {
  int os_error = errno;
  return std::unexpected(Error(std::move(what), os_error));
}

}  // namespace base

// Leaves the calling function with the error of `expression`, a Result<void>.
#define TRY(expression)                                       \
  do {                                                        \
    if (auto try_result_ = (expression); !try_result_)        \
      return std::unexpected(std::move(try_result_).error()); \
  } while (false)

// Declares `declaration` from the value of a Result, or leaves with its error.
#define TRY_ASSIGN_JOIN_(a, b) a##b
#define TRY_ASSIGN_NAME_(line) TRY_ASSIGN_JOIN_(try_result_, line)
#define TRY_ASSIGN(declaration, expression) \
  TRY_ASSIGN_IMPL_(TRY_ASSIGN_NAME_(__LINE__), declaration, expression)
#define TRY_ASSIGN_IMPL_(name, declaration, expression)       \
  auto name = (expression);                                   \
  if (!name) return std::unexpected(std::move(name).error()); \
  declaration = std::move(*name)
