#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/json.h"
#include "runtime/faults.h"

namespace mayfly::runtime {
namespace {

TEST(Faults, AnExitIsNamedAsAwsNamesIt) {
  EXPECT_EQ(process_fault({.exit_code = 1}, "r1", 128).payload,
            R"({"errorType":"Runtime.ExitError","errorMessage":"RequestId: r1 Error: Runtime exited with error: exit status 1"})");
  EXPECT_EQ(process_fault({.exit_code = 0}, "r1", 128).payload,
            R"({"errorType":"Runtime.ExitError","errorMessage":"RequestId: r1 Error: Runtime exited without providing a reason"})");
  EXPECT_NE(process_fault({.signal = 9}, "r1", 128).payload.find("signal: killed"), std::string::npos);
  EXPECT_NE(process_fault({.signal = 11}, "r1", 128).payload.find("signal: segmentation fault"), std::string::npos);
}

TEST(Faults, OutOfMemoryIsNamedWithItsLimit) {
  const FunctionFault fault = process_fault({.signal = 9, .out_of_memory = true}, "r1", 256);
  EXPECT_EQ(fault.error_type, "Runtime.OutOfMemory");
  EXPECT_NE(fault.payload.find("RequestId: r1 Error: Memory size exceeded: the limit is 256 MB"), std::string::npos);
}

TEST(Faults, ErrorTypesOutsideTheContractBecomeUnknown) {
  EXPECT_EQ(checked_error_type("Runtime.HandlerNotFound"), "Runtime.HandlerNotFound");
  EXPECT_EQ(checked_error_type("Function.Bad"), "Function.Bad");
  EXPECT_EQ(checked_error_type("Function.bad name"), "Function.Unknown");
  EXPECT_EQ(checked_error_type("ValueError"), "Runtime.Unknown");
  EXPECT_EQ(checked_error_type(""), "Runtime.Unknown");
  EXPECT_EQ(checked_error_type("Runtime." + std::string(1000, 'A')), "Runtime.Unknown");
}

TEST(Faults, APostedDocumentPassesUnchangedAndAnythingElseIsWrapped) {
  EXPECT_EQ(posted_fault("ValueError", R"({"errorType":"ValueError"})").payload, R"({"errorType":"ValueError"})");
  EXPECT_TRUE(base::check_json(posted_fault("", "not json \x01\xff").payload).ok());
  EXPECT_TRUE(base::check_json(posted_fault("", "").payload).ok());
}

TEST(Faults, TrailersCarryTheirDocumentInBase64) {
  const FunctionFault fault = trailer_fault("Runtime.Oops", base::base64_encode(R"({"errorMessage":"late"})"));
  EXPECT_EQ(fault.error_type, "Runtime.Oops");
  EXPECT_EQ(fault.payload, R"({"errorMessage":"late"})");
  EXPECT_TRUE(base::check_json(trailer_fault("x", "%%%").payload).ok());
}

}  // namespace
}  // namespace mayfly::runtime
