// Result and Error: how every expected failure travels in Mayfly (docs/architecture.md, "Errors").
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>

namespace mayfly::base {

// Closed set of failure kinds. Each maps once to an HTTP status and a CLI exit code
// (`http_status`, `exit_status`); what is more particular lives in Error::id.
enum class ErrorCode : std::uint8_t {
  kInvalidArgument,     // the caller's input is wrong and will stay wrong
  kUnauthenticated,     // who calls is not proven
  kPermissionDenied,    // who calls is known and may not
  kNotFound,
  kAlreadyExists,
  kConflict,            // the resource is in a state that does not allow this now
  kPreconditionFailed,  // a revision or condition named by the caller does not hold
  kTooLarge,            // a stated size limit is exceeded
  kResourceExhausted,   // a quota or queue is full; may succeed later
  kDeadlineExceeded,
  kCancelled,
  kFunctionFailed,      // the function's own fault: exit, error, bad answer
  kUnsupported,         // Mayfly does not do this (yet); retrying will not help
  kUnavailable,         // a part of the platform is away; retryable
  kDataLoss,            // stored bytes are damaged
  kInternal,            // our fault
};

// Stable lower-case name of `code`, such as "not_found".
std::string_view error_code_name(ErrorCode code);
// HTTP status that `code` maps to when no wire API says otherwise.
int http_status(ErrorCode code);
// Exit status of the CLI for `code`: 2 for usage, 3 not found, 4 denied, 5 conflict, 6 unavailable, 7 function failed, 1 otherwise.
int exit_status(ErrorCode code);
// Whether the same request may succeed when repeated unchanged.
bool is_retryable(ErrorCode code);

// A failure meant for a person: `message` says what failed, with which value, and what to do next;
// `id` is the wire API's error type where there is one ("ResourceNotFoundException"), else empty.
class Error {
 public:
  Error(ErrorCode code, std::string message, std::string id = {})
      : code_(code), message_(std::move(message)), id_(std::move(id)) {}

  [[nodiscard]] ErrorCode code() const { return code_; }
  [[nodiscard]] const std::string& message() const { return message_; }
  [[nodiscard]] const std::string& id() const { return id_; }

  // Prepends "`context`: " to the message while the error travels up.
  [[nodiscard]] Error with_context(std::string_view context) &&;
  // "not_found: message [id]" for logs.
  [[nodiscard]] std::string to_string() const;

 private:
  ErrorCode code_;
  std::string message_;
  std::string id_;
};

// Error for a failed system call: `what` plus the text of `errno_value`.
// ENOENT maps to kNotFound, EEXIST kAlreadyExists, EACCES and EPERM kPermissionDenied,
// ENOSPC, EDQUOT, EMFILE, ENFILE, ENOMEM and EAGAIN kResourceExhausted, everything else kInternal.
Error errno_error(std::string_view what, int errno_value);

// The value of a computation, or why there is none. [[nodiscard]]: dropping one is a compile error.
// Same shape as std::expected (libstdc++ 12 lacks its monadic part). Access without a value aborts.
template <typename T>
class [[nodiscard]] Result {
 public:
  using value_type = T;
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}        // NOLINT(google-explicit-constructor)
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}    // NOLINT(google-explicit-constructor)
  template <typename U>
    requires(std::is_convertible_v<U &&, T> && !std::is_same_v<std::remove_cvref_t<U>, Result> &&
             !std::is_same_v<std::remove_cvref_t<U>, Error> && !std::is_same_v<std::remove_cvref_t<U>, T>)
  Result(U&& value) : state_(std::in_place_index<0>, std::forward<U>(value)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }
  T& value() & { return std::get<0>(state_); }
  const T& value() const& { return std::get<0>(state_); }
  T&& value() && { return std::get<0>(std::move(state_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  Error& error() & { return std::get<1>(state_); }
  const Error& error() const& { return std::get<1>(state_); }
  Error&& error() && { return std::get<1>(std::move(state_)); }
  template <typename U>
  T value_or(U&& fallback) && {
    return ok() ? std::move(*this).value() : static_cast<T>(std::forward<U>(fallback));
  }

  // Calls `next(value)`, which returns a Result, when there is a value.
  template <typename F>
  auto and_then(F&& next) && -> std::invoke_result_t<F, T&&> {
    if (!ok()) return std::move(*this).error();
    return std::forward<F>(next)(std::move(*this).value());
  }
  // Maps the value.
  template <typename F>
  auto transform(F&& map) && -> Result<std::invoke_result_t<F, T&&>> {
    if (!ok()) return std::move(*this).error();
    return std::forward<F>(map)(std::move(*this).value());
  }
  // Prepends `context` to the error, if there is one.
  Result with_context(std::string_view context) && {
    if (ok()) return std::move(*this);
    return std::move(*this).error().with_context(context);
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using value_type = void;
  Result() = default;
  Result(Error error) : error_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

  [[nodiscard]] bool ok() const { return !error_.has_value(); }
  explicit operator bool() const { return ok(); }
  void value() const {}
  Error& error() & { return *error_; }
  const Error& error() const& { return *error_; }
  Error&& error() && { return *std::move(error_); }
  template <typename F>
  auto and_then(F&& next) && -> std::invoke_result_t<F> {
    if (!ok()) return std::move(*this).error();
    return std::forward<F>(next)();
  }
  Result with_context(std::string_view context) && {
    if (ok()) return {};
    return std::move(*this).error().with_context(context);
  }

 private:
  std::optional<Error> error_;
};

}  // namespace mayfly::base

#define MAYFLY_CONCAT_INNER(a, b) a##b
#define MAYFLY_CONCAT(a, b) MAYFLY_CONCAT_INNER(a, b)

// MAYFLY_TRY(expression): returns the error of a Result<void> expression from the enclosing function.
#define MAYFLY_TRY(...)                                                            \
  do {                                                                             \
    auto mayfly_try_result = (__VA_ARGS__);                                        \
    if (!mayfly_try_result.ok()) return std::move(mayfly_try_result).error();      \
  } while (false)
// MAYFLY_ASSIGN(auto x, expression): binds the value, or returns the error.
#define MAYFLY_ASSIGN(declaration, ...) \
  MAYFLY_ASSIGN_INNER(MAYFLY_CONCAT(mayfly_assign_, __LINE__), declaration, __VA_ARGS__)
#define MAYFLY_ASSIGN_INNER(temporary, declaration, ...)           \
  auto temporary = (__VA_ARGS__);                                  \
  if (!temporary.ok()) return std::move(temporary).error();        \
  declaration = std::move(temporary).value()
// The same two inside a coroutine that returns Result.
#define MAYFLY_CO_TRY(...)                                                         \
  do {                                                                             \
    auto mayfly_try_result = (__VA_ARGS__);                                        \
    if (!mayfly_try_result.ok()) co_return std::move(mayfly_try_result).error();   \
  } while (false)
#define MAYFLY_CO_ASSIGN(declaration, ...) \
  MAYFLY_CO_ASSIGN_INNER(MAYFLY_CONCAT(mayfly_assign_, __LINE__), declaration, __VA_ARGS__)
#define MAYFLY_CO_ASSIGN_INNER(temporary, declaration, ...)        \
  auto temporary = (__VA_ARGS__);                                  \
  if (!temporary.ok()) co_return std::move(temporary).error();     \
  declaration = std::move(temporary).value()
