#!/usr/bin/env bash
# Installs what the slow tests need of the system, where it is missing: Debian and Ubuntu, as root. Other systems: install what is named below.
set -euo pipefail

missing=()
# Packages: what each is needed for.
while read -r package _; do
  dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done <<'PACKAGES'
chromium                 the page of the web kit; and its SwiftShader, a Vulkan driver that computes on the CPU, for the tests of the GPU
libvulkan1               the loader of Vulkan drivers
gcc                      external delegates, and the C of the microcontroller kit
g++                      the C++ of that kit
libc6-dev                the headers for both
cmake                    its CMake file
openssh-server           boards that are reached by ssh
openssh-client           the same
procps                   the stand-in for a phone
qemu-user-static         emulated Raspberry Pis
debian-archive-keyring   the packages of their system
PACKAGES
# Programs that often come from elsewhere than the system's packages: the package that has them.
while read -r program package _; do
  command -v "$program" >/dev/null || missing+=("$package")
done <<'PROGRAMS'
node   nodejs               LiteRT.js, and the Kotlin compiler
npm    npm                  the same
java   default-jre-headless the core of the Android kit
PROGRAMS
if [ ${#missing[@]} -gt 0 ]; then
  echo "Installing ${missing[*]} for the slow tests ..."
  export DEBIAN_FRONTEND=noninteractive
  apt-get -qq update
  apt-get -qq install --yes --no-install-recommends "${missing[@]}" >/dev/null
fi
