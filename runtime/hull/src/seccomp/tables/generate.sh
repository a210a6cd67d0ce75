#!/bin/sh
# Writes the system call tables next to this file from the kernel's user headers.
#
# x86 comes from linux-libc-dev, the others from linux-libc-dev-{arm64,armhf,s390x,ppc64el,riscv64}-cross
# (unpack them below HEADERS with `dpkg -x`; an absent one leaves its table as it is).
# Calls newer than the packaged headers have one number on all architectures and are listed here by hand.
set -eu
cd "$(dirname "$0")"
headers=${HEADERS:-/}
newer='cachestat 451
fchmodat2 452
map_shadow_stack 453
futex_wake 454
futex_wait 455
futex_requeue 456
statmount 457
listmount 458
lsm_get_self_attr 459
lsm_set_self_attr 460
lsm_list_modules 461
mseal 462
setxattrat 463
getxattrat 464
listxattrat 465
removexattrat 466
open_tree_attr 467
file_getattr 468
file_setattr 469
listns 470'

# numbers BASE HEADER CC-FLAGS..: "name number" lines, BASE added to the calls listed above.
numbers() {
    base=$1 header=$2
    shift 2
    {
        printf '#include <%s>\n' "$header"
        printf '#include <%s>\n' "$header" | cc -E -dM -undef -nostdinc "$@" - |
            sed -nE 's/^#define __(ARM_)?NR_([a-z_0-9]+) .*/@ \2 = __\1NR_\2/p' | grep -v 'syscalls\|arch_specific\|NR_SYSCALL_BASE' || true
    } | cc -E -P -undef -nostdinc "$@" - | sed -n 's/^@ //p' | while IFS='=' read -r name value; do
        printf '%s %s\n' "$name" "$(($value))"
    done
    printf '%s\n' "$newer" | while read -r name number; do
        printf '%s %s\n' "$name" "$((number + base))"
    done
}

# table NAME COLUMN..: joins the columns (files of "name number" lines) to one sorted Rust table.
table() {
    out=$1 width=$(($# - 1))
    shift
    {
        printf '//! System call numbers, from the kernel'"'"'s user headers; `generate.sh` writes this file.\n\n'
        printf 'use super::ABSENT;\n\n'
        printf '/// Name and number for each architecture of the family, sorted by name.\n'
        printf '#[rustfmt::skip]\n'
        printf 'pub(super) static TABLE: &[(&str, [u32; %s])] = &[\n' "$width"
        awk -v width="$width" '
            FNR == 1 { column++ }
            { names[$1] = 1; number[$1, column] = $2 }
            END {
                for (name in names) {
                    line = ""
                    for (c = 1; c <= width; c++) line = line (c > 1 ? ", " : "") (((name, c) in number) ? number[name, c] : "ABSENT")
                    print "    (\"" name "\", [" line "]),"
                }
            }' "$@" | LC_ALL=C sort
        printf '];\n'
    } >"$out.new"
    # A family whose every call has a number in every column never says ABSENT.
    grep -q 'ABSENT[],]' "$out.new" || sed -i '/^use super::ABSENT/,+1d' "$out.new"
    mv "$out.new" "$out"
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
x86="-I$headers/usr/include -I$headers/usr/include/x86_64-linux-gnu"
[ -e "$headers/usr/include/x86_64-linux-gnu/asm/unistd_64.h" ] || x86='-I/usr/include -I/usr/include/x86_64-linux-gnu'
numbers 0 asm/unistd_64.h $x86 >"$work/64"
printf 'uretprobe 335\nuprobe 336\n' >>"$work/64"
numbers 0 asm/unistd_32.h $x86 >"$work/32"
numbers 1073741824 asm/unistd_x32.h $x86 -D__X32_SYSCALL_BIT=0x40000000 | grep -v map_shadow_stack >"$work/x32"
table x86.rs "$work/64" "$work/32" "$work/x32"

cross() { [ -d "$headers/usr/$1/include" ]; }
if cross aarch64-linux-gnu && cross arm-linux-gnueabihf; then
    numbers 0 asm/unistd.h "-I$headers/usr/aarch64-linux-gnu/include" -D__aarch64__ -D__BITS_PER_LONG=64 >"$work/64"
    numbers 0 asm/unistd.h "-I$headers/usr/arm-linux-gnueabihf/include" -D__ARM_EABI__ -D__arm__ >"$work/32"
    table arm.rs "$work/64" "$work/32"
fi
if cross s390x-linux-gnu; then
    numbers 0 asm/unistd_64.h "-I$headers/usr/s390x-linux-gnu/include" >"$work/64"
    numbers 0 asm/unistd_32.h "-I$headers/usr/s390x-linux-gnu/include" >"$work/32"
    table s390.rs "$work/64" "$work/32"
fi
if cross powerpc64le-linux-gnu; then
    numbers 0 asm/unistd_64.h "-I$headers/usr/powerpc64le-linux-gnu/include" >"$work/64"
    table ppc64le.rs "$work/64"
fi
if cross riscv64-linux-gnu; then
    numbers 0 asm/unistd.h "-I$headers/usr/riscv64-linux-gnu/include" -D__riscv -D__riscv_xlen=64 -D__LP64__ -D__SIZEOF_POINTER__=8 >"$work/64"
    table riscv64.rs "$work/64"
fi
