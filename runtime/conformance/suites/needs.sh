# What suites of engines need. To be sourced.

# needs PACKAGE...: root, and Debian's packages, which are installed.
needs() {
  local package missing=()
  [[ $(id -u) == 0 ]] || { echo "suites/${0##*/}: needs root" >&2; exit 2; }
  for package in busybox-static jq "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

needs_go() {
  command -v go >/dev/null || { echo "suites/${0##*/}: install Go first (package golang-go, or go.dev)" >&2; exit 2; }
}
