// Every text of the page, in three languages. A missing one is a fault that a test finds.
export const WORDS = {
  en: {
    notice: "For research only. Not a medical device, not for clinical use.",
    skip: "Go to the question", model: "Model", language: "Language", images: "Images", current: "Current image",
    prior: "Earlier image (optional)", choose: "Choose a PNG or JPEG file", drop: "or drop it here", remove: "Remove",
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
    bad_type: "This is no PNG or JPEG file. DICOM and NIfTI are not taken yet: export the image as PNG.",
    too_large: "This file is too large.", bad_image: "This image cannot be read.",
    busy: "All places are taken. Try again in {0} s.", refused: "The server refused: {0}", lost: "The connection was lost.",
    signed_out: "Sign in again: reload this page.", shown: "{0} × {1} pixels",
  },
  zh: {
    notice: "仅供研究使用。不是医疗器械，不得用于临床。",
    skip: "转到问题", model: "模型", language: "语言", images: "图像", current: "当前图像",
    prior: "既往图像（可选）", choose: "选择 PNG 或 JPEG 文件", drop: "或拖放到此处", remove: "移除",
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
    bad_type: "这不是 PNG 或 JPEG 文件。尚不支持 DICOM 和 NIfTI：请将图像导出为 PNG。",
    too_large: "文件过大。", bad_image: "无法读取此图像。",
    busy: "所有位置都被占用。请在 {0} 秒后重试。", refused: "服务器拒绝：{0}", lost: "连接已断开。",
    signed_out: "请重新登录：刷新此页面。", shown: "{0} × {1} 像素",
  },
  ko: {
    notice: "연구 전용입니다. 의료기기가 아니며 임상에 사용할 수 없습니다.",
    skip: "질문으로 이동", model: "모델", language: "언어", images: "영상", current: "현재 영상",
    prior: "이전 영상 (선택)", choose: "PNG 또는 JPEG 파일 선택", drop: "또는 여기에 놓기", remove: "제거",
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
    bad_type: "PNG 또는 JPEG 파일이 아닙니다. DICOM과 NIfTI는 아직 지원하지 않습니다. 영상을 PNG로 내보내십시오.",
    too_large: "파일이 너무 큽니다.", bad_image: "이 영상을 읽을 수 없습니다.",
    busy: "모든 자리가 찼습니다. {0}초 후에 다시 시도하십시오.", refused: "서버가 거절했습니다: {0}", lost: "연결이 끊어졌습니다.",
    signed_out: "다시 로그인하십시오. 이 페이지를 새로 고치십시오.", shown: "{0} × {1} 픽셀",
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
