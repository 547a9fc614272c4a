#include "store/catalogue.h"

#include <array>
#include <utility>

#include "base/mutex.h"
#include "store/internal/sqlite.h"

namespace mayfly::store {
namespace {

using base::Error;
using base::ErrorCode;
using base::MutexLock;
using base::Result;

constexpr std::int32_t kApplicationId = 0x4D464C59;  // "MFLY"

// docs/formats/catalogue.md. Never edit one that was released; add the next.
constexpr std::array kMigrations = {Migration{1, R"sql(
CREATE TABLE functions(
  name TEXT PRIMARY KEY,
  next_version INTEGER NOT NULL,
  document TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE versions(
  name TEXT NOT NULL REFERENCES functions(name) ON DELETE CASCADE,
  version TEXT NOT NULL,
  code_id TEXT NOT NULL,
  document TEXT NOT NULL,
  PRIMARY KEY(name, version)
) WITHOUT ROWID;
CREATE TABLE settings(
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;
)sql"},
                                    Migration{2, R"sql(
CREATE TABLE resources(
  kind TEXT NOT NULL,
  key TEXT NOT NULL,
  document TEXT NOT NULL,
  PRIMARY KEY(kind, key)
) WITHOUT ROWID;
)sql"}};

struct Statements {
  Statement put_function, put_version, remove_version, remove_function, functions, setting, set_setting, check;
  Statement put_resource, remove_resource, resources;
};

Result<Statements> prepare_statements(Database& database) {
  Statements all;
  const std::pair<Statement*, const char*> wanted[] = {
      {&all.put_function,
       "INSERT INTO functions(name, next_version, document) VALUES(?, ?, ?) "
       "ON CONFLICT(name) DO UPDATE SET next_version=excluded.next_version, document=excluded.document"},
      {&all.put_version,
       "INSERT INTO versions(name, version, code_id, document) VALUES(?, ?, ?, ?) "
       "ON CONFLICT(name, version) DO UPDATE SET code_id=excluded.code_id, document=excluded.document"},
      {&all.remove_version, "DELETE FROM versions WHERE name=? AND version=?"},
      {&all.remove_function, "DELETE FROM functions WHERE name=?"},
      {&all.functions,
       "SELECT f.name, f.next_version, f.document, v.version, v.code_id, v.document "
       "FROM functions f LEFT JOIN versions v ON v.name=f.name ORDER BY f.name, v.version"},
      {&all.setting, "SELECT value FROM settings WHERE key=?"},
      {&all.set_setting, "INSERT INTO settings(key, value) VALUES(?, ?) ON CONFLICT(key) DO UPDATE SET value=excluded.value"},
      {&all.check, "SELECT count(*) FROM migrations"},
      {&all.put_resource,
       "INSERT INTO resources(kind, key, document) VALUES(?, ?, ?) ON CONFLICT(kind, key) DO UPDATE SET document=excluded.document"},
      {&all.remove_resource, "DELETE FROM resources WHERE kind=? AND key=?"},
      {&all.resources, "SELECT key, document FROM resources WHERE kind=? ORDER BY key"},
  };
  for (const auto& [statement, sql] : wanted) {
    MAYFLY_ASSIGN(*statement, database.prepare(sql));
  }
  return all;
}

// Rows of the statement `functions`: a function's columns, repeated for each of its versions.
Result<void> walk(Statement& rows, const Catalogue::FunctionVisitor& visit) {
  FunctionRow function;
  std::vector<VersionRow> versions;
  bool any = false;
  while (true) {
    MAYFLY_ASSIGN(const bool row, rows.step());
    if (!row || !any || rows.view(0) != function.name) {
      if (any) MAYFLY_TRY(visit(function, versions));
      if (!row) return {};
      any = true;
      function.name = rows.view(0);
      function.next_version = static_cast<std::uint64_t>(rows.number(1));
      function.document = rows.view(2);
      versions.clear();
      if (rows.view(3).empty()) continue;  // a function without any
    }
    versions.push_back({.name = function.name, .version = rows.text(3), .code_id = rows.text(4), .document = rows.text(5)});
  }
}

class SqliteCatalogue final : public Catalogue {
 public:
  SqliteCatalogue(std::unique_ptr<Database> database, Statements statements)
      : database_(std::move(database)), statements_(std::move(statements)) {}

  Result<void> apply(const CatalogueChange& change) override {
    const MutexLock lock(mutex_);
    return database_->transaction([&]() MAYFLY_REQUIRES(mutex_) { return apply_rows(change); })
        .with_context("the catalogue did not take the change");
  }

  Result<void> each_function(const FunctionVisitor& visit) override {
    const MutexLock lock(mutex_);
    Result<void> done = walk(statements_.functions, visit);
    if (!done.ok()) statements_.functions.reset();
    return done;
  }

  Result<std::vector<ResourceRow>> resources(const std::string& kind) override {
    const MutexLock lock(mutex_);
    std::vector<ResourceRow> rows;
    Statement& all = statements_.resources;
    all.bind(1, kind);
    while (true) {
      MAYFLY_ASSIGN(const bool row, all.step());
      if (!row) return rows;
      rows.push_back({.kind = kind, .key = all.text(0), .document = all.text(1)});
    }
  }

  Result<std::string> setting(const std::string& key) override {
    const MutexLock lock(mutex_);
    MAYFLY_ASSIGN(const bool row, statements_.setting.bind(1, key).step());
    std::string value = row ? statements_.setting.text(0) : std::string();
    statements_.setting.reset();
    return value;
  }

  Result<void> set_setting(const std::string& key, const std::string& value) override {
    const MutexLock lock(mutex_);
    return database_->transaction([&]() MAYFLY_REQUIRES(mutex_) { return run_set_setting(key, value); })
        .with_context("the setting " + key + " was not stored");
  }

  Result<void> check() override {
    const MutexLock lock(mutex_);
    MAYFLY_TRY(database_->healthy());
    return statements_.check.run();
  }

 private:
  // Called by transaction() while the mutex is held.
  Result<void> apply_rows(const CatalogueChange& change) MAYFLY_REQUIRES(mutex_) {
    for (const std::string& name : change.remove_functions) MAYFLY_TRY(statements_.remove_function.bind(1, name).run());
    for (const auto& [name, version] : change.remove_versions) MAYFLY_TRY(statements_.remove_version.bind(1, name).bind(2, version).run());
    for (const auto& [kind, key] : change.remove_resources) MAYFLY_TRY(statements_.remove_resource.bind(1, kind).bind(2, key).run());
    for (const ResourceRow& row : change.put_resources)
      MAYFLY_TRY(statements_.put_resource.bind(1, row.kind).bind(2, row.key).bind(3, row.document).run());
    for (const FunctionRow& row : change.put_functions) {
      MAYFLY_TRY(
          statements_.put_function.bind(1, row.name).bind(2, static_cast<std::int64_t>(row.next_version)).bind(3, row.document).run());
    }
    for (const VersionRow& row : change.put_versions) {
      MAYFLY_TRY(statements_.put_version.bind(1, row.name).bind(2, row.version).bind(3, row.code_id).bind(4, row.document).run());
    }
    return {};
  }

  Result<void> run_set_setting(const std::string& key, const std::string& value) MAYFLY_REQUIRES(mutex_) {
    return statements_.set_setting.bind(1, key).bind(2, value).run();
  }

  base::Mutex mutex_;
  std::unique_ptr<Database> database_ MAYFLY_GUARDED_BY(mutex_);
  Statements statements_ MAYFLY_GUARDED_BY(mutex_);
};

}  // namespace

Result<std::unique_ptr<Catalogue>> open_catalogue(const std::string& path) {
  MAYFLY_ASSIGN(std::unique_ptr<Database> database, Database::open(path, kApplicationId));
  MAYFLY_TRY(database->migrate(kMigrations));
  MAYFLY_ASSIGN(Statements statements, prepare_statements(*database));
  return std::unique_ptr<Catalogue>(std::make_unique<SqliteCatalogue>(std::move(database), std::move(statements)));
}

}  // namespace mayfly::store
