"""Small raw data in the layouts that the recipes of the seeds read: knees, skin, SLAKE, RLAIF-V's shards."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

KNEES = ("0Normal", "1Doubtful", "2Mild", "3Moderate", "4Severe")
SKIN = ("BCC", "SCC", "MEL", "ACK", "NEV", "SEK")
COLUMNS = "patient_id,lesion_id,age,gender,fitspatrick,region,diagnostic,img_id,biopsed"
TEXTS = ("ds_name", "question", "chosen", "rejected", "origin_dataset", "origin_split", "idx", "image_path")


def picture(seed: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    """A random picture."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (*size, 3), np.uint8))


def knees(root: Path, each: int = 4) -> Path:
    """The first expert's class folders."""
    for grade, name in enumerate(KNEES):
        folder = root / "MedicalExpert-I" / name
        folder.mkdir(parents=True)
        for i in range(each):
            picture(100 * grade + i).save(folder / f"{name[1:]}G{grade} ({i + 1}).png")
    return root


def skin(root: Path, patients: int = 12) -> Path:
    """PAD-UFES-20's table and photographs."""
    (root / "imgs_part_1").mkdir(parents=True)
    rows = [COLUMNS]
    for i in range(patients):
        name = f"PAT_{i}_{i}_1.png"
        picture(1000 + i).save(root / "imgs_part_1" / name)
        rows.append(f"PAT_{i},{i},5{i % 10},FEMALE,2.0,NECK,{SKIN[i % 6]},{name},True")
    (root / "metadata.csv").write_text("\n".join(rows) + "\n")
    return root


def slake(root: Path, each: int = 6) -> Path:
    """SLAKE's three files, with an open, a closed and a Chinese question about every image."""
    asked = (
        ("en", "Plane", "What is the plane?", "Axial"),
        ("en", "Organ", "Is there a liver?", "Yes"),
        ("zh", "Organ", "图中有什么器官？", "肝脏"),
    )
    number = 0
    for part, name in enumerate(("train", "validate", "test")):
        rows = []
        for i in range(each):
            place = Path(f"xmlab{10 * part + i}") / "source.jpg"
            (root / "imgs" / place).parent.mkdir(parents=True)
            picture(2000 + 10 * part + i).save(root / "imgs" / place)
            for language, kind, question, answer in asked:
                number += 1
                rows.append(
                    {"qid": number, "img_name": place.as_posix(), "q_lang": language, "content_type": kind,
                     "question": question, "answer": answer, "location": "Abdomen", "modality": "CT",
                     "answer_type": "OPEN", "base_type": "vqa"}
                )  # fmt: skip
        (root / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return root


def rlaif_v(root: Path, pairs: int = 12) -> Path:
    """One shard of RLAIF-V."""
    rows = []
    for i in range(pairs):
        packed = io.BytesIO()
        picture(3000 + i).save(packed, format="PNG")
        rows.append(
            {**dict.fromkeys(TEXTS, ""), "image": {"bytes": packed.getvalue(), "path": f"{i}.png"},
             "ds_name": "RLAIF-V", "idx": str(i), "question": f"What is in picture {i}?",
             "chosen": f"A grey square, {i} px wide.", "rejected": "A red circle with a cat."}
        )  # fmt: skip
    image = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    schema = pa.schema([("image", image), *((name, pa.string()) for name in TEXTS)])
    root.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), root / "RLAIF-V-Dataset_000.parquet")
    return root
