# shellcheck shell=bash
# What tools/setup.sh and guest-images/kernels.sh know about apt: the Debian release and
# the backports suite that belongs to it. Sourced, never run.

# Names the Debian release (bookworm, trixie, ...), or fails with a sentence.
debian_codename() {
    local id version codename
    # shellcheck source=/dev/null
    read -r id version codename < <(. /etc/os-release 2>/dev/null &&
        echo "${ID:-unknown} ${VERSION_ID:-99} ${VERSION_CODENAME:-none}") || true
    if [[ ${id:-unknown} != debian || ${version%%.*} -lt 12 || $codename == none ]]; then
        echo "this needs Debian 12 or newer (found ${id:-unknown} ${version:-})" >&2
        return 1
    fi
    echo "$codename"
}

# Prints an apt source (deb822) for the backports of release $1, on the mirror that the
# existing sources use for $1 itself. Prints nothing when they have the suite already.
backports_source() {
    local codename=$1 targets mirror
    # shellcheck disable=SC2016 # apt's own placeholders
    targets=$(apt-get indextargets --format '$(RELEASE) $(REPO_URI)' 'Created-By: Packages')
    if grep -q "^$codename-backports " <<<"$targets"; then
        return 0
    fi
    mirror=$(sed -n "s/^$codename //p" <<<"$targets" | head -n 1)
    if [[ -z $mirror ]]; then
        echo "no apt source for Debian $codename found: check /etc/apt/sources.list*" >&2
        return 1
    fi
    printf '%s\n' "Types: deb" "URIs: $mirror" "Suites: $codename-backports" "Components: main"
    local keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    if [[ -e $keyring ]]; then
        echo "Signed-By: $keyring"
    fi
}
