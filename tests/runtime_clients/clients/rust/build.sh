#!/usr/bin/env bash
# lambda_runtime from crates.io, static. Exit status 77 where the installed cargo is too old for the crate.
. "$(dirname "$0")/../common.sh"
client rust "${1:-}" "$(rustc --version 2> /dev/null)"
for program in cargo rustc zip; do require $program; done
minor=$(rustc --version | cut -d. -f2)
[ "$minor" -ge 84 ] || { echo "the client rust needs Rust 1.84 or later; this is $(rustc --version)" >&2; exit 77; }

build() {
  local target
  target=$(rustc -vV | sed -n 's/^host. //p')
  cd "$here"
  RUSTFLAGS='-C target-feature=+crt-static' CARGO_TARGET_DIR=$work/target cargo build --release --locked --target "$target"
  cp "$work/target/$target/release/bootstrap" "$work/package/"
}
finish
