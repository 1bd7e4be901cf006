#!/bin/sh
# Postfix 3.7.11 (Debian 12's package): a number parameter with a minimum of 0 takes -1, a time parameter with a minimum of
# 0 refuses it.
#
# postconf(5) gives both kinds a range in the same way, and 0 seems to be the least value of each. For numbers a minimum of
# 0 means "no minimum": postscreen_dnsbl_allowlist_threshold is documented with negative values. A program that reads
# main.cf and checks "0 or more" for both refuses sites that run.
#
# Exit status 0 while postmap works with message_size_limit = -1 and fails with ipc_idle = -1.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq postfix=3.7.11-0+deb12u1 > /dev/null 2>&1
dpkg -x postfix_*.deb tree
export LD_LIBRARY_PATH="$folder/tree/usr/lib/postfix"

look_up() {
    mkdir -p etc
    printf 'compatibility_level = 3.6\nmail_owner = %s\nsetgid_group = %s\nmyhostname = mx.example.org\n%s\n' \
        daemon mail "$1" > etc/main.cf
    echo "main.cf: $1"
    tree/usr/sbin/postmap -c "$folder/etc" -q key 'inline:{ key=value }' 2>&1
}

look_up 'message_size_limit = -1' && number=0 || number=$?
look_up 'ipc_idle = -1' && time=0 || time=$?
echo "number: exit status $number; time: exit status $time"
[ "$number" -eq 0 ] && [ "$time" -ne 0 ]
