#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "base/bytes.h"
#include "runtime/catalogue.h"
#include "runtime/internal/native_modules.h"

namespace mayfly::runtime {
namespace {

using namespace std::chrono_literals;

engine::VersionPtr make_version(const std::string& runtime = "python3.11") {
  auto version = std::make_shared<engine::FunctionVersion>();
  version->function_name = "f";
  version->version = "$LATEST";
  version->config.runtime = runtime;
  version->config.handler = "app.handler";
  version->config.log_group = "/aws/lambda/f";
  return version;
}

class CatalogueTest : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(root); }
  void TearDown() override { std::filesystem::remove_all(root); }
  void file(const std::string& path, const std::string& text = "#!/bin/true\n", bool executable = true) {
    const std::filesystem::path full = root / path;
    std::filesystem::create_directories(full.parent_path());
    std::ofstream(full) << text;
    std::filesystem::permissions(full, std::filesystem::perms(executable ? 0755 : 0644));
  }
  base::Result<RuntimeCatalogue> detect(bool stand_in = true) {
    return RuntimeCatalogue::detect({.interpreters = named,
                                     .search_paths = {(root / "versions").string()},
                                     .stand_in = stand_in,
                                     .default_paths = {(root / "bin").string()}});
  }
  std::filesystem::path root = std::filesystem::temp_directory_path() / ("mayfly-catalogue-" + base::random_hex(6));
  std::map<std::string, std::string> named;
};

TEST_F(CatalogueTest, FindsInterpretersByNameFolderAndConfiguration) {
  file("bin/python3.11");
  file("versions/3.13.1/bin/python3.13");
  file("versions/v22.3.0/bin/node");
  file("elsewhere/py", "x");
  named = {{"python3.9", (root / "elsewhere/py").string()}};
  const auto catalogue = detect();
  ASSERT_TRUE(catalogue.ok());
  std::map<std::string, RuntimeRow> rows;
  for (const RuntimeRow& row : catalogue->rows()) rows[row.name] = row;
  EXPECT_EQ(rows["python3.11"].status, RuntimeStatus::kAvailable);
  EXPECT_EQ(rows["python3.13"].status, RuntimeStatus::kAvailable);
  EXPECT_EQ(rows["python3.9"].status, RuntimeStatus::kAvailable);
  EXPECT_EQ(rows["nodejs22.x"].status, RuntimeStatus::kAvailable);
  EXPECT_EQ(rows["python3.12"].status, RuntimeStatus::kStandIn);
  EXPECT_NE(rows["python3.12"].detail.find("python3.13"), std::string::npos) << "of two as near the newer";
  EXPECT_EQ(rows["nodejs20.x"].status, RuntimeStatus::kStandIn);
  EXPECT_EQ(rows["provided.al2023"].status, RuntimeStatus::kAvailable);
  EXPECT_EQ(rows["java21"].status, RuntimeStatus::kMissing);
}

TEST_F(CatalogueTest, ReadsTheVersionOfNodeFromItsHeaderOrItsBytes) {
  file("bin/node", "....https://nodejs.org/download/release/v18.1.0/ ....");
  EXPECT_TRUE(detect()->plan(*make_version("nodejs18.x"), root.string())->stand_in.empty());
  file("include/node/node_version.h", "#define NODE_MAJOR_VERSION 20\n", false);
  EXPECT_TRUE(detect()->plan(*make_version("nodejs20.x"), root.string())->stand_in.empty());
}

TEST_F(CatalogueTest, PlansAnInterpreterOutsideUsrWithItsPrefixBound) {
  file("versions/3.13.1/bin/python3.13");
  const auto catalogue = detect();
  const auto plan = catalogue->plan(*make_version("python3.13"), root.string());
  ASSERT_TRUE(plan.ok());
  const std::string prefix = std::filesystem::canonical(root / "versions/3.13.1").string();
  EXPECT_EQ(plan->arguments, (std::vector<std::string>{prefix + "/bin/python3.13", "/var/runtime/python/bootstrap.py"}));
  EXPECT_EQ(plan->root_id, "python-13");
  ASSERT_EQ(catalogue->roots().size(), 2U);
  EXPECT_EQ(catalogue->roots()[1].extra_binds, std::vector<std::string>{prefix});
  EXPECT_TRUE(plan->variables.at("PATH").starts_with(prefix + "/bin:"));
}

TEST_F(CatalogueTest, AStandInIsNamedUnlessThePolicyForbidsIt) {
  file("bin/python3.11");
  EXPECT_TRUE(detect()->plan(*make_version("python3.12"), root.string())->stand_in.starts_with("python3.12 runs on python3.11"));
  const auto strict = detect(false);
  ASSERT_FALSE(strict->check("python3.12").ok());
  EXPECT_EQ(strict->check("python3.12").error().id(), "InvalidParameterValueException");
  EXPECT_TRUE(strict->check("python3.11").ok());
}

TEST_F(CatalogueTest, NativeModulesForbidAStandInOfAnotherAbi) {
  file("bin/python3.11");
  file("code/numpy/_core.cpython-312-x86_64-linux-gnu.so");
  const auto refused = detect()->plan(*make_version("python3.12"), (root / "code").string());
  ASSERT_FALSE(refused.ok());
  EXPECT_NE(refused.error().message().find("python3.12"), std::string::npos);
  EXPECT_NE(refused.error().message().find("python3.11"), std::string::npos);
  EXPECT_NE(refused.error().message().find("_core.cpython-312"), std::string::npos);
  file("pure/x.py");
  EXPECT_TRUE(detect()->plan(*make_version("python3.12"), (root / "pure").string()).ok());
}

TEST_F(CatalogueTest, NodeAddonsForbidAStandInUnlessTheyAreNodeApi) {
  file("versions/v20.0.0/bin/node");
  file("napi/a.node", "..napi_register_module_v1..");
  file("nan/a.node", "..node_register_module_v115..");
  EXPECT_TRUE(detect()->plan(*make_version("nodejs22.x"), (root / "napi").string()).ok());
  EXPECT_FALSE(detect()->plan(*make_version("nodejs22.x"), (root / "nan").string()).ok());
}

TEST_F(CatalogueTest, ABootstrapMustBeThereAndExecutable) {
  file("good/bootstrap");
  file("bad/bootstrap", "x", false);
  EXPECT_EQ(detect()->plan(*make_version("provided.al2023"), (root / "good").string())->arguments,
            std::vector<std::string>{"/var/task/bootstrap"});
  const auto refused = detect()->plan(*make_version("provided.al2023"), (root / "bad").string());
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().id(), "Runtime.InvalidEntrypoint");
  EXPECT_EQ(refused.error().message(), "fork/exec /var/task/bootstrap: permission denied; make it executable (chmod +x)");
  const auto missing = detect()->plan(*make_version("provided.al2023"), (root / "none").string());
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().id(), "Runtime.InvalidEntrypoint");
  EXPECT_TRUE(missing.error().message().starts_with("Couldn't find valid bootstrap(s)")) << missing.error().message();
}

TEST_F(CatalogueTest, RuntimesThatDoNotExistHereAreRefusedWithWhatDoes) {
  file("bin/python3.11");
  for (const char* name : {"java21", "ruby3.3", "python3", "python3.011", "nodejs.x", "cobol1"}) {
    const auto refused = detect()->check(name);
    ASSERT_FALSE(refused.ok()) << name;
    EXPECT_NE(refused.error().message().find(name), std::string::npos);
  }
}

TEST_F(CatalogueTest, AConfiguredInterpreterThatIsMissingIsAnError) {
  named = {{"python3.12", "/nowhere/python"}};
  ASSERT_FALSE(detect().ok());
  EXPECT_NE(detect().error().message().find("/nowhere/python"), std::string::npos);
}

TEST(NativeModules, ReadsTheAbiTag) {
  EXPECT_EQ(python_minor_of("a.cpython-312-x86_64-linux-gnu.so"), 12);
  EXPECT_EQ(python_minor_of("a.cpython-39-x86_64-linux-gnu.so"), 9);
  EXPECT_EQ(python_minor_of("a.abi3.so"), 0);
  EXPECT_EQ(python_minor_of("a.cpython-3.so"), 0);
}

}  // namespace
}  // namespace mayfly::runtime
