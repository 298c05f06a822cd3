"""Postal addresses of many countries are found whole, and places without a house are left alone."""

from __future__ import annotations

import pytest

from detectors.pii import find

HITS = [
    "我家在<北京市朝阳区建国路88号SOHO现代城A座1201>，欢迎来玩",
    "收货地址：<广东省深圳市南山区科技园南区高新南七道数字技术园B1栋3楼>",
    "他住<四川省成都市武侯区一环路南三段15号>",
    "寄到<上海市徐汇区漕溪北路398号汇智大厦15楼B室>",
    "地址是<江苏省南京市江宁区秣陵街道清水亭东路1268号>。",
    "<河北省保定市易县梁各庄镇某村3组12号>",
    "公司位于<新疆维吾尔自治区乌鲁木齐市天山区人民路2号>",
    "地址：<重庆渝北区龙溪街道红锦大道88号天江鼎城3栋2-1>",
    "请送到<杭州余杭区文一西路969号>",
    "他家住<湖南省浏阳市沿溪镇大光圆村>",
    "住址：<安徽省阜阳市颍上县谢桥镇刘庄村>",
    "现居<北京市海淀区中关村南大街5号院>",
    "地址：<台北市大安區忠孝東路四段100號5樓>",
    "住在<香港九龍尖沙咀彌敦道100號8樓A室>",
    "快递寄<天津市和平区南京路189号津汇广场2座1705>",
    "籍贯<山东省青岛市市南区香港中路10号>，现住外地",
    "发票寄往<陕西省西安市雁塔区高新四路丽湾国际B座2201室>",
    "Ship it to <Flat 3, 45 Rosebery Avenue, London EC1R 4RN>.",
    "Our office is at <1600 Amphitheatre Pkwy, Mountain View, CA 94043>.",
    "He lives at <45 rue de la Paix, 75002 Paris>.",
    "Send it to <Calle Mayor 15, 28013 Madrid>.",
    "<Via Roma 12, 00184 Roma> is where she grew up",
    "Meine Adresse: <Friedrichstr. 123, 10117 Berlin>",
    "I moved to <Keizersgracht 123, 1015 CJ Amsterdam>",
    "He lives in <ul. Marszałkowska 10/12, 00-590 Warszawa>.",
    "<12 Baker St., Apt 4B, Boston, MA 02116>",
    "my address is <2204 Oak Hollow Rd, Plano TX 75023>",
    "Deliver to <Suite 400, 77 King Street West, Toronto, ON M5K 1A1>",
    "Address: <15 Collins Street, Melbourne VIC 3000>",
    "The parcel goes to <88 Nathan Rd, Kowloon, Hong Kong>",
    "Please mail it to <PO Box 1234, Austin, TX 78701>.",
    "<Marktplatz 3, 1010 Wien>",
    "<24 Clarke Avenue, Apt. 805>",
    "Nous habitons <12 bis avenue Victor Hugo, 69006 Lyon>.",
    "Invoice to <Rua Augusta 1500, São Paulo>",
    "Apartment: <350 Fifth Avenue, 34th Floor, New York, NY 10118>",
    "<東京都千代田区千代田1-1>に住んでいます",
    "住所：<〒150-0002 東京都渋谷区渋谷2丁目21-1>",
    "<大阪府大阪市北区梅田3-1-3>",
    "주소: <서울특별시 강남구 테헤란로 123>",
    "<경기도 성남시 분당구 판교역로 166>에 있습니다",
    "Адрес: <г. Москва, ул. Ленина, д. 5, кв. 12>",
    "Живу на <ул. Пушкина, дом 10>",
    "收件地址 <浙江省宁波市鄞州区天童南路700号荣安大厦1203室>",
    "他老家是<河南省周口市太康县马头镇前何村>",
    "地址改为<武汉市洪山区珞喻路1037号华中科技大学韵苑12栋305>",
    "请寄<福建省厦门市思明区软件园二期望海路59号之一201单元>",
    "我现在住<昆明市五华区东风西路2号百货大楼后面3单元602>",
    "户籍地：<辽宁省沈阳市皇姑区崇山东路22巷8号楼2单元501>",
    "公司搬到<苏州工业园区星湖街328号创意产业园4栋B区>",
    "地址：<内蒙古自治区呼和浩特市赛罕区大学西路235号>",
    "送到<广州天河体育西路103号维多利广场A塔18楼>",
    "<新北市板橋區文化路一段188巷12弄5號3樓>是我家",
    "Our new flat: <Flat 12B, 221 Camden High Street, London NW1 7BT>",
    "please post it to <9 Orchard Close, Guildford, Surrey GU1 2AB>",
    "She resides at <4711 Maple Leaf Dr, Apt 12, Columbus, OH 43215>",
    "Bring it to <1 Infinite Loop, Cupertino, CA 95014>",
    "Elle habite au <8 place de la République, 75011 Paris>.",
    "Wohnhaft: <Goethestraße 27, 60313 Frankfurt am Main>",
    "Vivo en <Avenida de América 23, 28028 Madrid>",
    "Casa mia: <Viale Monza 88, 20127 Milano>",
    "The shop at <120 Queen St E, Toronto ON M5C 1S6> closes at five.",
    "shipping: <5/14 Park Road, Bondi NSW 2026>",
    "住所は<神奈川県横浜市西区みなとみらい2-3-1>です",
    "Прописан: <г. Казань, ул. Баумана, 15, кв. 3>",
]
MISSES = [
    "北京市海淀区的居民楼很多，三号线也快。",
    "广东省深圳市南山区科技园是一个高新技术开发区。",
    "Paris is the capital of France, 75 minutes from Lille.",
    "京都府と大阪府の人口",
    "서울특별시 인구는 940만 명이다.",
    "Москва, столица России, 12 миллионов",
    "En 1998 la rue était calme.",
    "Chapter 4 Place names, 12 pages",
]


@pytest.mark.parametrize("marked", HITS)
def test_an_address_is_found_whole(marked: str) -> None:
    text = marked.replace("<", "").replace(">", "")
    place = marked.index("<"), marked.index(">") - 1
    assert [(item.start, item.end) for item in find(text) if item.type == "ADDRESS"] == [place]


@pytest.mark.parametrize("text", MISSES)
def test_a_place_without_a_house_is_no_address(text: str) -> None:
    assert [item for item in find(text) if item.type == "ADDRESS"] == []
