"""PAD-UFES-20: skin lesions photographed by telephone, with the patient's history (Pacheco et al. 2020).

Reads `metadata.csv` and the images of 10.17632/zr7vgbcyr2.1: 2298 images of 1641 lesions of 1373 patients, CC BY 4.0.
Its three archives unpack to `imgs_part_1/imgs_part_1/` and the like; images are found by name wherever they are.

    PAT_46_881_14-diagnosis   user <image> Which skin lesion is shown: ...?     assistant Basal cell carcinoma
    PAT_46_881_14-cancer      user <image> Is this lesion a skin cancer?        assistant Yes

| code | what | skin cancer |
|---|---|---|
| `BCC`, `SCC`, `MEL` | basal and squamous cell carcinoma (Bowen's disease among the latter), melanoma | yes |
| `ACK`, `NEV`, `SEK` | actinic and seborrheic keratosis, nevus | no |

Cancers were proven by biopsy, most of the others by the consensus of dermatologists (`biopsed` tells). A patient has
several lesions and a lesion several images: patients are given, so all of a patient stays in one split.
"""

from __future__ import annotations

import filecmp
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from ...errors import DataError
from ...types import ImageRef, Message, Sample
from ..source import Read, Reader, RecordError, Source, clean, describe
from ..table import Row, table

TABLE = "metadata.csv"
NEEDED = ("patient_id", "lesion_id", "img_id", "diagnostic")
CANCERS = ("BCC", "SCC", "MEL")
NAMES: Mapping[str, Mapping[str, str]] = {
    "en": {
        "ACK": "Actinic keratosis", "BCC": "Basal cell carcinoma", "MEL": "Melanoma", "NEV": "Nevus",
        "SCC": "Squamous cell carcinoma", "SEK": "Seborrheic keratosis",
    },
    "zh": {
        "ACK": "光化性角化病", "BCC": "基底细胞癌", "MEL": "黑色素瘤", "NEV": "色素痣",
        "SCC": "鳞状细胞癌", "SEK": "脂溢性角化病",
    },
}  # fmt: skip
WORDS: Mapping[str, Mapping[str, str]] = {
    "en": {
        "diagnosis": "Which skin lesion is shown: {classes}?", "cancer": "Is this lesion a skin cancer?",
        "caption": "Describe this skin lesion.", "whole": "{name} on the {region}.", "bare": "{name}.",
        "yes": "Yes", "no": "No", "comma": ", ", "or": " or ",
    },
    "zh": {
        "diagnosis": "图中是哪种皮肤病变：{classes}？", "cancer": "这个病变是皮肤癌吗？",
        "caption": "请描述这个皮肤病变。", "whole": "{region}{name}。", "bare": "{name}。",
        "yes": "是", "no": "不是", "comma": "、", "or": "还是",
    },
}  # fmt: skip
REGIONS = {
    "abdomen": "腹部", "arm": "上臂", "back": "背部", "chest": "胸部", "ear": "耳部", "face": "面部", "foot": "足部",
    "forearm": "前臂", "hand": "手部", "lip": "唇部", "neck": "颈部", "nose": "鼻部", "scalp": "头皮", "thigh": "大腿",
}  # fmt: skip
UNKNOWN = ("", "unk", "nan", "none")
# Columns that subgroups are made of, by the name that the attribute has.
SUBGROUPS = {
    "sex": "gender", "region": "region", "biopsed": "biopsed", "itch": "itch", "grew": "grew", "hurt": "hurt",
    "changed": "changed", "bleed": "bleed", "elevation": "elevation", "smoke": "smoke", "drink": "drink",
}  # fmt: skip
BAND = 20  # years of one age group
OLDEST = 120


def pad_ufes(
    source: Source,
    *,
    questions: Literal["diagnosis", "cancer", "both", "caption"] = "both",
    language: Literal["en", "zh"] = "en",
    images: str = "",
) -> Iterator[Read]:
    """One sample an image and question.

    Args:
        source: its root holds `metadata.csv` and, somewhere below, the images.
        questions: the diagnosis (open, topic `diagnosis`), whether it is a cancer (yes or no, topic `cancer`), or both;
            `caption` is one sentence of diagnosis and region (topic `report`) that an encoder can be tuned on.
        language: of questions and answers, English or Chinese.
        images: folder below the root in which images are looked for; "" is the root.

    Yields:
        `(sample, None, "metadata.csv:line")`. The study is the lesion. Labels: `cancer`. Attributes, where the file
        knows them: `diagnosis`, `age`, `age_group`, `sex`, `region`, `skin_type` (Fitzpatrick's), `biopsed`, and what
        the patient told (`itch`, `grew`, `hurt`, `changed`, `bleed`, `elevation`, `smoke`, `drink`) as true or false.

    Raises:
        DataError: the table or one of its columns is missing.
    """
    places = _places(source.folder(), images)
    kinds = ("diagnosis", "cancer") if questions == "both" else (questions,)
    for line, row in table(source, TABLE, NEEDED):
        try:
            made = [_sample(row, kind, language, places) for kind in kinds]
        except DataError as error:
            source.reject_error(TABLE, line, clean(row["img_id"], 80), error)
            continue
        for sample in made:
            yield sample, None, f"{TABLE}:{line}"


def _places(root: Path, folder: str) -> dict[str, str]:
    """File name to path below the root, of every picture; "" where two different files have one name."""
    found: dict[str, str] = {}
    for path in sorted((root / folder).rglob("*")):
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg") or not path.is_file():
            continue
        first = found.setdefault(path.name, path.relative_to(root).as_posix())
        if first and root / first != path and not filecmp.cmp(root / first, path, shallow=False):
            found[path.name] = ""
    return found


def _sample(row: Row, kind: str, language: str, places: Mapping[str, str]) -> Sample:
    code, words, names = row["diagnostic"].upper(), WORDS[language], NAMES[language]
    if code not in names:
        raise RecordError(
            "the diagnosis is none of the six", field="diagnostic", found=describe(row["diagnostic"]),
            remedy=f"expected one of {', '.join(names)}",
        )  # fmt: skip
    for field in NEEDED[:3]:
        if not row[field]:
            raise RecordError(f"the row has no {field}", field=field, found="an empty cell")
    image, cancer = _image(row["img_id"], places), code in CANCERS
    question, about = words[kind], _attributes(row, code)
    if kind == "cancer":
        answer = words["yes" if cancer else "no"]
    elif kind == "caption":
        region = about.get("region", "")
        place = REGIONS.get(region, "") if language == "zh" else region
        answer = words["whole" if place else "bare"].format(name=names[code], region=place)
    else:
        listed = words["comma"].join(list(names.values())[:-1]) + words["or"] + list(names.values())[-1]
        question, answer = question.replace("{classes}", listed), names[code]
    return Sample(
        id=f"{Path(row['img_id']).stem}-{kind}",
        patient=row["patient_id"],
        study=f"{row['patient_id']}-{row['lesion_id']}",
        images=(ImageRef(path=image, kind="photo"),),
        messages=(
            Message(role="user", parts=(0, question)),
            Message(role="assistant", parts=(answer,), topic="report" if kind == "caption" else kind),
        ),
        labels={"cancer": int(cancer)},
        attributes=about,
    )


def _image(name: str, places: Mapping[str, str]) -> str:
    path = places.get(name)
    if path is None:
        raise RecordError(
            "the image file is missing", field="img_id", found=clean(name, 80),
            remedy="unpack imgs_part_1.zip, imgs_part_2.zip and imgs_part_3.zip below the data root",
        )  # fmt: skip
    if not path:
        raise RecordError(
            "two different files have the image's name", field="img_id", found=clean(name, 80),
            remedy="take one away, or set `images` to the folder that counts",
        )  # fmt: skip
    return path


def _attributes(row: Row, code: str) -> dict[str, str]:
    """What the file knows of the patient and the lesion.

    Raises:
        RecordError: an age that is none.
    """
    found = {"diagnosis": code}
    age = row.get("age", "")
    if age.lower() not in UNKNOWN:
        years = _number(age)
        if years is None or not 0 <= years <= OLDEST:
            raise RecordError("the age is no number of years", field="age", found=describe(age))
        low = int(years) // BAND * BAND
        found |= {"age": str(int(years)), "age_group": f"{low}-{low + BAND - 1}"}
    skin = _number(row.get("fitspatrick", ""))  # spelt so in the file
    if skin is not None:
        found["skin_type"] = str(int(skin))
    for name, column in SUBGROUPS.items():
        value = row.get(column, "").lower()
        if value not in UNKNOWN:
            found[name] = value
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


READER = Reader(read=pad_ufes)
