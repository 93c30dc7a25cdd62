#!/bin/sh
[ "$1" = --describe ] && { echo "$(rustc --version), rustup target"; exit; }
exec "$@"
