"""Chinese answers: yes, no or neither, whether a question is closed, and measures counted per character."""

from __future__ import annotations

import pytest

from sightline import plugins
from sightline.data.pairs import flip, wrong
from sightline.metrics.answers import closed, normalise, overlap, tokens, yes_no
from sightline.types import ImageRef, Message, Prediction, Sample

CASES = [
    ("是", "yes"), ("是的。", "yes"), ("是 的", "yes"), ("对", "yes"), ("有", "yes"), ("有，左侧。", "yes"),
    ("存在", "yes"), ("包含", "yes"), ("是，有积液", "yes"), ("是，但不确定大小", "yes"), ("是肺炎", "yes"),
    ("左侧胸腔有积液", "yes"), ("可见结节", "yes"), ("能", "yes"), ("阳性", "yes"), ("肯定", "yes"), ("没错", "yes"),
    ("不仅有积液", "yes"), ("答案是：是", "yes"), ("是否有积液？有", "yes"), ("Yes，有积液", "yes"),
    ("否", "no"), ("不是", "no"), ("不", "no"), ("没有", "no"), ("没 有", "no"), ("无", "no"), ("無", "no"),
    ("不包含", "no"), ("不健康", "no"), ("不存在", "no"), ("不能", "no"), ("阴性", "no"), ("错", "no"),
    ("未见异常", "no"), ("未发现积液。", "no"), ("无明显异常", "no"), ("左肺未见积液", "no"), ("心脏不大", "no"),
    ("没有，右侧有", "no"), ("答案：否", "no"), ("答：没有。", "no"), ("有积液吗？没有。", "no"), ("No，没有", "no"),
    ("不确定", None), ("无法确定", None), ("可能有", None), ("有可能", None), ("不能排除肺炎", None),
    ("疑似结节", None), ("看不清", None), ("不一定", None), ("是否", None), ("是或否", None), ("是/否", None),
    ("有没有", None), ("有无积液", None), ("左肺", None), ("肝脏", None), ("胸部X光", None), ("健康", None),
    ("无名动脉", None), ("密度不均匀", None), ("边界不规则", None), ("未分化癌", None),
    ("非小细胞肺癌", None), ("所有", None), ("。", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "answer"), CASES)
def test_yes_no(text: str, answer: str | None) -> None:
    assert yes_no(text) == answer


@pytest.mark.parametrize(
    ("question", "answer", "gold"),
    [
        ("图中有肝脏吗？", "有", "yes"),
        ("图中有肝脏吗？\n<image>", "没有", "no"),
        ("是否有积液", "是", "yes"),
        ("这是不是肿瘤？", "不是", "no"),
        ("图中有什么异常吗？", "没有", "no"),
        ("图中有什么异常？", "无", None),
        ("图中有什么异常？", "未见异常", None),
        ("这是什么？", "肺", None),
        ("肺在图像的哪里？", "左侧，有阴影", None),
        ("异常的是左肺还是右肺？", "右肺", None),
        ("有几个肾脏？", "有两个", None),
        ("请描述图像。", "未见异常。", None),
        ("图像包含肝脏", "包含", "yes"),
        ("图像包含肝脏", "有明显的肝脏阴影", None),
        ("这是哪种模态？", "否", "no"),
        ("图中有肝脏吗？", "Yes", "yes"),
        ("图中有肝脏吗？", "可能", None),
        ("Is there a liver?", "有", "yes"),
    ],
)
def test_a_chinese_question_is_closed_by_its_form(question: str, answer: str, gold: str | None) -> None:
    assert closed(question, answer) == gold


@pytest.mark.parametrize(
    ("text", "normal", "found"),
    [
        ("左 肺。", "左肺", ["左", "肺"]),
        ("左肺，上叶", "左肺上叶", ["左", "肺", "上", "叶"]),
        ("CT 扫描", "ct 扫描", ["ct", "扫", "描"]),
        ("胸部X光片", "胸部x光片", ["胸", "部", "x", "光", "片"]),
        ("T2加权", "t2加权", ["t2", "加", "权"]),
        ("1.5 厘米", "1.5 厘米", ["1.5", "厘", "米"]),
        ("left lobe", "left lobe", ["left", "lobe"]),
        ("。？！", "", []),
    ],
)
def test_the_normal_form_and_its_tokens(text: str, normal: str, found: list[str]) -> None:
    assert normalise(text) == normal
    assert normalise(normal) == normal
    assert tokens(text) == found


def test_overlap_counts_chinese_by_character() -> None:
    assert overlap("左肺上叶", "右肺上叶") == pytest.approx(3 / 4)
    assert overlap("左肺", "左肺上叶") == pytest.approx(2 * 2 / 6)
    assert overlap("左 肺。", "左肺") == 1.0
    assert overlap("肝脏", "心") == 0.0


def answer(number: int, question: str, right: str, text: str) -> Prediction:
    return Prediction(
        sample=f"s{number}",
        patient=f"p{number}",
        turn=0,
        topic="",
        question=question,
        answer=right,
        text=text,
    )


def test_the_metric_of_questions_scores_both_languages() -> None:
    made = [
        answer(0, "有积液吗？", "有", "是的，左侧有积液。"),
        answer(1, "有积液吗？", "没有", "未见积液"),
        answer(2, "有积液吗？", "没有", "有"),
        answer(3, "Is there an effusion?", "Yes", "是"),
        answer(4, "有积液吗？", "有", "不确定"),
        answer(5, "积液在哪一侧？", "左侧", "左 侧。"),
        answer(6, "积液在哪一侧？", "左侧", "右侧"),
    ]
    found = {m.name: m.value() for m in plugins.load("metrics", "vqa").score(made)}
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["unparsed"] == pytest.approx(1 / 5)
    assert found["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert found["token_f1"] == pytest.approx((1.0 + 0.5) / 2)
    assert found["exact_match"] == pytest.approx(1 / 7)


@pytest.mark.parametrize(
    ("said", "turned"),
    [("是", "不是"), ("不是。", "是。"), ("否", "是"), ("有", "没有"), ("没有", "有"), ("无", "有"), ("不健康", "健康"),
     ("阳性", "阴性"), ("肝脏", None), ("Yes.", "No.")],
)  # fmt: skip
def test_a_chinese_answer_is_turned_into_its_opposite(said: str, turned: str | None) -> None:
    assert flip(said) == turned
    if turned is not None and yes_no(said) is not None and yes_no(turned) is not None:
        assert {yes_no(said), yes_no(turned)} == {"yes", "no"}


def asked(number: int, question: str, right: str) -> Sample:
    return Sample(
        id=f"s{number}",
        patient=f"p{number}",
        images=(ImageRef(path="a.png"),),
        messages=(
            Message(role="user", parts=(0, question)),
            Message(role="assistant", parts=(right,), topic="closed"),
        ),
    )


def test_wrong_answers_of_pairs_are_opposites_and_not_other_words_for_yes() -> None:
    samples = [asked(0, "有肝脏吗？", "有"), asked(1, "是CT吗？", "是"), asked(2, "Is it CT?", "Yes")]
    assert [(p.chosen, p.rejected) for p in wrong(samples, 0, (), {})] == [
        ("有", "没有"), ("是", "不是"), ("Yes", "No")
    ]  # fmt: skip
