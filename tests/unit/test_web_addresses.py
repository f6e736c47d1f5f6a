"""Which addresses may be connected to for code that chose them."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.tools.web.addresses import is_public


@pytest.mark.parametrize(
    "address",
    [
        *("1.1.1.1", "8.8.8.8", "93.184.216.34", "172.15.255.255", "172.32.0.0", "100.63.255.255", "100.128.0.0"),
        *("192.0.1.0", "198.17.255.255", "198.20.0.0", "223.255.255.255", "168.63.129.15"),
        *("2606:4700::1111", "2a00:1450:4001:81b::200e", "2001:200::1", "2001:db7::1"),
        *("64:ff9b::101:101", "::ffff:8.8.8.8", "2002:808:808::1", "2606::5efe:8.8.8.8"),
    ],
)
def test_the_open_internet_is_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        *("0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "100.100.100.200", "127.0.0.1", "127.255.255.254"),
        *("169.254.169.254", "168.63.129.16", "172.16.0.1", "172.31.255.255", "192.0.0.192", "192.0.2.1"),
        *("192.88.99.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1"),
        *("239.255.255.255", "240.0.0.1", "255.255.255.255"),
        *("::", "::1", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "fe80::1", "fe80::1%eth0"),
        *("fc00::1", "fd00:ec2::254", "fec0::1", "ff02::1", "100::1", "5f00::1", "4000::1"),
        *("2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:20::1", "2001:db8::1", "3fff::1"),
        *("2002:7f00:1::", "2002:a9fe:a9fe::1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::808:808"),
        *("2606::5efe:10.0.0.1", "2606::200:5efe:127.0.0.1", "2606:4700::1111%eth0"),
        *("", "localhost", "1.1.1", "01.1.1.1", "1.1.1.1/32", "2130706433", "0x7f000001", "[::1]"),
    ],
)
def test_nothing_else_is(address: str) -> None:
    assert not is_public(address)


def test_an_address_inside_of_another_counts_as_much() -> None:
    @given(st.integers(0, (1 << 32) - 1))
    def check(number: int) -> None:
        inner = is_public(str(IPv4Address(number)))
        for outer in (
            0xFFFF << 32 | number,  # mapped
            0x64FF9B << 96 | number,  # NAT64
            0x2002 << 112 | number << 80,  # 6to4
            0x2606 << 112 | 0x5EFE << 32 | number,  # ISATAP
        ):
            assert is_public(str(IPv6Address(outer))) == inner

    check()


@given(st.integers(0, (1 << 125) - 1) | st.integers(1 << 126, (1 << 128) - 1))
def test_outside_of_what_is_given_out_only_what_holds_ipv4_can_be_public(number: int) -> None:
    address = IPv6Address(number)
    assert not is_public(str(address)) or number >> 32 in (0xFFFF, 0x64FF9B << 64)
