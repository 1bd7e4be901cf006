"""The TLS policy of a delivery: the level, and the names, keys and ciphers that a server must have (TLS_README).

    policy = await policies.policy_for(site, target)        # raises NoPolicy: the host is not tried

level          the security levels, weakest first
policy         the policy for a connection to one host
settings       the parameters of main.cf
entry          an entry of smtp_tls_policy_maps
tables         the lookups in smtp_tls_policy_maps and smtp_tls_per_site
dane           the level and TLSA records of a host; tlsa: which records can be used
mta_sts        the policies that domains publish; sts_policy, sts_fetch, sts_cache: form, HTTPS client and disk
mx_pattern     the hosts that such a policy allows
policy_domain  the domain that publishes a policy
tlsrpt         counts and reports about TLS sessions
tlsrpt_socket  results of TLS sessions for a collector
reports        which of both a configuration uses
requiretls     the policy for REQUIRETLS at a next hop
policies       the policy for a next hop and a host, from all of these
connector      the use of TLS on one connection
"""
