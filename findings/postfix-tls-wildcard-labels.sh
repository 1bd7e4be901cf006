#!/bin/sh
# Postfix 3.7.11 (Debian 12's package postfix), posttls-finger with OpenSSL 3.0: tls_wildcard_matches_multiple_labels = yes has no
# effect. A certificate for *.example.org is the right one for b.example.org, and never for a.b.example.org.
#
# postconf(5) says that the parameter is on by default, and that `*` then matches several labels. The guess is that a site
# which verifies such a server by name delivers to it. It does not, with `yes` or with `no`: since 3.6, Postfix gives the names to
# OpenSSL, which lets a wildcard stand for one label. A program that follows the manual page accepts servers that Postfix refuses.
#
# Exit status 0 while both values verify b.example.org and refuse a.b.example.org.
set -eu
folder=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$folder"' EXIT
chmod 755 "$folder"
cd "$folder"
apt-get download -qq postfix=3.7.11-0+deb12u1 > /dev/null 2>&1
for package in *.deb; do dpkg -x "$package" tree; done
export LD_LIBRARY_PATH="$folder/tree/usr/lib/postfix" MAIL_CONFIG="$folder/etc"
mkdir etc
printf 'compatibility_level = 3.6\nmail_owner = daemon\nsetgid_group = mail\nmyhostname = mx.example.org\n' > etc/main.cf
echo "shlib_directory = $folder/tree/usr/lib/postfix" >> etc/main.cf

key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -x509"
# shellcheck disable=SC2086
{
    openssl req $key -subj /CN=authority -keyout ca.key -out ca.pem 2> /dev/null
    openssl req $key -subj /CN=server -CA ca.pem -CAkey ca.key -keyout key.pem -out cert.pem \
        -addext 'basicConstraints=critical,CA:FALSE' -addext 'subjectAltName=DNS:*.example.org' 2> /dev/null
}

cat > server.py <<'PY'
"""An SMTP server inside TLS: it greets, and answers each line with 250."""
import pathlib
import socket
import ssl

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
listener = socket.create_server(("127.0.0.1", 0))
pathlib.Path("port.new").write_text(str(listener.getsockname()[1]))
pathlib.Path("port.new").rename("port")
while True:
    client, _ = listener.accept()
    try:
        with context.wrap_socket(client, server_side=True) as secured, secured.makefile("rwb", buffering=0) as lines:
            lines.write(b"220 server\r\n")
            while lines.readline():
                lines.write(b"250 server\r\n")
    except OSError:
        pass
PY
python3 server.py &
server=$!
tries=0
while [ ! -e port ] && [ "$tries" -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
done

for value in yes no; do
    for name in b.example.org a.b.example.org; do
        tree/usr/sbin/posttls-finger -w -l secure -F ca.pem -o "tls_wildcard_matches_multiple_labels=$value" \
            "[127.0.0.1]:$(cat port)" "$name" > out 2>&1 || true
        word=$(sed -n 's/.*: \(Verified\|Trusted\|Untrusted\) TLS connection established.*/\1/p' out)
        echo "tls_wildcard_matches_multiple_labels = $value, $name: ${word:-no connection}"
        echo "$value $name $word" >> results
    done
done
printf '%s\n' 'yes b.example.org Verified' 'yes a.b.example.org Untrusted' 'no b.example.org Verified' \
    'no a.b.example.org Untrusted' | cmp -s - results
