// mayfly init: a new function from a template.
#include <fcntl.h>
#include <sys/stat.h>

#include <boost/json.hpp>
#include <filesystem>
#include <iostream>
#include <set>

#include "base/embedded.h"
#include "base/fd.h"
#include "cli/internal/command.h"
#include "cli/internal/verbs.h"

namespace mayfly::cli {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

std::set<std::string> template_names() {
  std::set<std::string> names;
  for (const auto& file : embedded::templates()) {
    const std::size_t slash = file.name.find('/');
    if (slash != std::string_view::npos) names.emplace(file.name.substr(0, slash));
  }
  return names;
}

std::string joined(const std::set<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// The templates' own name in mayfly.yaml gives way to the folder's.
std::string with_name(std::string_view bytes, const std::string& name) {
  std::string text(bytes);
  const std::size_t at = text.starts_with("name:") ? 0 : text.find("\nname:");
  if (at == std::string::npos) return text;
  const std::size_t begin = at == 0 ? 0 : at + 1;
  const std::size_t end = std::min(text.find('\n', begin), text.size());
  return text.replace(begin, end - begin, "name: " + name);
}

Result<std::vector<std::string>> lay_down(const std::string& language, const std::string& folder, const std::string& name) {
  std::vector<std::string> written;
  for (const auto& file : embedded::templates()) {
    std::string relative;
    if (file.name.starts_with(language + "/"))
      relative = file.name.substr(language.size() + 1);
    else if (language == "cpp" && file.name == "mayfly_lambda.h")
      relative = file.name;
    else
      continue;
    const std::string path = folder + "/" + relative;
    MAYFLY_TRY(base::make_directories(std::filesystem::path(path).parent_path().string(), 0755));
    MAYFLY_ASSIGN(const base::UniqueFd fd, base::open_file(path, O_WRONLY | O_CREAT | O_EXCL, file.mode));
    const std::string bytes = relative == "mayfly.yaml" ? with_name(file.bytes, name) : std::string(file.bytes);
    MAYFLY_TRY(base::write_all(fd.get(), bytes).with_context(path));
    fchmod(fd.get(), file.mode);
    written.push_back(relative);
  }
  return written;
}

Result<void> check_empty(const std::string& folder) {
  std::error_code ec;
  if (!std::filesystem::exists(folder, ec)) return {};
  if (std::filesystem::is_directory(folder, ec) && std::filesystem::is_empty(folder, ec)) return {};
  return Error(ErrorCode::kAlreadyExists, folder + " exists and is not an empty folder; name another one");
}

}  // namespace

int run_init(const std::vector<std::string>& words) {
  const std::set<std::string> languages = template_names();
  Command command("init", "Lay down a new function from a template: " + joined(languages));
  std::string language;
  std::string folder;
  command.options().add_option("template", language, joined(languages))->required();
  command.options().add_option("folder", folder, "new folder; its last part becomes the function's name")->required();
  return command.run(words, [&]() -> Result<int> {
    if (!languages.contains(language))
      return Error(ErrorCode::kInvalidArgument, "there is no template \"" + language + "\"; there are " + joined(languages));
    while (folder.size() > 1 && folder.ends_with('/')) folder.pop_back();
    const std::string name = std::filesystem::path(std::filesystem::absolute(folder)).lexically_normal().filename().string();
    if (name.empty() || name.size() > 64 ||
        name.find_first_not_of("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != std::string::npos) {
      return Error(ErrorCode::kInvalidArgument, "\"" + name + "\" cannot be a function's name: use at most 64 letters, digits, - and _");
    }
    MAYFLY_TRY(check_empty(folder));
    MAYFLY_ASSIGN(const std::vector<std::string> files, lay_down(language, folder, name));
    if (command.json()) {
      boost::json::array list(files.begin(), files.end());
      Command::print_json(boost::json::object{{"name", name}, {"folder", folder}, {"files", list}});
      return 0;
    }
    std::cout << "Laid down " << files.size() << " files in " << folder << ". Next:\n  mayfly deploy " << folder << "\n  mayfly invoke "
              << name << " @" << folder << "/event.json\n";
    return 0;
  });
}

}  // namespace mayfly::cli
