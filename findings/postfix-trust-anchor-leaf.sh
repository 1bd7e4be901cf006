#!/bin/sh
# Postfix 3.7.11 (Debian 12's package), posttls-finger with OpenSSL 3.0: a server's own certificate is a good trust anchor, also when
# it has expired.
#
# postconf(5) says of smtp_tls_trust_anchor_file that chains are trusted which are "signed by one of the trust-anchors". The guess is
# that the certificate of a server, which signs nothing, trusts nobody, or that its dates count: only an authority's "are not subject
# to expiration". Since 3.6, each anchor is a TLSA record twice, with usage 2 and with usage 3. A server with this very certificate
# is verified, whatever its dates and issuer. Its names still count. With the authority as the anchor, the dates count, too.
#
# Exit status 0 while the expired certificate is verified as its own anchor, and neither under another name nor by its authority.
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
printf 'compatibility_level = 3.6\nmail_owner = daemon\nsetgid_group = mail\nmyhostname = client.example.org\n' > etc/main.cf
echo "shlib_directory = $folder/tree/usr/lib/postfix" >> etc/main.cf

key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
# shellcheck disable=SC2086
{
    openssl req -x509 $key -days 2 -subj /CN=authority -keyout ca.key -out ca.pem 2> /dev/null
    openssl req $key -subj /CN=server -keyout key.pem -out request.pem 2> /dev/null
}
# It ends in the second in which it begins.
echo 'subjectAltName = DNS:mx.example.org' > extensions
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 0 -extfile extensions -out cert.pem 2> /dev/null
tries=0
while openssl x509 -in cert.pem -noout -checkend 0 > /dev/null && [ "$tries" -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
done

cat > server.py << 'PY'
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

for row in 'cert.pem mx.example.org' 'cert.pem other.example.org' 'ca.pem mx.example.org'; do
    anchor=${row% *}
    name=${row#* }
    tree/usr/sbin/posttls-finger -w -l secure -A "$folder/$anchor" "[127.0.0.1]:$(cat port)" "$name" > out 2>&1 || true
    word=$(sed -n 's/.*: \(Verified\|Trusted\|Untrusted\) TLS connection established.*/\1/p' out)
    echo "trust anchor $anchor, name $name: ${word:-no connection}"
    echo "$anchor $name $word" >> results
done
printf '%s\n' 'cert.pem mx.example.org Verified' 'cert.pem other.example.org Untrusted' 'ca.pem mx.example.org Untrusted' |
    cmp -s - results
