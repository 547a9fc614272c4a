// What every operation of Lambda's control plane is given, and how they are found. Blocking: run on the worker pool.
#pragma once

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "api/lambda/resolve.h"
#include "base/result.h"
#include "engine/registry.h"
#include "net/http.h"

namespace mayfly::api {
struct ApiContext;
}

namespace mayfly::api::lambda {

// One validated request.
struct ControlCall {
  ApiContext& context;
  const boost::json::object& input;  // by member name
  std::string action;                // "lambda:GetFunction"
  std::string host;                  // as the caller named this endpoint: URLs in answers use it
  std::string access_key;            // of the caller: signs URLs in answers
};

using ControlOperation = base::Result<net::Response> (*)(const ControlCall&);

struct ControlEntry {
  std::string_view name;
  ControlOperation run;
};

// Null when Mayfly does not have the operation (yet), or has it elsewhere (Invoke).
[[nodiscard]] ControlOperation find_control_operation(std::string_view name);

// The operations by group; each is defined in the file of its name.
[[nodiscard]] std::span<const ControlEntry> function_operations();              // functions.cc
[[nodiscard]] std::span<const ControlEntry> alias_operations();                 // aliases.cc
[[nodiscard]] std::span<const ControlEntry> permission_operations();            // permissions.cc
[[nodiscard]] std::span<const ControlEntry> function_url_operations();          // function_urls.cc
[[nodiscard]] std::span<const ControlEntry> concurrency_operations();           // concurrency.cc
[[nodiscard]] std::span<const ControlEntry> event_invoke_operations();          // event_invoke.cc
[[nodiscard]] std::span<const ControlEntry> event_source_mapping_operations();  // event_source_mappings.cc
[[nodiscard]] std::span<const ControlEntry> layer_operations();                 // layers.cc
[[nodiscard]] std::span<const ControlEntry> account_operations();  // account.cc: account settings, tags, runtime management ...

// What a request acts on, for authorise(): the ARN of a function or event source mapping, or "*" where it names none.
[[nodiscard]] base::Result<std::string> resource_of(const boost::json::object& input, const engine::Account& account,
                                                    const std::string& action);

// An answer with `body` as JSON; an empty object becomes an empty body where `status` is 204.
[[nodiscard]] net::Response control_answer(int status, const boost::json::object& body);

// The function and qualifier that FunctionName and Qualifier name.
[[nodiscard]] base::Result<Target> target_of(const ControlCall& call);
// For operations on the function as a whole: a qualifier has nothing to name; "Function not found" then.
[[nodiscard]] base::Result<Target> whole_function(const ControlCall& call);
// The function, or "Function not found: ARN" without the qualifier.
[[nodiscard]] base::Result<engine::RecordPtr> existing_function(const ControlCall& call, const Target& target);
// Checks that a version ("Function not found: ARN:1") or alias ("Cannot find alias arn: ARN:name") of `record` has that name.
[[nodiscard]] base::Result<void> check_qualifier(const engine::FunctionRecord& record, const std::string& qualifier);

// Pages of lists: at most `MaxItems`, at most `most`.
[[nodiscard]] std::size_t page_size(const boost::json::object& input, std::size_t most = 50);
// The place a list goes on from: the key of the last entry shown, "" at the start.
[[nodiscard]] base::Result<std::string> marker_in(const boost::json::object& input);
[[nodiscard]] std::string make_marker(std::string_view last_key);

// One page of a list whose entries have keys in ascending order, "" among them.
class Page {
 public:
  // From the request's Marker and MaxItems; InvalidParameterValueException for a marker that no page gave out.
  [[nodiscard]] static base::Result<Page> from(const boost::json::object& input);
  // Whether the entry of that key was on an earlier page.
  [[nodiscard]] bool was_shown(std::string_view key) const { return after_ && key <= *after_; }
  // Adds the next entry. False when the page is full: the rest is for the next one.
  [[nodiscard]] bool add(std::string_view key, boost::json::object entry);
  // The page as the member `name` of an answer.
  [[nodiscard]] net::Response answer(std::string_view name) &&;

 private:
  std::optional<std::string> after_;
  std::size_t max_ = 0;
  std::string last_;
  bool more_ = false;
  boost::json::array entries_;
};

}  // namespace mayfly::api::lambda
