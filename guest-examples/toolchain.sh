#!/usr/bin/env bash
# Run a command with a Rust toolchain that can build for wasm32-wasip2:
#   toolchain.sh cargo build --release --target wasm32-wasip2
#   toolchain.sh                  print the environment it would use, as `export` lines
#   toolchain.sh --describe       print the compiler and the route in one line
# The first route that works is taken; GOVRUN_GUEST_TOOLCHAIN=rustup or =debian forces one.
#   rustup   the target is installed, or `rustup target add wasm32-wasip2` installs it
#   debian   compiler and linker from Debian packages, libc from the `ziglang` wheel, std built from source; kept in
#            .toolchain/ beside this script, nothing is installed on the system and root is not needed
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$here/.toolchain
root=$cache/debian
target=wasm32-wasip2
# Debian's own wasi-libc is from 2022, and commands linked with it fail as soon as they have a preopened directory.
zig=0.17.1
# The oldest compiler that builds the guests (`rust-version` in Cargo.toml).
oldest=1.95

say() { echo "toolchain.sh: $*" >&2; }

installed() { compgen -G "$(rustc --print sysroot)/lib/rustlib/$target/lib/libstd-*.rlib" >/dev/null; }

use_rustup() {
  installed && return
  command -v rustup >/dev/null || { say "rustup is not here"; return 1; }
  say "rustup target add $target"
  timeout 300 rustup target add "$target" >&2 && installed
}

use_debian() {
  if [ ! -d "$root" ]; then
    rm -rf "$root.part"
    mkdir -p "$root.part"
    # Renamed when complete: an interrupted run starts again from the beginning.
    debian_packages "$root.part" && libc "$root.part" && wrapper "$root.part" && std "$root.part" || return 1
    mv "$root.part" "$root"
  fi
  export RUSTC=$root/rustc
}

# Compiler, linkers and the sources of std. Versions come from the package lists, so that a security update of the
# compiler needs no change here.
debian_packages() {
  local candidate version llvm
  candidate=$(apt-cache policy rustc-web 2>/dev/null | sed -n 's/^ *Candidate: //p')
  llvm=$(apt-cache depends rust-web-llvm 2>/dev/null | sed -n 's/.*Depends: llvm-//p' | head -n 1)
  if [ -z "$llvm" ] || ! dpkg --compare-versions "${candidate:-0}" ge "$oldest"; then
    say "rustc-web $oldest or newer is not in the package lists; run \`apt-get update\` as root, with the security suite"
    return 1
  fi
  version=$(echo "$candidate" | cut -d. -f1,2)
  say "downloading rustc-web $candidate and LLVM $llvm (about 145 MB)"
  mkdir "$1/packages"
  (cd "$1/packages" && apt-get download -q rustc-web "libstd-rust-web-$version" libstd-rust-web-dev rust-web-src \
    rust-web-llvm "libllvm$llvm" "lld-$llvm" >&2) || return 1
  local package
  for package in "$1"/packages/*.deb; do dpkg -x "$package" "$1" || return 1; done
  rm -r "$1/packages"
  mkdir "$1/bin"
  ln -s "../usr/bin/wasm-ld-$llvm" "$1/bin/wasm-ld"
}

# The start files and a libc.a that holds everything a C compiler would have linked besides.
libc() {
  local into=$1/usr/lib/rustlib/$target/lib/self-contained work=$1/zig
  mkdir -p "$into" "$work"
  say "downloading ziglang $zig (about 100 MB) for its libc"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --dest "$work" \
    "ziglang==$zig" >&2 || return 1
  python3 -m zipfile -e "$work"/ziglang-*.whl "$work/wheel" || return 1
  chmod +x "$work/wheel/ziglang/zig"
  echo 'int main(void) { return 0; }' >"$work/main.c"
  local model
  for model in command reactor; do
    zig "$work" cc -target wasm32-wasi -mexec-model=$model "$work/main.c" -o "$work/main.wasm" || return 1
    # The cache has one per optimisation mode; they are the same code.
    cp "$(find "$work/cache" -name crt1-$model.o | sort | head -n 1)" "$into/" || return 1
  done
  local part
  { echo "CREATE $into/libc.a"
    for part in libc.a libzigc.a libcompiler_rt.a; do echo "ADDLIB $(find "$work/cache" -name $part | head -n 1)"; done
    echo SAVE; echo END; } >"$work/merge"
  zig "$work" ar -M <"$work/merge" || return 1
  rm -r "$work"
}

zig() {
  local work=$1
  shift
  ZIG_GLOBAL_CACHE_DIR=$work/cache ZIG_LOCAL_CACHE_DIR=$work/cache "$work/wheel/ziglang/zig" "$@" >&2
}

wrapper() {
  cat >"$1/rustc" <<'EOF'
#!/bin/sh
root=$(dirname "$(readlink -f "$0")")
export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
export PATH="$root/bin:$root/usr/lib/rustlib/x86_64-unknown-linux-gnu/bin:$PATH"
exec "$root/usr/bin/rustc" "$@"
EOF
  chmod +x "$1/rustc"
}

# Debian ships no std for this target. It is built once and put where the compiler looks for it, so that no guest needs
# `-Zbuild-std`. The bitcode is for guests that are linked with LTO.
std() {
  local work=$1/std
  mkdir -p "$work/src"
  printf '[package]\nname = "empty"\nedition = "2024"\n\n[workspace]\n' >"$work/Cargo.toml"
  : >"$work/src/lib.rs"
  say "building std for $target (about a minute)"
  (cd "$work" && RUSTC=$1/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$work/target \
    CARGO_ENCODED_RUSTFLAGS=$(printf '%s\037' -Cembed-bitcode=yes \
      "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo")"--remap-path-prefix=$1/usr/lib/rustlib/src/rust=/rustc" \
    cargo build --quiet --release --target "$target" -Zbuild-std=std,panic_abort >&2) || return 1
  rm "$work/target/$target"/release/deps/libempty-*.rlib
  cp "$work/target/$target"/release/deps/*.rlib "$1/usr/lib/rustlib/$target/lib/"
  rm -r "$work" "$1/usr/src"
}

case ${GOVRUN_GUEST_TOOLCHAIN:-} in
  rustup | debian) route=$GOVRUN_GUEST_TOOLCHAIN; "use_$route" || { say "route $route does not work"; exit 1; } ;;
  '') if use_rustup; then route=rustup; elif use_debian; then route=debian; else say "no route works"; exit 1; fi ;;
  *) say "GOVRUN_GUEST_TOOLCHAIN is rustup or debian"; exit 2 ;;
esac

case ${1:-} in
  '') echo "# route $route"; [ -z "${RUSTC:-}" ] || echo "export RUSTC=$RUSTC" ;;
  --describe) echo "$("${RUSTC:-rustc}" --version), $route route" ;;
  *) exec "$@" ;;
esac
