"""Which addresses are public. Whatever is not known to be is refused: a private one leads into the host's own network.

Sources: the IANA registries of special-purpose addresses (RFC 6890 and what updates it), as of 2026, and the addresses
at which clouds keep their metadata. Our own tables, not ``ipaddress.is_global``: what that says changed between
versions of Python (CVE-2024-4032).
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

_NOT_PUBLIC_V4 = tuple(
    map(
        IPv4Network,
        (
            "0.0.0.0/8",  # this host, this network
            "10.0.0.0/8",  # private
            "100.64.0.0/10",  # behind a carrier's NAT; also a cloud's metadata (Alibaba, 100.100.100.200)
            "127.0.0.0/8",  # loopback
            "168.63.129.16/32",  # Azure's own services, seen from inside
            "169.254.0.0/16",  # link-local: the metadata of most clouds, 169.254.169.254
            "172.16.0.0/12",  # private
            "192.0.0.0/24",  # IETF protocols; also Oracle's metadata, 192.0.0.192
            "192.0.2.0/24",  # documentation
            "192.88.99.0/24",  # 6to4 relays, given up
            "192.168.0.0/16",  # private
            "198.18.0.0/15",  # benchmarks
            "198.51.100.0/24",  # documentation
            "203.0.113.0/24",  # documentation
            "224.0.0.0/4",  # multicast
            "240.0.0.0/4",  # reserved, and broadcast
        ),
    )
)
_PUBLIC_V6 = IPv6Network("2000::/3")  # all that is given out to the world; loopback, ULA, link-local are outside
_NOT_PUBLIC_V6 = tuple(
    map(
        IPv6Network,
        (
            "2001::/23",  # IETF protocols: Teredo, ORCHID, benchmarks
            "2001:db8::/32",  # documentation
            "3fff::/20",  # documentation
        ),
    )
)
_MAPPED = IPv6Network("::ffff:0:0/96")  # IPv4 in the form of IPv6, RFC 4291
_NAT64 = IPv6Network("64:ff9b::/96")  # how a network without IPv4 reaches it, RFC 6052
_SIX_TO_FOUR = IPv6Network("2002::/16")  # RFC 3056: IPv4 in bits 16 to 48
_ISATAP = (0x00005EFE, 0x02005EFE)  # RFC 5214: before the IPv4 address in the last 32 bits


def is_public(address: str) -> bool:
    """Whether ``address`` is one of the open internet, as is any address that it holds. False if it is none."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return False
    return _is_public_v4(parsed) if isinstance(parsed, IPv4Address) else _is_public_v6(parsed)


def _is_public_v4(address: IPv4Address) -> bool:
    return not any(address in network for network in _NOT_PUBLIC_V4)


def _is_public_v6(address: IPv6Address) -> bool:
    if address.scope_id is not None:
        return False
    number = int(address)
    last = IPv4Address(number & 0xFFFF_FFFF)
    if address in _MAPPED or address in _NAT64:
        return _is_public_v4(last)
    if address not in _PUBLIC_V6 or any(address in network for network in _NOT_PUBLIC_V6):
        return False
    if address in _SIX_TO_FOUR:
        return _is_public_v4(IPv4Address(number >> 80 & 0xFFFF_FFFF))
    return number >> 32 & 0xFFFF_FFFF not in _ISATAP or _is_public_v4(last)
