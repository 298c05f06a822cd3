"""Addresses of machines: IP and MAC addresses that lead to one connection or device, and technical values that do not.

Loopback, netmasks, documentation ranges and public resolvers lead to no person wherever they stand. A private address
does where a word nearby says whose it is. Four small numbers with dots are a version or a section unless a word
nearby calls them an address.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from detectors.pii.shape import shape

_Network = IPv4Network | IPv6Network


def _networks(*names: str) -> tuple[_Network, ...]:
    return tuple(map(ip_network, names))


_TECHNICAL = _networks(
    "0.0.0.0/8", "127.0.0.0/8", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24",
    "203.0.113.0/24", "224.0.0.0/16", "239.255.0.0/16", "255.0.0.0/8",
    "::/16", "64:ff9b::/32", "100::/64", "2001:db8::/32", "3fff::/20", "ff00::/8",
)  # fmt: skip
"""Special-purpose addresses (RFC 6890, 5737, 3849, 9637), multicast groups of protocols, and netmasks."""
_RESOLVERS = _networks(
    "1.0.0.1", "1.1.1.1", "1.2.3.4", "4.2.2.1", "4.2.2.2", "8.8.4.4", "8.8.8.8", "9.9.9.9", "77.88.8.8",
    "114.114.114.114", "114.114.115.115", "119.29.29.29", "149.112.112.112", "168.63.129.16", "180.76.76.76",
    "208.67.220.220", "208.67.222.222", "223.5.5.5", "223.6.6.6",
    "2001:4860:4860::/48", "2400:3200::/48", "2606:4700:4700::/48", "2620:fe::/48",
)  # fmt: skip
"""Public name servers, which texts about networks name as examples."""
_PRIVATE = _networks(
    "10.0.0.0/8", "100.64.0.0/10", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fe80::/10"
)
_GLOBAL = IPv6Network("2000::/3")
_OWNED = re.compile(
    r"\b(?:my|his|her|their|user|visitor|customer|employee|guest|login|logged|signed|logs) "
    r"|\b(?:user|login)[ =:]|登[录陆]|用户|本机|我的|他的|她的|客户|访客|员工|来访"
)
"""Words that say whose address it is."""
_ADDRESS = re.compile(
    r"\bip|addr|host|server|login|logged|from |user|client|peer|remote|forwarded|visit|\bping|\bssh|://(?:[^\s/@]*@)?$"
    r"|登[录陆]|地址|访问|来自|用户|访客"
)
_VERSION = re.compile(
    r"(?:version|\bver|版本|release|section|\bsec|chapter|revision|\brev|build|since|fixes|firmware|driver|固件|驱动"
    r"|升级到|upgrade to)\w{0,8}[\"']?\s?[:=#.]?\s?[\"'(]?$"
    r"|\bv[ .]?$|[a-z0-9_)][-/]$|_$|:(?:[0-9a-f]{1,4})?:$|[~<>!=]=\s?$|[\^~]$|[#§] ?$"
)
"""What stands just before a version, a section or a part of a name."""
_RELEASED = re.compile(
    r"upgrad|updat|\bbump|\bdeps|version|release|driver|firmware|\bbuild|patch|\bsdk|kernel|chrom|\bv8\b|升级|更新|版本|固件|驱动"
)
_SMALL, _MOST_SMALL = 64, 3
"""Below _SMALL an octet is as likely one of a version; so many of the four make it need a word."""
_OCTETS = 4
_DEVICE = re.compile(
    r"\bmac\b|mac[ _-]?addr|hwaddr|\bether|\barp\b|bssid|物理地址|设备|网卡|device|interface|station|vlan"
)
_IN_FINGERPRINT = re.compile(r"(?<![a-z0-9])[0-9a-f]{2}[:-]$")
_IN_GROUPS = re.compile(r"(?<![a-z0-9])[0-9a-f]{1,4}:$")
_LINE_START = re.compile(r"(?:^|\n)$")
_LETTER = re.compile("[a-f]")
_EXAMPLE_DEVICES = frozenset(
    ("000102030405", "010203040506", "0a1b2c3d4e5f", "a0b1c2d3e4f5", "001122334455", "112233445566", "0123456789ab",
     "123456789abc", "aabbccddeeff", "deadbeefcafe", "a1b2c3d4e5f6")
)  # fmt: skip
_LEAST = 3
"""Different characters of a device's address."""
_GROUPS = ("01005e", "3333", "00005e", "0180c2")
"""Beginnings of group addresses and of documentation's (RFC 7042)."""


def _ip(candidate: str, before: str) -> int:
    octets = candidate.split(".")
    if any(int(part) > 255 or (part[0] == "0" and part != "0") for part in octets) or _VERSION.search(before):
        return 0
    if _example(octets):
        return 0
    small = sum(int(part) < _SMALL for part in octets)
    if small >= _MOST_SMALL and _RELEASED.search(before):
        return 0
    plausible = _ADDRESS.search(before) or (small == _MOST_SMALL and _LINE_START.search(before))
    if small >= _MOST_SMALL and not plausible:
        return 0
    return len(candidate) if _personal(ip_address(candidate), before) else 0


def _ipv6(candidate: str, before: str) -> int:
    if _IN_GROUPS.search(before):
        return 0
    try:
        address = IPv6Address(candidate)
    except ValueError:
        return 0
    if candidate.count(":") < 3 or not any(char.isdigit() for char in candidate):
        return 0
    if _example(candidate.replace("::", ":").split(":")):
        return 0
    plain = address in _GLOBAL if "::" in candidate else _LETTER.search(candidate.lower())
    named = plain or (address in _GLOBAL and _ADDRESS.search(before))
    return len(candidate) if named and _personal(address, before) else 0


def _example(numbers: list[str]) -> bool:
    """True for an address that was made up (192.2.2.2, 1111:2222::3333) and for that of a network or of all in it."""
    digits = "".join(numbers)
    if numbers[1:] in (["1", "2", "3"], ["2", "1", "3"], ["2", "3", "4"]):
        return True
    same = max(map(numbers.count, numbers)) > 2 or numbers.count("0") > 1
    if len(numbers) == _OCTETS and numbers[-1] in ("0", "255"):
        return True
    return digits in "0123456789" or (same and len(numbers) == _OCTETS) or all(len(set(one)) < 2 for one in numbers)


def _personal(address: IPv4Address | IPv6Address, before: str) -> bool:
    if any(address in network for network in (*_TECHNICAL, *_RESOLVERS)):
        return False
    return not any(address in network for network in _PRIVATE) or _OWNED.search(before) is not None


def _mac(candidate: str, before: str) -> int:
    bare = re.sub("[^0-9a-f]", "", candidate.lower())
    if (
        not any(char.isdigit() for char in bare)
        or len(set(bare)) < _LEAST
        or bare in _EXAMPLE_DEVICES
        or bare.startswith(_GROUPS)
    ):
        return 0
    if _IN_FINGERPRINT.search(before):
        return 0
    return len(candidate) if _LETTER.search(bare) or _DEVICE.search(before) else 0


def _dotted_mac(candidate: str, before: str) -> int:
    return 0 if before[-1:] in (".", "[", "*", "-", "_") else _mac(candidate, before)


IP = shape("IP", r"(?:\d{1,3}\.){3}\d{1,3}(?![0-9A-Za-z_]|\.\d|-[0-9A-Za-z]|\.in-addr|/(?:[12]?\d|3[01])(?!\d))", _ip)
MAC = shape("MAC", r"[0-9A-Fa-f]{2}([:-])(?:[0-9A-Fa-f]{2}\1){4}[0-9A-Fa-f]{2}(?![A-Za-z0-9]|[:-][0-9A-Fa-f])", _mac)
DOTTED_MAC = shape("MAC", r"[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![\].]?[A-Za-z0-9\]])", _dotted_mac)
IPV6 = shape("IP", r"[0-9A-Fa-f]{1,4}:[0-9A-Fa-f:]{2,37}[0-9A-Fa-f](?![A-Za-z0-9:]|/(?:[1-9]?\d|1[01]\d)(?!\d))", _ipv6)
