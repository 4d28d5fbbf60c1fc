#!/usr/bin/env bash
# Installs what the slow tests need of the system, where it is missing: Debian and Ubuntu, as root. Other systems: install what is named below.
set -euo pipefail

# A line for each package: what it is needed for.
packages=(
  chromium    # its SwiftShader is a Vulkan driver that computes on the CPU: the tests of the GPU
  libvulkan1  # the loader of Vulkan drivers
  gcc         # the tests of external delegates compile one
  libc6-dev   # the headers for that
)

missing=()
for package in "${packages[@]}"; do
  dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  echo "Installing ${missing[*]} for the slow tests ..."
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
fi
