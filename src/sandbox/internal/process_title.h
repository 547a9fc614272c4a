// What ps shows for the launcher and the sandboxes' first processes.
#pragma once

namespace mayfly::sandbox::internal {

// Overwrites the arguments and environment strings this process was started with by "mayfly: launcher": the title shows, and
// secrets in the server's environment are gone from this process. Call once, in a process that needs neither any more.
void set_process_title();
// Where the title is (at least 17 bytes), or null when it could not be set.
char* process_title();

}  // namespace mayfly::sandbox::internal
