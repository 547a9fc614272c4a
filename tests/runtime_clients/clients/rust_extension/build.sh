#!/usr/bin/env bash
# An external extension made with lambda-extension from crates.io, static: a layer. Exit status 77 where cargo is too old for the crate.
. "$(dirname "$0")/../common.sh"
client rust_extension "${1:-}" "$(rustc --version 2> /dev/null)"
for program in cargo rustc zip; do require $program; done
minor=$(rustc --version | cut -d. -f2)
[ "$minor" -ge 84 ] || { echo "the client rust_extension needs Rust 1.84 or later; this is $(rustc --version)" >&2; exit 77; }

build() {
  local target
  target=$(rustc -vV | sed -n 's/^host. //p')
  cd "$here"
  RUSTFLAGS='-C target-feature=+crt-static' CARGO_TARGET_DIR=$work/target cargo build --release --locked --target "$target"
  mkdir -p "$work/package/extensions"
  cp "$work/target/$target/release/rust-extension" "$work/package/extensions/"
}
finish
