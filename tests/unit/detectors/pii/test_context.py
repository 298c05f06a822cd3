"""Items that context tells: found with exact places, and ordinary words left alone."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from detectors.pii import find

HITS = [
    "Dear Dr. <Watson|PERSON>, please send it to <221B Baker Street, London NW1 6XE|ADDRESS>.",
    "Mr. <Trần Hữu Đức|PERSON> is in",
    "<Priya Sharma|PERSON> and <Kwame Mensah|PERSON> met on Tuesday.",
    "my name is <ana maria silva|PERSON> and i need help",
    '{"customer": "<Ingrid Larsson|PERSON>", "city": "Oslo"}',
    "<John Smith|PERSON>, born on <July 4, 1976|DATE_OF_BIRTH>",
    "She lives at <742 Evergreen Terrace, Springfield, IL 62704|ADDRESS>.",
    "Send it to <P.O. Box 242|ADDRESS> please",
    "The flat at <Hauptstraße 12|ADDRESS> is empty",
    "我叫<王小明|PERSON>，住在<浙江省杭州市西湖区文三路478号2幢1204室|ADDRESS>。",
    "患者<赵敏|PERSON>于2020年入院",
    "收件人：<欧阳静怡|PERSON>\n地址：<上海市浦东新区张江路88弄3号楼201室|ADDRESS>",
    "INSERT INTO t VALUES ('<李建国|PERSON>', 5);",
    "出生日期：<1990年1月1日|DATE_OF_BIRTH>",
    "他<1990-01-01|DATE_OF_BIRTH>出生。",
    "加微信<zhang_wei88|WECHAT>聊",
    "My WeChat id is <johnsmith|WECHAT>",
    "password: <hunter2!x|SECRET>",
]
MISSES = [
    "The capital of France is Paris. New York is big. Thank You Very Much.",
    "Chapter 12 Street Art of the 1980s",
    "The meeting is on July 4, 2026 in Room 5.",
    "会议定在2024-04-09下午三点，地点在三号楼。",
    "王先生说今天很高兴，方便的话马上出发。",
    "江苏、安徽、浙江等地有雨。",
    "学生毕业后应当联系和区别这些概念。",
    "We use WeChat messages and a password manager.",
    "微信小程序怎么开发？",
    "",
    "\ud800\udc00\ud800 \udfff",
]


@pytest.mark.parametrize("marked", HITS)
def test_items_are_found_where_they_are(marked: str) -> None:
    places: list[tuple[str, int, int]] = []
    text = ""
    for piece in re.split(r"(<[^<>|]+\|[A-Z_]+>)", marked):
        if piece.endswith(">") and "|" in piece:
            value, kind = piece[1:-1].split("|")
            places.append((kind, len(text), len(text) + len(value)))
            piece = value
        text += piece
    assert [item[:3] for item in find(text)] == places


@pytest.mark.parametrize("text", MISSES)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert find(text) == ()


def test_items_are_in_order_and_never_overlap() -> None:
    text = "Jane Smith 13800138000@163.com 4111 1111 1111 1111, 住在北京市海淀区中关村路1号 李建国13800138000"
    found = find(text)
    assert len(found) >= 5
    assert all(one.end <= other.start for one, other in pairwise(found))


def test_context_can_be_left_out() -> None:
    text = "Dear Dr. Watson, call +1 536 561 8738"
    assert [item.type for item in find(text, contextual=False)] == ["PHONE"]
    assert [item.type for item in find(text)] == ["PERSON", "PHONE"]


def test_places_count_code_points_of_the_original() -> None:
    text = "😀😀 电话：１３８００１３８０００，联系人：李建国"
    assert [text[item.start : item.end] for item in find(text)] == ["１３８００１３８０００", "李建国"]
