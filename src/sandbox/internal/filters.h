// System call filters (seccomp), built once with libseccomp and loaded raw afterwards.
#pragma once

#include <linux/filter.h>

#include <vector>

#include "base/result.h"

namespace mayfly::sandbox::internal {

using Filter = std::vector<sock_filter>;

// What functions may call: the container world's default list for processes without capabilities, less what a function has no
// use for. Each group gives its reason in the source.
[[nodiscard]] base::Result<Filter> function_filter();
// The same and setns(): what a zygote needs to fork into sandboxes. Its children load the function's filter besides.
[[nodiscard]] base::Result<Filter> zygote_filter();
// What the first process of a sandbox needs once it has made the main process: hear what to expect, wait, report, end.
[[nodiscard]] base::Result<Filter> init_filter();
// What the process that unpacks archives needs: files beneath its root, memory, and its one socket.
[[nodiscard]] base::Result<Filter> unpack_filter();

}  // namespace mayfly::sandbox::internal
