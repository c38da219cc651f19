// Every text of the page, in three languages. A missing one is a fault that a test finds.
export const WORDS = {
  en: {
    notice: "For research only. Not a medical device, not for clinical use.",
    skip: "Go to the question", model: "Model", language: "Language", images: "Images", current: "Current image",
    prior: "Earlier image (optional)", choose: "Choose a PNG, JPEG or NIfTI file", drop: "or drop it here", remove: "Remove",
    view: "View", centre: "Window centre", width: "Window width", zoom: "Zoom", reset: "Reset view",
    moves: "Arrow keys move the image, plus and minus zoom, 0 resets.",
    display_only: "Window and zoom change what you see, never what the model is given.",
    ask_title: "Ask", mode: "What do you want?", mode_question: "An answer to a question", mode_report: "A report",
    question: "Question", report: "What the report should say", report_text: "Describe the findings.",
    suggested: "Questions it was taught", ask: "Ask", stop: "Stop",
    blind: "What if it could not see?", answers: "Answers", seen: "With the image", unseen: "If it could not see",
    copy: "Copy", export: "Save as JSON", copied: "Copied.", saved: "Saved.", version: "Version",
    kept: "Nothing is kept: images, questions and answers are gone when this page is closed.",
    working: "Answering …", done: "Done.", stopped: "Stopped.", cut: "The answer reached its longest length.",
    given: "Above the calibrated threshold", needs_review: "Needs review",
    uncalibrated: "Not calibrated: decide for yourself",
    choices: "How sure, yes against no: {0} %", sequence: "Mean probability of its words: {0} % (for ranking, not the chance of being right)",
    threshold: "threshold {0} %", same: "The same answer without the image. It may not depend on the image.",
    other: "Another answer without the image.",
    no_image: "Choose a current image first.", no_question: "Write a question first.",
    bad_type: "This is no PNG, JPEG or NIfTI file.",
    too_large: "This file is too large.", bad_image: "This image cannot be read.",
    busy: "All places are taken. Try again in {0} s.", refused: "The server refused: {0}", lost: "The connection was lost.",
    signed_out: "Sign in again: reload this page.", shown: "{0} × {1} pixels",
    dicom: "DICOM files are not read here: export the image as PNG, or convert the series to NIfTI.",
    reading: "Reading the volume …", slices: "Slices", plane: "Plane", axial: "Axial", coronal: "Coronal", sagittal: "Sagittal",
    slice: "Slice", slice_of: "Slice {0} of {1}", slice_given: "The model is given this slice, not the volume.",
    edges: "Left edge: the patient's {0}. Upper edge: {1}.", side_0: "right", side_1: "front", side_2: "head",
    times: "Of {0} points of time this is the first.",
    more: "Also", compare: "Ask the model before, too: {0}", before: "Model before, with the image", unbefore: "Model before, if it could not see",
    reports_read: "Show the model reports of similar images", reports_beside: "Show reports of similar images beside the answer",
    found: "Reports of similar images", found_hint: "They are about other patients. A high similarity does not make a report true of this one.",
    none_found: "No similar report was found.", similarity: "Similarity {0}", behind: "{0} reports say this", in_prompt: "Shown to the model",
  },
  zh: {
    notice: "仅供研究使用。不是医疗器械，不得用于临床。",
    skip: "转到问题", model: "模型", language: "语言", images: "图像", current: "当前图像",
    prior: "既往图像（可选）", choose: "选择 PNG、JPEG 或 NIfTI 文件", drop: "或拖放到此处", remove: "移除",
    view: "显示", centre: "窗位", width: "窗宽", zoom: "缩放", reset: "重置显示",
    moves: "方向键移动图像，加号和减号缩放，0 重置。",
    display_only: "窗位、窗宽和缩放只改变您看到的画面，不改变模型得到的图像。",
    ask_title: "提问", mode: "您需要什么？", mode_question: "回答一个问题", mode_report: "一份报告",
    question: "问题", report: "报告的要求", report_text: "Describe the findings.",
    suggested: "模型学过的问题", ask: "提问", stop: "停止",
    blind: "如果它看不到图像？", answers: "回答", seen: "看到图像时", unseen: "看不到图像时",
    copy: "复制", export: "保存为 JSON", copied: "已复制。", saved: "已保存。", version: "版本",
    kept: "不保存任何内容：关闭此页面后，图像、问题和回答都会消失。",
    working: "正在回答……", done: "完成。", stopped: "已停止。", cut: "回答已达到最大长度。",
    given: "高于校准阈值", needs_review: "需要人工复核",
    uncalibrated: "未校准：请自行判断",
    choices: "对“是/否”的把握：{0} %", sequence: "各词的平均概率：{0} %（用于排序，不是正确的概率）",
    threshold: "阈值 {0} %", same: "没有图像时回答相同。该回答可能不依赖于图像。",
    other: "没有图像时回答不同。",
    no_image: "请先选择当前图像。", no_question: "请先写下问题。",
    bad_type: "这不是 PNG、JPEG 或 NIfTI 文件。",
    too_large: "文件过大。", bad_image: "无法读取此图像。",
    busy: "所有位置都被占用。请在 {0} 秒后重试。", refused: "服务器拒绝：{0}", lost: "连接已断开。",
    signed_out: "请重新登录：刷新此页面。", shown: "{0} × {1} 像素",
    dicom: "此处不读取 DICOM 文件：请将图像导出为 PNG，或将序列转换为 NIfTI。",
    reading: "正在读取体数据……", slices: "切片", plane: "切面", axial: "轴位", coronal: "冠状位", sagittal: "矢状位",
    slice: "层", slice_of: "第 {0} 层，共 {1} 层", slice_given: "模型得到的是这一层，而不是整个体数据。",
    edges: "左缘：患者的{0}；上缘：{1}。", side_0: "右侧", side_1: "前方", side_2: "头侧",
    times: "共 {0} 个时间点，这是第一个。",
    more: "另外", compare: "同时询问之前的模型：{0}", before: "之前的模型，看到图像时", unbefore: "之前的模型，看不到图像时",
    reports_read: "让模型参考相似图像的报告", reports_beside: "在回答旁显示相似图像的报告",
    found: "相似图像的报告", found_hint: "这些报告属于其他患者。相似度高并不表示报告适用于此患者。",
    none_found: "没有找到相似的报告。", similarity: "相似度 {0}", behind: "{0} 份报告内容相同", in_prompt: "已提供给模型",
  },
  ko: {
    notice: "연구 전용입니다. 의료기기가 아니며 임상에 사용할 수 없습니다.",
    skip: "질문으로 이동", model: "모델", language: "언어", images: "영상", current: "현재 영상",
    prior: "이전 영상 (선택)", choose: "PNG, JPEG 또는 NIfTI 파일 선택", drop: "또는 여기에 놓기", remove: "제거",
    view: "보기", centre: "윈도 중심", width: "윈도 폭", zoom: "확대", reset: "보기 초기화",
    moves: "화살표 키로 영상을 이동하고, 더하기와 빼기로 확대·축소하며, 0으로 초기화합니다.",
    display_only: "윈도와 확대는 보이는 화면만 바꾸며, 모델에 주어지는 영상은 바꾸지 않습니다.",
    ask_title: "질문하기", mode: "무엇을 원하십니까?", mode_question: "질문에 대한 답", mode_report: "판독 보고서",
    question: "질문", report: "보고서에 바라는 내용", report_text: "Describe the findings.",
    suggested: "모델이 배운 질문", ask: "질문", stop: "중지",
    blind: "영상을 볼 수 없다면?", answers: "답변", seen: "영상을 본 답변", unseen: "영상을 보지 못한 답변",
    copy: "복사", export: "JSON으로 저장", copied: "복사했습니다.", saved: "저장했습니다.", version: "버전",
    kept: "아무것도 저장하지 않습니다. 이 페이지를 닫으면 영상, 질문, 답변이 사라집니다.",
    working: "답변하는 중…", done: "완료했습니다.", stopped: "중지했습니다.", cut: "답변이 최대 길이에 이르렀습니다.",
    given: "보정된 기준값보다 높음", needs_review: "검토 필요",
    uncalibrated: "보정되지 않음: 직접 판단하십시오",
    choices: "예/아니요에 대한 확신: {0} %", sequence: "단어의 평균 확률: {0} % (순위용이며 정답일 확률이 아님)",
    threshold: "기준값 {0} %", same: "영상이 없어도 답변이 같습니다. 영상과 무관한 답변일 수 있습니다.",
    other: "영상이 없으면 답변이 다릅니다.",
    no_image: "먼저 현재 영상을 선택하십시오.", no_question: "먼저 질문을 쓰십시오.",
    bad_type: "PNG, JPEG 또는 NIfTI 파일이 아닙니다.",
    too_large: "파일이 너무 큽니다.", bad_image: "이 영상을 읽을 수 없습니다.",
    busy: "모든 자리가 찼습니다. {0}초 후에 다시 시도하십시오.", refused: "서버가 거절했습니다: {0}", lost: "연결이 끊어졌습니다.",
    signed_out: "다시 로그인하십시오. 이 페이지를 새로 고치십시오.", shown: "{0} × {1} 픽셀",
    dicom: "여기서는 DICOM 파일을 읽지 않습니다. 영상을 PNG로 내보내거나 시리즈를 NIfTI로 변환하십시오.",
    reading: "볼륨을 읽는 중…", slices: "단면 영상", plane: "단면", axial: "축상면", coronal: "관상면", sagittal: "시상면",
    slice: "슬라이스", slice_of: "슬라이스 {1}개 중 {0}번째", slice_given: "모델에는 볼륨이 아니라 이 슬라이스만 주어집니다.",
    edges: "왼쪽 가장자리: 환자의 {0}. 위쪽 가장자리: {1}.", side_0: "오른쪽", side_1: "앞쪽", side_2: "머리 쪽",
    times: "시점 {0}개 중 첫 번째입니다.",
    more: "추가", compare: "이전 모델에도 질문: {0}", before: "이전 모델, 영상을 본 답변", unbefore: "이전 모델, 영상을 보지 못한 답변",
    reports_read: "유사한 영상의 보고서를 모델에 제시", reports_beside: "유사한 영상의 보고서를 답변 옆에 표시",
    found: "유사한 영상의 보고서", found_hint: "다른 환자의 보고서입니다. 유사도가 높아도 이 환자에게 맞는다는 뜻은 아닙니다.",
    none_found: "유사한 보고서를 찾지 못했습니다.", similarity: "유사도 {0}", behind: "같은 내용의 보고서 {0}건", in_prompt: "모델에 제시됨",
  },
};

let language = "en";

export function speak(wanted) {
  language = wanted in WORDS ? wanted : "en";
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-say]")) element.textContent = say(element.dataset.say);
  for (const element of document.querySelectorAll("[data-name]")) element.setAttribute("aria-label", say(element.dataset.name));
}

export function say(key, ...values) {
  return values.reduce((text, value, i) => text.replace(`{${i}}`, value), WORDS[language][key] ?? key);
}

export function preferred() {
  const asked = new URLSearchParams(location.hash.slice(1)).get("lang");
  return asked ?? (navigator.languages ?? []).map((l) => l.slice(0, 2)).find((l) => l in WORDS) ?? "en";
}
