#!/bin/sh
# Postfix 3.7.11 (Debian 12's package): a regexp: table ignores the case of ASCII letters alone, also in a UTF-8 locale.
#
# Patterns ignore case unless the flag `i` is given, and glibc's regexec folds letters of other scripts where the locale
# says UTF-8. Postfix sets no locale, so the pattern is compared octet by octet: a header check for a name with an accent
# must list both cases.
#
# Exit status 0 while /^abc$/ matches ABC and the pattern with the accent matches only its own case.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq postfix=3.7.11-0+deb12u1 > /dev/null 2>&1
dpkg -x postfix_*.deb tree
export LD_LIBRARY_PATH="$folder/tree/usr/lib/postfix"
mkdir etc
printf 'compatibility_level = 3.6\nmail_owner = daemon\nsetgid_group = mail\nmyhostname = mx.example.org\n' > etc/main.cf
printf '/^abc$/\tascii\n/^\303\211t\303\251$/\taccent\n' > patterns

ask() {
    LC_ALL=C.UTF-8 tree/usr/sbin/postmap -c "$folder/etc" -q "$1" "regexp:$folder/patterns" || true
}

ascii=$(ask ABC)
same=$(ask "$(printf '\303\211t\303\251')")
other=$(ask "$(printf '\303\251t\303\251')")
echo "ABC: '$ascii', same case: '$same', other case: '$other'"
[ "$ascii" = ascii ] && [ "$same" = accent ] && [ -z "$other" ]
