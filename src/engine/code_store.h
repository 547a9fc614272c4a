// CodeStore: the packages of functions and layers: stored as uploaded, made ready for environments, and forgotten once nobody
// names them any more. Content-addressed: the same bytes are one code, however many versions and layers use them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/fd.h"
#include "base/mutex.h"
#include "base/result.h"
#include "store/blobs.h"

namespace mayfly::engine {

// Begins to put a zip, open for reading, where environments can use it (unpacked beneath the code directory). What it returns waits for
// the end and answers the unpacked size in bytes; the same when it is there already. The error is the archive's fault (kInvalidArgument)
// or the platform's. Called from several threads at once, also for the same code.
using PendingCode = std::function<base::Result<std::uint64_t>()>;
using CodePreparer = std::function<PendingCode(const std::string& code_id, base::UniqueFd archive)>;

// What a package is called.
struct CodeIdentity {
  std::string id;             // 64 hex digits: SHA-256 of the zip; names blob and unpacked directory
  std::string sha256_base64;  // the same digest, as the API shows it
  std::uint64_t size = 0;     // bytes of the zip
  bool operator==(const CodeIdentity&) const = default;
};

// Threads: any; calls block (files, unpacking). References given to the constructor outlive it.
class CodeStore {
 public:
  CodeStore(store::Blobs& blobs, CodePreparer prepare, std::function<void(const std::string& code_id)> discard);
  CodeStore(const CodeStore&) = delete;
  CodeStore& operator=(const CodeStore&) = delete;

  // While one lives, its code is not forgotten although nobody names it yet. Destroyed without keep(), it takes along code
  // that was not there before and that nobody names. Outlived by its store.
  class Hold {
   public:
    Hold(CodeStore& store, const std::string& code_id);
    ~Hold();
    Hold(Hold&& other) noexcept;
    Hold& operator=(Hold&&) = delete;
    Hold(const Hold&) = delete;
    Hold& operator=(const Hold&) = delete;
    // Somebody names it now.
    void keep() { kept_ = true; }

   private:
    friend class CodeStore;
    CodeStore* store_;
    const std::string code_id_;
    bool was_there_ = false;
    bool kept_ = false;
  };

  [[nodiscard]] static CodeIdentity identify(std::string_view zip);
  // Stores and prepares, both at once, the zip that `hold` was made for; its unpacked size. A bad archive is
  // InvalidParameterValueException.
  [[nodiscard]] base::Result<std::uint64_t> put(const Hold& hold, const std::string& zip);
  // The unpacked size of what is stored.
  [[nodiscard]] base::Result<std::uint64_t> unpacked_bytes(const std::string& code_id) const;
  // The zip as uploaded, verified. kNotFound.
  [[nodiscard]] base::Result<base::UniqueFd> open(const std::string& code_id) const;

  // Adds to `names` every code that an owner (functions, layers) still names. Called from any thread, must not call back.
  using Owner = std::function<void(std::set<std::string>& names)>;
  void add_owner(Owner owner);
  // Every code that an owner names.
  [[nodiscard]] std::set<std::string> named() const;

  // Forgets what neither an owner nor a hold nor `in_use` (code ids of living environments) names. Answers how many went.
  [[nodiscard]] base::Result<std::size_t> sweep(const std::set<std::string>& in_use);

 private:
  [[nodiscard]] std::set<std::string> named_locked() const MAYFLY_REQUIRES(mutex_);
  void forget(const std::string& code_id) MAYFLY_REQUIRES(mutex_);

  store::Blobs& blobs_;
  const CodePreparer prepare_;
  const std::function<void(const std::string&)> discard_;
  mutable base::Mutex mutex_;
  std::map<std::string, std::size_t> held_ MAYFLY_GUARDED_BY(mutex_);
  std::vector<Owner> owners_ MAYFLY_GUARDED_BY(mutex_);
};

}  // namespace mayfly::engine
