#!/bin/bash
# A base for the Dockerfile where no registry can be reached: a minimal Debian 12 with its own Python 3.11 and venv.
#
# Usage: make_base.sh NAME, as root, with debootstrap and podman; downloads from Debian's mirror (MIRROR names another).
# It took one and a half minutes and makes an image of 272 MB (2026-11-25).
set -euo pipefail
name=${1:?the name of the image}
root=$(mktemp -d "${TMPDIR:-/var/tmp}/debian.XXXXXX")
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
  bookworm "$root" "${MIRROR:-http://deb.debian.org/debian}"
rm -f "$root"/var/cache/apt/archives/*.deb
tar --directory "$root" --create . | podman import --quiet - "$name"
