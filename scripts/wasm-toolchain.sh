#!/usr/bin/env bash
# Provides a compiler that can build for wasm32-unknown-unknown and prints, as
# shell exports on stdout, what a caller has to set to use it (nothing, where the
# toolchain that is already active will do). Progress goes to stderr.
#
#   eval "$(scripts/wasm-toolchain.sh)"
#
# DATAHIKE_WASM_ROUTE chooses how:
#   auto       (default) the active toolchain if it has the target, else `rustup
#              target add`, else Debian packages where there is an apt-get
#   rustup     as auto, without the Debian route
#   debian     Debian packages only; rustup is neither asked nor changed
#   installed  only what is there already
# DATAHIKE_WASM_PREFIX is where the Debian route unpacks
# (default ${XDG_CACHE_HOME:-~/.cache}/datahike-wasm). Nothing is installed into
# the system, and no root is needed once apt knows its package lists.
set -euo pipefail

target=wasm32-unknown-unknown
route=${DATAHIKE_WASM_ROUTE:-auto}
prefix=${DATAHIKE_WASM_PREFIX:-${XDG_CACHE_HOME:-$HOME/.cache}/datahike-wasm}
# Part of the cache key: raise it when the steps below change.
recipe=1

note() { printf 'wasm-toolchain: %s\n' "$*" >&2; }
fail() { note "$*"; exit 1; }

has_target() {
    local sysroot
    sysroot=$(rustc --print sysroot 2>/dev/null) || return 1
    compgen -G "$sysroot/lib/rustlib/$target/lib/libcore-*.rlib" >/dev/null
}

by_rustup() {
    command -v rustup >/dev/null || return 1
    note "rustup target add $target"
    timeout 300 rustup target add "$target" >&2 && has_target
}

# --- Debian --------------------------------------------------------------------
# Debian builds a rustc for browsers ("rustc-web") and ships its library sources,
# but no compiled standard library for wasm32. So: unpack compiler, LLVM and lld
# into a private tree, build the standard library once from those sources, put it
# into that tree's sysroot. From then on it is an ordinary toolchain.

candidate() { apt-cache policy rustc-web 2>/dev/null | awk '$1 == "Candidate:" { print $2 }'; }

new_enough() { # version or nothing
    local least
    least=$(awk -F'"' '/^rust-version/ { print $2; exit }' "$(dirname "$0")/../Cargo.toml")
    [ -n "$1" ] && [ "$1" != "(none)" ] && dpkg --compare-versions "$1" ge "$least"
}

dependency() { # package, pattern: the first dependency that matches
    apt-cache depends "$1" | awk '$1 ~ /Depends:/ { print $2 }' | grep -E -m1 "$2"
}

write_wrapper() { # tree to write into, tree to name
    local lib
    lib=$(compgen -G "$1/usr/lib/*/librustc_driver-*.so" | head -n1)
    [ -n "$lib" ] || fail "the packages hold no librustc_driver"
    lib=$(basename "$(dirname "$lib")")
    cat >"$1/rustc" <<W
#!/bin/sh
export LD_LIBRARY_PATH="$2/usr/lib/$lib\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
exec "$2/usr/bin/rustc" "\$@"
W
    chmod 755 "$1/rustc"
}

build_std() { # tree, scratch folder
    mkdir -p "$2/src"
    : >"$2/src/lib.rs"
    cat >"$2/Cargo.toml" <<'W'
[package]
name = "seed"
version = "0.0.0"
edition = "2021"
[workspace]
W
    # The bootstrap switch is for this one build. Bitcode is embedded so that
    # users can link with LTO; the sources' path must not leak into artefacts.
    (
        cd "$2"
        unset CARGO_ENCODED_RUSTFLAGS RUSTFLAGS CARGO_TARGET_DIR CARGO_BUILD_TARGET \
            RUSTC_WRAPPER RUSTC_WORKSPACE_WRAPPER RUSTUP_TOOLCHAIN
        export RUSTC=$1/rustc RUSTC_BOOTSTRAP=1
        export CARGO_PROFILE_RELEASE_OPT_LEVEL=3 CARGO_PROFILE_RELEASE_DEBUG=0
        export CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS="-Cembed-bitcode=yes -Zforce-unstable-if-unmarked --remap-path-prefix=$1/usr/src=/rustc"
        cargo build --quiet --release --target "$target" --target-dir "$2/out" \
            -Zbuild-std=std,panic_abort,panic_unwind,proc_macro,test >&2
    )
    local lib=$1/usr/lib/rustlib/$target/lib file
    mkdir -p "$lib"
    for file in "$2/out/$target/release/deps"/lib*.r{lib,meta}; do
        case ${file##*/} in
        libseed-*) ;;
        *) cp "$file" "$lib/" ;;
        esac
    done
    compgen -G "$lib/libstd-*.rlib" >/dev/null || fail "the standard library was not built"
}

unpack_debian() { # final place
    local work std llvm deb count host
    # Only the holder of the lock gets here, so leftovers are a dead run's.
    rm -rf "$prefix"/work.*
    work=$(mktemp -d "$prefix/work.XXXXXX")
    chmod 755 "$work"
    # shellcheck disable=SC2064 # the path as it is now
    trap "rm -rf '$work'" EXIT
    mkdir "$work/debs" "$work/tree"

    std=$(dependency libstd-rust-web-dev '^libstd-rust-web-[0-9]') || fail "libstd-rust-web-dev names no library package"
    llvm=$(dependency "$std" '^libllvm[0-9]') || fail "$std names no LLVM"
    llvm=${llvm#libllvm}
    # apt-get warns that it cannot drop privileges in a private folder: harmless,
    # so what counts is the number of packages that arrived.
    (cd "$work/debs" && apt-get -qq download rustc-web libstd-rust-web-dev "$std" \
        rust-web-src "libllvm$llvm" "lld-$llvm" >&2) || true
    count=$(find "$work/debs" -name '*.deb' | wc -l)
    [ "$count" -eq 6 ] || fail "apt-get download brought $count of 6 packages"
    for deb in "$work"/debs/*.deb; do
        case ${deb##*/} in
        rust-web-src_*)
            dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work/tree" --wildcards \
                './usr/lib/rustlib/*' './usr/src/rustc-*/library/*'
            ;;
        *) dpkg -x "$deb" "$work/tree" ;;
        esac
    done
    rm -rf "$work/debs" "$work/tree/usr/share" "$work/tree/usr/libexec"

    write_wrapper "$work/tree" "$work/tree"
    host=$("$work/tree/rustc" -vV | awk '$1 == "host:" { print $2 }')
    # rustc looks for its linker under this name in its own sysroot.
    mkdir -p "$work/tree/usr/lib/rustlib/$host/bin"
    ln -s "../../../llvm-$llvm/bin/lld" "$work/tree/usr/lib/rustlib/$host/bin/rust-lld"
    build_std "$work/tree" "$work/std"

    # The wrapper holds the only absolute path: name the final place in it.
    write_wrapper "$work/tree" "$1"
    rm -rf "$work/tree/usr/src" "$work/tree/usr/lib/rustlib/src" "$1"
    mv "$work/tree" "$1"
    touch "$1/complete"
    rm -rf "$work"
    trap - EXIT
}

by_debian() {
    command -v apt-get >/dev/null && command -v dpkg >/dev/null || return 1
    local version home
    version=$(candidate)
    if ! new_enough "$version"; then
        # A fresh machine's lists lack the security archive, which has the newer one.
        note "apt-get update (rustc-web: ${version:-unknown})"
        apt-get -qq update >&2 || true
        version=$(candidate)
    fi
    if ! new_enough "$version"; then
        note "rustc-web ${version:-unknown} is missing or too old for this workspace"
        return 1
    fi
    mkdir -p "$prefix"
    exec 9>"$prefix/lock"
    flock 9
    home=$prefix/rustc-web-${version//[^0-9A-Za-z.]/_}-$recipe
    if [ ! -e "$home/complete" ]; then
        note "unpacking rustc-web $version into $home and building its standard library (once)"
        unpack_debian "$home"
    fi
    exec 9>&-
    printf "export RUSTC='%s'\n" "$home/rustc"
    # A compiler of another version must not share a target directory.
    printf "export CARGO_TARGET_DIR='%s'\n" "${DATAHIKE_WASM_TARGET_DIR:-${CARGO_TARGET_DIR:-$PWD/target}/wasm}"
}

case $route in
installed) has_target || fail "the active toolchain has no $target" ;;
rustup) has_target || by_rustup || fail "rustup could not add $target" ;;
debian) by_debian || fail "this route needs Debian 12 or newer and its security archive" ;;
auto)
    has_target || by_rustup || by_debian ||
        fail "no way to $target: neither rustup nor Debian's packages could provide it"
    ;;
*) fail "DATAHIKE_WASM_ROUTE=$route: expected auto, rustup, debian or installed" ;;
esac
