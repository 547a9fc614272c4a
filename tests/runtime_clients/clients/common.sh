# Sourced by every build.sh: builds into a cache named by a hash of its inputs, then places the zip into OUTDIR.
# Usage:  . ../common.sh; client NAME OUTDIR "what else the result depends on"; build() { ...writes $work/package... }; finish
# The cache is build/runtime-clients (MAYFLY_CLIENT_CACHE names another place); a second run costs some milliseconds.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[1]}")" && pwd)

client() {
  name=$1
  outdir=${2:?usage: build.sh OUTDIR}
  mkdir -p "$outdir"
  outdir=$(cd "$outdir" && pwd)
  local cache=${MAYFLY_CLIENT_CACHE:-$here/../../../../build/runtime-clients}
  mkdir -p "$cache"
  cache=$(cd "$cache" && pwd)
  local hash
  hash=$({
    echo "${3:-}"
    uname -m
    cd "$here" && find . ../common.sh -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
  } | sha256sum | cut -c1-16)
  zip=$cache/$name-$hash.zip
  work=$cache/$name.work
}

# Two builds of one client wait for each other; what is half made never gets the final name.
finish() {
  exec 9> "$work.lock"
  flock 9
  if [ ! -f "$zip" ]; then
    rm -rf "$work/package"
    mkdir -p "$work/package"
    local status=0
    set +e # inside "||" the shell would not stop build at its first failing command
    (set -e; build) > "$work/build.log" 2>&1
    status=$?
    set -e
    if [ $status != 0 ]; then
      tail -40 "$work/build.log" >&2
      echo "building the client $name failed; the whole log: $work/build.log" >&2
      exit 1
    fi
    rm -f "$zip.part"
    (cd "$work/package" && zip -qry -X "$zip.part" .)
    mv "$zip.part" "$zip"
  fi
  cp "$zip" "$outdir/$name.zip"
  echo "$outdir/$name.zip"
}

require() {
  command -v "$1" > /dev/null || { echo "the client $name needs $1, which is not there" >&2; exit 77; }
}
