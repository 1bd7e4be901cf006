#!/bin/sh
# Postfix 3.7.11 (Debian 12's package): `postfix tls` does not know smtpd_tls_chain_files, which smtpd prefers to all other keys.
#
# postconf(5) recommends smtpd_tls_chain_files since 3.4. The guess is that the key which `postfix tls deploy-server-cert` reports as
# deployed is the one that clients see, and that `postfix tls output-server-tlsa` prints the record of this key. With
# smtpd_tls_chain_files in main.cf, `all-default-server` says that nothing is set, `enable-server` makes and "deploys" a key that
# smtpd does not read, and `output-server-tlsa` prints its record: published in DNS, it ends mail from all sites with DANE.
#
# Exit status 0 while the record printed is that of the new key, and smtpd_tls_chain_files is still in main.cf.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq postfix=3.7.11-0+deb12u1 > /dev/null 2>&1
for package in *.deb; do dpkg -x "$package" tree; done
export LD_LIBRARY_PATH="$folder/tree/usr/lib/postfix"
mkdir etc data
cp tree/usr/share/postfix/master.cf.dist etc/master.cf
cat > etc/main.cf << CF
compatibility_level = 3.6
mail_owner = daemon
setgid_group = mail
myhostname = mx.example.org
command_directory = $folder/tree/usr/sbin
daemon_directory = $folder/tree/usr/lib/postfix/sbin
data_directory = $folder/data
shlib_directory = $folder/tree/usr/lib/postfix
import_environment = MAIL_CONFIG MAIL_LOGTAG PATH LD_LIBRARY_PATH LANG=C
smtpd_tls_chain_files = $folder/etc/live.pem
CF
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=mx.example.org -keyout etc/live.pem \
    -out live.cert 2> /dev/null
cat live.cert >> etc/live.pem

digest() { openssl pkey -in "$1" -pubout -outform DER | openssl dgst -sha256 -r | cut -d' ' -f1; }
postfix="tree/usr/sbin/postfix -c $folder/etc tls"
default=0
$postfix all-default-server || default=$?
enabled=0
$postfix enable-server > said 2>&1 || enabled=$?
record=$($postfix output-server-tlsa 2> /dev/null | sed -n 's/.* TLSA 3 1 1 //p')
live=$(digest etc/live.pem)
new=$(digest etc/key-*.pem)
echo "all-default-server: status $default; enable-server: status $enabled"
echo "key that smtpd reads: $live"
echo "key in the record:    $record"
[ "$default" = 0 ] && [ "$enabled" = 0 ] && [ "$record" = "$new" ] && [ "$record" != "$live" ]
grep -q '^smtpd_tls_chain_files = ' etc/main.cf
