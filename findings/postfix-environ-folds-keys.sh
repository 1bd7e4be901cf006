#!/bin/sh
# Postfix 3.7.11 (Debian 12's package): an environ: table never finds a variable whose name has an upper-case letter, unless
# import_environment sets the same name in lower case.
#
# The lookup folds the key to lower case, as fixed-key tables do, and then asks the environment, where case counts. Variables
# are upper case by custom, so the guess that `environ:` finds FOO when FOO is imported is wrong, and no warning is given.
#
# Exit status 0 while the lookup of FOO finds the variable foo and not the variable FOO.
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
printf 'import_environment = FOO foo MAIL_CONFIG\n' >> etc/main.cf

ask() {
    env "$1" tree/usr/sbin/postmap -c "$folder/etc" -q FOO environ:any || true
}

upper=$(ask FOO=value)
lower=$(ask foo=value)
echo "key FOO, variable FOO: '$upper'"
echo "key FOO, variable foo: '$lower'"
[ -z "$upper" ] && [ "$lower" = value ]
