// An executor that stops executing when its scope ends: what is handed to it afterwards, and what was queued before, is
// destroyed instead of run. This is what lets a TaskScope promise that none of its coroutines runs after its destructor.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/prefer.hpp>
#include <boost/asio/query.hpp>
#include <boost/asio/require.hpp>
#include <memory>
#include <utility>

namespace mayfly::net::internal {

// Shared by a scope and its executors. `alive` is read and written on the loop's thread only.
struct ScopeState {
  bool alive = true;
};

// `Inner` is one of io_context's executor types.
template <typename Inner>
class ScopedExecutor {
 public:
  ScopedExecutor(Inner inner, std::shared_ptr<const ScopeState> scope) noexcept : inner_(std::move(inner)), scope_(std::move(scope)) {}

  template <typename Property>
    requires(boost::asio::can_query<const Inner&, Property>::value)
  decltype(auto) query(const Property& property) const {
    return boost::asio::query(inner_, property);
  }
  template <typename Property>
    requires(boost::asio::can_require<const Inner&, Property>::value)
  auto require(const Property& property) const {
    auto inner = boost::asio::require(inner_, property);
    return ScopedExecutor<decltype(inner)>(std::move(inner), scope_);
  }
  template <typename Property>
    requires(boost::asio::can_prefer<const Inner&, Property>::value)
  auto prefer(const Property& property) const {
    auto inner = boost::asio::prefer(inner_, property);
    return ScopedExecutor<decltype(inner)>(std::move(inner), scope_);
  }
  template <typename F>
  void execute(F&& work) const {
    if (inner_.running_in_this_thread() && !scope_->alive) return;
    inner_.execute([scope = scope_, work = std::forward<F>(work)]() mutable {
      if (scope->alive) std::move(work)();
    });
  }
  friend bool operator==(const ScopedExecutor& a, const ScopedExecutor& b) noexcept { return a.inner_ == b.inner_ && a.scope_ == b.scope_; }
  friend bool operator!=(const ScopedExecutor& a, const ScopedExecutor& b) noexcept { return !(a == b); }

 private:
  Inner inner_;
  std::shared_ptr<const ScopeState> scope_;
};

}  // namespace mayfly::net::internal
