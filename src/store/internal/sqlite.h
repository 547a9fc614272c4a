// A thin owner of one SQLite connection: statements, rows and errors as Mayfly's Result. Knows nothing of schemas except
// how to migrate them. One connection per file, which writes and checkpoints, in exclusive locking mode: a second one
// cannot exist, so the WAL-reset bug of SQLite before 3.51.3 cannot strike, and no -shm file is needed.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

struct sqlite3;
struct sqlite3_stmt;

namespace mayfly::store {

// A prepared statement; belongs to its Database and must go first.
class Statement {
 public:
  Statement() = default;
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}
  Statement(Statement&& other) noexcept : statement_(std::exchange(other.statement_, nullptr)) {}
  Statement& operator=(Statement&& other) noexcept;
  ~Statement();

  // Parameters count from 1. Text is copied.
  Statement& bind(int index, std::string_view text);
  Statement& bind(int index, std::int64_t number);
  // True: there is a row to read. False: done. The statement is reset after done or an error.
  [[nodiscard]] base::Result<bool> step();
  // Runs to the end, ignoring rows.
  [[nodiscard]] base::Result<void> run();
  void reset();

  // Columns count from 0; valid until the next step.
  [[nodiscard]] std::string text(int column) const;
  // The same in SQLite's memory, until the next step() or reset(). "" for NULL.
  [[nodiscard]] std::string_view view(int column) const;
  [[nodiscard]] std::int64_t number(int column) const;

 private:
  sqlite3_stmt* statement_ = nullptr;
};

struct Migration {
  int number;       // 1, 2, 3 ... without gaps
  const char* sql;  // never edited once released: its checksum is kept in the file
};

// Not thread safe: the owner serialises.
class Database {
 public:
  // Opens or creates `path`: WAL, synchronous=FULL, foreign keys; checks the file when it was not closed properly.
  // `application_id` marks the file as ours. kDataLoss: damaged or another program's. kUnavailable: another process has it open.
  [[nodiscard]] static base::Result<std::unique_ptr<Database>> open(const std::string& path, std::int32_t application_id);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // kUnsupported when the file has migrations we do not know, or others under the same number.
  [[nodiscard]] base::Result<void> migrate(std::span<const Migration> migrations);
  [[nodiscard]] base::Result<Statement> prepare(std::string_view sql);
  [[nodiscard]] base::Result<void> execute(const char* sql);

  // Runs `work` in one transaction: committed and synced on success, rolled back otherwise. After a failed write or sync
  // the kernel may have thrown away dirty pages, so nothing is tried again: this and every later transaction is
  // kUnavailable until the file is opened anew. A full disk is kResourceExhausted and leaves everything as it was.
  [[nodiscard]] base::Result<void> transaction(const std::function<base::Result<void>()>& work);

  // kUnavailable after such a failure.
  [[nodiscard]] base::Result<void> healthy() const;

 private:
  Database(sqlite3* handle, std::string path) : handle_(handle), path_(std::move(path)) {}
  [[nodiscard]] base::Result<void> configure(std::int32_t application_id, bool unclean);
  [[nodiscard]] base::Result<std::int64_t> query_number(const char* sql);
  [[nodiscard]] base::Result<void> quick_check();
  [[nodiscard]] base::Result<void> check_applied(std::span<const Migration> migrations, int& applied);
  // Moves the WAL into the file when it has grown; failures other than of the disk itself are put off to the next time.
  void checkpoint_if_due();
  void note_failure();

  sqlite3* handle_;
  std::string path_;
  int wal_pages_ = 0;
  std::string failure_;  // "" while writes are allowed
};

}  // namespace mayfly::store
