// Who sent a request: the signature's claim, the credential it names, and the checks that prove it.
#pragma once

#include <string>

#include "access/access.h"
#include "base/result.h"
#include "base/time.h"
#include "engine/function.h"
#include "net/http.h"
#include "net/sigv4.h"

namespace mayfly::api {

struct Caller {
  net::SignatureClaim claim;
  access::CredentialPointer credential;
  // The signature covers a hash of the body that no header states (the SDKs do so for every service but S3): only
  // authenticate_body() can prove it.
  bool proven = false;
  [[nodiscard]] const access::Principal& principal() const { return credential->principal; }
};

struct AuthenticationScope {
  const access::CredentialStore& credentials;
  const engine::Account& account;
  base::WallTime now;
};

// Checks what the head says: key, token, region, and the signature where the head states the body's hash.
[[nodiscard]] base::Result<Caller> authenticate_head(const net::RequestHead& head, net::SignatureClaim claim,
                                                     const AuthenticationScope& scope);

// Proves the rest: the signature if it is still open, and the body's hash or each chunk's signature, in which case `body`
// becomes what the chunks carried.
[[nodiscard]] base::Result<void> authenticate_body(Caller& caller, const net::RequestHead& head, std::string& body, base::WallTime now);

}  // namespace mayfly::api
