#include "cli/internal/manifest.h"

#include <yaml-cpp/yaml.h>

#include "base/fd.h"

namespace mayfly::cli {
namespace {

using base::Error;
using base::ErrorCode;
using base::Result;

Error at(const YAML::Node& node, const std::string& message) {
  return Error(ErrorCode::kInvalidArgument, "mayfly.yaml line " + std::to_string(node.Mark().line + 1) + ": " + message);
}

Result<std::string> scalar(const YAML::Node& node, const std::string& key) {
  if (!node.IsScalar()) return at(node, key + " must be a single value");
  return node.Scalar();
}

Result<std::uint32_t> number(const YAML::Node& node, const std::string& key) {
  MAYFLY_ASSIGN(const std::string text, scalar(node, key));
  if (text.empty() || text.size() > 6 || text.find_first_not_of("0123456789") != std::string::npos)
    return at(node, key + " must be a whole number, not \"" + text + "\"");
  return static_cast<std::uint32_t>(std::stoul(text));
}

Result<std::vector<std::string>> texts(const YAML::Node& node, const std::string& key) {
  std::vector<std::string> all;
  if (node.IsScalar()) return std::vector<std::string>{node.Scalar()};
  if (!node.IsSequence()) return at(node, key + " must be a list");
  for (const YAML::Node& item : node) {
    MAYFLY_ASSIGN(std::string text, scalar(item, key));
    all.push_back(std::move(text));
  }
  return all;
}

Result<void> set_key(Manifest& manifest, const std::string& key, const YAML::Node& value) {
  const std::map<std::string, std::string*> text_keys = {
      {"name", &manifest.name}, {"runtime", &manifest.runtime}, {"handler", &manifest.handler},  {"description", &manifest.description},
      {"role", &manifest.role}, {"code", &manifest.code},       {"artifact", &manifest.artifact}};
  const std::map<std::string, std::optional<std::uint32_t>*> number_keys = {
      {"memory", &manifest.memory_mb}, {"timeout", &manifest.timeout_s}, {"ephemeral", &manifest.ephemeral_mb}};
  const std::map<std::string, std::vector<std::string>*> list_keys = {
      {"build", &manifest.build}, {"include", &manifest.include}, {"exclude", &manifest.exclude}};
  if (const auto text = text_keys.find(key); text != text_keys.end()) {
    MAYFLY_ASSIGN(*text->second, scalar(value, key));
  } else if (const auto whole = number_keys.find(key); whole != number_keys.end()) {
    MAYFLY_ASSIGN(*whole->second, number(value, key));
  } else if (const auto list = list_keys.find(key); list != list_keys.end()) {
    MAYFLY_ASSIGN(*list->second, texts(value, key));
  } else if (key == "network") {
    MAYFLY_ASSIGN(manifest.environment["MAYFLY_NETWORK"], scalar(value, key));
  } else if (key == "environment") {
    if (!value.IsMap()) return at(value, "environment must be a map of NAME: value");
    for (const auto& member : value) {
      MAYFLY_ASSIGN(manifest.environment[member.first.Scalar()], scalar(member.second, "environment"));
    }
  } else {
    return at(value, "unknown key \"" + key +
                         "\"; known are name, runtime, handler, description, role, memory, timeout, ephemeral, code, build, artifact, "
                         "environment, network, include, exclude");
  }
  return {};
}

}  // namespace

Result<Manifest> read_manifest(const std::string& folder) {
  MAYFLY_ASSIGN(const std::string text, base::read_file(folder + "/mayfly.yaml", 1U << 20U));
  // An alias could unfold into more than memory holds; a manifest has no use for one.
  for (std::size_t line = 0; line < text.size();
       line = text.find('\n', line) == std::string::npos ? text.size() : text.find('\n', line) + 1) {
    const std::string row = text.substr(line, text.find('\n', line) - line);
    if (row.find(": *") != std::string::npos || row.find("- *") != std::string::npos) {
      return Error(ErrorCode::kInvalidArgument,
                   "mayfly.yaml: aliases are not supported: \"" + row + "\"; quote the value if it is meant to begin with '*'");
    }
  }
  try {  // yaml-cpp reports through exceptions
    const YAML::Node document = YAML::Load(text);
    Manifest manifest;
    if (!document.IsMap()) return Error(ErrorCode::kInvalidArgument, "mayfly.yaml must be a map of keys such as name, runtime and handler");
    for (const auto& member : document) MAYFLY_TRY(set_key(manifest, member.first.Scalar(), member.second));
    return manifest;
  } catch (const YAML::Exception& error) {
    return Error(ErrorCode::kInvalidArgument, std::string("mayfly.yaml: ") + error.what());
  }
}

}  // namespace mayfly::cli
