#include "store/internal/sqlite.h"

#include <sqlite3.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "base/bytes.h"
#include "base/log.h"

namespace mayfly::store {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

constexpr int kCheckpointPages = 1000;  // SQLite's own default
constexpr int kCacheKib = 512;          // read at the start, then only written: what SQLite keeps is of little use
constexpr int kBusyTimeoutMs = 2000;    // only a process that is just ending can hold the lock

bool is_no_space(int system_errno) { return system_errno == ENOSPC || system_errno == EDQUOT; }

// A failed sync tells nothing about what is on the disk, whatever its errno.
bool is_sync_failure(int extended) {
  return extended == SQLITE_IOERR_FSYNC || extended == SQLITE_IOERR_DIR_FSYNC || extended == SQLITE_IOERR_TRUNCATE;
}

ErrorCode code_of(sqlite3* handle, int extended) {
  switch (extended & 0xFF) {
    case SQLITE_FULL:
      return ErrorCode::kResourceExhausted;
    case SQLITE_IOERR:
      return !is_sync_failure(extended) && is_no_space(sqlite3_system_errno(handle)) ? ErrorCode::kResourceExhausted
                                                                                     : ErrorCode::kUnavailable;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_CANTOPEN:
      return ErrorCode::kUnavailable;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
      return ErrorCode::kDataLoss;
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
      return ErrorCode::kPermissionDenied;
    case SQLITE_CONSTRAINT:
      return ErrorCode::kConflict;
    default:
      return ErrorCode::kInternal;
  }
}

Error last_error(sqlite3* handle) {
  const int extended = sqlite3_extended_errcode(handle);
  const ErrorCode code = code_of(handle, extended);
  std::string message = std::string("SQLite: ") + sqlite3_errmsg(handle) + " (" + std::to_string(extended) + ")";
  if ((extended & 0xFF) == SQLITE_BUSY) message += "; another process has the file open";
  if (code == ErrorCode::kResourceExhausted) message += "; free some disk space and try again";
  return Error(code, std::move(message));
}

int remember_wal_pages(void* pages, sqlite3*, const char*, int count) {
  *static_cast<int*>(pages) = count;
  return SQLITE_OK;
}

bool file_has_bytes(const std::string& path) {
  struct stat info{};
  return stat(path.c_str(), &info) == 0 && info.st_size > 0;
}

std::string checksum_of(const Migration& migration) { return base::hex_encode(base::sha256(migration.sql)); }

}  // namespace

Statement& Statement::operator=(Statement&& other) noexcept {
  if (this != &other) {
    sqlite3_finalize(statement_);
    statement_ = std::exchange(other.statement_, nullptr);
  }
  return *this;
}

Statement::~Statement() { sqlite3_finalize(statement_); }

Statement& Statement::bind(int index, std::string_view text) {
  sqlite3_bind_text64(statement_, index, text.data(), text.size(), SQLITE_TRANSIENT, SQLITE_UTF8);
  return *this;
}

Statement& Statement::bind(int index, std::int64_t number) {
  sqlite3_bind_int64(statement_, index, number);
  return *this;
}

Result<bool> Statement::step() {
  const int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) {
    reset();
    return false;
  }
  Error error = last_error(sqlite3_db_handle(statement_));
  reset();
  return error;
}

Result<void> Statement::run() {
  while (true) {
    MAYFLY_ASSIGN(const bool row, step());
    if (!row) return {};
  }
}

void Statement::reset() {
  sqlite3_reset(statement_);
  sqlite3_clear_bindings(statement_);
}

std::string Statement::text(int column) const { return std::string(view(column)); }

std::string_view Statement::view(int column) const {
  const auto* bytes = reinterpret_cast<const char*>(sqlite3_column_text(statement_, column));
  if (bytes == nullptr) return {};
  return {bytes, static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

std::int64_t Statement::number(int column) const { return sqlite3_column_int64(statement_, column); }

Result<std::unique_ptr<Database>> Database::open(const std::string& path, std::int32_t application_id) {
  const bool unclean = file_has_bytes(path + "-wal");  // closing properly empties and removes it
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(path.c_str(), &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  if (handle == nullptr) return Error(ErrorCode::kResourceExhausted, "cannot open " + path + ": out of memory");
  std::unique_ptr<Database> database(new Database(handle, path));
  sqlite3_extended_result_codes(handle, 1);
  if (code != SQLITE_OK) return last_error(handle).with_context("cannot open " + path);
  MAYFLY_TRY(database->configure(application_id, unclean).with_context("cannot open " + path));
  return database;
}

Database::~Database() {
  if (!failure_.empty()) sqlite3_db_config(handle_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, nullptr);
  sqlite3_close_v2(handle_);
}

Result<void> Database::configure(std::int32_t application_id, bool unclean) {
  sqlite3_busy_timeout(handle_, kBusyTimeoutMs);
  sqlite3_db_config(handle_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_wal_hook(handle_, &remember_wal_pages, &wal_pages_);  // takes the place of the automatic checkpoint
  MAYFLY_TRY(execute(("PRAGMA cache_size=-" + std::to_string(kCacheKib)).c_str()));
  MAYFLY_TRY(
      execute("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON; PRAGMA "
              "trusted_schema=OFF"));
  MAYFLY_ASSIGN(const std::int64_t present, query_number("PRAGMA application_id"));
  MAYFLY_ASSIGN(const std::int64_t tables, query_number("SELECT count(*) FROM sqlite_schema"));
  if (present == 0 && tables == 0) return execute(("PRAGMA application_id=" + std::to_string(application_id)).c_str());
  if (present != application_id)
    return Error(ErrorCode::kDataLoss, "the file belongs to another program; name another data directory, or restore the right file");
  if (unclean) return quick_check();
  return {};
}

Result<std::int64_t> Database::query_number(const char* sql) {
  MAYFLY_ASSIGN(Statement statement, prepare(sql));
  MAYFLY_ASSIGN(const bool row, statement.step());
  return row ? statement.number(0) : 0;
}

Result<void> Database::quick_check() {
  MAYFLY_ASSIGN(Statement statement, prepare("PRAGMA quick_check(1)"));
  MAYFLY_ASSIGN(const bool row, statement.step());
  if (row && statement.text(0) == "ok") return {};
  return Error(ErrorCode::kDataLoss,
               "the file is damaged (" + (row ? statement.text(0) : std::string("no answer")) + "); restore it from a backup");
}

Result<void> Database::check_applied(std::span<const Migration> migrations, int& applied) {
  MAYFLY_ASSIGN(Statement statement, prepare("SELECT number, checksum FROM migrations ORDER BY number"));
  while (true) {
    MAYFLY_ASSIGN(const bool row, statement.step());
    if (!row) return {};
    const auto number = static_cast<int>(statement.number(0));
    if (number > static_cast<int>(migrations.size())) {
      return Error(ErrorCode::kUnsupported, path_ + " was written by a newer Mayfly (format " + std::to_string(number) +
                                                ", this one knows " + std::to_string(migrations.size()) +
                                                "); start that version, or restore a backup made before the upgrade");
    }
    if (statement.text(1) != checksum_of(migrations[static_cast<std::size_t>(number - 1)])) {
      return Error(ErrorCode::kUnsupported, path_ + " has another format " + std::to_string(number) +
                                                " than this Mayfly: it was written by a build that was never released");
    }
    applied = number;
  }
}

Result<void> Database::migrate(std::span<const Migration> migrations) {
  MAYFLY_ASSIGN(const std::int64_t known, query_number("SELECT count(*) FROM sqlite_schema WHERE name='migrations'"));
  if (known == 0) {
    MAYFLY_TRY(transaction([&] {
      return execute(
          "CREATE TABLE migrations(number INTEGER PRIMARY KEY, checksum TEXT NOT NULL, applied_at TEXT NOT NULL DEFAULT "
          "CURRENT_TIMESTAMP)");
    }));
  }
  int applied = 0;
  MAYFLY_TRY(check_applied(migrations, applied));
  for (const Migration& migration : migrations.subspan(static_cast<std::size_t>(applied))) {
    MAYFLY_TRY(transaction([&]() -> Result<void> {
                 MAYFLY_TRY(execute(migration.sql));
                 MAYFLY_ASSIGN(Statement statement, prepare("INSERT INTO migrations(number, checksum) VALUES(?, ?)"));
                 return statement.bind(1, static_cast<std::int64_t>(migration.number)).bind(2, checksum_of(migration)).run();
               }).with_context("migration " + std::to_string(migration.number) + " of " + path_));
  }
  return {};
}

Result<Statement> Database::prepare(std::string_view sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v3(handle_, sql.data(), static_cast<int>(sql.size()), SQLITE_PREPARE_PERSISTENT, &statement, nullptr) != SQLITE_OK)
    return last_error(handle_);
  return Statement(statement);
}

Result<void> Database::execute(const char* sql) {
  if (sqlite3_exec(handle_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return last_error(handle_);
  return {};
}

Result<void> Database::transaction(const std::function<Result<void>()>& work) {
  MAYFLY_TRY(healthy());
  MAYFLY_TRY(execute("BEGIN IMMEDIATE"));
  Result<void> done = work();
  if (done.ok()) done = execute("COMMIT");
  if (!done.ok()) {
    if (done.error().code() == ErrorCode::kUnavailable || done.error().code() == ErrorCode::kDataLoss) failure_ = done.error().message();
    if (sqlite3_get_autocommit(handle_) == 0) sqlite3_exec(handle_, "ROLLBACK", nullptr, nullptr, nullptr);
    note_failure();
    return done;
  }
  checkpoint_if_due();
  return {};
}

void Database::checkpoint_if_due() {
  if (wal_pages_ < kCheckpointPages) return;
  if (sqlite3_wal_checkpoint_v2(handle_, nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr) == SQLITE_OK) {
    wal_pages_ = 0;
    return;
  }
  const Error error = last_error(handle_);
  if (error.code() == ErrorCode::kUnavailable || error.code() == ErrorCode::kDataLoss) failure_ = error.message();
  note_failure();
}

void Database::note_failure() {
  if (!failure_.empty()) base::log_error("the store refuses writes until Mayfly is restarted", {{"file", path_}, {"cause", failure_}});
}

Result<void> Database::healthy() const {
  if (failure_.empty()) return {};
  return Error(ErrorCode::kUnavailable,
               path_ + " takes no changes since a write failed (" + failure_ + "); check the disk, then restart Mayfly");
}

}  // namespace mayfly::store
