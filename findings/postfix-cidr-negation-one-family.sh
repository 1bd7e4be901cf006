#!/bin/sh
# Postfix 3.7.11 (Debian 12's package): in a cidr: table, `!10.0.0.0/8` matches no IPv6 address.
#
# A negated pattern reads as "every address outside this network", and an IPv6 address is outside 10.0.0.0/8. The guess is
# wrong: a pattern, negated or not, is compared with addresses of its own family alone. A table that refuses all but its own
# network by one negated line lets every IPv6 client fall through to the next line.
#
# Exit status 0 while the negated IPv4 network matches another IPv4 address and no IPv6 address.
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
printf '!10.0.0.0/8\toutside\n' > networks

ask() {
    tree/usr/sbin/postmap -c "$folder/etc" -q "$1" "cidr:$folder/networks" || true
}

inside=$(ask 10.1.2.3)
other=$(ask 192.0.2.1)
six=$(ask 2001:db8::1)
echo "10.1.2.3: '$inside', 192.0.2.1: '$other', 2001:db8::1: '$six'"
[ -z "$inside" ] && [ "$other" = outside ] && [ -z "$six" ]
