#!/usr/bin/env bash
# Makes a folder with programs PI4 and PI5 that run a Python script on an emulated Raspberry Pi 4 or 5: the aarch64 Python of Debian, and the aarch64 packages
# that pip would install there, under QEMU's user-mode emulation. Nothing is installed on this machine and no privileges are needed.
#
#   arm_sysroot.sh FOLDER REQUIREMENT...      then      FOLDER/pi4 script.py
#
# Needs qemu-user-static, apt-get (after an apt-get update), dpkg-deb and a python3 with pip; PYTHON names another one.
set -euo pipefail

here=$(realpath -m "$1")
shift
python_version=3.11 # of Raspberry Pi OS 12
suite=bookworm
qemu=$(command -v qemu-aarch64-static)
mkdir -p "$here/apt/lists/partial" "$here/apt/archives/partial" "$here/root" "$here/site"

# Debian's packages for arm64. apt gets a state of its own in which nothing is installed: so it fetches all that is needed, and this machine's state stays as it is.
site=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -v security | sort -u | head -n 1)
echo "deb [arch=arm64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $site $suite main" >"$here/apt/sources.list"
touch "$here/apt/status"
cat >"$here/apt/apt.conf" <<END
APT { Architecture "arm64"; Architectures { "arm64"; }; Install-Recommends "false"; Sandbox::User "root"; }
Acquire { Languages "none"; Retries "3"; }
Dir {
  State "$here/apt"; State::lists "$here/apt/lists"; State::status "$here/apt/status";
  Cache "$here/apt"; Cache::archives "$here/apt/archives";
  Etc::sourcelist "$here/apt/sources.list"; Etc::sourceparts "/dev/null";
}
END
APT_CONFIG="$here/apt/apt.conf" apt-get -qq update
APT_CONFIG="$here/apt/apt.conf" apt-get -qq -y --download-only install "python$python_version-minimal" "libpython$python_version-stdlib" libstdc++6 >/dev/null
for package in "$here"/apt/archives/*.deb; do dpkg-deb --extract "$package" "$here/root"; done
rm -rf "$here/apt"

# The packages of Python. pip only unpacks them: nothing of theirs is run here.
"${PYTHON:-python3}" -m pip install --quiet --disable-pip-version-check --no-compile --target "$here/site" --only-binary=:all: \
  --implementation cp --python-version "$python_version" --platform manylinux_2_34_aarch64 --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
  --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 "$@"

# A board: what its processor is called, and what Linux says of it. QEMU shows programs the files of the -L folder first, and this machine's own where it has none:
# without a cpuinfo of Arm the runtime would read that of an x86 processor, which it cannot parse.
board() { # name, QEMU's processor, part, features, kHz
  local tree="$here/boards/$1" n
  mkdir -p "$tree/proc" "$tree/sys/devices/system/cpu"
  for n in lib usr etc; do ln -s "$here/root/$n" "$tree/$n"; done
  for n in possible present online; do echo 0-3 >"$tree/sys/devices/system/cpu/$n"; done
  for n in 0 1 2 3; do
    printf 'processor\t: %s\nBogoMIPS\t: 108.00\nFeatures\t: %s\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: %s\nCPU revision\t: 1\n\n' \
      "$n" "$4" "$3" >>"$tree/proc/cpuinfo"
    mkdir -p "$tree/sys/devices/system/cpu/cpu$n/cpufreq" "$tree/sys/devices/system/cpu/cpu$n/topology"
    echo "$5" >"$tree/sys/devices/system/cpu/cpu$n/cpufreq/cpuinfo_max_freq"
    echo 0 >"$tree/sys/devices/system/cpu/cpu$n/topology/physical_package_id"
    echo "$n" >"$tree/sys/devices/system/cpu/cpu$n/topology/core_id"
    echo "$n" >"$tree/sys/devices/system/cpu/cpu$n/topology/thread_siblings_list"
    echo 0-3 >"$tree/sys/devices/system/cpu/cpu$n/topology/core_siblings_list"
  done
  cat >"$here/$1" <<END
#!/bin/sh
exec env -i PATH=/usr/bin:/bin HOME="\${HOME:-/}" \${TMPDIR:+TMPDIR="\$TMPDIR"} LANG=C.UTF-8 PYTHONPATH="$here/site" \\
  "$qemu" -L "$tree" -cpu $2 "$here/root/usr/bin/python$python_version" -S -s "\$@"
END
  chmod +x "$here/$1"
}
board pi4 cortex-a72 0xd08 "fp asimd evtstrm crc32 cpuid" 1800000
board pi5 cortex-a76 0xd0b "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp" 2400000
