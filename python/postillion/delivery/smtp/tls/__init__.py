"""The TLS policy of a delivery: the level, and the names, keys and ciphers that a server must have (TLS_README).

    policy = await policies.policy_for(site, target)        # raises NoPolicy: the host is not tried

level       the security levels, weakest first
policy      the policy for a connection to one host
settings    the parameters of main.cf
entry       an entry of smtp_tls_policy_maps
tables      the lookups in smtp_tls_policy_maps and smtp_tls_per_site
policies    the policy for a next hop and a host, from all of these
"""
