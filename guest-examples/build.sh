#!/usr/bin/env bash
# Build every guest as a component: build.sh [--out DIR] [--update]
#   --out DIR   where NAME.wasm goes (default: target/components)
#   --update    also refresh prebuilt/*.wasm and prebuilt/lock.toml, which are committed
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$here/target/components
update=no
while [ $# -gt 0 ]; do
  case $1 in
    --out) out=${2:?--out needs a directory}; shift 2 ;;
    --update) update=yes; shift ;;
    *) sed -n '2,4s/^# //p' "$0" >&2; exit 2 ;;
  esac
done
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$here"
target=${CARGO_TARGET_DIR:-$here/target}

# No path of this machine may reach a component: panic messages carry the paths of sources. The last prefix that
# matches wins, so the most special one stands last.
sysroot=$(./toolchain.sh sh -c '"${RUSTC:-rustc}" --print sysroot')
remap() { printf -- '--remap-path-prefix=%s=%s\037' "$1" "$2"; }
flags=$(remap "${HOME:?}" /home; remap "${CARGO_HOME:-$HOME/.cargo}" /cargo; remap "$sysroot" /rust; remap "$here" /guests)
CARGO_ENCODED_RUSTFLAGS=${flags%?} ./toolchain.sh cargo build --locked --release --target wasm32-wasip2

guests=$(sed -n 's/^default-members = \[\(.*\)\]$/\1/p' Cargo.toml | tr -d '",')
for guest in $guests; do
  # A library's file has underscores where the package has hyphens; a command keeps its hyphens.
  built=$target/wasm32-wasip2/release/$guest.wasm
  [ -e "$built" ] || built=$target/wasm32-wasip2/release/${guest//-/_}.wasm
  cp "$built" "$out/$guest.wasm"
done

if [ $update = yes ]; then
  rm -f prebuilt/*.wasm
  mkdir -p prebuilt
  for guest in $guests; do cp "$out/$guest.wasm" prebuilt/; done
  # The digests are computed by a native program, with the ordinary toolchain.
  cargo run --quiet --locked -p lock -- write "$(./toolchain.sh --describe)"
fi
ls -l "$out"
