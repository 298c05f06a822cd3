"""Use or mention: phrases that are said, and phrases that a text only speaks about.

Someone who asks what "ignore previous instructions" means, translates it or writes a test for it
does not attack. A mention still is a finding, but a low one. So is a use that tells people, not a model, what to drop.
"""

from __future__ import annotations

import re

NEAR = 48
"""Characters before a match that are read for a cue; constant, so a flood of matches stays linear."""
_QUOTE_SPAN = 12
_OPENING = "\"'`“‘«「『《（("
_CLOSING = "\"'`”’»」』》）)"
_CUE = re.compile(
    r"what (?:does|is|do|would|are)|mean(?:s|ing)?\b|translat|explain|defin|phrase|sentence|example"
    r"|called|detect|classif|quot(?:e|ing)|test case|unit test|attack|inject|article|policy|filter"
    r"|refus|why (?:does|do|is|are|did)|words? like|such as|says?\b|written|title"
    r"|什么是|是什么意思|什么意思|含义|翻译|解释|这句话|示例|例子|测试用例|测试|检测|识别|攻击|注入|拒绝"
    r"|如何防|防御|防范|例如|比如|用户输入|一词|短语|为什么"
)
_ASKING = re.compile(
    r"(?:how (?:do|can|could|should|to|would|does)|why (?:did|does|do|is)|what (?:does|happens)"
    r"|is it possible to|when (?:should|do|to)|怎么|怎样|如何|什么是|为什么)[^.!?。！？\n]{0,40}$"
)
_MEANING = re.compile(r"^[^.!?。！？\n]{0,24}?(?:mean\b|means\b|是什么意思|什么意思|的含义|指什么)")


_MODEL = (
    r"(?:you|yourself|u|ais?|assistants?|models?|chatbots?|bots?|llms?|agents?|systems?|gpt|chatgpt|it|tools?"
    r"|reviewers?)"
)
_SPEAKS = (
    r"(?:boss|doctor|teacher|landlord|manager|memo|letter|leaflet|notice|handbook|sheet|form|e-?mail|contract|tender)"
)
_TO_PEOPLE = re.compile(
    rf"(?:(?:told|asked|asks|instructed|ordered|reminded|advised|wants|lets|let) (?!(?:the |an |a |all )?{_MODEL}\b)"
    rf"[a-z' ]{{1,28}}(?: to| may)?|(?!{_MODEL}\b)\b[a-z]{{3,16}}"
    rf" (?:should|must|may|can|could|have to|has to|need to|are asked to|are free to)"
    rf"|\b{_SPEAKS}[a-z ]{{0,20}} (?:says?|said|wrote|reads)(?: that| to|:)?(?: i (?:may|should|can|must))?"
    rf"|\b(?:notice|note|attention|memo|letter|message)(?: to| for)? (?!(?:the |all |any )?{_MODEL}\b)[a-z]{{3,16}}:"
    r"|dear [a-z]{3,16}, please)\s*(?:not )?$"
)
_TO_PEOPLE_ZH = re.compile(
    "(?:让|叫|要求|通知|告诉|提醒|请)(?![^，。]{0,4}(?:你|模型|助手|机器人|ai))[^，。！？：；]{1,8}$"
    "|(?:老板|领导|医生|老师|房东|经理|公司|学校|物业|教练|客户|法官|通知|合同|备忘录|说明书|宣传单|手册|邮件|文件)[^，。！？；]{0,6}"
    "(?:说|写着|规定|要求|宣布)(?:了)?[:：“]?$"
)
_OWN = re.compile(
    r"\b(?:my|our|his|her|their) (?:previous|prior|earlier|last|original|former)\b"
    r"|[我他她](?:们)?(?:之前|上一|上次|刚才)"
)


def is_for_people(text: str, start: int, end: int) -> bool:
    """The match at `[start, end)` of a clean view is about instructions of people to people."""
    before = text[max(0, start - NEAR) : start]
    return bool(_OWN.search(text, start, end) or _TO_PEOPLE.search(before) or _TO_PEOPLE_ZH.search(before))


def is_mention(text: str, start: int, end: int) -> bool:
    """True where the match at `[start, end)` of a clean view is talked about rather than said."""
    before = text[max(0, start - NEAR) : start]
    after = text[end : end + NEAR]
    if _ASKING.search(before) or _MEANING.match(after):
        return True
    if not _quoted(before, after):
        return False
    return bool(_CUE.search(before) or _CUE.search(after))


def _quoted(before: str, after: str) -> bool:
    """True where a quotation opens shortly before the match and closes shortly after it."""
    opened = any(mark in before[-_QUOTE_SPAN:] for mark in _OPENING)
    return opened and any(mark in after[: 2 * _QUOTE_SPAN] for mark in _CLOSING)
