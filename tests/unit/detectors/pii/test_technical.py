"""Technical values are not personal data, personal ones beside them are, and no item is cut or taken for another."""

from __future__ import annotations

import pytest

from detectors.pii import find, redact

TECHNICAL = [
    "Open http://127.0.0.1:8080/health and set the netmask to 255.255.255.0",
    "git clone git@github.com:org/repo.git",
    "Upgrade the driver from 10.2.0.1 to 10.2.0.4",
    'input_token_details["ephemeral_1h_input_tokens"] = n',
    "2022-11-10T12:00:01+13:00 Config.cpp:196 win_err=2 364596 1667470478 089758 0.237115",
    "listen on 0.0.0.0, [::1] and fe80::1ff:fe23:4567:890a",
    "gateway 192.168.1.1, peers 10.8.0.2 and fd12:3456:789a:1::2",
    "examples: 192.0.2.17, 198.51.100.4, 203.0.113.9, 2001:db8::8a2e:370:7334",
    "nameserver 8.8.8.8 and 2606:4700:4700::1111",
    "network 91.198.174.0, broadcast 91.198.174.255, block 91.198.174.16/28",
    "wildcard mask 0.0.0.255, multicast 224.0.0.251",
    "Fixed in 1.6.2.1, see section 17.13.4.1 of the manual.",
    '<assemblyIdentity version="16.0.17.107"/> requires numpy~=1.4.5.30',
    "curl/7.68.2.1 python-lib-3.5.0.12-1.tar.gz",
    "BDADDR_ANY 00:00:00:00:00:00, broadcast ff:ff:ff:ff:ff:ff, e.g. 00:11:22:33:44:55",
    "SHA1 43:51:43:a1:b5:fc:8b:b7:0a:3a:a9:b1:0f:66:73:a8",
    "[.22FB.0020.0002][.417C.0028.0002.798F]",
    "scp report.pdf deploy@build.example.org:/srv/www/",
    "ssh://git@gitlab.example.org/group/project",
    "origin  ssh user@build.example.org:2222/srv",
    "icon@2x.png and logo@3x.webp",
    "XXH3_64bits_reset_withSecret(kXxh3Secrets[XXH3_SECRET_SIZE_MIN_2])",
    "sk_X509_EXTENSION_num(extensions)",
    "zeta2 = 1.6449340668482264, pi / 2 = 1.5707963267948966192",
    "assert agm(1, 3) == 1.4567910310469068692",
    "GUID 00000000-0000-0000-0000-000000000000",
    "#undef XXHASH_H_STATIC_13879238742",
    "542D 5751 5994 6333 7841 727C 785C",
    "540F 5410 5411 5412 5413\n5414 5415 5416 5417 20BBF",
    "memory 17179869184 bytes",
    "total: 16106127360",
    "Copyright (c) 1995-2003 2005-2010, contact the authors",
    "call 2001-2005, 2007 for the years",
    "call before 2024-01-15 10:30",
    "DFARS 252.227-7014 applies",
    "Our hotline is 1-800-555-0199, or +1 888 555 0100.",
    "客服热线：400-820-8820",
    "expected = 'A\\n0,1.2345678900\\n'",
    "M200 10c0 12.123.4567-8.901.2345 456.123.4567-9z",
    "telephone: 123-456-7890",
    "the MC146818A clock chip",
    "E12345678 is an error code, so is G20240101",
    "ref DE12ABCD34567890123456 and GB00WEST12345698765432",
    "pod/e5f60718-4111-1111-1111-111111111111",
    "eyJ2ZXJzaW9uIjozLCJzb3VyY2VzIjpbXX0=",
    "id=6596876340316850223 seq=13141483392 req=5683905752300544",
    '{"a":347522249,"b":13770970525,"c":"58d1"}',
    "17634960486 bytes, 17179869183",
    "8208852 1985991 8859 314",
    "x = 123+75338997 - +319191816; y=+2488474678",
    "+980 71021 65 61 28",
    "IMEI 490154203237518, EAN 4006381333931",
    '"ClientRequestToken": "1d2129a1-3d38-460a-9756-e5b91fddb951"',
    '"NextToken": "57r3RxAmPLyEujbzWfHF7Ciw"',
    "s3_aws_secret_access_key=s3_aws_secret_access_key",
    "arn:aws:secretsmanager:us-west-2:123456789012:secret:MyTestDatabaseSecret-a1b2c3",
    "import-token-for-a-cmk-1480626483211",
    "invoice INV-5364-6253-7364-1342",
    '"SimpleAddress": "+15005550199"',
    "deps: update V8 to 10.2.154.4 (#42657)",
    "0 0 0-.747 2.148.32.32 0 0 0 .108.331l1.638",
    "postgres://user:password@db.example.org:5432/app",
]
PERSONAL = [
    ("CREDIT_CARD", "pay with ", "4111.1111.1111.1111", " please"),
    ("CREDIT_CARD", "", "4111 1111 1111 1111", " 12/27 123"),
    ("CREDIT_CARD", "Amex ", "3782 822463 10005", ""),
    ("CREDIT_CARD", "", "4111-1111-1111-1111", "\n"),
    ("IP", "User alice logged in from ", "10.20.30.41", "."),
    ("IP", "登录IP：", "192.168.3.25", "，设备"),
    ("IP", "my IP address is ", "172.16.4.9", ""),
    ("IP", "client address ", "12.34.56.40", " blocked"),
    ("IP", "", "91.198.174.192", ' - - [10/Oct/2023:13:55:36 +0000] "GET / HTTP/1.1"'),
    ("MAC", "mac: ", "00:1a:2b:3c:4d:5e", ""),
    ("MAC", "arp ", "a493.4cc1.67a7", " vlan 1"),
    ("EMAIL", "Allison Randal E<lt>", "allison@perl.example.org", "E<gt>"),
    ("EMAIL", "mail ", "ann@example.org", ": the answer"),
    ("SECRET", "postgres://app:", "x9Kq2vLm", "@db.example.org/app"),
    ("PHONE", "call my number ", "1-800-555-0142", ""),
    ("PHONE", "write or call ", "(212) 555 0187", " today"),
    ("PHONE", "ring ", "+44.2073039892", ""),
    ("CN_MOBILE", '{"phone":', "13800138000", "}"),
    ("CN_MOBILE", "请打", "13800138000", "找我"),
    ("UK_NINO", "NI number ", "AB123456C", ""),
    ("CN_PASSPORT", "他的", "E12345678", "丢了"),
]


@pytest.mark.parametrize("text", TECHNICAL)
def test_a_technical_value_is_left_as_it_stands(text: str) -> None:
    assert redact(text) == (text, ())


@pytest.mark.parametrize(("kind", "before", "value", "behind"), PERSONAL)
def test_a_personal_value_is_one_whole_item_of_its_type(kind: str, before: str, value: str, behind: str) -> None:
    found = [item[:3] for item in find(before + value + behind, contextual=False)]
    assert found == [(kind, len(before), len(before) + len(value))]
