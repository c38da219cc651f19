"""Chinese answers: yes, no or neither, and whether a Chinese question can be answered so.

Chinese has no one word for yes. A question is answered by its verb, plain or negated (有 or 没有, 是 or 不是), and
asks for yes or no by 吗 at its end or by the verb doubled (有没有, 是不是, 是否). A question of what, which or how many
has its word (什么, 哪, 几) where the answer would stand, not in front. SLAKE (arXiv 2102.09542) asks in both ways.

The rules are those of `answers.yes_no`: the first explicit word wins, then doubt makes None, then the first clause is
read as a statement; what says neither is None and never right.
"""

from __future__ import annotations

import re

HAN = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_GAP = re.compile(rf"(?<={HAN.pattern})\s+(?={HAN.pattern})")

_LEAD = re.compile(r"^(?:(?:正确|最终)?答案(?:应该)?(?:是|为)?|回答|答)\s*[::,,]*\s*(?=.)")
_ECHO = re.compile(r"^[^?。.!;\n]*\?\s*(?=.)")  # the question said again
_END = re.compile(r"[。.!?\n]")
_CLAUSE = re.compile(r"[,,;、]|但是?|不过|然而|虽然|除了")
_EITHER = re.compile(
    r"^(?:是(?:或|/|还是|\|)(?:否|不是)|有(?:或|/|还是|\|)(?:无|没有)|是否|是不是|有没有|有无|能否|能不能|会不会)"
)
_STOP = r"(?=$|[\s,,;、。:.!]|[吧啊呀哦])"
_YES = re.compile(
    rf"^(?:(?:是的?|对的?|正确|有的?|存在|包含|可以|能够?|会|肯定的?|当然|确实|阳性){_STOP}|没错|毫无疑问|无疑)"
)
_UNSURE = re.compile(
    r"不确定|不明确|不清楚|不知道|不好说|不一定|未必|未知|不详|难以|疑似|可疑|似乎|大概|或许|也许|可能|怀疑|看不清"
    r"|(?:无法|不能|未能|不足以)(?:\w{0,4})(?:确定|判断|判定|明确|看清|回答|得知|排除|评估|诊断|辨认|确认)"
)
_NO = re.compile(r"^(?:否|不|没|無|无(?!名)|未(?!分化|成年)|非(?!小细胞|典型|特异)|并非|错误?|錯|阴性|陰性)")
_DENIES = re.compile(
    r"没有?|沒有?|未(?!分化|成年)|无(?!名)|無|不(?!均|规则|規則|全|良|同|典型|仅|只|但|光|对称)|阴性|排除"
)
_DOUBLE = re.compile(r"不(?:仅|只|但|光)|毫无疑问|无疑|没错|不无")
_AFFIRMS = re.compile(
    r"(?<![所只])有(?!限|关|無|无)|存在|可见|可見|看到|发现|發現|显示|顯示|提示|阳性|陽性|见(?!于)"
)

_ASKS_CLOSED = re.compile(
    r"吗|嗎|是否|能否|可否|有无|有無|可不可以|([是有能会會对對在])(?:不|没|沒)\1|(?<![什怎那甚])么[?\s]*$"
)
_ASKS_OPEN = re.compile(
    r"什么|什麼|甚么|哪|多少|几|幾|谁|誰|怎么|怎樣|怎样|如何|为何|為何|何[处處种種时時]|还是|還是|描述|列出|写出|說明|说明"
)

# Words that are an answer by themselves, with their opposites; see `opposite`.
_PAIRS = (
    ("是", "不是"), ("是的", "不是的"), ("有", "没有"), ("存在", "不存在"), ("包含", "不包含"), ("包括", "不包括"),
    ("可以", "不可以"), ("能", "不能"), ("会", "不会"), ("对", "不对"), ("正确", "不正确"), ("健康", "不健康"),
    ("正常", "不正常"), ("属于", "不属于"), ("需要", "不需要"), ("阳性", "阴性"), ("肯定", "否定"),
)  # fmt: skip
_OPPOSITE = dict(_PAIRS) | {no: yes for yes, no in _PAIRS} | {"否": "是", "无": "有", "没": "有", "不": "是"}


def yes_no(text: str) -> str | None:
    """The answer to a yes/no question that a Chinese text gives, or None where it gives none.

    Args:
        text: in NFKC, lower case, without a lead-in in English.

    Returns:
        "yes", "no" or None.
    """
    text = close(text).strip(" \"'“”「」()[]-*#>.。!")
    text = _LEAD.sub("", _ECHO.sub("", text)).strip(" \"'“”「」。.")
    if not text or _EITHER.match(text):
        return None
    if _YES.match(text):
        return "yes"
    clause = _CLAUSE.split(_END.split(text, maxsplit=1)[0], maxsplit=1)[0]
    if _UNSURE.search(clause):
        return None
    if _DOUBLE.search(clause):
        return "yes"
    if _NO.match(text):
        return "no"
    return _statement(clause)


def _statement(clause: str) -> str | None:
    """The polarity of a clause that does not begin with a negation."""
    if _DENIES.search(clause):
        return "no"
    return "yes" if clause.startswith("是") or _AFFIRMS.search(clause) else None


def closes(question: str, answer: str) -> bool:
    """Whether a Chinese question and its right answer make a yes/no question.

    A mark of such questions decides ("图中有什么异常吗" is one although it says what), then a word of open ones; where
    the question has neither, an answer that is one word of yes or no.
    """
    if _ASKS_CLOSED.search(question):
        return True
    return not _ASKS_OPEN.search(question) and opposite(answer) is not None


def is_word(answer: str) -> bool:
    """Whether an answer is nothing but 是, 不是 or 否, which make any question one of yes and no."""
    return answer in ("是", "是的", "不是", "否")


def opposite(word: str) -> str | None:
    """The opposite of a one-word answer (是 and 不是, 有 and 没有), or None."""
    return _OPPOSITE.get(word)


def close(text: str) -> str:
    """A text without blanks between Han characters, where they mean nothing."""
    return _GAP.sub("", text)


def spread(text: str) -> str:
    """A text with every Han character as a word of its own."""
    return HAN.sub(r" \g<0> ", text)
