// The page's texts, in English and Korean. {names} are filled in.

export const TEXTS = {
  en: {
    title: "What does this network see?",
    lead: "Draw a picture, open one, or film one, and watch every layer of {name} answer. All of it runs in this browser; no picture leaves it.",
    language: "Language",
    loading: "Loading the network…",
    failed: "The network cannot be loaded: {problem}",
    broken: "Something failed: {problem}",
    picture: "Picture",
    pad: "Pad to draw on",
    padHelp: "With the keyboard: the arrow keys move the brush (with Shift in larger steps), Space lowers and lifts it, b takes the brush, e the eraser, u undoes, Delete clears.",
    keyboard: "Keyboard",
    brush: "Brush",
    eraser: "Eraser",
    undo: "Undo",
    clear: "Clear",
    size: "Brush size",
    colour: "Colour",
    open: "Open a picture…",
    dropHere: "or drop one here",
    camera: "Camera",
    stopCamera: "Stop the camera",
    cameraPicture: "Picture of the camera",
    noCamera: "There is no camera, or this page may not use it; browsers allow it on https pages and on this machine's own address.",
    notAPicture: "{name} is not a picture that this browser can read; open a PNG, JPEG, WebP, BMP or GIF file.",
    tooLarge: "{name} is too large; at most 40,000,000 pixels and 32 MB are read.",
    examples: "Test images",
    example: "Test image {index}: {class}",
    right: "Test image {index}, of this class.",
    wrong: "Wrong: test image {index} is of class {class}.",
    sees: "What the network sees",
    seesText: "{width} × {height} pixels, {colour}{inverted}",
    grey: "grey",
    inColour: "in colour",
    inverted: ", inverted: the training images are light on dark",
    answer: "Answer",
    nothingDrawn: "Nothing is drawn yet.",
    prediction: "{class}: {share}",
    unlike: "Unlike the training images: farther from the nearest of them than 95 % of the validation images are.",
    like: "Like the training images.",
    others: "All other classes ({count}): {share}",
    nearest: "Nearest training images",
    nearestText: "{class}, distance {distance}",
    evidence: "Evidence (Grad-CAM in {layer})",
    evidenceText: "Light: where the maps of {layer} are evidence for {class}.",
    noEvidence: "The maps of {layer} have no evidence for {class}.",
    layers: "Layers",
    layersText: "Each map is one filter's answer to the picture: bright where it is strong. Click one, or move with the arrow keys, to see it large.",
    Conv: "convolution", DepthwiseConv: "depthwise convolution", MaxPool: "max-pooling", Dense: "dense layer",
    Flatten: "the maps as one row of numbers", Dropout: "dropout: only in training", BatchNorm: "batch normalization",
    LayerNorm: "layer normalization", Add: "sum with the shortcut", GlobalAveragePool: "mean of each map",
    Scale: "each map times its factor", PositionEmbedding: "position embedding", Attention: "attention",
    Rows: "the rows as a sequence", Recurrent: "recurrent layer", Last: "output of the last step",
    kernelSize: "{height} × {width}",
    mapsOf: "{count} feature maps of {height} × {width}",
    unitsOf: "{count} units",
    map: "Map {number} of {count}",
    unit: "Unit {number} of {count}: {value}",
    mapRange: "{low} to {high}",
    pointed: "row {row}, column {column}: {value}",
    kernelOf: "Its filter (kernel)",
    kernelText: "{height} × {width} weights for each input ({channels}), from {low} (blue) to {high} (red)",
    step: "One number, step by step",
    stepText: "How {layer} computes one number of a feature map, from pixels divided by 255. Click a pixel, or move the window with the arrow keys.",
    padding: "Dashed: outside of the picture, where pixels count as 0 (padding).",
    filter: "Filter",
    previous: "Previous pixel",
    next: "Next pixel",
    pixel: "Row {row}, column {column}",
    channel0: "red", channel1: "green", channel2: "blue",
    window: "Window", kernel: "Filter", products: "Products",
    sum: "Sum of the products",
    bias: "+ bias",
    activated: "{kind} and {activation}",
    relu: "ReLU", swish: "swish", gelu: "GELU", sigmoid: "sigmoid",
    reluText: "ReLU: negative numbers become 0", none: "no activation",
    toClasses: "one for each class; softmax turns them into probabilities",
    own: "in the feature map",
    stepMap: "The feature map of {layer}, with this number",
    pooling: "Pooling: the largest number of the window (outlined)",
    noPooling: "This pixel is in no window of the pooling.",
    card: "About this network",
    cardText: "{parameters} parameters. {accuracy}",
    testAccuracy: "Accuracy on the test images: {share}.",
    cardLink: "Model card",
    runtime: "Computed by {name} {version} ({license} license).",
    credit: "Test images: Fashion-MNIST, © 2017 Zalando SE, MIT license.",
  },
  ko: {
    title: "이 신경망은 무엇을 볼까요?",
    lead: "그림을 그리거나, 사진을 열거나, 카메라로 비추면 {name}의 모든 층이 어떻게 반응하는지 볼 수 있습니다. 모든 계산은 이 브라우저에서 이루어지며, 그림은 밖으로 나가지 않습니다.",
    language: "언어",
    loading: "신경망을 불러오는 중…",
    failed: "신경망을 불러올 수 없습니다: {problem}",
    broken: "오류가 났습니다: {problem}",
    picture: "그림",
    pad: "그림판",
    padHelp: "키보드: 화살표 키로 붓을 옮기고(Shift와 함께 누르면 크게), 스페이스로 붓을 내리고 올립니다. b 붓, e 지우개, u 되돌리기, Delete 모두 지우기.",
    keyboard: "키보드",
    brush: "붓",
    eraser: "지우개",
    undo: "되돌리기",
    clear: "모두 지우기",
    size: "붓 크기",
    colour: "색",
    open: "사진 열기…",
    dropHere: "또는 여기에 끌어다 놓으세요",
    camera: "카메라",
    stopCamera: "카메라 끄기",
    cameraPicture: "카메라 화면",
    noCamera: "카메라가 없거나 사용할 수 없습니다. 브라우저는 https 페이지와 이 컴퓨터의 주소에서만 카메라를 허용합니다.",
    notAPicture: "{name}: 이 브라우저가 읽을 수 있는 그림이 아닙니다. PNG, JPEG, WebP, BMP, GIF 파일을 여세요.",
    tooLarge: "{name}: 너무 큽니다. 40,000,000픽셀, 32 MB까지 읽습니다.",
    examples: "테스트 이미지",
    example: "테스트 이미지 {index}: {class}",
    right: "테스트 이미지 {index}: 맞았습니다.",
    wrong: "틀렸습니다: 테스트 이미지 {index}의 정답은 {class}입니다.",
    sees: "신경망이 보는 것",
    seesText: "{width} × {height} 픽셀, {colour}{inverted}",
    grey: "흑백",
    inColour: "컬러",
    inverted: ", 반전됨: 훈련 이미지는 어두운 바탕에 밝은 그림입니다",
    answer: "예측",
    nothingDrawn: "아직 아무것도 그리지 않았습니다.",
    prediction: "{class}: {share}",
    unlike: "훈련 이미지와 다릅니다: 가장 가까운 훈련 이미지와의 거리가 검증 이미지의 95 %보다 멉니다.",
    like: "훈련 이미지와 비슷합니다.",
    others: "다른 클래스({count}개) 합계: {share}",
    nearest: "가장 가까운 훈련 이미지",
    nearestText: "{class}, 거리 {distance}",
    evidence: "근거 ({layer}의 Grad-CAM)",
    evidenceText: "밝은 곳: {layer}의 특성 맵에서 ‘{class}’의 근거가 되는 곳.",
    noEvidence: "{layer}에는 ‘{class}’의 근거가 되는 곳이 없습니다.",
    layers: "층",
    layersText: "특성 맵 하나는 필터 하나가 그림에 보인 반응입니다. 반응이 강한 곳이 밝습니다. 하나를 클릭하거나 화살표 키로 옮기면 크게 볼 수 있습니다.",
    Conv: "합성곱", DepthwiseConv: "깊이별 합성곱", MaxPool: "최대 풀링", Dense: "밀집층",
    Flatten: "특성 맵을 한 줄로 펼친 것", Dropout: "드롭아웃: 훈련할 때만", BatchNorm: "배치 정규화",
    LayerNorm: "층 정규화", Add: "스킵 연결과의 합", GlobalAveragePool: "특성 맵의 평균",
    Scale: "특성 맵에 계수를 곱한 것", PositionEmbedding: "위치 임베딩", Attention: "어텐션",
    Rows: "행의 시퀀스", Recurrent: "순환층", Last: "마지막 시점의 출력",
    kernelSize: "{height} × {width}",
    mapsOf: "{height} × {width} 특성 맵 {count}개",
    unitsOf: "유닛 {count}개",
    map: "특성 맵 {number}/{count}",
    unit: "유닛 {number}/{count}: {value}",
    mapRange: "{low} ~ {high}",
    pointed: "{row}행 {column}열: {value}",
    kernelOf: "필터(커널)",
    kernelText: "입력({channels}개)마다 {height} × {width} 가중치, {low}(파랑)부터 {high}(빨강)까지",
    step: "숫자 하나를 한 단계씩",
    stepText: "{layer} 층에서 특성 맵의 숫자 하나를 계산하는 방법입니다. 픽셀 값은 255로 나눈 것입니다. 픽셀을 클릭하거나 화살표 키로 창을 옮기세요.",
    padding: "점선: 그림 밖의 픽셀은 0으로 계산합니다(패딩).",
    filter: "필터",
    previous: "이전 픽셀",
    next: "다음 픽셀",
    pixel: "{row}행 {column}열",
    channel0: "빨강", channel1: "초록", channel2: "파랑",
    window: "창", kernel: "필터", products: "곱",
    sum: "곱의 합",
    bias: "+ 절편",
    activated: "{kind} + {activation}",
    relu: "렐루", swish: "swish", gelu: "GELU", sigmoid: "시그모이드",
    reluText: "렐루: 음수는 0이 됩니다", none: "활성화 함수 없음",
    toClasses: "클래스마다 하나, 소프트맥스가 확률로 바꿉니다",
    own: "특성 맵의 값",
    stepMap: "{layer}의 특성 맵과 이 숫자의 위치",
    pooling: "풀링: 창에서 가장 큰 수(테두리)",
    noPooling: "이 픽셀은 풀링의 창에 들어가지 않습니다.",
    card: "이 신경망에 대하여",
    cardText: "모델 파라미터 {parameters}개. {accuracy}",
    testAccuracy: "테스트 이미지 정확도: {share}.",
    cardLink: "모델 카드",
    runtime: "계산: {name} {version} ({license} 라이선스).",
    credit: "테스트 이미지: Fashion-MNIST, © 2017 Zalando SE, MIT 라이선스.",
  },
};

const KEY = "fashion-cnn language";

let language = "en";

/** Chooses the language: the one chosen before, else the browser's. */
export function chooseLanguage(name) {
  language = name ?? stored() ?? (navigator.languages.find(tag => Object.hasOwn(TEXTS, tag.slice(0, 2)))?.slice(0, 2) || "en");
  document.documentElement.lang = language;
  document.title = text("title");
  for (const element of document.querySelectorAll("[data-text]")) element.textContent = text(element.dataset.text);
  for (const element of document.querySelectorAll("[data-label]")) {
    element.setAttribute("aria-label", text(element.dataset.label));
  }
  if (name) {
    try {
      localStorage.setItem(KEY, name);
    } catch { /* A browser may forbid it; the choice then holds for this page. */ }
  }
  return language;
}

function stored() {
  try {
    const name = localStorage.getItem(KEY);
    return Object.hasOwn(TEXTS, name) ? name : null;
  } catch {
    return null;
  }
}

/** Returns a text in the chosen language, with its {names} replaced by values. */
export function text(name, values = {}) {
  const known = TEXTS[language];
  return (Object.hasOwn(known, name) ? known[name] : name).replace(/\{(\w+)\}/g, (_, key) => values[key] ?? "");
}

/** Returns a share as a percentage. */
export const percent = share => `${(100 * share).toFixed(1)} %`;

/** Returns an integer with the language's separators. */
export const integer = value => value.toLocaleString(language);
